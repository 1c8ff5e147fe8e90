package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// elsewhere is a CA that openssl keeps.
type elsewhere struct {
	*world
	dir, at string // its files are at + ".pem" and ".key"
	ForeignCA
}

const (
	onlyClient = "extendedKeyUsage=clientAuth"
	aCA        = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash"
)

func (w *world) elsewhere(name, subject string, days int) elsewhere {
	w.Helper()
	e := elsewhere{world: w, dir: w.TempDir()}
	e.at = filepath.Join(e.dir, name)
	e.selfSigned(e.at, subject, aCA, days)
	e.ForeignCA = ForeignCA{Name: name, File: e.at + ".pem", Certificate: w.leaf(e.at + ".pem")}
	return e
}

func (w *world) leaf(path string) *x509.Certificate {
	w.Helper()
	text, err := os.ReadFile(path)
	w.must(err)
	pair, err := tls.X509KeyPair(text, w.tool(nil, "cat", strings.TrimSuffix(path, ".pem")+".key"))
	w.must(err)
	return pair.Leaf
}

// newKey makes a key and a request at path, with the subject's characters in these string types.
func (e elsewhere) newKey(at, subject, types string) {
	e.Helper()
	config := at + ".cnf"
	e.must(os.WriteFile(config, []byte("[req]\ndistinguished_name=dn\nstring_mask="+types+"\n[dn]\n"), 0o600))
	e.tool(nil, "openssl", "req", "-new", "-utf8", "-config", config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", at+".key", "-out", at+".csr", "-subj", subject)
}

func (e elsewhere) selfSigned(at, subject, extensions string, days int) {
	e.Helper()
	e.newKey(at, subject, "utf8only")
	e.sign(at, extensions, days, "-signkey", at+".key")
}

func (e elsewhere) sign(at, extensions string, days int, by ...string) {
	e.Helper()
	e.must(os.WriteFile(at+".ext", []byte(extensions+"\n"), 0o600))
	e.tool(nil, append([]string{"openssl", "x509", "-req", "-in", at + ".csr", "-out", at + ".pem", "-days", strconv.Itoa(days), "-extfile", at + ".ext"}, by...)...)
}

// issue gives what it signs for a new key.
func (e elsewhere) issue(subject, extensions string, days int, types ...string) tls.Certificate {
	e.Helper()
	return e.pair(e.issueAt(subject, extensions, days, types...))
}

// issueAt says where the files are.
func (e elsewhere) issueAt(subject, extensions string, days int, types ...string) (at string) {
	e.Helper()
	at = e.next()
	e.newKey(at, subject, append(types, "utf8only")[0])
	e.sign(at, extensions, days, "-CA", e.at+".pem", "-CAkey", e.at+".key", "-CAcreateserial")
	return at
}

// own gives what somebody signs for himself.
func (e elsewhere) own(subject, extensions string, days int) tls.Certificate {
	e.Helper()
	at := e.next()
	e.selfSigned(at, subject, extensions, days)
	return e.pair(at)
}

func (e elsewhere) next() string {
	folder, err := os.MkdirTemp(e.dir, "leaf")
	e.must(err)
	return filepath.Join(folder, "own")
}

func (e elsewhere) pair(at string) tls.Certificate {
	e.Helper()
	pair, err := tls.LoadX509KeyPair(at+".pem", at+".key")
	e.must(err)
	return pair
}

// again is another certificate, self-signed, for the key of one that there is.
func (e elsewhere) again(c tls.Certificate, subject, extensions string) tls.Certificate {
	e.Helper()
	at := e.next()
	_, keyFile := e.files(c)
	e.tool(nil, "cp", keyFile, at+".key")
	e.tool(nil, "openssl", "req", "-new", "-key", at+".key", "-out", at+".csr", "-subj", subject)
	e.sign(at, extensions, 300, "-signkey", at+".key")
	return e.pair(at)
}

func pin(c tls.Certificate) Credential {
	return Credential{SPKI: cert.SHA256(c.Leaf.RawSubjectPublicKeyInfo)}
}

func with(caller string, credentials ...Credential) Caller {
	return Caller{Name: caller, Credentials: credentials, Grants: []Grant{{Methods: []string{"ca.status"}, Purposes: []cert.Purpose{cert.User}, Names: []string{"*"}}}}
}

// plus is the usual configuration with these callers.
func plus(cas []ForeignCA, callers ...Caller) Config {
	c := testConfig()
	c.ForeignCAs, c.Callers = cas, append(c.Callers, callers...)
	return c
}

// forced sends a certificate whatever the server would like to see.
func (w *world) forced(own tls.Certificate) *http.Client {
	config := w.clientTLS()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	w.Cleanup(h.CloseIdleConnections)
	return h
}

// comesIn wants a certificate to be that of a caller, and gives what it is told of itself.
func (w *world) comesIn(own tls.Certificate, caller string) map[string]any {
	w.Helper()
	c := client.New(w.url+"/rpc", w.forced(own).Transport.(*http.Transport).TLSClientConfig)
	defer c.Close()
	var a client.Answer
	if err := c.Call(w.Context(), "ca.whoami", object{}, &a); err != nil {
		w.Errorf("%s: %v", own.Leaf.Subject, err)
		return nil
	}
	d := detail(w, a)
	if d["caller"] != caller {
		w.Errorf("%s: it is %v, want %s", own.Leaf.Subject, d["caller"], caller)
	}
	return d
}

// staysOut wants the handshake to end for a cause.
func (w *world) staysOut(what string, own tls.Certificate, cause string) {
	w.Helper()
	before := w.strangers()[cause]
	if response, err := w.forced(own).Post(w.url+"/rpc", "application/json", strings.NewReader(listMethods)); err == nil {
		w.Errorf("%s: HTTP %s", what, response.Status)
		_ = response.Body.Close()
		return
	}
	for end := time.Now().Add(5 * time.Second); w.strangers()[cause] != before+1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Errorf("%s: want one more of %s, counted %v", what, cause, w.strangers())
			return
		}
	}
}

// TestForeignCAs: a caller comes in by its exact subject from the CA that is stated, and by nothing that only
// looks like it.
func TestForeignCAs(t *testing.T) {
	w := newWorld(t)
	corp := w.elsewhere("corp", "/O=Corp/CN=Issuing CA", 1000)
	double := w.elsewhere("corp-twin", "/O=Corp/CN=Issuing CA", 1000) // nobody states it
	spare := w.elsewhere("spare", "/O=Corp/CN=Other CA", 1000)
	const issuer, subject = "CN=Issuing CA,O=Corp", "CN=hr,OU=Jobs,O=Corp"
	w.apply(plus([]ForeignCA{corp.ForeignCA, spare.ForeignCA}, with("hr", Credential{Issuer: issuer, Subject: subject})), false)

	const name = "/O=Corp/OU=Jobs/CN=hr"
	d := w.comesIn(corp.issue(name, onlyClient, 300), "hr")
	if by, _ := d["credential"].(map[string]any); by["kind"] != "issuer_subject" || by["issuer"] != issuer || by["subject"] != subject || by["spki"] != nil || d["notice"] != nil {
		t.Errorf("%v", d)
	}
	w.comesIn(corp.issue(name, onlyClient, 300, "default"), "hr") // PrintableString
	w.comesIn(w.caller("provisioning"), "provisioning")

	w.staysOut("by a CA of the same name", double.issue(name, onlyClient, 300), "tls.other_ca")
	w.staysOut("by another stated CA", spare.issue(name, onlyClient, 300), "caller.unknown")
	w.staysOut("by itself", corp.own(name, onlyClient, 300), "tls.other_ca")
	w.staysOut("in our CA's name", selfMade(t, w.server.callersCA), "tls.other_ca")
	for what, other := range map[string]string{
		"another order": "/CN=hr/OU=Jobs/O=Corp", "the name alone": "/CN=hr", "our caller's name": "/CN=provisioning", "case": "/O=Corp/OU=Jobs/CN=HR",
		"more below": "/O=Corp/OU=Jobs/CN=hr/CN=x", "one RDN of two": "/O=Corp/OU=Jobs+CN=hr", "a space": "/O=Corp/OU=Jobs/CN=hr ", "no OU": "/O=Corp/CN=hr",
		"a comma": "/O=Corp/CN=hr,OU=Jobs",
	} {
		w.staysOut(what, corp.issue(other, onlyClient, 300), "caller.unknown")
	}
	w.staysOut("no EKU", corp.issue(name, "keyUsage=digitalSignature", 300), "caller.eku")
	w.staysOut("one EKU more", corp.issue(name, "extendedKeyUsage=clientAuth,emailProtection", 300), "caller.eku")
	w.staysOut("an unknown EKU more", corp.issue(name, "extendedKeyUsage=clientAuth,1.3.6.1.4.1.99999.1", 300), "caller.eku")
	w.staysOut("any EKU", corp.issue(name, "extendedKeyUsage=anyExtendedKeyUsage", 300), "caller.eku")
	w.staysOut("a server's", corp.issue(name, "extendedKeyUsage=serverAuth", 300), "tls.eku")
	w.staysOut("the CA itself", corp.pair(corp.at), "caller.eku")
	w.staysOut("the caller's own CA", w.caller("hr"), "caller.unknown") // hr has a credential, and that is not it

	sub := corp
	sub.at = corp.issueAt("/O=Corp/CN=Sub CA", aCA, 300)
	indirect := sub.issue(name, onlyClient, 300)
	indirect.Certificate = append(indirect.Certificate, w.leaf(sub.at+".pem").Raw, corp.Certificate.Raw)
	w.staysOut("by an intermediate", indirect, "tls.other_ca")

	soon := corp.issue(name, onlyClient, 3)
	h := w.forced(soon)
	if n, _ := w.list(h); n != 0 {
		t.Fatalf("fault %d", n)
	}
	w.setDays(4)
	if n, reused := w.list(h); n != 4010 || !reused {
		t.Errorf("after its end: fault %d, on the same connection: %v", n, reused)
	}
	w.staysOut("expired", soon, "tls.expired")
}

// TestForeignNames: what openssl shows of a subject is what has to be configured, whatever its characters, sets
// and string types are.
func TestForeignNames(t *testing.T) {
	w := newWorld(t)
	corp := w.elsewhere("corp", "/CN=CA, the \"one\" \\+ only", 1000)
	shows := func(c tls.Certificate, which string) string {
		certFile, _ := w.files(c)
		text := string(w.tool(nil, "openssl", "x509", "-in", certFile, "-noout", "-"+which, "-nameopt", "RFC2253"))
		return strings.TrimSuffix(strings.TrimPrefix(text, which+"="), "\n")
	}
	t61 := "#" + hex.EncodeToString([]byte("\x14\x04Zo\xeb!"))
	for i, one := range []struct{ subject, types string }{
		{"/CN=plain", "utf8only"},
		{"/O=a, b+OU=c\\+d/CN=\\/x;<y>\"z\"=#", "utf8only"},
		{"/CN=# leading and trailing ", "default"},
		{"/CN=Zo\u00eb \u4e2d/emailAddress=zoe@example.org", "utf8only"},
		{"/CN=Zo\u00eb", "pkix"},     // a BMPString
		{"/CN=Zo\u00eb!", "default"}, // a T61String
		{"/DC=org/DC=example/UID=7+CN=multi/serialNumber=12", "default"},
		{"/title=Dr/CN=more types", "default"},
	} {
		own := corp.issue(one.subject, onlyClient, 300, one.types)
		c := Credential{Issuer: shows(own, "issuer"), Subject: shows(own, "subject")}
		c.Subject = strings.NewReplacer("title=", "2.5.4.12=").Replace(c.Subject)
		if strings.Contains(one.subject, "\u00eb!") { // which openssl guesses
			c.Subject = "CN=" + t61
		}
		w.apply(plus([]ForeignCA{corp.ForeignCA}, with("named", c)), false)
		if by, _ := w.comesIn(own, "named")["credential"].(map[string]any); by == nil {
			t.Errorf("%d: %+v", i, c)
		}
		w.apply(plus([]ForeignCA{corp.ForeignCA}, with("named", Credential{Issuer: c.Issuer, Subject: "CN=more," + c.Subject})), false)
		w.staysOut(one.subject, own, "caller.unknown")
	}
}

// TestPinnedKeys: a key lets in with any certificate of its own, and nothing else does.
func TestPinnedKeys(t *testing.T) {
	w := newWorld(t)
	corp := w.elsewhere("corp", "/CN=Corp", 1000)
	alone := corp.own("/CN=anything", onlyClient, 300)
	ours, others := w.caller("ours"), w.caller("others")
	w.apply(plus([]ForeignCA{corp.ForeignCA}, with("pinned", pin(alone)), with("ours", pin(ours)), with("thief", pin(others))), false)

	if by, _ := w.comesIn(alone, "pinned")["credential"].(map[string]any); by["kind"] != "spki" || by["spki"] != pin(alone).SPKI || by["issuer"] != nil {
		t.Errorf("%v", by)
	}
	w.comesIn(corp.again(alone, "/CN=another", onlyClient), "pinned")
	w.comesIn(ours, "ours")
	w.staysOut("the same name, another key", corp.own("/CN=anything", onlyClient, 300), "tls.other_ca")
	w.staysOut("another key of ours", w.caller("ours"), "caller.unknown")
	w.staysOut("a certificate of ours for another name", others, "caller.unknown")
	w.staysOut("by nobody, in a stated CA's name", corp.again(alone, "/CN=Corp", onlyClient), "tls.other_ca")
	w.staysOut("no EKU", corp.again(alone, "/CN=a", "keyUsage=digitalSignature"), "caller.eku")
	w.staysOut("one EKU more", corp.again(alone, "/CN=a", "extendedKeyUsage=clientAuth,serverAuth"), "caller.eku")
	without := alone
	without.PrivateKey = ours.PrivateKey
	w.staysOut("without the key", without, "tls.no_proof")

	// What we revoke does not come back in a wrapping of its own.
	again := corp.again(ours, "/CN=ours", onlyClient)
	w.comesIn(again, "ours")
	w.revokeNow(serialOf(ours))
	w.staysOut("revoked", ours, "caller.revoked")
	w.staysOut("its key in another certificate", again, "caller.revoked")

	h := w.forced(alone)
	w.list(h)
	w.setDays(301)
	if n, reused := w.list(h); n != 4010 || !reused {
		t.Errorf("after its end: fault %d, on the same connection: %v", n, reused)
	}
	w.staysOut("expired", alone, "caller.expired")
}

// TestTakenOut: what let a caller in and is taken out of the configuration ends at once on a connection that is
// open, and what is left goes on.
func TestTakenOut(t *testing.T) {
	w := newWorld(t)
	corp, spare := w.elsewhere("corp", "/CN=Corp", 1000), w.elsewhere("spare", "/CN=Spare", 1000)
	cas := []ForeignCA{corp.ForeignCA, spare.ForeignCA}
	first, second, third := corp.own("/CN=1", onlyClient, 300), corp.issue("/CN=2", onlyClient, 300), w.caller("rotating")
	named, ours := Credential{Issuer: "CN=Corp", Subject: "CN=2"}, Credential{Issuer: w.callersName(), Subject: "CN=rotating"}
	all := plus(cas, with("rotating", pin(first), named, ours))
	w.apply(all, false)
	for what, c := range map[string]struct {
		own    tls.Certificate
		config Config
		cause  string
	}{
		"key":          {first, plus(cas, with("rotating", named, ours)), "caller.unknown"},
		"name":         {second, plus(cas, with("rotating", pin(first), ours)), "caller.unknown"},
		"our name":     {third, plus(cas, with("rotating", pin(first), named)), "caller.unknown"},
		"its CA":       {second, plus(cas[1:], with("rotating", pin(first), ours)), "caller.other_ca"},
		"its CA's key": {second, plus([]ForeignCA{w.elsewhere("corp", "/CN=Corp", 1000).ForeignCA}, with("rotating", pin(first), named, ours)), "caller.other_ca"},
		"the caller":   {first, plus(cas), "caller.unknown"},
		"to another":   {first, plus(cas, with("heir", pin(first)), with("rotating", named)), ""},
	} {
		h, others := w.forced(c.own), w.forced(w.caller("provisioning"))
		for _, h := range []*http.Client{h, others} {
			if n, _ := w.list(h); n != 0 {
				t.Fatalf("%s: fault %d before", what, n)
			}
		}
		before := w.strangers()[c.cause]
		w.apply(c.config, false)
		n, reused := w.list(h)
		if want := map[bool]int{false: 4010}[c.cause == ""]; n != want || !reused {
			t.Errorf("%s: fault %d, on the same connection: %v", what, n, reused)
		}
		if c.cause != "" && w.strangers()[c.cause] != before+1 {
			t.Errorf("%s: counted %v, want one more of %s", what, w.strangers(), c.cause)
		}
		if n, reused := w.list(others); n != 0 || !reused {
			t.Errorf("%s: another caller: fault %d, on the same connection: %v", what, n, reused)
		}
		w.apply(all, false)
	}
}

// callersName is the name of the callers CA.
func (w *world) callersName() string {
	w.Helper()
	name, err := spellDN(w.server.callersCA.RawSubject)
	w.must(err)
	return name
}

// TestNextCertificate: whose certificate ends soon is told where the next one is to be had.
func TestNextCertificate(t *testing.T) {
	w := newWorld(t)
	corp, short := w.elsewhere("corp", "/CN=Corp", 1000), w.elsewhere("short", "/CN=Short", 20)
	alone, named, by, ours := corp.own("/CN=1", onlyClient, 20), corp.issue("/CN=2", onlyClient, 20), short.issue("/CN=3", onlyClient, 300), w.caller("four")
	w.apply(plus([]ForeignCA{corp.ForeignCA, short.ForeignCA}, with("one", pin(alone)), with("two", Credential{Issuer: "CN=Corp", Subject: "CN=2"}),
		with("three", Credential{Issuer: "CN=Short", Subject: "CN=3"}), with("four", pin(ours))), false)
	told := func(own tls.Certificate, caller, want string) {
		t.Helper()
		d := w.comesIn(own, caller)
		if text, _ := d["notice"].(string); !strings.HasPrefix(text, "your certificate ends on ") || !strings.Contains(text, want) {
			t.Errorf("%s: %v", caller, d["notice"])
		}
	}
	told(alone, "one", "not renewed here; use another certificate for the same key, or have the operator add the hash")
	told(named, "two", "not renewed here; get another one of the same issuer and subject")
	told(by, "three", "in 19 days: it is not renewed here")
	w.setDays(350)
	told(ours, "four", "have the operator add the hash of a new key to your credentials; then make a new key, ask ca.issue for purpose caller and cn four")
}

// TestRotationHasNoGap: while a key is replaced the old one and the new one work, on connections that are open
// and on new ones, until the old one is taken out or revoked; the other one does not notice.
func TestRotationHasNoGap(t *testing.T) {
	w := newWorld(t)
	corp := w.elsewhere("corp", "/CN=Corp", 1000)
	for what, c := range map[string]struct {
		old, next tls.Certificate
	}{
		"of the callers CA": {w.caller("rotating"), w.caller("rotating")},
		"pinned":            {corp.own("/CN=1", onlyClient, 300), corp.own("/CN=2", onlyClient, 300)},
		"foreign":           {corp.issue("/CN=r", onlyClient, 300), corp.issue("/CN=r", onlyClient, 300)},
	} {
		apply := func(credentials ...Credential) {
			w.apply(plus([]ForeignCA{corp.ForeignCA}, with("rotating", credentials...)), false)
		}
		name := Credential{Issuer: "CN=Corp", Subject: "CN=r"}
		steps := map[string][3][]Credential{
			"pinned":  {{pin(c.old)}, {pin(c.old), pin(c.next)}, {pin(c.next)}},
			"foreign": {{name}, {name}, {pin(c.next)}},
		}[what]
		apply(steps[0]...)
		old := w.forced(c.old)
		served := func(h *http.Client, want int, open bool) {
			t.Helper()
			if n, reused := w.list(h); n != want || reused != open {
				t.Errorf("%s: fault %d, want %d; on the same connection: %v", what, n, want, reused)
			}
		}
		served(old, 0, false)
		apply(steps[1]...)
		next := w.forced(c.next)
		served(next, 0, false)
		for range 3 {
			served(old, 0, true)
			served(next, 0, true)
			served(w.forced(c.old), 0, false)
		}
		apply(steps[2]...)
		if what == "of the callers CA" {
			w.revokeNow(serialOf(c.old))
		}
		served(old, 4010, true)
		served(next, 0, true)
		served(w.forced(c.next), 0, false)
	}
}

// TestWantedCAs: clients that choose a certificate by the CAs that they are told of find theirs.
func TestWantedCAs(t *testing.T) {
	w := newWorld(t)
	corp := w.elsewhere("corp", "/CN=Corp", 1000)
	alone, named := corp.own("/CN=1", onlyClient, 300), corp.issue("/CN=2", onlyClient, 300)
	byName := with("two", Credential{Issuer: "CN=Corp", Subject: "CN=2"})
	for _, c := range []struct {
		config Config
		own    tls.Certificate
		told   int
	}{
		{testConfig(), w.caller("reader"), 1},
		{plus([]ForeignCA{corp.ForeignCA}, byName), named, 2},
		{plus([]ForeignCA{corp.ForeignCA}, byName, with("one", pin(alone))), alone, 0},
	} {
		w.apply(c.config, false)
		told := -1
		config := w.clientTLS()
		config.ServerName = "127.0.0.1"
		config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			told = len(i.AcceptableCAs)
			return &c.own, i.SupportsCertificate(&c.own)
		}
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		if n, _ := w.list(h); n != 0 || told != c.told {
			t.Errorf("fault %d, told of %d CAs, want %d", n, told, c.told)
		}
	}
}
