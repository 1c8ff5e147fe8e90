package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Issue makes one certificate. The same caller, request id and body get the same certificate, key and
// password again, whatever happened to the first answer.
//
// What is durable when: nothing before the intent; with the intent, serial, request id and the sealed
// secrets; then the key room's journal; then issue.done with the certificate; then the directory; then
// issue.answering.
func (a *Authority) Issue(ctx context.Context, call Call, r IssueRequest) (*Issued, error) {
	if call.Plan {
		return a.planIssue(ctx, call, r)
	}
	land, err := a.takeOff(ctx, call.Who.Name, call.RequestID)
	if err != nil {
		return nil, err
	}
	defer land()
	if request, found, err := a.earlier(ctx, call, store.IssueMethod); err != nil {
		return nil, lost(err)
	} else if found {
		// What an earlier call may have done is not undone by what goes wrong in this one.
		switch issued, err := a.issuedBefore(ctx, call, request.Serial); {
		case errors.As(err, new(withheld)):
			return nil, err
		case issued != nil || err != nil:
			return issued, unknown(err)
		}
	}
	if r.past != nil {
		return nil, r.past
	}
	issued, err := a.issue(ctx, call, r)
	return issued, lost(err)
}

// draft is a certificate on its way to the log.
type draft struct {
	issuer         *issuer
	csr            []byte // DER
	secrets        *secrets
	sealed         []byte
	row            store.Certificate
	keyBy          string      // "ca" or "caller"
	renews         cert.Serial // see IssueRequest
	days           int         // that were asked for
	newest         cert.Serial // of the same caller and name, as the first look for a repetition found it
	rule           string
	precertificate []byte // DER
}

// issue does what no earlier request has done.
func (a *Authority) issue(ctx context.Context, call Call, r IssueRequest) (*Issued, error) {
	giveBack, err := call.spend(call.Rule)
	if err != nil {
		// Who repeats a call without an id learns the id to ask with also when there is no second certificate to have.
		_, repeated := notRepeated(a.finder(ctx), a.store.Now(), call, r.Purpose, r.Name.Key, "")
		return nil, cmp.Or(repeated, err)
	}
	d, err := a.draft(ctx, call, r)
	if err == nil {
		err = call.asPlanned(d.plan)
	}
	if err != nil {
		giveBack()
		return nil, err
	}
	entry, err := a.reserve(ctx, call, d)
	if errors.Is(err, store.ErrBroken) {
		return nil, err // what was spent may be spent on a certificate
	} else if err != nil {
		giveBack()
		return nil, err
	}
	// From here the serial is spent, whether or not the key room answers, and the caller's patience
	// decides nothing any more.
	ctx = context.WithoutCancel(ctx)
	c, debt, err := a.sign(ctx, call.Who, d, entry)
	if err != nil {
		if !errors.Is(err, signer.ErrUnknown) {
			giveBack()
		}
		return nil, err
	}
	if debt != nil {
		a.await(ctx, call.patience(publishWait), *debt)
		if c, err = a.certificate(ctx, c.Serial); err != nil { // it may have been revoked meanwhile
			return nil, unknown(err)
		}
	}
	issued, err := a.answerIssue(ctx, call, c, d.secrets, "issued")
	return issued, unknown(err)
}

// draft decides everything about the certificate and makes its key, with nothing durable yet.
func (a *Authority) draft(ctx context.Context, call Call, r IssueRequest) (*draft, error) {
	i := a.issuers[r.Purpose]
	if i == nil {
		return nil, refuse("purpose.unknown", "this CA has no issuer for purpose %q; ca.chain tells which there are", string(r.Purpose))
	}
	if err := a.own(call.Who, r.Purpose, r.Name.Text, r.SANs); err != nil {
		return nil, err
	}
	d := &draft{issuer: i, rule: call.Rule, renews: r.Renews, days: r.ValidDays}
	notBefore, notAfter, err := i.window(r, a.store.Now())
	if err != nil {
		return nil, err
	}
	if d.newest, err = notRepeated(a.finder(ctx), a.store.Now(), call, r.Purpose, r.Name.Key, ""); err != nil {
		return nil, err
	}
	entry, err := a.findEntry(ctx, r)
	if err != nil {
		return nil, err
	}
	public, err := a.subjectKey(ctx, d, call, r)
	if err != nil {
		return nil, err
	}
	kind, err := cert.KeyTypeOf(public)
	if err != nil {
		return nil, refuse("key.type", "%v", err)
	}
	info, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding the subject's key: %w", err)
	}
	serial, err := cert.NewSerial(a.rand)
	if err != nil {
		return nil, err
	}
	precertificate, tbs, err := i.builder.Precertificate(profile.Request{
		Serial: serial, Purpose: r.Purpose, CN: r.Name.Text, SANs: r.SANs, Public: public,
		NotBefore: notBefore, NotAfter: notAfter, CRLURL: i.crlURL,
	})
	if err != nil {
		return nil, err
	}
	if err := a.lint.check(precertificate); err != nil {
		return nil, err
	}
	d.precertificate = precertificate
	d.row = store.Certificate{
		Serial: serial, Issuer: i.id, Purpose: r.Purpose, CN: r.Name.Text, Key: r.Name.Key, SANs: r.SANs, KeyType: kind,
		Caller: call.Who.Name, RequestID: call.RequestID, BodySHA256: call.BodySHA256,
		NotBefore: notBefore, NotAfter: notAfter,
		SPKISHA256: cert.SHA256(info), TBSSHA256: cert.SHA256(tbs),
		CSR: d.csr, Sealed: d.sealed, Entry: entry,
	}
	return d, nil
}

// window gives the validity within the limits of the purpose, the issuer and the key room. Who asks for none gets
// the purpose's, cut to the others and to the grant's.
func (i *issuer) window(r IssueRequest, now time.Time) (notBefore, notAfter time.Time, err error) {
	if r.ValidDays > i.maxDays {
		return notBefore, notAfter, refuse("validity.days", "%d days; want at most %d, which is what the key room signs for this issuer", r.ValidDays, i.maxDays)
	}
	notBefore, notAfter, err = profile.Window(i.cert, r.Purpose, r.ValidDays, now)
	if err != nil || r.ValidDays != 0 {
		return notBefore, notAfter, err
	}
	most := i.maxDays
	if r.MaxDays > 0 {
		most = min(most, r.MaxDays)
	}
	if cut := notBefore.Add(time.Duration(most)*24*time.Hour - time.Second); cut.Before(notAfter) {
		notAfter = cut
	}
	return notBefore, notAfter, nil
}

// findEntry asks the directory. That it is down stops nobody: the debt is paid when it is back.
func (a *Authority) findEntry(ctx context.Context, r IssueRequest) (string, error) {
	if !a.published(r.Purpose) {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, directoryAsk)
	defer cancel()
	entry, err := a.directory.Find(ctx, r.Purpose, r.Name)
	switch {
	case errors.Is(err, ErrNoEntry):
		return "", refuse("directory.no_entry", "the directory has no entry for %q; create it and ask again", r.Name.Text)
	case errors.Is(err, ErrManyEntries):
		return "", refuse("directory.many_entries", "the directory has more than one entry for %q; leave one and ask again", r.Name.Text)
	case err != nil:
		return "", nil
	}
	return entry, nil
}

// subjectKey takes the caller's CSR, or makes a key and its CSR; for a plan the public key alone.
func (a *Authority) subjectKey(ctx context.Context, d *draft, call Call, r IssueRequest) (crypto.PublicKey, error) {
	if len(r.CSR) > 0 {
		d.csr, d.keyBy = r.CSR, "caller"
		request, err := checkCSR(r)
		if err != nil {
			return nil, err
		}
		return request.PublicKey, nil
	}
	kind := r.KeyType
	if kind == "" {
		kind = cert.SubjectKeyTypes()[0]
	}
	d.keyBy = "ca"
	if call.Plan {
		return standIn(a.rand, kind)
	}
	key, err := a.makeKey(ctx, call.Who.Name, kind)
	if err != nil {
		return nil, fmt.Errorf("making the subject's key: %w", err)
	}
	if d.csr, err = profile.MakeCSR(a.rand, key, r.Name.Text); err != nil {
		return nil, err
	}
	return key.Public(), a.seal(ctx, d, call, key)
}

// makeKey makes a key. RSA keys wait for a place, so that one core is left for everything else.
func (a *Authority) makeKey(ctx context.Context, caller string, kind cert.KeyType) (crypto.Signer, error) {
	if kind == cert.RSA2048 || kind == cert.RSA3072 {
		if err := a.rsa.take(ctx, caller); err != nil {
			return nil, err
		}
		defer a.rsa.give()
	}
	return cert.GenerateKey(a.rand, kind)
}

// seal draws the secrets, and seals them for a retry if the key room will open any.
func (a *Authority) seal(ctx context.Context, d *draft, call Call, key crypto.Signer) error {
	var err error
	if d.secrets, err = newSecrets(a.rand, key); err != nil {
		return err
	}
	to, err := a.signer.DeliveryKey(ctx, a.store.Now())
	if err != nil || to == "" {
		return err
	}
	text, err := d.secrets.marshal()
	if err != nil {
		return err
	}
	defer clear(text)
	binding := signer.Binding{Caller: call.Who.Name, RequestID: call.RequestID, BodySHA256: call.BodySHA256}
	if d.sealed, err = signer.Seal(to, binding, text); err != nil {
		return fmt.Errorf("sealing the subject's secrets: %w", err)
	}
	return nil
}

func checkCSR(r IssueRequest) (*x509.CertificateRequest, error) {
	request, err := profile.CheckCSR(r.CSR)
	if err != nil {
		return nil, err
	}
	if cn := request.Subject.CommonName; cn != "" && cn != r.Name.Text {
		return nil, refuse("csr.other_name", "the CSR is for another common name than the request; leave its subject empty or make them equal")
	}
	return request, nil
}

// reserve enters the intent. Serial, TBS and request id are spent when it returns without an error.
func (a *Authority) reserve(ctx context.Context, call Call, d *draft) (audit.Entry, error) {
	intent := a.intent(call, d)
	if err := intent.CheckRequest(); err != nil {
		return audit.Entry{}, otherwiseSpelled(err)
	}
	return a.store.Update(ctx, call.Who, func(tx *store.Tx) (audit.Event, error) {
		// Two calls at once both passed the first look; only what came since then is read here, where
		// every other change waits.
		if _, err := notRepeated(tx.Find, tx.Now(), call, d.row.Purpose, d.row.Key, d.newest); err != nil {
			return nil, err
		}
		if err := stillRenewed(tx.Find, tx.Now(), d.renews); err != nil {
			return nil, err
		}
		row := d.row
		row.Deadline = tx.Now().Add(signDeadline).Truncate(time.Second)
		intent.Deadline = row.Deadline
		return intent, tx.Reserve(row)
	})
}

// intent is what the log will say, but for the deadline.
func (a *Authority) intent(call Call, d *draft) *audit.IssueIntent {
	row := d.row
	intent := &audit.IssueIntent{
		RequestID: call.RequestID, BodySHA256: call.BodySHA256, Rule: call.Rule, Room: a.room,
		Issuer: row.Issuer, Serial: row.Serial, Purpose: row.Purpose, CN: row.CN, SANs: row.SANs,
		KeyType: row.KeyType, KeyMadeBy: d.keyBy, NotBefore: row.NotBefore, NotAfter: row.NotAfter,
		SPKISHA256: row.SPKISHA256, TBSSHA256: row.TBSSHA256, Entry: row.Entry, Renews: d.renews, ValidDays: d.days, Request: call.Request,
	}
	if d.sealed != nil {
		intent.SealedSHA256 = cert.SHA256(d.sealed)
	}
	return intent
}

// otherwiseSpelled refuses what the key room would refuse: it compares a signed request with what the log says as
// both are written.
func otherwiseSpelled(err error) error {
	return refuse("request.spelling", "%v; sign a request that spells names as the certificate has them, which a plan tells", err)
}

// notRepeated refuses a second identical issue that names no request: it is more likely a retry by a
// caller who does not know that ids make retries safe than a wish for two certificates. It looks at what
// was announced after a certificate, or at all, and gives the newest of it.
func notRepeated(find finder, now time.Time, call Call, p cert.Purpose, key string, after cert.Serial) (newest cert.Serial, err error) {
	if !call.Made {
		return "", nil
	}
	same, err := find(store.Query{
		Caller: call.Who.Name, Purpose: p, Key: key, After: after,
		States: []store.State{store.StateOpen, store.StateLive},
	})
	if err != nil {
		return "", err
	}
	for _, c := range same {
		newest = c.Serial
		recent := c.NotBefore.Add(profile.Backdate + repeatWindow).After(now)
		if c.BodySHA256 == call.BodySHA256 && recent {
			r := refuse("request.repeated", "the same request was made less than %d minutes ago; to get its answer again, or a second certificate, give a request_id", int(repeatWindow.Minutes()))
			r.Prior = c.RequestID
			return "", r
		}
	}
	return newest, nil
}

// sign asks the key room for the certificate of an intent, checks that it is the one announced, and
// enters it.
func (a *Authority) sign(ctx context.Context, who audit.Actor, d *draft, entry audit.Entry) (store.Certificate, *store.Debt, error) {
	der, err := a.signer.SignCert(ctx, entry, d.csr)
	var refusal *signer.Refusal
	if errors.As(err, &refusal) {
		c, err := a.refused(ctx, d.row.Serial, entry.Index, refusal)
		return c, nil, err
	}
	if err != nil {
		return store.Certificate{}, nil, err
	}
	if err := sameTBS(der, d.row.TBSSHA256); err != nil {
		return store.Certificate{}, nil, unknown(fmt.Errorf("certificate %s: %w", d.row.Serial, err))
	}
	c, debt, err := a.complete(ctx, who, d.row.Serial, der)
	if err != nil {
		return c, nil, unknown(fmt.Errorf("entering certificate %s: %w", d.row.Serial, err))
	}
	return c, debt, nil
}

// refused ends an intent that the key room refused to sign. The serial is voided so that it stays that
// way, and the request id is free for the next try. The certificate is returned only if the room turns
// out to have signed it.
func (a *Authority) refused(ctx context.Context, serial cert.Serial, intent int64, refusal *signer.Refusal) (store.Certificate, error) {
	c, err := a.settle(ctx, audit.Actor{Kind: audit.ByDaemon}, serial, intent, refusal.Code)
	switch {
	case err != nil:
		// The no stands, whatever is wrong now, so err is not in the chain: it may be ErrUnknown. The
		// intent is left to Recover.
		return c, fmt.Errorf("%w (serial %s is not voided yet: %s)", refusal, serial, err.Error())
	case c.State == store.StateAbandoned:
		return c, refusal
	}
	return c, nil
}

// sameTBS checks that a signed certificate is byte for byte the one that was announced.
func sameTBS(der []byte, tbsSHA256 string) error {
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("reading what the key room signed: %w", err)
	}
	if cert.SHA256(signed.RawTBSCertificate) != tbsSHA256 {
		return errors.New("the key room signed another certificate than the log announces")
	}
	return nil
}

// complete enters a signed certificate and owes its publication.
func (a *Authority) complete(ctx context.Context, who audit.Actor, serial cert.Serial, der []byte) (store.Certificate, *store.Debt, error) {
	var c store.Certificate
	var debt *store.Debt
	_, err := a.store.Update(ctx, who, func(tx *store.Tx) (audit.Event, error) {
		completed, revocation, err := tx.Complete(serial, der)
		if err != nil {
			return nil, err
		}
		c = completed
		if a.published(c.Purpose) {
			owed, err := tx.Owe(store.Directory, debtKey(c.Purpose, c.Key))
			if err != nil {
				return nil, err
			}
			debt = &owed
		}
		if revocation != nil {
			if _, err := tx.Owe(store.CRL, string(c.Issuer)); err != nil {
				return nil, err
			}
		}
		return &audit.IssueDone{
			Serial: serial, Intent: c.Intent, Fingerprint: cert.FingerprintOf(der),
			Room: a.signer.RoomState(), Revocation: revocation,
		}, nil
	})
	return c, debt, err
}

// await gives the world a moment to take up what is owed to it.
func (a *Authority) await(ctx context.Context, patience time.Duration, debts ...store.Debt) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, d := range debts {
		if err := a.store.AwaitPaid(ctx, d); err != nil {
			return // the answer says what is pending
		}
	}
}

// answerIssue enters that the answer leaves, and puts it together.
func (a *Authority) answerIssue(ctx context.Context, call Call, c store.Certificate, s *secrets, code string) (*Issued, error) {
	directory, err := a.publication(ctx, c)
	if err != nil {
		return nil, err
	}
	issued := &Issued{
		Code: code, RequestID: call.RequestID, LogIndex: c.Intent, Serial: c.Serial, Purpose: c.Purpose, CN: c.CN, Issuer: c.Issuer,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Fingerprint: cert.FingerprintOf(c.DER),
		Certificate: c.DER, Directory: directory,
	}
	if c.State == store.StateRevoked {
		issued.RevokedAt = c.RevokedAt
	}
	chain, err := a.Chain(c.Purpose)
	if err != nil {
		return nil, err
	}
	issued.Chain = chain.Certificates
	if s != nil {
		if issued.PKCS12, err = s.pkcs12(c.DER, a.issuers[c.Purpose].cert, a.root); err != nil {
			return nil, err
		}
		issued.Password = s.Password
	}
	_, err = a.store.Update(ctx, call.Who, func(*store.Tx) (audit.Event, error) {
		return &audit.IssueAnswering{
			Serial: c.Serial, RequestID: call.RequestID, Secrets: s != nil, Published: directory.State == "published",
		}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("entering that the answer leaves: %w", err)
	}
	return issued, nil
}
