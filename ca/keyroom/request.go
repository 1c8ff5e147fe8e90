package keyroom

import (
	"crypto"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

// SigningCaller is a caller in whose name the room signs certificates, opens their secrets and ends holds only as the
// caller asked with a key of its own: then neither its TLS key nor the daemon is enough. It follows revocations and
// holds whoever asked for them, since to doubt one is the unsafe side.
type SigningCaller struct {
	Name        string   `json:"name"`         // as in chancery.yaml
	SigningKeys []string `json:"signing_keys"` // see audit.ParseSigningKey; two while one replaces the other
}

// signers are the keys by caller.
func (c *Config) signers() (map[string][]crypto.PublicKey, error) {
	all := make(map[string][]crypto.PublicKey)
	for n, caller := range c.Callers {
		at := fmt.Sprintf("callers[%d]", n)
		const plain = "abcdefghijklmnopqrstuvwxyz0123456789-" // no caller has another name
		if caller.Name == "" || strings.Trim(caller.Name, plain) != "" || all[caller.Name] != nil || len(caller.SigningKeys) == 0 {
			return nil, wrong(at, "caller %q: want the name of a caller, once, and signing_keys", caller.Name)
		}
		for m, text := range caller.SigningKeys {
			key, err := audit.ParseSigningKey(text)
			if err != nil {
				return nil, wrong(fmt.Sprintf("%s.signing_keys[%d]", at, m), "caller %s: %v", caller.Name, err)
			}
			all[caller.Name] = append(all[caller.Name], key)
		}
	}
	return all, nil
}

// fingerprint is that of the installation's root, which signed requests name.
func (r *Room) fingerprint() cert.Fingerprint { return cert.FingerprintOf(r.root) }

// noteRequest remembers what a signed request was used for.
func (r *Room) noteRequest(caller string, event audit.Event) {
	switch e := event.(type) {
	case *audit.IssueIntent:
		if e.Request != nil {
			key := askedKey{caller, e.RequestID}
			use := r.asked[key]
			use.serials = append(use.serials, e.Serial)
			r.asked[key] = use
		}
	case *audit.ReleaseDone:
		if e.Request != nil {
			key := askedKey{caller, e.RequestID}
			use := r.asked[key]
			use.released = true
			r.asked[key] = use
		}
	}
}

// askedKey is a request: a caller gives no id to two, unless nothing came of the first.
type askedKey struct{ caller, id string }

// askedUse is what a signed request was used for.
type askedUse struct {
	serials  []cert.Serial // announced, signed or not
	released bool
}

// checkRequest refuses to sign in the name of a caller who signs what that caller has not just asked for.
func (w *work) checkRequest(intent *audit.IssueIntent, leaf audit.Leaf) error {
	caller := leaf.Actor.Name
	if !w.room.signs(leaf.Actor) {
		return nil
	}
	if err := w.checkAsked(caller, intent, intent.Request); err != nil {
		return err
	}
	for _, serial := range w.room.asked[askedKey{caller, intent.RequestID}].serials {
		if serial != intent.Serial && w.hasSigned(serial) {
			return refuse("request.spent", "the request %.128q of %s has got certificate %s", intent.RequestID, caller, serial)
		}
	}
	return w.checkRenewed(intent)
}

// checkRetry refuses to open the secrets of a caller who signs unless that caller has just asked for them. Secrets are
// sealed to a name, so of what kind the actor is does not matter. What became of the certificate, or of the one that
// it renews, does not either: that answer was given already.
func (w *work) checkRetry(again *audit.IssueRedelivered, intent *audit.IssueIntent, caller string) error {
	if w.room.signers[caller] == nil {
		return nil
	}
	return w.checkAsked(caller, intent, again.Request)
}

// signs tells whether somebody's requests have to be signed.
func (r *Room) signs(who audit.Actor) bool {
	return who.Kind == audit.ByCaller && r.signers[who.Name] != nil
}

// checkAsked refuses what is not a caller's request of this moment for what an intent announces.
func (w *work) checkAsked(caller string, intent *audit.IssueIntent, request *audit.SignedRequest) error {
	if request == nil {
		return refuse("request.unsigned", "the request of %s is not signed, as keyroom.json wants it", caller)
	}
	if err := request.Verify(w.room.fingerprint(), caller, w.room.signers[caller]); err != nil {
		return refuse("request.signature", "%v", err)
	}
	if age := w.now.Sub(request.At); age > clockSkew || age < -clockSkew {
		return refuse("request.time", "the request was signed at %s, and the room's clock says %s", stamp(request.At), stamp(w.now))
	}
	if err := intent.CheckRetry(request); err != nil {
		return refuse("request.other", "%v", err)
	}
	return nil
}

// hasSigned tells whether a serial is signed, in the journal or in this batch.
func (w *work) hasSigned(serial cert.Serial) bool {
	_, ok := w.room.signed[serial]
	return ok || slices.ContainsFunc(w.effects, func(e effect) bool { return e.kind == didSign && e.serial == serial })
}

// checkRenewed compares a renewal with the certificate that it renews: the request says only which one that is.
func (w *work) checkRenewed(intent *audit.IssueIntent) error {
	if intent.Renews == "" {
		return nil
	}
	old, err := w.announced(intent.Renews)
	if err != nil {
		return refuse("request.other", "%v", err)
	}
	if old.Purpose != intent.Purpose || old.CN != intent.CN || !reflect.DeepEqual(old.SANs, intent.SANs) {
		return refuse("request.other", "the purpose or the names are not those of certificate %s", intent.Renews)
	}
	if _, revoked := w.room.entryOf(old); revoked || w.now.After(old.NotAfter) {
		return refuse("request.other", "certificate %s is revoked, on hold or expired", intent.Renews)
	}
	return nil
}

// announced gives the intent of a certificate that the room has signed.
func (w *work) announced(serial cert.Serial) (*audit.IssueIntent, error) {
	s, ok := w.room.signed[serial]
	if !ok {
		return nil, fmt.Errorf("this room has not signed certificate %s", serial)
	}
	e, err := w.room.signing(s, serial)
	if err != nil {
		return nil, err
	}
	intent, _, err := w.intent(e.index)
	return intent, err
}

// entryOf gives what the next list will say of a certificate, if anything.
func (r *Room) entryOf(c *audit.IssueIntent) (e entry, ok bool) {
	listed := &r.issuers[c.Issuer].revoked
	i, ok := listed.at[c.Serial]
	if ok {
		e = listed.entries[i]
	}
	return e, ok
}

// unasked tells why a release is ignored: in the name of a caller who signs, only that caller's request ends a hold,
// and none that was signed before the hold. How old it is does not matter, since the room may read it late; it
// counts once.
func (w *work) unasked(leaf audit.Leaf) error {
	release, ok := leaf.Event.(*audit.ReleaseDone)
	caller := leaf.Actor.Name
	if !ok || !w.room.signs(leaf.Actor) {
		return nil
	}
	if release.Request == nil {
		return refuse("request.unsigned", "the release by %s is not signed, as keyroom.json wants it", caller)
	}
	if err := release.Request.Verify(w.room.fingerprint(), caller, w.room.signers[caller]); err != nil {
		return err
	}
	if use := w.room.asked[askedKey{caller, release.RequestID}]; use.released || slices.ContainsFunc(use.serials, w.hasSigned) {
		return refuse("request.spent", "the request %.128q of %s was used before", release.RequestID, caller)
	}
	var names []audit.Named
	for _, one := range release.Released {
		c, err := w.announced(one.Serial)
		if err != nil {
			return err
		}
		if e, held := w.room.entryOf(c); held && release.Request.At.Add(clockSkew).Before(e.RevokedAt) {
			return refuse("request.time", "the request was signed at %s, before certificate %s was put on hold", stamp(release.Request.At), one.Serial)
		}
		names = append(names, audit.Named{Purpose: c.Purpose, CN: c.CN})
	}
	return release.CheckRequest(names)
}

// readAll follows the leaves of a batch. What is ignored of them stands in the journal, so that a replay does not
// depend on which keys are configured then.
func (w *work) readAll(b signer.Batch) {
	for i, leaf := range w.leaves {
		index := b.From + int64(i)
		err := w.unasked(leaf)
		if err != nil {
			w.room.log.Error("a release is ignored", "index", index, "caller", leaf.Actor.Name, "reason", err)
			w.effects = append(w.effects, effect{kind: didIgnore, index: index})
		}
		w.room.read(index, b.Leaves[i], leaf, w.now, err != nil)
	}
}
