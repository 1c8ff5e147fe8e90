package audit

import (
	"crypto/x509"
	"math/big"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// The codes of a Contradiction between one leaf and those before it.
const (
	CeremonyLate        = "ceremony.late"        // a root or an issuer named after the beginning
	CeremonyCertificate = "ceremony.certificate" // a CA certificate that cannot be, or is named twice
	RoomUnknown         = "room.unknown"         // the state of a key room that the log does not name
	RoomSequence        = "room.sequence"        // a key room went back, or has two journals
	LogRecoveredSize    = "log.recovered"        // a recovery of leaves that are not there
	ConfigChain         = "config.chain"         // a configuration replaced that was not in force
	RequestReused       = "request.reused"       // a caller's request id was spent on two things
	RequestOther        = "request.other"        // it was not what the signed request asks for

	IssueIssuer            = "issue.issuer"                   // no such issuer, not its purpose, or not its room
	IssueSerial            = "issue.serial"                   // not a serial number
	IssueSerialReused      = "issue.serial_reused"            // announced twice
	DoneWithoutIntent      = "issue.done_without_intent"      // a certificate that nothing announced
	DoneTwice              = "issue.done_twice"               // signed twice
	DoneAfterAbandoned     = "issue.done_after_abandoned"     // signed after it was said that it never will be
	IntentOfAnother        = "issue.intent_of_another"        // the leaf it names is not its intent
	AbandonedWithoutIntent = "issue.abandoned_without_intent" // abandoned, and never announced
	AbandonedAfterEnd      = "issue.abandoned_after_end"      // abandoned after it was signed or abandoned
	AnswerWithoutDone      = "answer.without_done"            // an answer with a certificate that is not signed
	AnswerOther            = "answer.other"                   // an answer to another caller or request
	RedeliveredOther       = "redelivered.other"              // secrets for another caller, request or key room
	DirectoryUnknown       = "directory.unknown"              // a certificate in the directory that was not signed
	RevokeUnknown          = "revoke.unknown"                 // nothing to revoke under that issuer and serial number
	RevokeWeakened         = "revoke.weakened"                // a date moved, or a reason changed that may not
	RevokeFuture           = "revoke.future"                  // a date to come: some consumers trust the certificate until then
	RevokeLost             = "revoke.lost"                    // what was asked for was not done, or for another reason
	RevokeUnasked          = "revoke.unasked"                 // revoked as it was signed, and nobody had asked
	ReleaseNotHeld         = "release.not_held"               // released, and not on hold
	CRLIssuer              = "crl.issuer"                     // a list of an issuer or a room that the log does not name
	CRLNumber              = "crl.number"                     // a number that does not rise
	CRLBackwards           = "crl.backwards"                  // a list of the root from before its last one
	CRLSignedWithoutIntent = "crl.signed_without_intent"      // a list that nothing announced
	CRLPublishedUnknown    = "crl.published_unknown"          // published is not what was signed last
	CRLCheckpoint          = "crl.checkpoint"                 // the checkpoint beside a list does not cover it
)

// take checks what a leaf says against the leaves before it, and takes it up.
func (b *Books) take(index int64, l Leaf) *Contradiction {
	if c := b.state(l.Event); c != nil {
		return c
	}
	b.Events[l.Event.Type()]++
	b.now = l.Time
	switch e := l.Event.(type) {
	case *LogOpened:
		b.Log = *e
		return nil
	case *RootNamed:
		return b.root(e)
	case *IssuerNamed:
		return b.issuer(e)
	case *RootListNamed:
		return b.rootList(index, e)
	}
	b.started = true
	switch e := l.Event.(type) {
	case *ServiceStarted:
		b.config = e.ConfigSHA256
	case *ConfigReloaded:
		if e.From == "" || e.From != b.config {
			return contradict(ConfigChain, "the configuration %.64q is replaced, and %.64q was in force", e.From, b.config)
		}
		b.config = e.To
	case *LogRecovered:
		if e.From < 1 || e.From >= e.Size || e.Size > index {
			return contradict(LogRecoveredSize, "it recovers leaves %d to %d of a log of %d", e.From, e.Size-1, index)
		}
	case *IssueIntent:
		return b.intent(index, l.Actor, e)
	case *IssueDone:
		return b.done(index, e)
	case *IssueAbandoned:
		return b.abandoned(index, e)
	case *IssueAnswering:
		return b.answering(l.Actor, e)
	case *IssueRedelivered:
		return b.redelivered(l.Actor, e)
	case *RevokeDone:
		return b.revoke(index, l.Actor, e)
	case *ReleaseDone:
		return b.release(index, l.Actor, e)
	case *CRLIntent:
		return b.listIntent(index, e)
	case *CRLSigned:
		return b.listSigned(index, e)
	case *CRLPublished:
		return b.listsPublished(index, e)
	case *DirectoryPublished:
		return b.directory(e)
	}
	return nil
}

// state checks what a key room said of itself: its journal only grows, so a lower sequence number, or
// another record under the same one, is another copy of the room.
func (b *Books) state(event Event) *Contradiction {
	told, ok := RoomStateIn(event)
	if !ok {
		return nil
	}
	if !b.roomNamed(told.Room) {
		return contradict(RoomUnknown, "the log names no key room %.64q", told.Room)
	}
	was := b.Rooms[told.Room]
	switch {
	case told.Sequence < was.Sequence:
		return contradict(RoomSequence, "the journal of key room %.64q has %d records and had %d before", told.Room, told.Sequence, was.Sequence)
	case told.Sequence == was.Sequence && was.Room != "" && told.Journal != was.Journal:
		return contradict(RoomSequence, "record %d of the journal of key room %.64q has two hashes, %.64q and %.64q", told.Sequence, told.Room, was.Journal, told.Journal)
	}
	b.Rooms[told.Room] = told
	return nil
}

func (b *Books) roomNamed(room string) bool {
	if room == "" {
		return false
	}
	for _, i := range b.Issuers {
		if i.Room == room {
			return true
		}
	}
	return room == b.Log.Room
}

func (b *Books) root(e *RootNamed) *Contradiction {
	if c := b.ceremony(cert.Root); c != nil {
		return c
	}
	root, err := x509.ParseCertificate(e.Certificate)
	if err == nil {
		err = root.CheckSignatureFrom(root)
	}
	if err != nil {
		return contradict(CeremonyCertificate, "the root certificate: %v", err)
	}
	b.Issuers[cert.Root] = &IssuerBook{ID: cert.Root, Certificate: e.Certificate, parsed: root, last: new(big.Int)}
	return nil
}

func (b *Books) issuer(e *IssuerNamed) *Contradiction {
	if c := b.ceremony(e.Issuer); c != nil {
		return c
	}
	above := b.Issuers[cert.Root]
	if above == nil || e.Issuer == "" || e.Room == "" {
		return contradict(CeremonyCertificate, "issuer %.64q is named before the root, or without a name or a key room", string(e.Issuer))
	}
	issuer, err := x509.ParseCertificate(e.Certificate)
	if err == nil {
		err = issuer.CheckSignatureFrom(above.parsed)
	}
	if err != nil {
		return contradict(CeremonyCertificate, "the certificate of issuer %.64q: %v", string(e.Issuer), err)
	}
	b.Issuers[e.Issuer] = &IssuerBook{
		ID: e.Issuer, Room: e.Room, Purposes: e.Purposes, Certificate: e.Certificate,
		last: new(big.Int), intents: make(map[int64]*CRLIntent),
	}
	return nil
}

func (b *Books) ceremony(id cert.Issuer) *Contradiction {
	if b.started {
		return contradict(CeremonyLate, "the CA %.64q is named after the ceremony was over", string(id))
	}
	if b.Issuers[id] != nil {
		return contradict(CeremonyCertificate, "the CA %.64q is named twice", string(id))
	}
	return nil
}

// rootList takes up a list of the offline root. Unlike the rest of the ceremony it may come late: the root
// signs a new one every year.
func (b *Books) rootList(index int64, e *RootListNamed) *Contradiction {
	root := b.Issuers[cert.Root]
	if root == nil {
		return contradict(CRLIssuer, "a list of a root that the log does not name")
	}
	if n := len(root.Lists); n > 0 && e.ThisUpdate.Before(root.Lists[n-1].ThisUpdate) {
		return contradict(CRLBackwards, "list %.64s of the root is of %s, and list %s of %s", e.Number, stamp(e.ThisUpdate), root.Lists[n-1].Number, stamp(root.Lists[n-1].ThisUpdate))
	}
	if c := root.rise(e.Number); c != nil {
		return c
	}
	root.Lists = append(root.Lists, Signed{
		Number: e.Number, SHA256: e.SHA256, Intent: -1, Index: index, Entries: -1, ThisUpdate: e.ThisUpdate, NextUpdate: e.NextUpdate,
	})
	return nil
}

// spend binds a caller's request id. It is bound to one thing for good, unless that was abandoned, and not revoked.
func (b *Books) spend(index int64, who Actor, id string) *Contradiction {
	key := keyOf(who.Name, id)
	if before, ok := b.requests[key]; ok {
		return contradict(RequestReused, "leaf %d has spent the request id %.64q of caller %.64q", before, id, who.Name)
	}
	b.requests[key] = index
	return nil
}

func (b *Books) intent(index int64, who Actor, e *IssueIntent) *Contradiction {
	if s, err := cert.ParseSerial(string(e.Serial)); err != nil || s != e.Serial {
		return contradict(IssueSerial, "%.48q is not a serial number in its one spelling", string(e.Serial))
	}
	i := b.Issuers[e.Issuer]
	switch before := b.Certificates[e.Serial]; {
	case before != nil:
		return contradict(IssueSerialReused, "leaf %d has announced serial %s", before.Intent, e.Serial)
	case i == nil || i.ID == cert.Root:
		return contradict(IssueIssuer, "the log names no issuer %.64q", string(e.Issuer))
	case !slices.Contains(i.Purposes, e.Purpose):
		return contradict(IssueIssuer, "issuer %s is not for purpose %.32q", i.ID, string(e.Purpose))
	case i.Room != e.Room:
		return contradict(IssueIssuer, "the key of issuer %s is in key room %.64q, not %.64q", i.ID, i.Room, e.Room)
	}
	if err := e.CheckRequest(); err != nil {
		return contradict(RequestOther, "%v", err)
	}
	if c := b.spend(index, who, e.RequestID); c != nil {
		return c
	}
	b.Certificates[e.Serial] = &Certificate{
		Serial: e.Serial, Issuer: i.ID, Purpose: e.Purpose, CN: e.CN, Caller: who.Name, RequestID: e.RequestID,
		State: Open, NotAfter: e.NotAfter, TBSSHA256: e.TBSSHA256, SealedSHA256: e.SealedSHA256, Intent: index, Ended: -1,
	}
	return nil
}

func (b *Books) done(index int64, e *IssueDone) *Contradiction {
	c := b.Certificates[e.Serial]
	switch {
	case c == nil:
		return contradict(DoneWithoutIntent, "nothing announced serial %.48q", string(e.Serial))
	case c.State == Abandoned:
		return contradict(DoneAfterAbandoned, "leaf %d says that serial %s was not signed and never will be", c.Ended, c.Serial)
	case c.State != Open:
		return contradict(DoneTwice, "leaf %d says that serial %s was signed", c.Ended, c.Serial)
	case e.Intent != c.Intent:
		return contradict(IntentOfAnother, "serial %s was announced by leaf %d, not by leaf %d", c.Serial, c.Intent, e.Intent)
	case c.RevokeAsked && e.Revocation == nil:
		return contradict(RevokeLost, "the revocation of serial %s was asked for before it was signed, and is not there", c.Serial)
	case c.RevokeAsked && e.Revocation.Reason != c.Reason:
		return contradict(RevokeLost, "the revocation of serial %s was asked for as %s, and done as %s", c.Serial, c.Reason, e.Revocation.Reason)
	case !c.RevokeAsked && e.Revocation != nil:
		return contradict(RevokeUnasked, "serial %s is revoked as it is signed, and nobody has asked for it", c.Serial)
	}
	c.State, c.Fingerprint, c.Ended, c.RevokeAsked = Live, e.Fingerprint, index, false
	if e.Revocation != nil {
		return b.revokeOne(index, *e.Revocation)
	}
	return nil
}

func (b *Books) abandoned(index int64, e *IssueAbandoned) *Contradiction {
	c := b.Certificates[e.Serial]
	switch {
	case c == nil:
		return contradict(AbandonedWithoutIntent, "nothing announced serial %.48q", string(e.Serial))
	case c.State != Open:
		return contradict(AbandonedAfterEnd, "leaf %d has ended the intent of serial %s", c.Ended, c.Serial)
	case e.Intent != c.Intent:
		return contradict(IntentOfAnother, "serial %s was announced by leaf %d, not by leaf %d", c.Serial, c.Intent, e.Intent)
	}
	if !c.RevokeAsked { // nothing came of it, so it is free again
		delete(b.requests, keyOf(c.Caller, c.RequestID))
	}
	c.State, c.Ended, c.RevokeAsked = Abandoned, index, false
	return nil
}

// signed gives a certificate if the log says that it was signed.
func (b *Books) signed(serial cert.Serial) *Certificate {
	if c := b.Certificates[serial]; c != nil && (c.State == Live || c.State == Revoked) {
		return c
	}
	return nil
}

func (b *Books) answering(who Actor, e *IssueAnswering) *Contradiction {
	c := b.signed(e.Serial)
	switch {
	case c == nil:
		return contradict(AnswerWithoutDone, "no leaf says that serial %.48q was signed", string(e.Serial))
	case c.Caller != who.Name || c.RequestID != e.RequestID:
		return contradict(AnswerOther, "serial %s was made for request %.64q of caller %.64q, not for %.64q of %.64q", c.Serial, c.RequestID, c.Caller, e.RequestID, who.Name)
	}
	return nil
}

func (b *Books) redelivered(who Actor, e *IssueRedelivered) *Contradiction {
	c := b.signed(e.Serial)
	switch {
	case c == nil:
		return contradict(AnswerWithoutDone, "no leaf says that serial %.48q was signed", string(e.Serial))
	case c.Intent != e.Intent:
		return contradict(IntentOfAnother, "serial %s was announced by leaf %d, not by leaf %d", c.Serial, c.Intent, e.Intent)
	case c.Caller != who.Name || c.RequestID != e.RequestID:
		return contradict(RedeliveredOther, "the secrets of serial %s are for request %.64q of caller %.64q, not for %.64q of %.64q", c.Serial, c.RequestID, c.Caller, e.RequestID, who.Name)
	case c.SealedSHA256 == "" || c.SealedSHA256 != e.SealedSHA256:
		return contradict(RedeliveredOther, "the secrets are not those that leaf %d names", c.Intent)
	case b.Issuers[c.Issuer].Room != e.Room:
		return contradict(RedeliveredOther, "the secrets of serial %s are sealed to another key room than %.64q", c.Serial, e.Room)
	}
	if err := e.CheckRequest(); err != nil {
		return contradict(RequestOther, "%v", err)
	}
	return nil
}

func (b *Books) revoke(index int64, who Actor, e *RevokeDone) *Contradiction {
	if c := b.spend(index, who, e.RequestID); c != nil {
		return c
	}
	for _, r := range e.Revoked {
		if r.Reason != e.Reason {
			return contradict(RevokeLost, "the revocation of serial %.48q was asked for as %s, and done as %s", string(r.Serial), e.Reason, r.Reason)
		}
		if c := b.revokeOne(index, r); c != nil {
			return c
		}
	}
	for _, serial := range e.Pending {
		c := b.Certificates[serial]
		if c == nil || c.State != Open {
			return contradict(RevokeUnknown, "serial %.48q is not being issued", string(serial))
		}
		if c.RevokeAsked && !c.Reason.CanBecome(e.Reason) {
			return contradict(RevokeWeakened, "the reason for which serial %s is to be revoked, %s, cannot become %s", c.Serial, c.Reason, e.Reason)
		}
		c.RevokeAsked, c.Reason = true, e.Reason
	}
	return nil
}

// revokeOne takes up a revocation, or a new reason for one: then the date stays.
func (b *Books) revokeOne(index int64, r Revocation) *Contradiction {
	c := b.signed(r.Serial)
	if c == nil || c.Issuer != r.Issuer {
		return contradict(RevokeUnknown, "no leaf says that serial %.48q was signed by issuer %.64q", string(r.Serial), string(r.Issuer))
	}
	if r.At.After(b.now.Add(backStep)) {
		return contradict(RevokeFuture, "serial %s is revoked as of %s, and the leaf is of %s", c.Serial, stamp(r.At), stamp(b.now))
	}
	if c.State == Revoked {
		if !r.At.Equal(c.RevokedAt) {
			return contradict(RevokeWeakened, "serial %s was revoked at %s, not at %s", c.Serial, stamp(c.RevokedAt), stamp(r.At))
		}
		if !c.Reason.CanBecome(r.Reason) {
			return contradict(RevokeWeakened, "the reason for which serial %s was revoked, %s, cannot become %s", c.Serial, c.Reason, r.Reason)
		}
	} else {
		c.State, c.RevokedAt, c.RevokedBy = Revoked, r.At, index
	}
	c.Reason, c.RestatedBy = r.Reason, index
	return nil
}

// release takes certificates off hold. No other revocation ends.
func (b *Books) release(index int64, who Actor, e *ReleaseDone) *Contradiction {
	if c := b.spend(index, who, e.RequestID); c != nil {
		return c
	}
	var names []Named
	for _, r := range e.Released {
		c := b.signed(r.Serial)
		if c == nil || c.Issuer != r.Issuer || c.State != Revoked || c.Reason != cert.CertificateHold {
			return contradict(ReleaseNotHeld, "serial %.48q of issuer %.64q is not on hold", string(r.Serial), string(r.Issuer))
		}
		c.Holds = append(c.Holds, Hold{At: c.RevokedAt, By: c.RevokedBy, To: index})
		c.State, c.Reason, c.RevokedAt, c.RevokedBy, c.RestatedBy = Live, cert.Unspecified, time.Time{}, 0, 0
		names = append(names, Named{c.Purpose, c.CN})
	}
	if err := e.CheckRequest(names); err != nil {
		return contradict(RequestOther, "%v", err)
	}
	return nil
}

func (b *Books) directory(e *DirectoryPublished) *Contradiction {
	for _, serials := range [][]cert.Serial{e.Added, e.Removed} {
		for _, serial := range serials {
			if c := b.signed(serial); c == nil || c.Purpose != e.Purpose {
				return contradict(DirectoryUnknown, "no leaf says that serial %.48q was signed for purpose %.32q", string(serial), string(e.Purpose))
			}
		}
	}
	return nil
}
