package rpc

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/rpc/client"
)

// TestMainJob is the main job as a caller does it: issue over XML-RPC from Python, ask again over
// JSON-RPC and get the same, open the PKCS#12 with openssl, look, revoke, and find all of it on the log.
func TestMainJob(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	start := w.head()
	params := map[string]any{
		"purpose": "user", "cn": "Zo\u00eb Example", "request_id": "hire-1",
		"sans": map[string]any{"email": []any{"zoe@example.org"}}, "valid_days": 30,
	}
	out := w.python(own, []any{"ca.issue", params}, []any{"ca.issue", params}, []any{"ca.chain", map[string]any{"purpose": "user"}})
	ok, msg, first := out[0].answer(t)
	if !ok || !strings.Contains(msg, `for the user "Zo\u00eb Example"; hand over the PKCS#12`) || first["code"] != "issued" || first["request_id"] != "hire-1" || first["log_index"] != float64(start) {
		t.Fatalf("%v %q %v", ok, msg, first)
	}
	_, _, again := out[1].answer(t)
	if got, want := asJSON(t, again), asJSON(t, first); got != want {
		t.Errorf("the second answer differs:\n%s\n%s", got, want)
	}

	var a client.Answer
	c := w.client(own)
	w.must(c.Call(t.Context(), "ca.issue", params, &a))
	third := detail(t, a)
	if a.Msg != msg || third["pkcs12"] != first["pkcs12"].(map[string]any)["bytes"] || third["not_after"] != first["not_after"].(map[string]any)["time"] {
		t.Errorf("JSON differs from XML: %s", a.Detail)
	}
	for _, m := range []string{"serial", "issuer", "fingerprint", "certificate", "chain", "password", "request_id", "log_index"} {
		if third[m] != first[m] || first[m] == nil {
			t.Errorf("%s: JSON %v, XML %v", m, third[m], first[m])
		}
	}

	w.opens(first)
	_, _, chain := out[2].answer(t)
	if got := chain["chains"].([]any)[0].(map[string]any)["chain"]; got != first["chain"] {
		t.Errorf("ca.chain gives another chain than ca.issue:\n%v", got)
	}
	w.revokes(c, first["serial"].(string))

	var kinds []string
	for _, l := range w.since(start) {
		kinds = append(kinds, l.Event.Type())
		if l.Actor.Name != "provisioning" || len(l.Actor.Key) != 64 || !strings.HasPrefix(l.Actor.Peer, "127.0.0.1:") {
			t.Errorf("%s is by %+v", l.Event.Type(), l.Actor)
		}
	}
	want := "issue.intent issue.done issue.answering issue.redelivered issue.answering issue.redelivered issue.answering revoke.done request.refused"
	if got := strings.Join(kinds, " "); got != want {
		t.Errorf("the log says\n%s, want\n%s", got, want)
	}
	if intent := w.since(start)[0].Event.(*audit.IssueIntent); intent.Rule != "provisioning/1" || intent.CN != "Zo\u00eb Example" {
		t.Errorf("%+v", intent)
	}
}

// opens has openssl read the PKCS#12, and verify the certificate in it.
func (w *world) opens(first map[string]any) {
	w.Helper()
	p12, err := base64.StdEncoding.DecodeString(first["pkcs12"].(map[string]any)["bytes"].(string))
	w.must(err)
	p12File := w.write("zoe.p12", string(p12))
	password := "pass:" + first["password"].(string)
	leaf := w.tool(nil, "openssl", "pkcs12", "-in", p12File, "-passin", password, "-nokeys", "-clcerts")
	leafFile := w.write("zoe.pem", string(leaf))
	chain := w.write("zoe-chain.pem", first["chain"].(string))
	w.tool(nil, "openssl", "verify", "-purpose", "sslclient", "-CAfile", filepath.Join(w.dir, "root.pem"), "-untrusted", chain, leafFile)
	fingerprint := w.tool(nil, "openssl", "x509", "-in", leafFile, "-noout", "-fingerprint", "-sha256", "-serial")
	got := strings.ToLower(strings.ReplaceAll(string(fingerprint), ":", ""))
	if !strings.Contains(got, first["fingerprint"].(string)) || !strings.Contains(got, first["serial"].(string)) {
		w.Errorf("openssl says %s", fingerprint)
	}
	key := w.tool(nil, "openssl", "pkcs12", "-in", p12File, "-passin", password, "-nocerts", "-nodes")
	if pub := w.tool(key, "openssl", "pkey", "-pubout"); string(pub) != string(w.tool(leaf, "openssl", "x509", "-noout", "-pubkey")) {
		w.Error("the key in the PKCS#12 is not the certificate's")
	}
}

// revokes revokes by name, looks, and is refused a second time.
func (w *world) revokes(c *client.Client, serial string) {
	w.Helper()
	ctx := w.Context()
	var a client.Answer
	w.must(c.Call(ctx, "ca.revoke", map[string]any{"cn": "zo\u00eb example", "purpose": "user", "reason": "keyCompromise"}, &a))
	d := detail(w, a)
	revoked := d["revoked"].([]any)[0].(map[string]any)
	crl := d["crl"].([]any)[0].(map[string]any)
	if !a.OK || d["code"] != "revoked" || revoked["serial"] != serial || revoked["cn"] != "Zo\u00eb Example" || revoked["purpose"] != "user" || crl["state"] != "pending" {
		w.Errorf("%s %s", a.Msg, a.Detail)
	}
	w.must(c.Call(ctx, "ca.status", map[string]any{"serial": strings.ToUpper(serial)}, &a))
	one := detail(w, a)["certificates"].([]any)[0].(map[string]any)
	if one["state"] != "revoked" || one["reason"] != "keyCompromise" || one["request_id"] != "hire-1" {
		w.Errorf("%s", a.Detail)
	}
	w.must(c.Call(ctx, "ca.revoke", map[string]any{"serial": serial}, &a))
	if d := detail(w, a); a.OK || d["code"] != "already.revoked" || d["log_index"] != float64(w.head()-1) {
		w.Errorf("%s %s", a.Msg, a.Detail)
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
