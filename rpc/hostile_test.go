package rpc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

func xmlCall(method, params string) string {
	return "<?xml version=\"1.0\"?><methodCall><methodName>" + method + "</methodName><params>" + params + "</params></methodCall>"
}

func xmlParam(members string) string {
	return "<param><value><struct>" + members + "</struct></value></param>"
}

func xmlMember(name, value string) string {
	return "<member><name>" + name + "</name><value>" + value + "</value></member>"
}

// TestHostileBodies: each gets one fault with the right number, leaves one record, and issues nothing.
func TestHostileBodies(t *testing.T) {
	w := newWorld(t)
	h := w.browser(w.caller("provisioning"))
	alice := xmlMember("purpose", "user") + xmlMember("cn", "alice")
	good := xmlCall("ca.issue", xmlParam(alice))
	wide := utf16.Encode([]rune(good))
	var utf16le bytes.Buffer
	for _, u := range append([]uint16{0xfeff}, wide...) {
		utf16le.Write([]byte{byte(u), byte(u >> 8)})
	}
	bomb := `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>` + strings.TrimPrefix(good, `<?xml version="1.0"?>`)
	signed := w.signatures()
	for _, c := range []struct {
		what, body string
		number     int
		code       string
	}{
		{"nothing", "", -32700, "malformed"},
		{"not well formed", strings.Replace(good, "</struct>", "", 1), -32700, "malformed"},
		{"cut", good[:len(good)-20], -32700, "malformed"},
		{"DTD", bomb, -32600, "malformed"},
		{"external entity", `<!DOCTYPE x SYSTEM "file:///etc/passwd">` + good, -32600, "malformed"},
		{"nesting", xmlCall("ca.issue", "<param>"+strings.Repeat("<value><array><data>", 500)+strings.Repeat("</data></array></value>", 500)+"</param>"), -32600, "malformed"},
		{"10 MB", xmlCall("ca.issue", xmlParam(alice+xmlMember("csr", strings.Repeat("A", 10<<20)))), -32600, "http.body"},
		{"second root", good + good, -32700, "malformed"},
		{"trailing", good + "x", -32700, "malformed"},
		{"duplicate member", xmlCall("ca.issue", xmlParam(alice+xmlMember("cn", "bob"))), -32600, "malformed"},
		{"duplicate methodName", strings.Replace(good, "<params>", "<methodName>ca.revoke</methodName><params>", 1), -32600, "malformed"},
		{"attribute", strings.Replace(good, "<params>", `<params a="1">`, 1), -32600, "malformed"},
		{"UTF-16", utf16le.String(), -32701, "malformed"},
		{"bad character", strings.Replace(good, "alice", "al\xffice", 1), -32702, "malformed"},
		{"nil", xmlCall("ca.issue", xmlParam(alice+xmlMember("plan", "<nil/>"))), -32600, "malformed"},
		{"no such method", strings.Replace(good, "ca.issue", "ca.destroy", 1), -32601, "method.unknown"},
		{"no parameter", xmlCall("ca.issue", ""), -32602, "params.invalid"},
		{"two parameters", xmlCall("ca.issue", xmlParam(alice)+xmlParam(alice)), -32602, "params.invalid"},
		{"unknown member", xmlCall("ca.issue", xmlParam(alice+xmlMember("is_ca", "<boolean>1</boolean>"))), -32602, "params.invalid"},
		{"wrong type", xmlCall("ca.issue", xmlParam(xmlMember("purpose", "user")+xmlMember("cn", "<int>1</int>"))), -32602, "params.invalid"},
		{"help for nothing", xmlCall("system.methodHelp", "<param><value>ca.destroy</value></param>"), -32602, "params.invalid"},
		{"list with more", xmlCall("system.listMethods", xmlParam(alice)), -32602, "params.invalid"},
	} {
		from := w.head()
		status, text := w.post(h, "/RPC2", "text/xml", strings.NewReader(c.body))
		_, err := xmlrpc.DecodeResponse([]byte(text))
		f, ok := err.(*xmlrpc.Fault)
		if status != 200 || !ok || f.Code != c.number {
			t.Errorf("%s: HTTP %d, %v, want fault %d", c.what, status, err, c.number)
			continue
		}
		who, r := w.refusal(from)
		if r.Code != c.code || !strings.Contains(f.Message, r.Reason) || who.Name != "provisioning" || r.RequestID == "" {
			t.Errorf("%s: the log says %+v by %+v, the fault %q", c.what, r, who, f.Message)
		}
	}
	if n := w.signatures(); n != signed {
		t.Errorf("%d signatures more", n-signed)
	}
}

// TestTooLong: a client that writes all of its call before it reads gets the answer as well.
func TestTooLong(t *testing.T) {
	w := newWorld(t)
	big := object{"purpose": "user", "cn": "alice", "csr": strings.Repeat("A", 10<<20)}
	out := w.python(w.caller("provisioning"), []any{"ca.issue", big}, []any{"system.listMethods"})
	if f := out[0].Fault; len(f) != 2 || f[0] != float64(-32600) || f[1] != "the body is longer than 65536 bytes" {
		t.Errorf("%+v", out[0])
	}
	if out[1].Result == nil {
		t.Errorf("and then %+v", out[1])
	}
}

// TestJSONFaults: the other codec, for what only it can get wrong.
func TestJSONFaults(t *testing.T) {
	w := newWorld(t)
	h := w.browser(w.caller("provisioning"))
	for _, c := range []struct {
		body string
		want string
		code string
	}{
		{`{`, `{"error":{"code":-32700,"message":"the body is not one JSON text"},"id":null,"jsonrpc":"2.0"}`, "malformed"},
		{`{"jsonrpc":"2.0","id":"7","method":"ca.destroy","params":[{}]}`, `{"error":{"code":-32601,"message":"there is no such method; system.listMethods tells which there are"},"id":"7","jsonrpc":"2.0"}`, "method.unknown"},
		{`{"jsonrpc":"2.0","id":7,"method":"ca.chain","params":{"purpose":null}}`, `{"error":{"code":-32602,"message":"params[0].purpose: want a string"},"id":7,"jsonrpc":"2.0"}`, "params.invalid"},
		{`[]`, `{"error":{"code":-32600,"message":"want one object; batches are not served"},"id":null,"jsonrpc":"2.0"}`, "malformed"},
	} {
		from := w.head()
		status, text := w.post(h, "/rpc", "application/json", strings.NewReader(c.body))
		if _, r := w.refusal(from); status != 200 || strings.TrimSpace(text) != c.want || r.Code != c.code {
			t.Errorf("%s: HTTP %d %s\nlog %+v", c.body, status, text, r)
		}
	}
}

// TestRefusals: what is understood and refused, over both codecs, with the same answer.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	h, c := w.browser(own), w.client(own)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	good := w.csr(key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}})
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	w.must(err)
	odd := w.csr(key, &x509.CertificateRequest{Attributes: []pkix.AttributeTypeAndValueSET{{ //nolint:staticcheck // the attribute is what is tested
		Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, Value: [][]pkix.AttributeTypeAndValue{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "x"}}},
	}}})
	user := func(cn string) object { return object{"purpose": "user", "cn": cn} }
	server := func(cn string, dns ...any) object {
		return object{"purpose": "server", "cn": cn, "sans": object{"dns": append([]any{}, dns...)}}
	}
	csr := func(der []byte) object { return object{"purpose": "user", "cn": "alice", "csr": der} }
	signed := w.signatures()
	for _, r := range []struct {
		method string
		params object
		code   string
	}{
		{"ca.issue", object{"purpose": "emperor", "cn": "alice"}, "purpose.unknown"},
		{"ca.issue", object{"purpose": "caller", "cn": "provisioning"}, "policy.denied"},
		{"ca.issue", user(""), "name.empty"},
		{"ca.issue", user(strings.Repeat("a", 65)), "name.too_long"},
		{"ca.issue", user(strings.Repeat("a", 50_000)), "name.too_long"},
		{"ca.issue", user("alice\nbob"), "name.control"},
		{"ca.issue", user("alice\u202ebob"), "name.invisible"},
		{"ca.issue", user("al\u00adice"), "name.invisible"},
		{"ca.issue", user("\u0430lice"), "name.mixed_scripts"},
		{"ca.issue", user("../alice"), "name.characters"},
		{"ca.issue", user("alice,dc=org"), "name.characters"},
		{"ca.issue", user("alice)(cn=*"), "name.characters"},
		{"ca.issue", user("*"), "name.wildcard"},
		{"ca.issue", user(" alice"), "name.space"},
		{"ca.issue", user("alice "), "name.space"},
		{"ca.issue", user("root"), "name.reserved"},
		{"ca.issue", server("*.example.org"), "name.wildcard"},
		{"ca.issue", server("under_score.example.org"), "name.underscore"},
		{"ca.issue", server("192.0.2.1"), "name.ip_as_dns"},
		{"ca.issue", server("www.example.org", "192.0.2.1"), "name.ip_as_dns"},
		{"ca.issue", server("www.example.org", "xn--a.example.org"), "name.alabel"},
		{"ca.issue", server("www.example.org", "www.example.com"), "policy.denied"},
		{"ca.issue", server("www.example.com"), "policy.denied"},
		{"ca.issue", object{"purpose": "server", "cn": "www.example.org", "sans": object{"ip": []any{"198.51.100.1"}}}, "policy.denied"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "sans": object{"email": []any{"alice@example.com"}}}, "policy.denied"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "sans": object{"uri": []any{"http://example.org"}}}, "name.san_type"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "a b"}, "request_id.malformed"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "request_id": strings.Repeat("a", 129)}, "request_id.malformed"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "key_type": "P-521"}, "key.type"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "key_type": "P-256", "csr": good}, "key.type"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "valid_days": 100_000}, "validity.days"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "valid_days": -1}, "validity.days"},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "valid_days": -1, "plan": true}, "validity.days"},
		{"ca.issue", csr([]byte("hello")), "csr.malformed"},
		{"ca.issue", csr(forged), "csr.signature"},
		{"ca.issue", csr(w.csr(small, &x509.CertificateRequest{})), "key.rsa_size"},
		{"ca.issue", csr(w.exponentOne()), "key.rsa_exponent"},
		{"ca.issue", csr(odd), "csr.attributes"},
		{"ca.issue", object{"purpose": "user", "cn": "bob", "csr": good}, "csr.other_name"},
		{"ca.revoke", object{}, "selection"},
		{"ca.revoke", object{"serial": "7", "cn": "alice"}, "selection"},
		{"ca.revoke", object{"serial": "7", "purpose": "user"}, "selection"},
		{"ca.revoke", object{"serial": "xyz"}, "serial.malformed"},
		{"ca.revoke", object{"serial": "7f"}, "certificate.unknown"},
		{"ca.revoke", object{"cn": "nobody"}, "certificate.unknown"},
		{"ca.revoke", object{"cn": "nobody", "purpose": "caller"}, "policy.denied"},
		{"ca.revoke", object{"cn": "nobody", "reason": "boredom"}, "reason.unknown"},
		{"ca.revoke", object{"cn": "nobody", "max": 1001}, "revoke.max"},
		{"ca.revoke", object{"cn": "nobody", "max": -1}, "revoke.max"},
		{"ca.status", object{}, "selection"},
		{"ca.status", object{"cn": "a\x7f"}, "name.control"},
		{"ca.chain", object{"purpose": "caller"}, "policy.denied"},
	} {
		what := fmt.Sprintf("%s %.100s", r.method, asJSON(t, r.params))
		from := w.head()
		body, err := xmlrpc.EncodeCall(xmlrpc.Call{Method: r.method, Params: []any{r.params}})
		w.must(err)
		_, text := w.post(h, "/RPC2", "text/xml; charset=utf-8", bytes.NewReader(body))
		value, err := xmlrpc.DecodeResponse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		list := value.([]any)
		d := list[2].(map[string]any)
		who, leaf := w.refusal(from)
		if list[0] != false || d["code"] != r.code || d["log_index"] != int(from) || d["request_id"] != leaf.RequestID {
			t.Errorf("%s: %v, want %s at %d as %s", what, value, r.code, from, leaf.RequestID)
		}
		if leaf.Code != r.code || leaf.Method != r.method || leaf.Reason != list[1] || who.Name != "provisioning" || len(who.Key) != 64 {
			t.Errorf("%s: the log says %+v by %+v", what, leaf, who)
		}
		var a client.Answer
		w.must(c.Call(t.Context(), r.method, r.params, &a))
		if a.OK || a.Msg != list[1] || detail(t, a)["code"] != r.code {
			t.Errorf("%s: over JSON %s %s", what, a.Msg, a.Detail)
		}
		if _, second := w.refusal(from + 1); second.BodySHA256 != leaf.BodySHA256 {
			t.Errorf("%s: the codecs hash the body differently", what)
		}
		if strings.Trim(a.Msg, printable()) != "" {
			t.Errorf("%s: %q is not ASCII", what, a.Msg)
		}
	}
	// XML cannot carry this one.
	var a client.Answer
	w.must(c.Call(t.Context(), "ca.issue", user("ali\x00ce"), &a))
	if a.OK || detail(t, a)["code"] != "name.control" {
		t.Errorf("NUL: %s %s", a.Msg, a.Detail)
	}
	if n := w.signatures(); n != signed {
		t.Errorf("%d signatures more", n-signed)
	}
	if n := w.logged.Len(); n != 0 {
		t.Errorf("the operational log has %v", w.logged.All())
	}
}

func printable() string {
	var b strings.Builder
	for r := ' '; r <= '~'; r++ {
		b.WriteRune(r)
	}
	return b.String()
}

func (w *world) csr(key any, template *x509.CertificateRequest) []byte {
	w.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	w.must(err)
	return der
}

// exponentOne is a request for an RSA key with exponent 1, under which everything is its own signature.
func (w *world) exponentOne() []byte {
	w.Helper()
	return w.spoiled(func(k *rsa.PublicKey) { k.E = 1 })
}

// spoiled is a request for an RSA key that is not the one that signed it.
func (w *world) spoiled(spoil func(*rsa.PublicKey)) []byte {
	w.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	w.must(err)
	var request struct {
		Info struct {
			Version    int
			Subject    asn1.RawValue
			Key        asn1.RawValue
			Attributes asn1.RawValue
		}
		Algorithm asn1.RawValue
		Signature asn1.RawValue
	}
	_, err = asn1.Unmarshal(w.csr(key, &x509.CertificateRequest{}), &request)
	w.must(err)
	public := key.PublicKey
	spoil(&public)
	spki, err := x509.MarshalPKIXPublicKey(&public)
	w.must(err)
	request.Info.Key = asn1.RawValue{FullBytes: spki}
	der, err := asn1.Marshal(request)
	w.must(err)
	return der
}
