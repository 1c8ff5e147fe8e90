package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/store"
)

func (w *world) revokeNow(serial cert.Serial) {
	w.Helper()
	_, err := w.store.Update(w.Context(), operator, func(tx *store.Tx) (audit.Event, error) {
		rev, err := tx.Revoke(serial, tx.Now(), cert.KeyCompromise)
		return &audit.RevokeDone{RequestID: "test", Rule: "test", Revoked: []audit.Revocation{rev}}, err
	})
	w.must(err)
}

func serialOf(c tls.Certificate) cert.Serial { return cert.SerialOf(c.Leaf.SerialNumber) }

const listMethods = `{"jsonrpc":"2.0","id":1,"method":"system.listMethods"}`

// list makes one harmless call and gives the number of the fault, 0 for none, and whether the connection
// was a used one.
func (w *world) list(h *http.Client) (number int, reused bool) {
	w.Helper()
	ctx := httptrace.WithClientTrace(w.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/rpc", strings.NewReader(listMethods))
	w.must(err)
	r.Header.Set("Content-Type", "application/json")
	status, text := w.do(h, r)
	for _, n := range []string{"4010", "4290"} {
		if strings.Contains(text, `"code":`+n) {
			number = int(n[0]-'0')*1000 + int(n[1]-'0')*100 + int(n[2]-'0')*10
		}
	}
	if status != 200 || number == 0 && !strings.Contains(text, "ca.issue") {
		w.Fatalf("HTTP %d %s", status, text)
	}
	return number, reused
}

// TestKeepAlive: a connection that is open does not outlive what let its caller in.
func TestKeepAlive(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		cause string
		end   func(tls.Certificate)
	}{
		{"caller.revoked", func(own tls.Certificate) { w.revokeNow(serialOf(own)) }},
		{"caller.expired", func(own tls.Certificate) { w.offset.Store(int64(time.Until(own.Leaf.NotAfter) + time.Second)) }},
	} {
		own := w.caller("provisioning")
		h := w.browser(own)
		if n, _ := w.list(h); n != 0 {
			t.Fatalf("%s: fault %d before", c.cause, n)
		}
		c.end(own)
		from := w.head()
		if n, reused := w.list(h); n != 4010 || !reused {
			t.Errorf("%s: fault %d, on the same connection: %v", c.cause, n, reused)
		}
		if n := len(w.since(from)); n != 0 {
			t.Errorf("%s: %d leaves for one stranger", c.cause, n)
		}
		if got := w.strangers()[c.cause]; got != 1 {
			t.Errorf("%s is counted %d times: %v", c.cause, got, w.strangers())
		}
	}
}

// TestStrangers: TLS lets only the callers issuer's certificates in, and every other attempt is counted
// by its cause and answered with nothing that helps it.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	good := w.caller("provisioning")
	user := w.certificate(cert.User, "alice", cert.SANs{})
	userWithRoot := user
	chain, err := w.authority.Chain(cert.User)
	w.must(err)
	userWithRoot.Certificate = append([][]byte{user.Certificate[0]}, chain.Certificates...)
	stolen := good
	stolen.PrivateKey = w.caller("provisioning").PrivateKey
	for _, c := range []struct {
		cause string
		tls   func(*tls.Config)
	}{
		{"tls.no_certificate", func(c *tls.Config) { c.Certificates = nil }},
		{"tls.other_ca", func(c *tls.Config) { c.Certificates = []tls.Certificate{user} }},
		{"tls.other_ca", func(c *tls.Config) { c.Certificates = []tls.Certificate{userWithRoot} }},
		{"tls.other_ca", func(c *tls.Config) { c.Certificates = []tls.Certificate{selfMade(t, w.server.callersCA)} }},
		{"tls.no_proof", func(c *tls.Config) { c.Certificates = []tls.Certificate{stolen} }},
		{"tls.hello", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }},
		{"tls.given_up", func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }},
	} {
		before := w.strangers()[c.cause]
		config := w.clientTLS(good)
		c.tls(config)
		// Whatever the server would like to see, this client sends what it has.
		if len(config.Certificates) > 0 {
			own := config.Certificates[0]
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		}
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		response, err := h.Post(w.url+"/rpc", "application/json", strings.NewReader(listMethods))
		if err == nil {
			t.Errorf("%s: HTTP %s", c.cause, response.Status)
			continue
		}
		w.counted(c.cause, before+1)
	}
	w.plainTCP()
	if err := w.client(good).Call(t.Context(), "system.listMethods", nil, new([]string)); err != nil {
		t.Error(err)
	}
}

// counted waits until a cause has been counted so many times: the client is told first.
func (w *world) counted(cause string, want int64) {
	w.Helper()
	for end := time.Now().Add(5 * time.Second); w.strangers()[cause] != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Errorf("%s: counted %v, want %d", cause, w.strangers(), want)
			return
		}
	}
}

// plainTCP knocks without TLS, and hangs up.
func (w *world) plainTCP() {
	w.Helper()
	for cause, says := range map[string]string{"tls.not_tls": "GET / HTTP/1.0\r\n\r\n", "tls.given_up": ""} {
		before := w.strangers()[cause]
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "https://"))
		w.must(err)
		_, err = c.Write([]byte(says))
		w.must(errors.Join(err, c.Close()))
		w.counted(cause, before+1)
	}
}

// selfMade is a certificate by a CA that calls itself what the callers CA is called.
func selfMade(t *testing.T, like *x509.Certificate) tls.Certificate {
	t.Helper()
	a := newTestCA(t, like.RawSubject)
	return a.issue(t, big.NewInt(5), "provisioning", time.Hour, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil)
}

// testCA is a callers CA whose key the test has.
type testCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newTestCA(t *testing.T, subject []byte) testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Callers"}, RawSubject: subject, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return testCA{key, parsed}
}

func (a testCA) issue(t *testing.T, serial *big.Int, cn string, life time.Duration, usage []x509.ExtKeyUsage, unknown []asn1.ObjectIdentifier) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage, UnknownExtKeyUsage: unknown, BasicConstraintsValid: true,
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// turnedAway tells whether the server ends a connection before its read deadline.
func turnedAway(c *tls.Conn) bool {
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestRevokedHoldsNothing: a certificate that was a caller's is turned away in the handshake, so that its
// holder takes no place from anybody.
func TestRevokedHoldsNothing(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	w.revokeNow(serialOf(own))
	for range 3 {
		c, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), w.clientTLS(own))
		w.must(err)
		w.must(c.SetReadDeadline(time.Now().Add(5 * time.Second)))
		if !turnedAway(c) {
			t.Error("it is still connected")
		}
		w.must(c.Close())
	}
	w.counted("caller.revoked", 3)
	if n, _ := w.list(w.browser(w.caller("provisioning"))); n != 0 {
		t.Errorf("the new certificate of the same caller: fault %d", n)
	}
}

// TestSerialOfAnother: a caller learns nothing from the serial of a certificate that no grant of its own
// covers; the log says why it was refused.
func TestSerialOfAnother(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Config.Callers = append(o.Config.Callers, Caller{Name: "desk", Grants: []Grant{
			{Methods: []string{"ca.revoke"}, Purposes: []cert.Purpose{cert.User}, Names: []string{"a*"}},
		}})
	})
	bob := w.certificate(cert.User, "bob", cert.SANs{})
	c := w.client(w.caller("desk"))
	var a, none client.Answer
	w.must(c.Call(t.Context(), "ca.revoke", object{"serial": "7f"}, &none))
	from := w.head()
	w.must(c.Call(t.Context(), "ca.revoke", object{"serial": string(serialOf(bob))}, &a))
	if d := detail(t, a); a.OK || d["code"] != "certificate.unknown" || a.Msg != none.Msg {
		t.Errorf("%s %s, want %s", a.Msg, a.Detail, none.Msg)
	}
	if _, r := w.refusal(from); r.Code != "certificate.unknown" || !strings.Contains(r.Reason, "desk/1") || !strings.Contains(r.Reason, "bob") {
		t.Errorf("the log says %+v", r)
	}
}

// TestBadCertificates: what a callers CA could sign by mistake or by force is no caller.
func TestBadCertificates(t *testing.T) {
	a := newTestCA(t, nil)
	w := newWorld(t, func(o *Options) { o.CallersCA = a.cert })
	inBooks := w.caller("provisioning").Leaf.SerialNumber
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, c := range []struct {
		cause string
		own   tls.Certificate
	}{
		{"caller.not_in_books", a.issue(t, big.NewInt(77), "provisioning", time.Hour, client, nil)},
		{"caller.not_in_books", a.issue(t, inBooks, "provisioning", time.Hour, client, nil)},
		{"caller.unknown", a.issue(t, big.NewInt(78), "stranger", time.Hour, client, nil)},
		{"caller.unknown", a.issue(t, big.NewInt(79), "", time.Hour, client, nil)},
		{"caller.eku", a.issue(t, inBooks, "provisioning", time.Hour, nil, nil)},
		{"caller.eku", a.issue(t, inBooks, "provisioning", time.Hour, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, nil)},
		{"caller.eku", a.issue(t, inBooks, "provisioning", time.Hour, append(client, x509.ExtKeyUsageServerAuth), nil)},
		{"caller.eku", a.issue(t, inBooks, "provisioning", time.Hour, client, []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 1}})},
		{"tls.eku", a.issue(t, inBooks, "provisioning", time.Hour, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil)},
		{"tls.expired", a.issue(t, inBooks, "provisioning", -time.Minute, client, nil)},
	} {
		before := w.strangers()[c.cause]
		h := w.browser(c.own)
		if response, err := h.Post(w.url+"/rpc", "application/json", strings.NewReader(listMethods)); err == nil {
			t.Errorf("%s: HTTP %s", c.cause, response.Status)
		}
		w.counted(c.cause, before+1)
	}
}

// TestCallerIsItsGrants: each caller gets what is its own and nothing else.
func TestCallerIsItsGrants(t *testing.T) {
	w := newWorld(t)
	boss, reader, nothing := w.client(w.caller("provisioning")), w.client(w.caller("reader")), w.client(w.caller("nothing"))
	var a client.Answer
	for _, cn := range []string{"alice", "bob"} {
		w.must(boss.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": cn, "request_id": cn}, &a))
		if !a.OK {
			t.Fatal(a.Msg)
		}
	}
	serial := detail(t, a)["serial"].(string) // bob's
	signed := w.signatures()
	for _, c := range []struct {
		who    *client.Client
		method string
		params object
		want   string // the code, and how many certificates are shown
	}{
		{boss, "ca.status", object{"cn": "bob"}, "status 1"},
		{boss, "ca.status", object{"request_id": "bob"}, "status 1"},
		{reader, "ca.status", object{"cn": "alice"}, "status 1"},
		{reader, "ca.status", object{"cn": "bob"}, "policy.denied"},
		{reader, "ca.status", object{"serial": serial}, "status 0"},
		{reader, "ca.status", object{"request_id": "alice"}, "status 0"},
		{reader, "ca.issue", object{"purpose": "user", "cn": "alice"}, "policy.denied"},
		{reader, "ca.revoke", object{"serial": serial}, "policy.denied"},
		{reader, "ca.revoke", object{"serial": "7f"}, "policy.denied"},
		{reader, "ca.chain", object{}, "policy.denied"},
		{nothing, "ca.issue", object{"purpose": "user", "cn": "alice", "plan": true}, "policy.denied"},
		{nothing, "ca.revoke", object{"cn": "alice"}, "policy.denied"},
		{nothing, "ca.status", object{"cn": "alice"}, "policy.denied"},
		{nothing, "ca.status", object{"request_id": "alice"}, "policy.denied"},
		{nothing, "ca.chain", object{"purpose": "user"}, "policy.denied"},
	} {
		from := w.head()
		w.must(c.who.Call(t.Context(), c.method, c.params, &a))
		d := detail(t, a)
		got := d["code"].(string)
		if list, ok := d["certificates"].([]any); ok {
			got += " " + string(rune('0'+len(list)))
		}
		if got != c.want {
			t.Errorf("%s %v: %s, want %s: %s", c.method, c.params, got, c.want, a.Msg)
		}
		if c.want == "policy.denied" {
			if _, r := w.refusal(from); r.Code != c.want || a.OK {
				t.Errorf("%s %v: the log says %+v", c.method, c.params, r)
			}
		} else if w.head() != from || !a.OK {
			t.Errorf("%s %v: %v, and %d leaves", c.method, c.params, a.OK, w.head()-from)
		}
	}
	var list []string
	if err := nothing.Call(t.Context(), "system.listMethods", nil, &list); err != nil || len(list) != len(w.server.methods) {
		t.Errorf("%v %v", list, err)
	}
	if w.signatures() != signed {
		t.Error("something was signed")
	}
}

// TestCrowd: strangers who only hold the door do not keep callers out.
func TestCrowd(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	address := strings.TrimPrefix(w.url, "https://")
	for range maxHandshakes + 20 {
		c, err := net.Dial("tcp", address)
		w.must(err)
		defer func() { _ = c.Close() }()
	}
	begun := time.Now()
	if n, _ := w.list(w.browser(own)); n != 0 || time.Since(begun) > headerTime/2 {
		t.Errorf("fault %d after %v", n, time.Since(begun))
	}
	w.counted("tcp.crowded", 21)
}

// TestCrowdOfOneAddress: strangers of another address make room for each other, and not a caller for them who is
// slow with its handshake.
func TestCrowdOfOneAddress(t *testing.T) {
	w := newWorld(t)
	address := strings.TrimPrefix(w.url, "https://")
	first, err := net.Dial("tcp", address)
	w.must(err)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range maxHandshakes + 20 {
		c, err := from.Dial("tcp", address)
		w.must(err)
		defer func() { _ = c.Close() }()
	}
	w.counted("tcp.crowded", 21)
	config := w.clientTLS(w.caller("provisioning"))
	config.ServerName = "127.0.0.1"
	c := tls.Client(first, config)
	w.must(c.Handshake())
	w.must(c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
	if turnedAway(c) {
		t.Error("who came first, from another address, made room")
	}
	w.must(c.Close())
}

// TestOrigin: what a single host has any number of is one address.
func TestOrigin(t *testing.T) {
	for at, want := range map[string]string{
		"192.0.2.7":               "192.0.2.7/32",
		"::ffff:192.0.2.7":        "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff:0:0:1": "2001:db8:1:2::/64",
		"fe80::1%eth0":            "fe80::/64",
	} {
		if got := origin(net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(at), 443))).String(); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

// TestFull: when the places of callers are taken, or those of one caller, another connection is not
// served, and one that ends gives its place to the next.
func TestFull(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	d := newDoor(w.server, l)
	dial := func(name string) *tls.Conn {
		c, err := tls.Dial("tcp", l.Addr().String(), w.clientTLS(w.caller(name)))
		w.must(err)
		w.must(c.SetReadDeadline(time.Now().Add(5 * time.Second)))
		return c
	}
	d.total = maxConns
	c := dial("provisioning")
	if !turnedAway(c) {
		t.Error("it was served")
	}
	w.must(c.Close())
	w.counted("tcp.crowded", 1)
	d.total, d.inside["provisioning"] = maxConns-1, maxPerCaller
	c = dial("provisioning")
	if !turnedAway(c) {
		t.Fatal("one more of the same caller was served")
	}
	w.must(c.Close())
	w.counted("tcp.crowded", 2)
	c = dial("reader")
	served, err := d.Accept()
	w.must(err)
	if d.total != maxConns || d.inside["reader"] != 1 {
		t.Errorf("%d places are taken, %d of them by the caller", d.total, d.inside["reader"])
	}
	_ = served.Close()
	_ = served.Close()
	if d.total != maxConns-1 || d.inside["reader"] != 0 {
		t.Errorf("%d places are taken after the end of one, %d of them by the caller", d.total, d.inside["reader"])
	}
	w.must(c.Close())
	w.must(d.Close())
	d.wait()
	if _, err := d.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestRate: a caller in a hurry is told so, and folded into one record.
func TestRate(t *testing.T) {
	w := newWorld(t)
	h := w.browser(w.caller("slow"))
	var faults int64
	for range 20 {
		if n, _ := w.list(h); n == 4290 {
			faults++
		}
	}
	if faults < 10 {
		t.Fatalf("%d of 20 calls were too many", faults)
	}
	from := w.head()
	w.must(w.server.crowd.flush(context.Background(), w.now().Add(time.Hour)))
	var calls string
	for _, l := range w.since(from) {
		r := l.Event.(*audit.RequestRefused)
		calls += r.Reason
		if r.Code != "rate.limited" || l.Actor.Name != "slow" || l.Actor.Kind != audit.ByCaller {
			t.Errorf("%+v by %+v", r, l.Actor)
		}
	}
	if len(w.since(from)) > 2 || !strings.Contains(calls, "calls beyond the caller's rate in the minute from") {
		t.Errorf("%d leaves: %s", len(w.since(from)), calls)
	}
}
