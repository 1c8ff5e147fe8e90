package keyroom

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/list"
)

// signingHall is a hall whose room wants the requests of provisioning signed.
type signingHall struct {
	*hall
	key ed25519.PrivateKey
}

func newSigningHall(t *testing.T) signingHall {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := newHall(t, func(c *Config) {
		c.Callers = []SigningCaller{{"provisioning", []string{signingKey(t, public)}}}
	})
	return signingHall{h, private}
}

// request is one that provisioning signed now.
func (h signingHall) request(body string, args ...any) *audit.SignedRequest {
	r := &audit.SignedRequest{At: h.clock.now().UTC().Truncate(time.Second), Body: fmt.Appendf(nil, body, args...)}
	r.Signature = ed25519.Sign(h.key, audit.SignedText(h.room.fingerprint(), "provisioning", r.At, r.Body))
	return r
}

func (h signingHall) issue(cn, id string) *audit.SignedRequest {
	return h.request(`{"jsonrpc":"2.0","id":1,"method":"ca.issue","params":[{"purpose":"user","cn":%q,"request_id":%q}]}`, cn, id)
}

// TestSignedRequests: in the name of a caller who signs, a daemon gets the certificate that was asked for, once, and
// nothing else.
func TestSignedRequests(t *testing.T) {
	h := newSigningHall(t)
	honest := h.issue("alice", "r-alice")
	for name, spoil := range map[string]struct {
		code  string
		spoil func(*wanted)
	}{
		"not signed":   {"request.unsigned", func(w *wanted) { w.Request = nil }},
		"another body": {"request.signature", func(w *wanted) { w.Request.Body = append(w.Request.Body, ' ') }},
		"another time": {"request.signature", func(w *wanted) { w.Request.At = w.Request.At.Add(time.Second) }},
		"another key":  {"request.signature", func(w *wanted) { w.Request.Signature[3] ^= 1 }},
		"another installation": {"request.signature", func(w *wanted) {
			w.Request.Signature = ed25519.Sign(h.key, audit.SignedText(cert.FingerprintOf(nil), "provisioning", w.Request.At, w.Request.Body))
		}},
		"old":           {"request.time", func(w *wanted) { h.old(w, -6*time.Minute) }},
		"from tomorrow": {"request.time", func(w *wanted) { h.old(w, 6*time.Minute) }},
		"another name":  {"request.other", func(w *wanted) { w.Request = h.issue("mallory", "r-alice") }},
		"another id":    {"request.other", func(w *wanted) { w.RequestID = "r-other" }},
		"another method": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"ca.revoke","params":{"cn":"alice","request_id":"r-alice"}}`)
		}},
		"several calls": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"system.multicall","params":[[{"methodName":"ca.issue","params":[{"purpose":"user","cn":"alice","request_id":"r-alice"}]}]]}`)
		}},
		"a plan": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"r-alice","plan":true}}`)
		}},
		"fewer days": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"r-alice","valid_days":29}}`)
		}},
		"another kind of key": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"r-alice","key_type":"RSA-3072"}}`)
		}},
		"a mail address that is its name": {"request.other", func(w *wanted) {
			w.CN, w.SANs.Email = "alice@example.org", []string{"alice@example.org"}
			w.Request = h.issue("alice@example.org", "r-alice")
		}},
		"more names": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"r-alice","sans":{"email":["alice@example.org"]}}}`)
		}},
		"another key of its own": {"request.other", func(w *wanted) {
			w.Request = h.request(`{"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"r-alice","csr":%q}}`, base64.StdEncoding.EncodeToString(h.want("alice", nil, nil).csr))
			w.KeyMadeBy = "caller"
		}},
		"a renewal": {"request.other", func(w *wanted) { w.Renews = w.Serial }},
		"no JSON":   {"request.other", func(w *wanted) { w.Request = h.request("<methodCall/>") }},
	} {
		t.Run(name, func(t *testing.T) {
			before := h.room.Hello().State
			w := h.want("alice", nil, func(w *wanted) {
				one := *honest
				one.Body, one.Signature = append([]byte(nil), one.Body...), append([]byte(nil), one.Signature...)
				w.Request = &one
				spoil.spoil(w)
			})
			if r := h.signCert(w); r.Refused == nil || r.Refused.Code != spoil.code {
				t.Errorf("%+v, want %s", r.Refused, spoil.code)
			}
			h.same(before)
		})
	}
	w := h.want("alice", nil, func(w *wanted) { w.Request = honest })
	if r := h.signCert(w); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	again := h.want("alice", nil, func(w *wanted) { w.Request = honest })
	for range 2 {
		if r := h.signCert(again); r.Refused == nil || r.Refused.Code != "request.spent" {
			t.Errorf("the same request for another certificate: %+v", r.Refused)
		}
		h.restart()
	}
	if r := h.signCert(w); r.Refused != nil {
		t.Errorf("the same certificate again: %v", r.Refused)
	}
	if r := h.ask(signer.Call{Kind: signer.SignCert, Index: h.add(daemon, h.want("ca", nil, nil).IssueIntent), CSR: w.csr}); r.Refused == nil || r.Refused.Code == "request.unsigned" {
		t.Errorf("the daemon's own: %+v", r.Refused)
	}
}

// old has the request signed at another time.
func (h signingHall) old(w *wanted, by time.Duration) {
	w.Request.At = w.Request.At.Add(by)
	w.Request.Signature = ed25519.Sign(h.key, audit.SignedText(h.room.fingerprint(), "provisioning", w.Request.At, w.Request.Body))
}

// TestSignedRenewal: the names are those of the certificate that the request names.
func TestSignedRenewal(t *testing.T) {
	h := newSigningHall(t)
	old := h.want("alice", nil, func(w *wanted) { w.Request = h.issue("alice", "r-alice") })
	if r := h.signCert(old); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	renew := func(w *wanted) {
		w.RequestID, w.Renews = "r-2", old.Serial
		w.Request = h.request(`{"method":"ca.renew","params":{"serial":%q,"request_id":"r-2"}}`, string(old.Serial))
	}
	for name, w := range map[string]wanted{
		"another name":   h.want("mallory", nil, renew),
		"a further name": h.want("alice", func(w *wanted) { w.SANs.Email = []string{"mallory@example.org"} }, renew),
		"another purpose": h.want("alice", func(w *wanted) { w.Purpose, w.Issuer = cert.Caller, "callers" }, func(w *wanted) {
			renew(w)
			w.Request = h.request(`{"method":"ca.renew","params":{"serial":%q,"request_id":"r-2"}}`, string(old.Serial))
		}),
		"of another":        h.want("alice", nil, func(w *wanted) { renew(w); w.Renews = w.Serial }),
		"asked as an issue": h.want("alice", nil, func(w *wanted) { renew(w); w.Renews = "" }),
		"of nothing we know": h.want("alice", nil, func(w *wanted) {
			renew(w)
			w.Request = h.request(`{"method":"ca.renew","params":{"serial":"77","request_id":"r-2"}}`)
			w.Renews = "77"
		}),
	} {
		if r := h.signCert(w); r.Refused == nil || r.Refused.Code != "request.other" {
			t.Errorf("%s: %+v", name, r.Refused)
		}
	}
	if r := h.signCert(h.want("alice", nil, renew)); r.Refused != nil {
		t.Error(r.Refused)
	}
}

// TestSignedRenewalOfThePast: what is on hold, or has ended, is not renewed, whoever keeps the request.
func TestSignedRenewalOfThePast(t *testing.T) {
	h := newSigningHall(t)
	renew := func(id string, old wanted) wanted {
		return h.want("alice", nil, func(w *wanted) {
			w.RequestID, w.Renews = id, old.Serial
			w.Request = h.request(`{"method":"ca.renew","params":{"cn":"alice","request_id":%q}}`, id)
		})
	}
	old := h.want("alice", nil, func(w *wanted) { w.Request = h.issue("alice", "r-alice") })
	if r := h.signCert(old); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	h.revoke(old.Serial, cert.CertificateHold)
	if r := h.signCert(renew("r-2", old)); r.Refused == nil || r.Refused.Code != "request.other" {
		t.Errorf("on hold: %+v", r.Refused)
	}
	h.add(daemon, &audit.ReleaseDone{RequestID: "r-3", Released: []audit.Release{{Serial: old.Serial, Issuer: "users"}}})
	if r := h.signCert(renew("r-4", old)); r.Refused != nil {
		t.Error(r.Refused)
	}
	h.clock.step(31 * 24 * time.Hour)
	if r := h.signCert(renew("r-5", old)); r.Refused == nil || r.Refused.Code != "request.other" {
		t.Errorf("expired: %+v", r.Refused)
	}
}

// TestSignedIssueStaysSpent: no other leaf makes a request good for another certificate.
func TestSignedIssueStaysSpent(t *testing.T) {
	h := newSigningHall(t)
	honest := h.issue("alice", "r-alice")
	if r := h.signCert(h.want("alice", nil, func(w *wanted) { w.Request = honest })); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	for _, kind := range []audit.ActorKind{audit.ByDaemon, audit.ByCaller} {
		h.add(audit.Actor{Kind: kind, Name: alice.Name}, &audit.ReleaseDone{RequestID: "r-alice", Request: honest})
		if r := h.signCert(h.want("alice", nil, func(w *wanted) { w.Request = honest })); r.Refused == nil || r.Refused.Code != "request.spent" {
			t.Errorf("after a release by a %s: %+v", kind, r.Refused)
		}
	}
}

// TestSignedReleases: a hold ends in the name of a caller who signs only as that caller asked, once; what was
// ignored stays ignored when the keys are gone from the configuration, and what counted counts.
func TestSignedReleases(t *testing.T) {
	h := newSigningHall(t)
	w := h.want("alice", nil, func(w *wanted) { w.Request = h.issue("alice", "r-alice") })
	if r := h.signCert(w); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	number := 0
	held := func() bool {
		t.Helper()
		number++
		l, err := list.Parse(h.list(fmt.Sprint(number)))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(fmt.Sprint(l.Entries), string(w.Serial))
	}
	release := func(id string, request *audit.SignedRequest) {
		h.add(alice, &audit.ReleaseDone{RequestID: id, Rule: "test", Released: []audit.Release{{Serial: w.Serial, Issuer: "users"}}, Request: request})
	}
	early := h.request(`{"method":"ca.release","params":{"cn":"alice","request_id":"r-2"}}`)
	h.clock.step(6 * time.Minute)
	h.revoke(w.Serial, cert.CertificateHold)
	good := h.request(`{"method":"ca.release","params":{"cn":"alice","request_id":"r-3"}}`)
	for name, add := range map[string]func(){
		"not signed":     func() { release("r-3", nil) },
		"another name":   func() { release("r-3", h.request(`{"method":"ca.release","params":{"cn":"bob","request_id":"r-3"}}`)) },
		"another id":     func() { release("r-4", good) },
		"another method": func() { release("r-3", h.request(`{"method":"ca.hold","params":{"cn":"alice","request_id":"r-3"}}`)) },
		"a plan": func() {
			release("r-3", h.request(`{"method":"ca.release","params":{"cn":"alice","request_id":"r-3","plan":true}}`))
		},
		"another purpose": func() {
			release("r-3", h.request(`{"method":"ca.release","params":{"cn":"alice","purpose":"server","request_id":"r-3"}}`))
		},
		"more than were asked for": func() {
			h.add(alice, &audit.ReleaseDone{RequestID: "r-3", Released: []audit.Release{{Serial: w.Serial}, {Serial: w.Serial}},
				Request: h.request(`{"method":"ca.release","params":{"cn":"alice","max":1,"request_id":"r-3"}}`)})
		},
		"signed before the hold": func() { release("r-2", early) },
		"to another installation": func() {
			r := *good
			r.Signature = ed25519.Sign(h.key, audit.SignedText(cert.FingerprintOf(nil), "provisioning", r.At, r.Body))
			release("r-3", &r)
		},
		"another caller's": func() {
			r := *good
			r.Signature = ed25519.Sign(h.key, audit.SignedText(h.room.fingerprint(), "somebody", r.At, r.Body))
			release("r-3", &r)
		},
	} {
		if add(); !held() {
			t.Fatalf("%s: the hold has ended", name)
		}
	}
	release("r-3", good)
	if held() {
		t.Fatal("the hold has not ended")
	}
	h.revoke(w.Serial, cert.CertificateHold)
	release("r-3", good)
	if !held() {
		t.Fatal("one request ended two holds")
	}
	before := h.room.Hello().State
	h.config.Callers = nil
	h.restart()
	h.equal(before)
	if !held() {
		t.Error("what was ignored counts now")
	}
}

// TestSigningKeysAreChecked: a key that cannot be one is found before the room starts.
func TestSigningKeysAreChecked(t *testing.T) {
	of := func(kind cert.KeyType) []string {
		key, err := cert.GenerateKey(rand.Reader, kind)
		if err != nil {
			t.Fatal(err)
		}
		return []string{signingKey(t, key.Public())}
	}
	good := of(cert.P256)
	if all, err := (&Config{Callers: []SigningCaller{{"a", good}, {"b", good}}}).signers(); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	for name, callers := range map[string][]SigningCaller{
		"no name":             {{"", good}},
		"twice":               {{"a", good}, {"a", good}},
		"no key":              {{"a", nil}},
		"no base64":           {{"a", []string{"?"}}},
		"no key in":           {{"a", []string{"AAAA"}}},
		"RSA":                 {{"a", of(cert.RSA2048)}},
		"P-384":               {{"a", of(cert.P384)}},
		"no name of a caller": {{"HR", good}},
	} {
		if _, err := (&Config{Callers: callers}).signers(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// signingKey is a public key as the configurations have it.
func signingKey(t *testing.T, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// TestIDOfARefusedIssueIsFree: nothing came of a request that was refused, so its id serves for a release, once.
func TestIDOfARefusedIssueIsFree(t *testing.T) {
	h := newSigningHall(t)
	w := h.want("alice", nil, func(w *wanted) { w.Request = h.issue("alice", "r-alice") })
	if r := h.signCert(w); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	if r := h.signCert(h.want("bob", nil, func(w *wanted) { w.RequestID, w.Request = "r-3", h.issue("carol", "r-3") })); r.Refused == nil {
		t.Fatal("signed for another name")
	}
	release := h.request(`{"method":"ca.release","params":{"cn":"alice","request_id":"r-3"}}`)
	for number, want := range []int{0, 1} {
		h.revoke(w.Serial, cert.CertificateHold)
		h.add(alice, &audit.ReleaseDone{RequestID: "r-3", Rule: "test", Released: []audit.Release{{Serial: w.Serial, Issuer: "users"}}, Request: release})
		if l, err := list.Parse(h.list(fmt.Sprint(number + 1))); err != nil || len(l.Entries) != want {
			t.Errorf("release %d: %d entries, %v; want %d", number+1, len(l.Entries), err, want)
		}
	}
}

// TestSignedRetry: secrets of a caller who signs are opened for a retry that this caller has just signed, and for
// nothing else, whatever the daemon says of it.
func TestSignedRetry(t *testing.T) {
	h := newSigningHall(t)
	secrets := []byte("a key and a password")
	var sealed []byte
	w := h.want("alice", nil, func(w *wanted) {
		w.Request = h.issue("alice", "r-alice")
		var err error
		binding := signer.Binding{Caller: alice.Name, RequestID: w.RequestID, BodySHA256: w.BodySHA256}
		if sealed, err = signer.Seal(h.room.Hello().State.Delivery.Public, binding, secrets); err != nil {
			t.Fatal(err)
		}
		w.SealedSHA256 = cert.SHA256(sealed)
	})
	index := h.add(alice, w.IssueIntent)
	if r := h.ask(signer.Call{Kind: signer.SignCert, Index: index, CSR: w.csr}); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	open := func(request *audit.SignedRequest) signer.Result {
		t.Helper()
		leaf := h.add(alice, &audit.IssueRedelivered{
			Serial: w.Serial, Intent: index, RequestID: w.RequestID, SealedSHA256: w.SealedSHA256, Room: h.config.Room, Request: request,
		})
		return h.ask(signer.Call{Kind: signer.Open, Index: leaf, Sealed: sealed})
	}
	h.clock.step(time.Hour)
	at := func(root cert.Fingerprint, caller string, off time.Duration) *audit.SignedRequest {
		r := h.issue("alice", "r-alice")
		r.At = r.At.Add(off)
		r.Signature = ed25519.Sign(h.key, audit.SignedText(root, caller, r.At, r.Body))
		return r
	}
	longer := h.issue("alice", "r-alice")
	longer.Body = append(longer.Body, ' ')
	root := h.room.fingerprint()
	for name, c := range map[string]struct {
		code    string
		request *audit.SignedRequest
	}{
		"not signed":           {"request.unsigned", nil},
		"the first request":    {"request.time", w.Request},
		"old":                  {"request.time", at(root, alice.Name, -6*time.Minute)},
		"from tomorrow":        {"request.time", at(root, alice.Name, 6*time.Minute)},
		"another body":         {"request.signature", longer},
		"another installation": {"request.signature", at(cert.FingerprintOf(nil), alice.Name, 0)},
		"another caller's":     {"request.signature", at(root, "somebody", 0)},
		"another name":         {"request.other", h.issue("mallory", "r-alice")},
		"another id":           {"request.other", h.issue("alice", "r-other")},
		"another method":       {"request.other", h.request(`{"method":"ca.status","params":{"cn":"alice","request_id":"r-alice"}}`)},
		"a renewal":            {"request.other", h.request(`{"method":"ca.renew","params":{"cn":"alice","request_id":"r-alice"}}`)},
		"a plan":               {"request.other", h.request(`{"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"r-alice","plan":true}}`)},
	} {
		t.Run(name, func(t *testing.T) {
			if r := open(c.request); r.Secrets != nil || r.Refused == nil || r.Refused.Code != c.code {
				t.Errorf("%q, %+v; want %s", r.Secrets, r.Refused, c.code)
			}
		})
	}
	for range 2 { // its answer may be lost as well
		if r := open(h.issue("alice", "r-alice")); !bytes.Equal(r.Secrets, secrets) {
			t.Errorf("signed anew: %+v", r.Refused)
		}
	}
	h.revoke(w.Serial, cert.CertificateHold)
	if r := open(h.issue("alice", "r-alice")); !bytes.Equal(r.Secrets, secrets) {
		t.Errorf("on hold: %+v", r.Refused)
	}
	for _, kind := range []audit.ActorKind{audit.ByOperator, audit.ByDaemon, audit.ByCeremony} {
		// The secrets are sealed to a name, and somebody else is given that name.
		who := audit.Actor{Kind: kind, Name: alice.Name}
		other := h.want("mallory", nil, func(o *wanted) {
			o.RequestID, o.BodySHA256, o.SealedSHA256 = w.RequestID, w.BodySHA256, w.SealedSHA256
		})
		index := h.add(who, other.IssueIntent)
		h.ask(signer.Call{Kind: signer.SignCert, Index: index, CSR: other.csr})
		leaf := h.add(who, &audit.IssueRedelivered{
			Serial: other.Serial, Intent: index, RequestID: w.RequestID, SealedSHA256: w.SealedSHA256, Room: h.config.Room,
		})
		if r := h.ask(signer.Call{Kind: signer.Open, Index: leaf, Sealed: sealed}); r.Secrets != nil || r.Refused.Code != "request.unsigned" {
			t.Errorf("a namesake of kind %s: %q, %+v", kind, r.Secrets, r.Refused)
		}
	}
}
