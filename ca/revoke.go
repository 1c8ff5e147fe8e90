package ca

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// The methods to which a revoke, for whatever reason, and a release bind their request ids.
const (
	RevokeMethod  = "ca.revoke"
	ReleaseMethod = "ca.release"
)

// Revoke revokes certificates, and those still being issued as they complete. When it returns, the
// revocation is durable and owed to git; for a moment it waits for the list to be there, and the answer
// says whether it is.
func (a *Authority) Revoke(ctx context.Context, call Call, r RevokeRequest) (*Revoked, error) {
	w := &revocation{method: RevokeMethod, giveBack: func() {}, states: []store.State{store.StateOpen, store.StateLive, store.StateRevoked}}
	w.past = func(c store.Certificate, now time.Time) *Refusal { return cannotRevoke(c, r.Reason, now) }
	w.apply = w.revoke
	return a.change(ctx, call, r, w)
}

// Release takes certificates off hold (RFC 5280 section 5.3.1). When it returns they are live again,
// which is owed to git and to the directory; it waits for git as Revoke does.
func (a *Authority) Release(ctx context.Context, call Call, r RevokeRequest) (*Revoked, error) {
	w := &revocation{method: ReleaseMethod, giveBack: func() {}, states: []store.State{store.StateRevoked}, past: notHeld}
	w.apply = w.release
	return a.change(ctx, call, r, w)
}

// askedOfTheRoom refuses a release that the key room would ignore: then the log would say what no list does. The room
// is asked anew, as it may have started with other keys since; while it is not there, its last word counts.
func (a *Authority) askedOfTheRoom(ctx context.Context, call Call) error {
	hello, err := a.signer.FreshHello(ctx)
	if err != nil {
		hello = a.signer.Hello()
	}
	texts := hello.SigningKeys[call.Who.Name]
	if call.Who.Kind != audit.ByCaller || len(texts) == 0 {
		return nil
	}
	if call.Request == nil {
		return refuse("keyroom.request.unsigned", "the key room wants requests of %s signed, and they are not; ask the operator of the CA to make signing_keys equal in both configurations", call.Who.Name)
	}
	var keys []crypto.PublicKey
	for _, text := range texts {
		key, err := audit.ParseSigningKey(text)
		if err != nil {
			return fmt.Errorf("reading the key room's signing keys: %w", err)
		}
		keys = append(keys, key)
	}
	if err := call.Request.Verify(a.Root(), call.Who.Name, keys); err != nil {
		return refuse("keyroom.request.signature", "the key room has other signing keys of %s; ask the operator of the CA to make them equal in both configurations", call.Who.Name)
	}
	return nil
}

func (a *Authority) change(ctx context.Context, call Call, r RevokeRequest, w *revocation) (*Revoked, error) {
	land, err := a.takeOff(ctx, call.Who.Name, call.RequestID)
	if err != nil {
		return nil, err
	}
	defer land()
	if request, found, err := a.earlier(ctx, call, w.method); err != nil {
		return nil, lost(err)
	} else if found {
		answer, err := a.revokedBefore(ctx, call, request)
		return answer, unknown(err)
	}
	w.published, w.own, w.call, w.request = a.published, a.own, call, r
	// What will be refused is refused beside the store's writer, where every other change waits.
	if _, err := w.selection(a.finder(ctx), a.store.Now()); err != nil {
		return nil, lost(err)
	}
	if call.Plan {
		answer, err := a.answerRevoke(ctx, call, 0, w.hit)
		if err != nil {
			return nil, err
		}
		answer.Plan, err = w.plan()
		return answer, err
	}
	if w.method == ReleaseMethod {
		if err := a.askedOfTheRoom(ctx, call); err != nil {
			return nil, err
		}
	}
	entry, err := a.store.Update(ctx, call.Who, w.change)
	if errors.Is(err, store.ErrBroken) {
		return nil, unknown(err)
	} else if err != nil {
		w.giveBack()
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // what is durable is answered, however long the caller stays
	a.await(ctx, call.patience(revokeWait), w.debts...)
	answer, err := a.answerRevoke(ctx, call, entry.Index, w.hit)
	return answer, unknown(err)
}

// revocation is one revoke or release under way.
type revocation struct {
	method    string
	states    []store.State                                             // that it can change
	past      func(c store.Certificate, now time.Time) *Refusal         // why a certificate cannot be changed, if it cannot
	apply     func(*store.Tx, []store.Certificate) (audit.Event, error) // changes what was selected
	published func(cert.Purpose) bool
	own       func(who audit.Actor, p cert.Purpose, cn string, sans cert.SANs) error
	call      Call
	request   RevokeRequest
	rules     []string // that allow it, each once
	giveBack  func()   // what they have spent on it
	hit       []RevokedCertificate
	changes   []PlannedChange // of each that is hit
	issuers   []cert.Issuer
	debts     []store.Debt // of the lists
}

// change runs on the store's writer: what is selected is what is revoked, and the rules that allow it then are those
// that spend.
func (w *revocation) change(tx *store.Tx) (audit.Event, error) {
	w.debts = nil
	selected, err := w.selection(tx.Find, tx.Now())
	if err != nil {
		return nil, err
	}
	giveBack, err := w.call.spend(w.rules...)
	if err != nil {
		return nil, err
	}
	w.giveBack = giveBack
	done, err := w.apply(tx, selected)
	if err != nil {
		return nil, err
	}
	for _, c := range selected {
		if c.State == store.StateOpen || !w.published(c.Purpose) {
			continue
		}
		if _, err := tx.Owe(store.Directory, debtKey(c.Purpose, c.Key)); err != nil {
			return nil, err
		}
	}
	for _, issuer := range w.issuers {
		debt, err := tx.Owe(store.CRL, string(issuer))
		if err != nil {
			return nil, err
		}
		w.debts = append(w.debts, debt)
	}
	return done, tx.BindRequest(store.Request{
		Caller: w.call.Who.Name, ID: w.call.RequestID, Method: w.method, BodySHA256: w.call.BodySHA256, Index: tx.Index(),
	})
}

func (w *revocation) revoke(tx *store.Tx, selected []store.Certificate) (audit.Event, error) {
	done := &audit.RevokeDone{
		RequestID: w.call.RequestID, BodySHA256: w.call.BodySHA256, Method: w.request.Method, Rule: w.rule(),
		Reason: w.request.Reason, Revoked: []audit.Revocation{}, Request: w.call.Request,
	}
	for _, c := range selected {
		rev, err := tx.Revoke(c.Serial, tx.Now(), w.request.Reason)
		if err != nil {
			return nil, err
		}
		if c.State == store.StateOpen {
			done.Pending = append(done.Pending, c.Serial)
			continue
		}
		done.Revoked = append(done.Revoked, rev)
	}
	return done, nil
}

func (w *revocation) release(tx *store.Tx, selected []store.Certificate) (audit.Event, error) {
	done := &audit.ReleaseDone{RequestID: w.call.RequestID, BodySHA256: w.call.BodySHA256, Rule: w.rule(), Request: w.call.Request}
	var names []audit.Named
	for _, c := range selected {
		released, err := tx.Release(c.Serial)
		if err != nil {
			return nil, err
		}
		done.Released, names = append(done.Released, released), append(names, audit.Named{Purpose: c.Purpose, CN: c.CN})
	}
	if err := done.CheckRequest(names); err != nil {
		return nil, otherwiseSpelled(err)
	}
	return done, nil
}

// selection gives the certificates that the request means and may hit, or the refusal.
func (w *revocation) selection(find finder, now time.Time) ([]store.Certificate, error) {
	w.hit, w.changes, w.issuers, w.rules = nil, nil, nil, nil
	candidates, all, err := candidates(find, now, w.request.Serial, w.request.Names, w.states)
	if err != nil {
		return nil, err
	}
	var selected []store.Certificate
	var why *Refusal
	var seen string // the name of what the caller may see
	for _, c := range candidates {
		_, err := w.request.May(c, 0)
		if unseen(err, w.request.Serial != "") {
			// That there is such a certificate is not told to somebody who may not see it.
			none := w.nothing()
			none.Record = err.Error()
			why = cmp.Or(why, none)
			continue
		}
		if err != nil {
			return nil, err
		}
		seen = c.CN
		if err := w.own(w.call.Who, c.Purpose, c.CN, c.SANs); err != nil {
			return nil, err
		}
		if refusal := w.past(c, now); refusal != nil {
			why = refusal
			continue
		}
		selected = append(selected, c)
		w.add(c)
	}
	most := w.request.Max
	if most == 0 {
		most = defaultRevoke
	}
	switch {
	case seen != "" && !all:
		return nil, refuse("revoke.too_many", "%q has more certificates than one call looks at; name one by its serial", seen)
	case len(selected) > most:
		return nil, refuse("revoke.too_many", "this would hit %d certificates and max is %d; name one by its serial, or give a higher max", len(selected), most)
	case len(selected) > 0:
		if err := w.allow(selected); err != nil {
			return nil, err
		}
		return selected, w.call.asPlanned(w.plan)
	case why != nil:
		return nil, why
	}
	return nil, w.nothing()
}

// allow asks once more, now that it is known how many certificates are hit.
func (w *revocation) allow(selected []store.Certificate) error {
	for _, c := range selected {
		rule, err := w.request.May(c, len(selected))
		if err != nil {
			return err
		}
		w.changes = append(w.changes, w.changeOf(c, rule))
		if !slices.Contains(w.rules, rule) {
			w.rules = append(w.rules, rule)
		}
	}
	return nil
}

// rule is what the log names.
func (w *revocation) rule() string { return strings.Join(w.rules, " ") }

// unseen tells whether a refusal of May means that the caller is told of no such certificate.
func unseen(denied error, bySerial bool) bool {
	return denied != nil && (errors.Is(denied, ErrOthers) || bySerial && !errors.Is(denied, ErrBound))
}

// nothing is the refusal where nothing was selected, or nothing that the caller may see.
func (w *revocation) nothing() *Refusal {
	if w.method == ReleaseMethod {
		return refuse("certificate.unknown", "no certificate on hold matches; ca.status tells what there is")
	}
	return noCertificate()
}

func noCertificate() *Refusal {
	return refuse("certificate.unknown", "no certificate matches; ca.status tells what there is")
}

func (w *revocation) add(c store.Certificate) {
	w.hit = append(w.hit, RevokedCertificate{Serial: c.Serial, CN: c.CN, Purpose: c.Purpose, Pending: c.State == store.StateOpen})
	if c.State == store.StateOpen {
		return
	}
	if !slices.Contains(w.issuers, c.Issuer) {
		w.issuers = append(w.issuers, c.Issuer)
	}
}

// changeOf is what would become of a certificate.
func (w *revocation) changeOf(c store.Certificate, rule string) PlannedChange {
	p := PlannedChange{Serial: c.Serial, Rule: rule, State: string(c.State), List: "enter", Directory: "none", Entry: c.Entry}
	switch {
	case w.method == ReleaseMethod:
		p.List, p.Directory = "remove", "add"
	case c.State == store.StateRevoked:
		p.Reason, p.List = w.request.Reason.String(), "change"
	case c.State == store.StateLive:
		p.Reason, p.Directory = w.request.Reason.String(), "remove"
	default:
		p.Reason = w.request.Reason.String()
	}
	if !w.published(c.Purpose) {
		p.Directory = "none"
	}
	return p
}

// cannotRevoke tells why a certificate is past revoking, if it is.
func cannotRevoke(c store.Certificate, reason cert.Reason, now time.Time) *Refusal {
	revoked := c.State == store.StateRevoked || c.RevokeAsked
	switch {
	case revoked && (c.Reason == reason || !c.Reason.CanBecome(reason) || now.After(c.NotAfter)):
		return refuse("already.revoked", "certificate %s was revoked at %s (%s); nothing is left to do", c.Serial, c.RevokedAt.UTC().Format(time.RFC3339), c.Reason)
	case c.State == store.StateLive && now.After(c.NotAfter):
		return refuse("certificate.expired", "certificate %s expired at %s; nothing trusts it any more, and nothing is left to do", c.Serial, c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// notHeld tells why a revoked certificate is not on hold, if it is not. The hold of one that has expired may
// have left the lists, and the key room would find the log to release what is not held.
func notHeld(c store.Certificate, now time.Time) *Refusal {
	switch {
	case c.Reason == cert.CertificateHold && now.After(c.NotAfter):
		return refuse("certificate.expired", "certificate %s expired at %s; nothing trusts it any more, and nothing is left to do", c.Serial, c.NotAfter.UTC().Format(time.RFC3339))
	case c.Reason == cert.CertificateHold:
		return nil
	}
	return refuse("certificate.not_held", "certificate %s was revoked at %s (%s), which is for good; only a hold can be released", c.Serial, c.RevokedAt.UTC().Format(time.RFC3339), c.Reason)
}

// revokedBefore answers a request id again: with the same certificates, what has become of them since, and where their
// lists stand now.
func (a *Authority) revokedBefore(ctx context.Context, call Call, request store.Request) (*Revoked, error) {
	leaf, err := a.store.Leaf(ctx, request.Index)
	if err != nil {
		return nil, err
	}
	var serials []cert.Serial
	asMade := func(c store.Certificate) bool { return c.State == store.StateLive }
	switch done := leaf.Event.(type) {
	case *audit.RevokeDone:
		for _, r := range done.Revoked {
			serials = append(serials, r.Serial)
		}
		serials = append(serials, done.Pending...)
		asMade = func(c store.Certificate) bool {
			return (c.State == store.StateRevoked || c.RevokeAsked) && c.Reason == done.Reason
		}
	case *audit.ReleaseDone:
		for _, r := range done.Released {
			serials = append(serials, r.Serial)
		}
	default:
		return nil, fmt.Errorf("leaf %d is not the change that the books name", request.Index)
	}
	var hit []RevokedCertificate
	for _, serial := range serials {
		c, err := a.certificate(ctx, serial)
		if err != nil {
			return nil, err
		}
		hit = append(hit, RevokedCertificate{
			Serial: c.Serial, CN: c.CN, Purpose: c.Purpose, Pending: c.State == store.StateOpen,
			Became: became(c, asMade(c), a.store.Now()),
		})
	}
	call.Plan = false // it is done
	return a.answerRevoke(ctx, call, request.Index, hit)
}

// became gives what has become of a certificate, nil if it is as it was made. One that has expired may have left the
// lists, so the lists do not say of it what they said.
func became(c store.Certificate, asMade bool, now time.Time) *Became {
	switch ended := c.State == store.StateLive || c.State == store.StateRevoked; {
	case ended && now.After(c.NotAfter):
		return &Became{State: "expired"}
	case asMade:
		return nil
	}
	return &Became{State: string(c.State), Reason: c.Reason}
}

// answerRevoke says which lists are concerned and where they stand.
func (a *Authority) answerRevoke(ctx context.Context, call Call, index int64, hit []RevokedCertificate) (*Revoked, error) {
	answer := &Revoked{RequestID: call.RequestID, LogIndex: index, Revoked: hit}
	var issuers []cert.Issuer
	missing := make(map[cert.Issuer]bool) // a revocation that no list is owed for yet
	for _, c := range hit {
		i := a.issuers[c.Purpose]
		if i == nil {
			continue
		}
		if !slices.Contains(issuers, i.id) {
			issuers = append(issuers, i.id)
		}
		missing[i.id] = missing[i.id] || c.Pending || call.Plan
	}
	for _, issuer := range issuers {
		state, err := a.listState(ctx, issuer, missing[issuer])
		if err != nil {
			return nil, err
		}
		answer.Lists = append(answer.Lists, state)
	}
	return answer, nil
}
