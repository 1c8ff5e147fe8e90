package rpc

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/rpc/client"
)

// signingKey makes a key with openssl and gives it, its public part as the configurations have it, and a file with that.
func (w *world) signingKey(kind ...string) (key crypto.Signer, public, file string) {
	w.Helper()
	der := w.tool(nil, append([]string{"openssl", "genpkey", "-outform", "DER"}, kind...)...)
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil { // openssl writes keys of curves in their own form
		private, err = x509.ParseECPrivateKey(der)
	}
	w.must(err)
	pub := w.tool(der, "openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER")
	file = w.write(fmt.Sprintf("signing%d.pem", len(pub)), string(w.tool(pub, "openssl", "pkey", "-pubin", "-inform", "DER", "-pubout")))
	return private.(crypto.Signer), base64.StdEncoding.EncodeToString(pub), file
}

var (
	edwards = []string{"-algorithm", "ED25519"}
	p256    = []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}
)

// signingConfig has the requests of provisioning signed.
func signingConfig(keys ...string) Config {
	c := testConfig()
	c.Callers[0].SigningKeys = keys
	return c
}

// wantSigned has both halves of the service want the requests of provisioning signed.
func (r *room) wantSigned(keys ...string) {
	r.apply(signingConfig(keys...), false)
	r.open(func(c *keyroom.Config) {
		c.Callers = []keyroom.SigningCaller{{Name: "provisioning", SigningKeys: keys}}
	})
}

// TestSignedRequest: a caller who signs gets what it asks for, from both halves of the service, and the log proves to
// anybody that it asked.
func TestSignedRequest(t *testing.T) {
	r := newRoom(t, new(sync.Map))
	c := r.client
	one, public1, file1 := r.signingKey(edwards...)
	two, public2, file2 := r.signingKey(p256...)
	r.wantSigned(public1, public2)
	for i, key := range []crypto.Signer{one, two} {
		c.Sign(r.rootCertificate(), "provisioning", key)
		from := r.head()
		id := fmt.Sprint("id-", i)
		var first, again client.Answer
		r.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": id, "request_id": id}, &first))
		r.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": id, "request_id": id}, &again))
		if !first.OK || !again.OK || detail(t, first)["password"] != detail(t, again)["password"] {
			t.Fatalf("%s; %s", first.Msg, again.Msg)
		}
		leaf := r.since(from)[0]
		request := leaf.Event.(*audit.IssueIntent).Request
		if first := request; !r.proven(from, "issue.redelivered", key.Public(), first) {
			t.Error("the retry does not stand on the log as it was signed anew")
		}
		if !strings.Contains(string(request.Body), `"cn":"`+id+`"`) {
			t.Errorf("the log has %s", request.Body)
		}
		text := r.write("text", string(audit.SignedText(r.authority.Root(), "provisioning", request.At, request.Body)))
		signature := r.write("signature", string(request.Signature))
		if i == 0 {
			r.tool(nil, "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", file1, "-rawin", "-in", text, "-sigfile", signature)
		} else {
			r.tool(nil, "openssl", "dgst", "-sha256", "-verify", file2, "-signature", signature, text)
		}
		for _, call := range []struct {
			method string
			params object
		}{
			{"ca.renew", object{"cn": id, "request_id": id + "-r"}},
			{"ca.status", object{"cn": id}},
			{"ca.whoami", object{}},
			{"ca.hold", object{"cn": id, "request_id": id + "-h"}},
			{"ca.release", object{"cn": id, "request_id": id + "-l"}},
			{"ca.revoke", object{"cn": id, "request_id": id + "-v"}},
		} {
			var a client.Answer
			if r.must(c.Call(t.Context(), call.method, call.params, &a)); !a.OK {
				t.Errorf("%s: %s", call.method, a.Msg)
			}
		}
		for _, leaf := range r.since(from) {
			switch e := leaf.Event.(type) {
			case *audit.RevokeDone:
				request = e.Request
			case *audit.ReleaseDone:
				request = e.Request
			default:
				continue
			}
			if request == nil || request.Verify(r.authority.Root(), "provisioning", []crypto.PublicKey{key.Public()}) != nil {
				t.Errorf("%s stands on the log with %+v", leaf.Event.Type(), request)
			}
		}
	}
}

// rootCertificate is that of the world's installation.
func (w *world) rootCertificate() *x509.Certificate {
	w.Helper()
	chain, err := w.authority.Chain(cert.User)
	w.must(err)
	root, err := x509.ParseCertificate(chain.Certificates[len(chain.Certificates)-1])
	w.must(err)
	return root
}

// TestUnsignedRequest: nothing is done for a caller who signs if a request is not signed by it, now, as it is.
func TestUnsignedRequest(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	h := w.browser(own)
	key, public, _ := w.signingKey(edwards...)
	other, _, _ := w.signingKey(edwards...)
	w.apply(signingConfig(public), false)
	const body = `{"jsonrpc":"2.0","id":1,"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"one"}}`
	sign := func(key crypto.Signer, root cert.Fingerprint, caller string, at time.Time, body string) string {
		signature, err := key.Sign(rand.Reader, audit.SignedText(root, caller, at, []byte(body)), crypto.Hash(0))
		w.must(err)
		return fmt.Sprintf("%d %s", at.Unix(), base64.StdEncoding.EncodeToString(signature))
	}
	now, root := w.now(), w.authority.Root()
	good := sign(key, root, "provisioning", now, body)
	ask := func(path, kind, body, word string, headers ...string) {
		t.Helper()
		from := w.head()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+path, bytes.NewReader([]byte(body)))
		w.must(err)
		r.Header.Set("Content-Type", kind)
		for _, one := range headers {
			r.Header.Add(SignatureHeader, one)
		}
		_, answer := w.do(h, r)
		if _, refused := w.refusal(from); !strings.Contains(answer, "4011") || refused.Code != word {
			t.Errorf("%s: %s (%s)", word, answer, refused.Code)
		}
	}
	const jsonType = "application/json"
	ask("/rpc", jsonType, body, "signature.missing")
	ask("/rpc", jsonType, body, "signature.missing", good, good)
	ask("/rpc", jsonType, body, "signature.malformed", "")
	ask("/rpc", jsonType, body, "signature.malformed", "x"+good)
	ask("/rpc", jsonType, body, "signature.malformed", good+"?")
	ask("/rpc", jsonType, body+" ", "signature.wrong", good)
	ask("/rpc", jsonType, strings.Replace(body, "alice", "mallo", 1), "signature.wrong", good)
	ask("/rpc", jsonType, body, "signature.wrong", sign(other, root, "provisioning", now, body))
	ask("/rpc", jsonType, body, "signature.wrong", sign(key, root, "slow", now, body))
	ask("/rpc", jsonType, body, "signature.wrong", sign(key, cert.FingerprintOf(nil), "provisioning", now, body)) // another installation
	ask("/rpc", jsonType, body, "signature.wrong", fmt.Sprint(now.Unix()+1)+good[strings.Index(good, " "):])
	for _, off := range []time.Duration{-6 * time.Minute, 6 * time.Minute, -1e6 * time.Hour, 1e6 * time.Hour} {
		ask("/rpc", jsonType, body, "signature.time", sign(key, root, "provisioning", now.Add(off), body))
	}
	long := strings.Replace(body, "{", "{"+strings.Repeat(" ", audit.MaxSignedBody), 1)
	ask("/rpc", jsonType, long, "signature.body", sign(key, root, "provisioning", now, long))
	xml := `<methodCall><methodName>ca.whoami</methodName><params><param><value><struct></struct></value></param></params></methodCall>`
	ask("/RPC2", "text/xml", xml, "signature.transport", sign(key, root, "provisioning", now, xml))
	several := `{"jsonrpc":"2.0","id":1,"method":"system.multicall","params":[[{"methodName":"ca.whoami","params":[{}]}]]}`
	ask("/rpc", jsonType, several, "signature.multicall", sign(key, root, "provisioning", now, several))
	if _, found, err := w.store.Request(t.Context(), "provisioning", "one"); err != nil || found {
		t.Errorf("%v, %v", found, err)
	}

	// The same caller, the same connection, and a signature that is one.
	c := w.client(own)
	c.Sign(w.rootCertificate(), "provisioning", key)
	var a client.Answer
	w.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "one"}, &a))
	if !a.OK {
		t.Error(a.Msg)
	}
	c.Sign(w.rootCertificate(), "provisioning", other)
	var f *client.Fault
	if err := c.Call(t.Context(), "ca.whoami", object{}, &a); !errors.As(err, &f) || f.Code != codeUnsigned {
		t.Errorf("%v", err)
	}
}

// refusedUnsigned provokes what only callers who sign can meet.
func refusedUnsigned(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	key, public, _ := r.signingKey(edwards...)
	_, other, _ := r.signingKey(edwards...)
	early, one := object{"purpose": "server", "cn": "WWW.example.org", "request_id": "zero"}, user("alice", "request_id", "one")
	r.ask("ca.issue", early, "issued")
	r.wantSigned(public)
	r.client.Sign(r.rootCertificate(), "provisioning", key)
	r.ask("ca.issue", user("alice"), "request_id.missing")
	r.ask("ca.issue", object{"purpose": "server", "cn": "WWW.example.org", "request_id": "one"}, "request.spelling")
	r.sealed(early, "request.spelling")
	r.ask("ca.issue", one, "issued")
	r.ask("ca.hold", object{"cn": "alice", "request_id": "held"}, "held")
	r.drift = time.Hour
	r.wantSigned(public)
	r.ask("ca.issue", user("alice", "request_id", "two"), "keyroom.request.time")
	r.sealed(one, "keyroom.request.time")
	r.drift = 0
	r.wantSigned(other)
	r.apply(signingConfig(public), false)
	r.ask("ca.issue", user("alice", "request_id", "two"), "keyroom.request.signature")
	r.sealed(one, "keyroom.request.signature")
	before := r.head()
	release := object{"cn": "alice", "request_id": "two"}
	r.ask("ca.release", release, "keyroom.request.signature")
	r.apply(testConfig(), false)
	r.ask("ca.issue", user("alice", "request_id", "two"), "keyroom.request.unsigned")
	r.sealed(one, "keyroom.request.unsigned")
	r.ask("ca.release", release, "keyroom.request.unsigned")
	// What the room would ignore does not come on the log, and the id of what it refused is free for anything.
	for _, leaf := range r.since(before) {
		if leaf.Event.Type() == "release.done" {
			t.Error("released on the log, and on no list")
		}
	}
	r.wantSigned(public)
	if d := r.ask("ca.issue", one, "issued"); d["password"] == nil {
		t.Error("the secrets are gone")
	}
	r.ask("ca.release", release, "released")
	r.ask("ca.issue", user("alice", "request_id", "three"), "issued")
}

// sealed makes a request again: its secrets are not opened, and the answer says what it has got.
func (r *room) sealed(params object, code string) {
	r.Helper()
	from := r.head()
	d := r.ask("ca.issue", params, code)
	if msg := d["msg"].(string); d["pkcs12"] != nil || !strings.Contains(msg, "was issued for this request_id, and its secrets stay sealed") {
		r.Errorf("%s: %s", code, msg)
	}
	for _, leaf := range r.since(from) {
		if leaf.Event.Type() == "issue.answering" {
			r.Errorf("%s: the log says that an answer left", code)
		}
	}
}

// proven tells whether the log has one leaf of a type from an index on, with a request of the key's that is not the
// first one.
func (r *room) proven(from int64, kind string, key crypto.PublicKey, first *audit.SignedRequest) bool {
	r.Helper()
	proven := 0
	for _, leaf := range r.since(from) {
		if request, can := audit.RequestIn(leaf.Event); leaf.Event.Type() == kind && can && request != nil &&
			request.Verify(r.authority.Root(), "provisioning", []crypto.PublicKey{key}) == nil && !bytes.Equal(request.Signature, first.Signature) {
			proven++
		}
	}
	return proven == 1
}
