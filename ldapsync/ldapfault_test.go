package ldapsync

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// openHasty gives a directory that waits for nothing long.
func openHasty(t *testing.T, c LDAPConfig) *LDAP {
	t.Helper()
	d := openLDAP(t, c)
	d.connectTime, d.opTime = 2*time.Second, 2*time.Second
	return d
}

// findFails asks for alice and wants to be told that the directory is down, and why.
func findFails(t *testing.T, d *LDAP, why string) {
	t.Helper()
	start := time.Now()
	_, err := d.Find(context.Background(), cert.User, name.Name{Text: "Alice", Key: "alice"})
	if err == nil || failureCode(err) != codeDown || !strings.Contains(err.Error(), why) {
		t.Errorf("want %s because of %q: %v", codeDown, why, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("that took %s", took)
	}
}

// findsAgain waits until the directory answers.
func findsAgain(t *testing.T, d *LDAP) Target {
	t.Helper()
	var err error
	for range 200 {
		var id string
		n := name.Name{Text: "Alice", Key: "alice"}
		if id, err = d.Find(context.Background(), cert.User, n); err == nil {
			return Target{cert.User, n, id}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the directory stays down: %v", err)
	return Target{}
}

func TestLDAPPasswords(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	address, dialled := listen(t, drain)
	c := s.config()
	c.URLs = []string{"ldaps://" + address}
	for _, empty := range []string{"", "\n", "\r\n"} {
		writeFile(t, s.password, []byte(empty))
		findFails(t, openHasty(t, c), "is empty")
	}
	writeFile(t, s.password, bytes.Repeat([]byte("x"), maxSecret+1))
	findFails(t, openHasty(t, c), "more than")
	if err := os.Chmod(s.password, 0o644); err != nil {
		t.Fatal(err)
	}
	findFails(t, openHasty(t, c), "open to everybody")
	keyed := c
	keyed.ClientCert, keyed.ClientKey, keyed.BindDN, keyed.PasswordFile = s.cert, s.key, "", ""
	if err := os.Chmod(s.key, 0o604); err != nil {
		t.Fatal(err)
	}
	findFails(t, openHasty(t, keyed), "open to everybody")
	if err := os.Remove(s.password); err != nil {
		t.Fatal(err)
	}
	findFails(t, openHasty(t, c), "no such file")
	if n := dialled.Load(); n != 0 {
		t.Errorf("dialled %d times without a password", n)
	}

	writeFile(t, s.password, []byte("wrong horse"))
	d := openHasty(t, s.config())
	findFails(t, d, "Invalid Credentials")
	writeFile(t, s.password, []byte("correct horse"))
	findsAgain(t, d)

	// The password changes while we are connected: the next connection is refused until the file says it.
	s.setPassword("battery staple")
	s.stop()
	s.start()
	for range 100 {
		if _, err := d.Find(context.Background(), cert.User, mustName(t, cert.User, "Alice")); err != nil && strings.Contains(err.Error(), "Invalid Credentials") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	findFails(t, d, "Invalid Credentials")
	writeFile(t, s.password, []byte("battery staple\n"))
	findsAgain(t, d)
}

// A server that is not the right one, or cannot prove it, is told nothing.
func TestLDAPWrongServer(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	elsewhere := s.config()
	elsewhere.CA = s.dir + "/other.pem"
	newTestCA(t, elsewhere.CA)
	findFails(t, openHasty(t, elsewhere), "unknown authority")
	elsewhere.URLs = []string{"ldap://" + s.plain}
	findFails(t, openHasty(t, elsewhere), "StartTLS")

	named := s.config()
	named.URLs = []string{"ldaps://" + passOn(t, "127.0.0.2:0", s.secure)}
	findFails(t, openHasty(t, named), "127.0.0.2")

	noFile := s.config()
	noFile.CA = s.password
	findFails(t, openHasty(t, noFile), "no certificate in")

	// Somebody in between answers StartTLS with an error, hoping that we go on without.
	var heard bytes.Buffer
	var mu sync.Mutex
	stripper, _ := listen(t, func(c net.Conn) {
		buffer := make([]byte, 4096)
		for {
			n, err := c.Read(buffer)
			mu.Lock()
			heard.Write(buffer[:n])
			mu.Unlock()
			if err != nil {
				return
			}
			// ExtendedResponse of message 1: protocolError, no DN, no text.
			_, _ = c.Write([]byte{0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, 0x02, 0x04, 0x00, 0x04, 0x00})
		}
	})
	stripped := s.config()
	stripped.URLs = []string{"ldap://" + stripper}
	d := openHasty(t, stripped)
	findFails(t, d, "Protocol Error")
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(heard.String(), "1.3.6.1.4.1.1466.20037") || strings.Contains(heard.String(), "horse") || strings.Contains(heard.String(), service) {
		t.Errorf("it heard %q", heard.String())
	}
}

// A server that says nothing, before TLS, before the bind or after it, costs a bounded time.
func TestLDAPSilence(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	own, err := tls.LoadX509KeyPair(s.dir+"/server.pem", s.dir+"/server.key")
	if err != nil {
		t.Fatal(err)
	}
	overTLS := func(serve func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) { serve(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own}})) }
	}
	afterBind := func(c net.Conn) {
		buffer := make([]byte, 4096)
		if _, err := c.Read(buffer); err == nil {
			// BindResponse of message 1: success.
			_, _ = c.Write([]byte{0x30, 0x0c, 0x02, 0x01, 0x01, 0x61, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00})
		}
		drain(c)
	}
	endless := func(c net.Conn) {
		go drain(c)
		// One octet string that never ends.
		if _, err := c.Write([]byte{0x04, 0x84, 0x7f, 0xff, 0xff, 0xff}); err != nil {
			return
		}
		for block := make([]byte, 1<<20); ; {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}
	for what, c := range map[string]struct {
		scheme string
		serve  func(net.Conn)
		why    string
	}{
		"before TLS":                 {"ldaps://", drain, "TLS"},
		"before StartTLS":            {"ldap://", drain, "StartTLS"},
		"before the bind":            {"ldaps://", overTLS(drain), "binding as"},
		"after the bind":             {"ldaps://", overTLS(afterBind), "asking what the server can do"},
		"an answer that never ends":  {"ldaps://", overTLS(endless), "more than 16777216 octets"},
		"an answer that is no LDAP":  {"ldaps://", overTLS(func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); drain(c) }), "binding as"},
		"a connection that is ended": {"ldaps://", func(net.Conn) {}, "TLS"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			address, _ := listen(t, c.serve)
			config := s.config()
			config.URLs = []string{c.scheme + address}
			d := openHasty(t, config)
			findFails(t, d, c.why)

			// Who does not want to wait so long does not have to.
			d = openHasty(t, config)
			d.connectTime = time.Minute
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			if _, err := d.Find(ctx, cert.User, mustName(t, cert.User, "Alice")); err == nil || time.Since(start) > 30*time.Second {
				t.Errorf("%v after %s", err, time.Since(start))
			}
			d.Close()
		})
	}

	// Connected, and then nothing comes: a look at the connection ends it.
	p := newProxy(t, s)
	d := openHasty(t, p.config())
	if err := d.Check(context.Background()); err != nil {
		t.Error(err)
	}
	p.mute.Store(true)
	if err := d.Check(context.Background()); err == nil || !d.current.conn.IsClosing() {
		t.Errorf("nobody answers, and the look at it says %v", err)
	}
	p.mute.Store(false)
	findsAgain(t, d)

	// The same with many waiting.
	p.mute.Store(true)
	var waiting sync.WaitGroup
	for range 2 * inFlight {
		waiting.Go(func() { findFails(t, d, "") })
	}
	waiting.Wait()
	p.mute.Store(false)
	findsAgain(t, d)
}

// The first server is away, hangs, or refuses us: the next one is asked.
func TestLDAPServersInOrder(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	silent, tried := listen(t, drain)
	c := s.config()
	c.URLs = []string{"ldaps://" + freeAddress(t), "ldaps://" + silent, c.URLs[0]}
	d := openHasty(t, c)
	alice := findsAgain(t, d)
	if tried.Load() != 1 {
		t.Errorf("the second server was asked %d times", tried.Load())
	}
	applyLDAP(t, d, alice, [][]byte{testCert(t, "Alice", 1)}, nil)
	if tried.Load() != 1 {
		t.Error("a connection that works was left")
	}
	c.URLs = c.URLs[:2]
	findFails(t, openHasty(t, c), "connection refused")
}

// While a server is away it is not asked by everybody all the time.
func TestLDAPRedial(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	address, dialled := listen(t, func(net.Conn) {})
	c := s.config()
	c.URLs = []string{"ldaps://" + address}
	d := openHasty(t, c)
	for range 1000 {
		findFails(t, d, "TLS")
	}
	if n := dialled.Load(); n > 20 {
		t.Errorf("dialled %d times", n)
	}
	none := func(time.Duration) time.Duration { return 0 }
	most := func(d time.Duration) time.Duration { return d - 1 }
	for n := range 100 {
		low, high := redialAfter(n, none), redialAfter(n, most)
		if low != firstRedial || high > lastRedial || high < redialAfter(max(n-1, 0), most) {
			t.Errorf("after %d failures: %s to %s", n, low, high)
		}
	}
	d.Close()
	if _, err := d.Find(context.Background(), cert.User, mustName(t, cert.User, "Alice")); !errors.Is(err, errClosed) {
		t.Errorf("closed, and it says %v", err)
	}
}

// clean wants nothing owed, and a directory that says what the books say.
func (o *office) clean() {
	o.t.Helper()
	if debts := o.debts(); len(debts) > 0 {
		o.t.Errorf("owed: %+v", debts)
	}
	if err := o.Compare(context.Background(), func(d Drift) { o.t.Errorf("drift: %+v", d) }); err != nil {
		o.t.Error(err)
	}
	findings, err := o.Store.Check(context.Background())
	if err != nil || len(findings) > 0 {
		o.t.Errorf("the books: %v %v", findings, err)
	}
}

// The write arrives and its answer does not: the debt stays, the visit is made again and finds the
// work done.
func TestLDAPAnswerLost(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"swallowed", "cut"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newSlapd(t)
			p := newProxy(t, s)
			d := openHasty(t, p.config())
			o := newOfficeOf(t, d)
			foreign := testCert(t, "Alice at another CA", 99)
			s.addCert(aliceLDAP, foreign)
			_, der := o.issue(cert.User, "Alice", "")
			p.before = func(request []byte) {
				if bytes.Contains(request, der) {
					p.mute.Store(true)
					if how == "cut" {
						time.AfterFunc(100*time.Millisecond, p.cut)
					}
				}
			}
			_, err := o.PayOnce(context.Background())
			o.wantFailure(codeDown, err)
			s.wantHeld(aliceLDAP, foreign, der)
			o.wantEvents()
			p.mute.Store(false)
			findsAgain(t, d)
			o.offset.Add(int64(lastRetry))
			o.pay(1)
			s.wantHeld(aliceLDAP, foreign, der)
			o.clean()
		})
	}
}

// The server stops and starts under a running loop; what was owed is paid, and the sweep that a new
// connection calls for repairs what somebody undid meanwhile.
func TestLDAPServerStops(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openHasty(t, s.config())
	o := newOfficeOf(t, d)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	_, host := o.issue(cert.Server, "www.example.org", "")
	o.eventually("it is paid", func() bool { return len(o.debts()) == 0 })
	s.wantHeld(hostLDAP, host)
	select {
	case <-d.Reconnected():
		t.Error("the first connection counts as another one")
	default:
	}

	s.stop()
	serial, der := o.issue(cert.User, "Alice", "")
	o.eventually("it was tried", func() bool { return o.logged.FilterField(zap.String("code", codeDown)).Len() > 1 })
	s.start()
	s.modify(admin, "dn: "+hostLDAP+"\nchangetype: modify\ndelete: userCertificate;binary\n")
	o.eventually("it is paid", func() bool { return len(o.debts()) == 0 })
	s.wantHeld(aliceLDAP, der)
	s.wantHeld(hostLDAP)
	select {
	case <-d.Reconnected():
	default:
		t.Fatal("nobody was told of the new connection")
	}
	if n, err := o.Sweep(ctx); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	s.wantHeld(hostLDAP, host)

	o.revoke(serial)
	o.eventually("it is paid", func() bool { return len(o.debts()) == 0 })
	s.wantHeld(aliceLDAP)
	o.clean()
}

// What was issued for a file of entries goes over to the entries of the same names.
func TestLDAPAfterAFile(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openHasty(t, s.config())
	o := newOfficeOf(t, d)
	_, der := o.issue(cert.User, "Alice", madeEntry(cert.User, name.Name{Key: "alice"}))
	o.issue(cert.User, "Twice", madeEntry(cert.User, name.Name{Key: "twice"}))
	if n, err := o.Sweep(context.Background()); n != 1 || err == nil {
		t.Errorf("swept %d, %v; want one, and one failure", n, err)
	}
	s.wantHeld(aliceLDAP, der)
	if n := o.logged.FilterField(zap.String("code", codeManyEntries)).Len(); n != 1 {
		t.Error(o.logged.All())
	}
}

// Alice's entry is deleted and made again after the intent named it: the debt stays with its cause,
// and nothing goes to the new entry.
func TestLDAPDebtOfAnEntryThatIsGone(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openHasty(t, s.config())
	o := newOfficeOf(t, d)
	serial, _ := o.issue(cert.User, "Alice", findLDAP(t, d, cert.User, "Alice").Entry)
	s.tool("", "ldapdelete", append(s.as(admin), aliceLDAP)...)
	s.modify(admin, "dn: "+aliceLDAP+"\nobjectClass: inetOrgPerson\ncn: Alice\nsn: Other\n", "-a")
	_, err := o.PayOnce(context.Background())
	o.wantFailure(codeNoEntry, err)
	s.wantHeld(aliceLDAP)
	o.revoke(serial)
	o.pay(1)
	s.wantHeld(aliceLDAP)
	o.clean()
}
