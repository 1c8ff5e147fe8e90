package review

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// TestSignedRequestsAreHeldAgainstTheirKeys: with a caller's key from elsewhere, what somebody else put on the log in
// its name is found, and what it did not sign is counted.
func TestSignedRequestsAreHeldAgainstTheirKeys(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	var public [2]ed25519.PublicKey
	var private [2]ed25519.PrivateKey
	for i := range public {
		var err error
		public[i], private[i], err = ed25519.GenerateKey(rand.Reader)
		w.must(err)
	}
	installation := cert.FingerprintOf(w.root.Raw)
	announce := func(n int, who audit.Actor, key ed25519.PrivateKey) int64 {
		e := intentOf(n, fmt.Sprint("name-", n))
		body := fmt.Appendf(nil, `{"method":"ca.issue","params":{"purpose":"user","cn":"name-%d","request_id":%q}}`, n, e.RequestID)
		e.Request = &audit.SignedRequest{At: start, Body: body, Signature: ed25519.Sign(key, audit.SignedText(installation, who.Name, start, body))}
		return w.add(who, e)
	}
	first := w.issue(80, "User 80")
	retry := func(key ed25519.PrivateKey) int64 {
		body := []byte(`{"method":"ca.issue","params":{"purpose":"user","cn":"User 80","request_id":"request-80"}}`)
		return w.add(alice, &audit.IssueRedelivered{
			Serial: serial(80), Intent: first, RequestID: "request-80", SealedSHA256: "5ea1", Room: "room-1",
			Request: &audit.SignedRequest{At: start, Body: body, Signature: ed25519.Sign(key, audit.SignedText(installation, alice.Name, start, body))},
		})
	}
	retry(private[0])
	announce(70, alice, private[0])
	announce(71, alice, private[1])
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	announce(72, audit.Actor{Kind: audit.ByCaller, Name: "other"}, stranger)
	announce(74, audit.Actor{Kind: audit.ByOperator, Name: alice.Name}, stranger)
	verify := func(keys ...crypto.PublicKey) Report {
		t.Helper()
		r, err := Verify(w.ctx, Source{Log: w.store, LogKey: w.logKey, History: w.history(), Signers: map[string][]crypto.PublicKey{alice.Name: keys}})
		w.must(err)
		return r
	}
	r := verify(public[0], public[1])
	if r.Contradiction != nil || len(r.Signed) != 1 || r.Signed[0].Signed != 3 || r.Signed[0].Unsigned == 0 || r.Signed[0].LastUnsigned < 1 {
		t.Errorf("%+v, %v", r.Signed, r.Contradiction)
	}
	forged := announce(73, alice, private[1])
	w.wantContradiction(verify(public[0]), RequestSignature, forged-3, "")
	w.wantContradiction(verify(public[1]), RequestSignature, forged-5, "")
	installation = cert.FingerprintOf(nil)
	elsewhere := retry(private[0])
	w.wantContradiction(verify(public[0], public[1]), RequestSignature, elsewhere, "")
	if r := w.verify(); r.Contradiction != nil || r.Signed != nil {
		t.Errorf("without keys: %+v", r)
	}
}
