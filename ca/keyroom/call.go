package keyroom

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/list"
)

// The room's own limits, besides those of its configuration.
const (
	maxBackdate = time.Hour       // how far before now a notBefore may lie
	clockSkew   = 5 * time.Minute // how far the daemon's clock may be off
	numberJump  = 1_000_000       // how far a CRL number may rise at once
)

// work is one batch under way: the leaves that came with it are read, its effects not yet durable.
type work struct {
	room    *Room
	now     time.Time
	first   int64
	leaves  []audit.Leaf
	effects []effect
}

// answer answers one call. What it adds to w.effects becomes durable before the answer leaves.
func (w *work) answer(call signer.Call) signer.Result {
	var result signer.Result
	var err error
	switch call.Kind {
	case signer.SignCert:
		result.DER, err = w.signCert(call.Index, call.CSR)
	case signer.SignCRL:
		result.DER, result.Entries, err = w.signList(call.Index)
	case signer.Settle:
		result.DER, err = w.settle(call.Index)
		result.Voided = result.DER == nil
	case signer.Checkpoint:
		result.Note, err = w.checkpoint()
	case signer.Open:
		result.Secrets, err = w.open(call.Index, call.Sealed)
	case signer.Lookup:
		result.DER, err = w.lookup(call.Index)
	default:
		err = refuse("call.kind", "there is no call %.20q", string(call.Kind))
	}
	if err != nil {
		refusal := asRefusal(err)
		w.room.log.Warn("refused a call", "kind", call.Kind, "index", call.Index, "code", refusal.Code, "reason", refusal.Reason)
		return signer.Result{Refused: refusal}
	}
	return result
}

// leaf gives a leaf that the room has read, from this batch or from the journal.
func (w *work) leaf(index int64) (audit.Leaf, error) {
	if index < 0 || index >= w.room.tree.Size() {
		return audit.Leaf{}, refuse("index.unknown", "the room has read %d leaves, none at %d", w.room.tree.Size(), index)
	}
	if index >= w.first {
		return w.leaves[index-w.first], nil
	}
	rec, err := w.room.journal.holding(index)
	if err != nil {
		return audit.Leaf{}, err
	}
	return audit.Decode(rec.leaves[index-rec.first])
}

func (w *work) intent(index int64) (*audit.IssueIntent, audit.Leaf, error) {
	leaf, err := w.leaf(index)
	if err != nil {
		return nil, leaf, err
	}
	intent, ok := leaf.Event.(*audit.IssueIntent)
	if !ok {
		return nil, leaf, refuse("index.kind", "leaf %d is a %s, not an issue.intent", index, leaf.Event.Type())
	}
	if intent.Room != w.room.config.Room {
		return nil, leaf, refuse("intent.other_room", "leaf %d is for the key room %.40q", index, intent.Room)
	}
	return intent, leaf, nil
}

// signCert signs what the intent at index announces, once: the same serial and TBS again gives the
// stored certificate.
func (w *work) signCert(index int64, csr []byte) ([]byte, error) {
	intent, leaf, err := w.intent(index)
	if err != nil {
		return nil, err
	}
	if der, err := w.already(intent); der != nil || err != nil {
		return der, err
	}
	if err := w.checkRequest(intent, leaf); err != nil {
		return nil, err
	}
	if w.room.barred[intent.Serial] {
		return nil, refuse("serial.revoked", "the log revoked serial %s before it was signed", intent.Serial)
	}
	i, err := w.allowed(intent)
	if err != nil {
		return nil, err
	}
	request, err := profile.CheckCSR(csr)
	if err != nil {
		return nil, err
	}
	if cert.SHA256(request.RawSubjectPublicKeyInfo) != intent.SPKISHA256 {
		return nil, refuse("csr.other_key", "the CSR carries another key than leaf %d announces", index)
	}
	tbs, err := i.rebuild(intent, request)
	if err != nil {
		return nil, err
	}
	if cert.SHA256(tbs) != intent.TBSSHA256 {
		return nil, refuse("tbs.mismatch", "the certificate that leaf %d announces is not the one that this room's profile gives", index)
	}
	der, err := profile.Seal(w.room.rand, i.cert, tbs, i.key)
	if err != nil {
		return nil, err
	}
	w.effects = append(w.effects, effect{
		kind: didSign, index: index, serial: intent.Serial, issuer: intent.Issuer,
		when: intent.NotAfter, tbs: intent.TBSSHA256, data: der,
	})
	return der, nil
}

// already looks whether the serial of an intent is spent, in the journal or in this batch.
func (w *work) already(intent *audit.IssueIntent) ([]byte, error) {
	if w.room.voided[intent.Serial] {
		return nil, refuse("serial.voided", "serial %s was voided: it never will be signed", intent.Serial)
	}
	if s, ok := w.room.signed[intent.Serial]; ok {
		if s.tbs != intent.TBSSHA256 {
			return nil, refuse("serial.signed", "serial %s has been signed for another certificate", intent.Serial)
		}
		return w.room.stored(s, intent.Serial)
	}
	for _, e := range w.effects {
		switch {
		case e.serial != intent.Serial:
		case e.kind == didVoid:
			return nil, refuse("serial.voided", "serial %s was voided: it never will be signed", intent.Serial)
		case e.kind == didSign && e.tbs != intent.TBSSHA256:
			return nil, refuse("serial.signed", "serial %s has been signed for another certificate", intent.Serial)
		case e.kind == didSign:
			return e.data, nil
		}
	}
	return nil, nil
}

// allowed checks an intent against the room's own limits.
func (w *work) allowed(intent *audit.IssueIntent) (*issuer, error) {
	i, ok := w.room.issuers[intent.Issuer]
	if !ok {
		return nil, refuse("intent.issuer", "this room has no issuer %.40q", string(intent.Issuer))
	}
	if !slices.Contains(i.config.Purposes, intent.Purpose) {
		return nil, refuse("policy.purpose", "issuer %s does not sign for purpose %.20q", intent.Issuer, string(intent.Purpose))
	}
	if name, ok := i.config.outside(intent); ok {
		return nil, refuse("policy.name", "%.80q is outside the domains of issuer %s", name, intent.Issuer)
	}
	if longest := time.Duration(i.config.MaxValidityDays) * 24 * time.Hour; intent.NotAfter.Sub(intent.NotBefore) >= longest {
		return nil, refuse("policy.validity", "valid for more than %d days", i.config.MaxValidityDays)
	}
	if intent.NotBefore.Before(w.now.Add(-maxBackdate)) || intent.NotBefore.After(w.now.Add(clockSkew)) {
		return nil, refuse("intent.not_before", "notBefore %s is too far from the room's clock, %s", stamp(intent.NotBefore), stamp(w.now))
	}
	if w.now.After(intent.Deadline) {
		return nil, refuse("intent.late", "the deadline of the intent, %s, has passed", stamp(intent.Deadline))
	}
	hour, day := w.room.budget.spent(w.now)
	for _, e := range w.effects {
		if e.kind == didSign {
			hour, day = hour+1, day+1
		}
	}
	if hour >= w.room.config.PerHour {
		return nil, refuse("rate.hour", "%d certificates in the last hour; the limit is %d", hour, w.room.config.PerHour)
	}
	if day >= w.room.config.PerDay {
		return nil, refuse("rate.day", "%d certificates in the last day; the limit is %d", day, w.room.config.PerDay)
	}
	return i, nil
}

// outside gives a host name or mail domain of the intent that no permitted domain covers.
func (c IssuerConfig) outside(intent *audit.IssueIntent) (string, bool) {
	if len(c.Domains) == 0 {
		return "", false
	}
	hosts := append([]string(nil), intent.SANs.DNS...)
	for _, mail := range intent.SANs.Email {
		hosts = append(hosts, mail[strings.LastIndexByte(mail, '@')+1:])
	}
	for _, host := range hosts {
		covered := false
		for _, domain := range c.Domains {
			covered = covered || host == domain || strings.HasSuffix(host, "."+domain)
		}
		if !covered {
			return host, true
		}
	}
	return "", false
}

// rebuild gives the TBS bytes that this room's profile gives for an intent and the key in its CSR.
func (i *issuer) rebuild(intent *audit.IssueIntent, csr *x509.CertificateRequest) ([]byte, error) {
	_, tbs, err := i.builder.Precertificate(profile.Request{
		Serial: intent.Serial, Purpose: intent.Purpose, CN: intent.CN, SANs: intent.SANs,
		Public: csr.PublicKey, NotBefore: intent.NotBefore, NotAfter: intent.NotAfter, CRLURL: i.config.CRLURL,
	})
	return tbs, err
}

// settle gives the certificate of the intent at index, or voids its serial for good.
func (w *work) settle(index int64) ([]byte, error) {
	intent, _, err := w.intent(index)
	if err != nil {
		return nil, err
	}
	der, err := w.already(intent)
	var refusal *signer.Refusal
	if errors.As(err, &refusal) && refusal.Code == "serial.voided" {
		return nil, nil
	}
	if der != nil || err != nil {
		return der, err
	}
	w.effects = append(w.effects, effect{kind: didVoid, index: index, serial: intent.Serial})
	return nil, nil
}

// signList signs the list that the crl.intent at index announces. It holds every revocation that the
// room has read, so a list cannot leave one out.
func (w *work) signList(index int64) ([]byte, int, error) {
	leaf, err := w.leaf(index)
	if err != nil {
		return nil, 0, err
	}
	intent, ok := leaf.Event.(*audit.CRLIntent)
	if !ok {
		return nil, 0, refuse("index.kind", "leaf %d is a %s, not a crl.intent", index, leaf.Event.Type())
	}
	i, number, err := w.allowedList(index, intent)
	if err != nil {
		return nil, 0, err
	}
	var dropped []cert.Serial
	if !w.room.undropped {
		dropped = i.revoked.droppable(w.now)
	}
	entries, count, err := i.revoked.without(dropped)
	if err != nil {
		return nil, 0, err
	}
	der, err := list.Sign(w.room.rand, list.Template{
		Issuer: i.cert, Number: number, ThisUpdate: intent.ThisUpdate, NextUpdate: intent.NextUpdate,
	}, entries, i.key)
	if err != nil {
		return nil, 0, err
	}
	sum, err := hex.DecodeString(cert.SHA256(der))
	if err != nil {
		return nil, 0, err
	}
	w.effects = append(w.effects, effect{
		kind: didList, index: index, issuer: intent.Issuer, number: intent.Number,
		when: intent.ThisUpdate, data: sum, dropped: dropped,
	})
	return der, count, nil
}

// allowedList checks a crl.intent against the room's clock and the numbers it has signed.
func (w *work) allowedList(index int64, intent *audit.CRLIntent) (*issuer, *big.Int, error) {
	if intent.Room != w.room.config.Room {
		return nil, nil, refuse("intent.other_room", "leaf %d is for the key room %.40q", index, intent.Room)
	}
	i, ok := w.room.issuers[intent.Issuer]
	if !ok {
		return nil, nil, refuse("intent.issuer", "this room has no issuer %.40q", string(intent.Issuer))
	}
	number, ok := new(big.Int).SetString(intent.Number, 10)
	if !ok || number.String() != intent.Number {
		return nil, nil, refuse("crl.number", "%.60q is not a number", intent.Number)
	}
	for _, e := range w.effects {
		if e.kind == didList && e.issuer == intent.Issuer {
			// A second list would say the same, and many large ones exhaust memory and journal.
			return nil, nil, refuse("batch.lists", "one list of %s in a batch", intent.Issuer)
		}
	}
	last := i.number
	if number.Cmp(last) <= 0 {
		return nil, nil, refuse("crl.number", "number %s does not follow %s, the last that the room signed", number, last)
	}
	if most := new(big.Int).Add(last, big.NewInt(numberJump)); number.Cmp(most) > 0 {
		return nil, nil, refuse("crl.number_jump", "number %s is more than %d above %s", number, numberJump, last)
	}
	if d := intent.ThisUpdate.Sub(w.now); d > clockSkew || d < -clockSkew {
		return nil, nil, refuse("crl.this_update", "thisUpdate %s is more than 5 minutes from the room's clock, %s", stamp(intent.ThisUpdate), stamp(w.now))
	}
	longest := time.Duration(i.config.MaxListDays) * 24 * time.Hour
	if !intent.NextUpdate.After(intent.ThisUpdate) || intent.NextUpdate.Sub(intent.ThisUpdate) > longest {
		return nil, nil, refuse("crl.next_update", "nextUpdate %s is not within %d days after thisUpdate %s", stamp(intent.NextUpdate), i.config.MaxListDays, stamp(intent.ThisUpdate))
	}
	return i, number, nil
}

// checkpoint signs the room's own head, never one that it is shown.
func (w *work) checkpoint() ([]byte, error) {
	head := audit.Checkpoint{Origin: w.room.config.Origin, Size: w.room.tree.Size(), Root: w.room.tree.Root()}
	return head.Sign(w.room.logKey)
}

// open decrypts the secrets that the issue.redelivered leaf at index is about. Caller, request and body
// come from the intent's own leaf, so they open for nobody else; for a caller who signs, the retry is signed as well.
func (w *work) open(index int64, sealed []byte) ([]byte, error) {
	leaf, err := w.leaf(index)
	if err != nil {
		return nil, err
	}
	again, ok := leaf.Event.(*audit.IssueRedelivered)
	if !ok {
		return nil, refuse("index.kind", "leaf %d is a %s, not an issue.redelivered", index, leaf.Event.Type())
	}
	intent, first, err := w.intent(again.Intent)
	if err != nil {
		return nil, err
	}
	hours := w.room.config.deliveryHours()
	switch {
	case again.Room != w.room.config.Room:
		return nil, refuse("intent.other_room", "leaf %d is for the key room %.40q", index, again.Room)
	case leaf.Actor.Kind != first.Actor.Kind || leaf.Actor.Name != first.Actor.Name:
		return nil, refuse("open.caller", "leaf %d is not by the caller of leaf %d", index, again.Intent)
	case intent.Serial != again.Serial || intent.RequestID != again.RequestID:
		return nil, refuse("open.request", "leaf %d is not about the request of leaf %d", index, again.Intent)
	case cert.SHA256(sealed) != intent.SealedSHA256 || again.SealedSHA256 != intent.SealedSHA256:
		return nil, refuse("open.sealed", "these are not the secrets that leaf %d names", again.Intent)
	case !w.room.holds(intent):
		return nil, refuse("open.unsigned", "leaf %d announces a certificate that this room has not signed", again.Intent)
	case hours == 0 || w.now.Sub(intent.NotBefore) > time.Duration(hours)*time.Hour+maxBackdate:
		// The room bounded notBefore when it signed, so this time is not the daemon's to choose.
		return nil, refuse("open.late", "the secrets of leaf %d are handed out for %d hours only", again.Intent, hours)
	}
	if err := w.checkRetry(again, intent, leaf.Actor.Name); err != nil {
		return nil, err
	}
	secrets, err := w.unseal(first.Actor.Name, intent, sealed)
	if err != nil {
		return nil, err
	}
	w.effects = append(w.effects, effect{kind: didOpen, index: index, serial: intent.Serial})
	return secrets, nil
}

// unseal opens what was sealed for a caller with an intent.
func (w *work) unseal(caller string, intent *audit.IssueIntent, sealed []byte) ([]byte, error) {
	to, _ := signer.SealedTo(sealed)
	key, err := w.room.delivery.private(to, w.room.now())
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, refuse("open.gone", "the delivery key %x of serial %s is destroyed", to, intent.Serial)
	}
	binding := signer.Binding{Caller: caller, RequestID: intent.RequestID, BodySHA256: intent.BodySHA256}
	secrets, err := signer.Unseal(key, binding, sealed)
	if err != nil {
		return nil, refuse("open.sealed", "the secrets of serial %s do not open under their delivery key", intent.Serial)
	}
	return secrets, nil
}

// holds tells whether the room signed what the intent announces.
func (r *Room) holds(intent *audit.IssueIntent) bool {
	s, ok := r.signed[intent.Serial]
	return ok && s.tbs == intent.TBSSHA256
}

// asRefusal turns what went wrong with one call into its answer. It keeps the codes of the room, the
// profile and the list, and calls the rest a failure of the room.
func asRefusal(err error) *signer.Refusal {
	var refusal *signer.Refusal
	var p *profile.Refusal
	var f *list.Fault
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &p):
		return refuse(p.Code, "%s", p.Reason)
	case errors.As(err, &f):
		return refuse(f.Code, "%s", f.Reason)
	}
	return refuse("room.failed", "%v", err)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
