package bench_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// siege has good callers ask at a steady rate while others attack the daemon.
type siege struct {
	*installation
	address string
	good    *client
	csr     []byte
	noisy   *tls.Config // of a caller that attacks
	hello   []byte      // what a client says first
	noise   []byte
	bigKey  tls.Certificate
	chain   tls.Certificate // a hundred issuers that may have signed

	hurried *http.Client

	mu   sync.Mutex
	held []net.Conn
}

const (
	goodCallers = 4
	goodRate    = 100                    // calls a second of all of them
	siegeTime   = 250 * time.Millisecond // of one turn
	siegeTurns  = 5
)

// reportSiege measures how long good callers wait for a certificate, quiet and under each attack.
func reportSiege(b *testing.B, r *report, s *installation) {
	g := newSiege(b, s)
	rows := [][]string{{"", "attempts/s", "quiet p50 ms", "p99", "attacked p50", "p99", "p50/quiet", "daemon MiB"}}
	g.under(b, 0, nil)              // connections, and what is looked up for the first time
	var calm, under []time.Duration // of all turns
	var worst float64
	for _, a := range []struct {
		what      string
		perSecond int
		do        func(n int)
	}{
		{"slow connections", 4000, g.slowly},
		{"garbage", 500, g.garbage},
		{"half-open handshakes", 500, g.halfOpen},
		{"a header of 1 MiB", 50, g.header},
		{"RSA-16384 client keys", 100, func(n int) { g.refused(n, g.bigKey) }},
		{"chains of RSA-8192", 50, func(n int) { g.refused(n, g.chain) }},
		{"100 pipelined requests", 10, g.pipeline},
		{"a caller at 1,000 times its rate", 1000, g.hurry},
	} {
		var quiet, waits []time.Duration
		var attempts int
		var attacked time.Duration
		for range siegeTurns {
			one, _, _ := g.under(b, 0, nil)
			other, n, took := g.under(b, a.perSecond, a.do)
			quiet, waits, attempts, attacked = append(quiet, one...), append(waits, other...), attempts+n, attacked+took
		}
		calm, under = append(calm, quiet...), append(under, waits...)
		slices.Sort(quiet)
		slices.Sort(waits)
		p50 := ratio(quantile(waits, 0.5), quantile(quiet, 0.5))
		worst = max(worst, p50)
		now, _ := memory(b, s.daemon)
		rows = append(rows, []string{
			a.what, fmt.Sprintf("%.0f", float64(attempts)/attacked.Seconds()), milli(quantile(quiet, 0.5)), milli(quantile(quiet, 0.99)),
			milli(quantile(waits, 0.5)), milli(quantile(waits, 0.99)), fmt.Sprintf("%.2fx", p50), fmt.Sprintf("%.1f", now),
		})
	}
	slices.Sort(calm)
	slices.Sort(under)
	tail := ratio(quantile(under, 0.99), quantile(calm, 0.99))
	rows = append(rows, []string{"all of them", "", milli(quantile(calm, 0.5)), milli(quantile(calm, 0.99)), milli(quantile(under, 0.5)), milli(quantile(under, 0.99)),
		times(quantile(under, 0.5), quantile(calm, 0.5)), ""})
	r.section("under attack", []string{
		fmt.Sprintf("%d good callers ask for %d certificates a second with their own CSRs, each answer counted from when it was", goodCallers, goodRate),
		fmt.Sprintf("due to be asked for; every one must be done. Quiet and attack take turns, %d of %v each. The attackers share the", siegeTurns, siegeTime),
		"cores with what they attack, so their own work is in the waits as well. A row has too few calls for a p99 that is",
		"more than its two worst; the target is about all rows, where one attack that holds up a tenth of its calls shows.",
	}, rows)
	r.target("good callers under attack: p50 over quiet, at the most", worst, 2, "x")
	r.target("good callers under attack: p99 over quiet, all attacks", tail, 2, "x")
}

func newSiege(b *testing.B, s *installation) *siege {
	g := &siege{installation: s, address: strings.TrimPrefix(s.url, "https://"), good: s.client(b, goodCallers), csr: ownCSR(b), noise: make([]byte, 4<<10)}
	_, _ = rand.Read(g.noise)
	g.noisy = s.tls(b)
	g.noisy.Certificates = []tls.Certificate{enrol(b, g.good, "caller", "noisy")}
	g.noisy.ServerName = "127.0.0.1"
	t := &http.Transport{TLSClientConfig: g.noisy, MaxIdleConnsPerHost: atOnce, DisableCompression: true}
	b.Cleanup(t.CloseIdleConnections)
	g.hurried = &http.Client{Transport: t}
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(there, &tls.Config{ServerName: "localhost"}).Handshake()
		_ = there.Close()
	}()
	buffer := make([]byte, 16<<10)
	g.hello = buffer[:got(here.Read(buffer))(b)]
	must(b, here.Close())
	signer := got(rsa.GenerateKey(rand.Reader, 2048))(b)
	own := got(cert.GenerateKey(rand.Reader, cert.P256))(b).(*ecdsa.PrivateKey)
	big := hugeKey(b, 16384)
	g.bigKey = tls.Certificate{Certificate: [][]byte{made(b, "noisy", "Callers", big, own)}, PrivateKey: bluff{big}}
	g.chain = tls.Certificate{Certificate: [][]byte{made(b, "noisy", "Callers 2", own.Public(), signer)}, PrivateKey: own}
	for range 100 {
		g.chain.Certificate = append(g.chain.Certificate, made(b, "Callers 2", "Callers 2", hugeKey(b, 8192), own))
	}
	return g
}

// under measures good callers for a while. The attack makes its attempts at a steady rate, from before they begin.
func (g *siege) under(b *testing.B, perSecond int, do func(n int)) (waits []time.Duration, attempts int, took time.Duration) {
	done := make(chan struct{})
	var attack, good sync.WaitGroup
	attacked := time.Now()
	attack.Go(func() { attempts = atRate(done, perSecond, do) })
	if do != nil {
		time.Sleep(siegeTime / 4)
	}
	var mu sync.Mutex
	begin := time.Now()
	for caller := range goodCallers {
		good.Go(func() {
			for at := time.Duration(caller) * time.Second / goodRate; at < siegeTime; at += goodCallers * time.Second / goodRate {
				time.Sleep(time.Until(begin.Add(at)))
				params := map[string]any{"purpose": "user", "cn": fmt.Sprintf("calm-%d", g.next()), "csr": g.csr}
				if _, err := g.good.call(jsonCodec(), "ca.issue", params); err != nil {
					b.Error(err)
				}
				mu.Lock()
				waits = append(waits, time.Since(begin.Add(at)))
				mu.Unlock()
			}
		})
	}
	good.Wait()
	close(done)
	attack.Wait()
	took = time.Since(attacked)
	g.letGo()
	if b.Failed() {
		b.FailNow()
	}
	return waits, attempts, took
}

const atOnce = 256 // attempts of an attack that are under way

// atRate makes attempts until done, and waits for the last ones.
func atRate(done <-chan struct{}, perSecond int, do func(n int)) (n int) {
	if do == nil {
		<-done
		return 0
	}
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, atOnce)
	for begin := time.Now(); ; n++ {
		time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(perSecond))))
		select {
		case <-done:
			return n
		case places <- struct{}{}:
		}
		all.Go(func() {
			do(n)
			<-places
		})
	}
}

// knock connects from one of a few addresses that are not the good callers'.
func (g *siege) knock(n int) net.Conn {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n%8))}}
	c, err := d.Dial("tcp", g.address)
	if err != nil {
		return nil // it is only one attempt less
	}
	_ = c.SetDeadline(time.Now().Add(5 * siegeTime))
	return c
}

func (g *siege) hold(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = append(g.held, c)
}

func (g *siege) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.held {
		_ = c.Close()
	}
	g.held = nil
}

// say writes something, reads what comes back, and hangs up.
func (g *siege) say(c net.Conn, what []byte) {
	if c == nil {
		return
	}
	go func() { _, _ = c.Write(what) }()
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// inside is a connection of the caller that attacks.
func (g *siege) inside(n int) net.Conn {
	tcp := g.knock(n)
	if tcp == nil {
		return nil
	}
	return tls.Client(tcp, g.noisy)
}

func (g *siege) slowly(n int) {
	if c := g.knock(n); c != nil {
		_, _ = c.Write(g.hello[:n%2*len(g.hello)/2])
		g.hold(c)
	}
}

func (g *siege) garbage(n int) { g.say(g.knock(n), g.noise) }

func (g *siege) halfOpen(n int) {
	if c := g.knock(n); c != nil {
		_, _ = c.Write(g.hello)
		g.hold(c)
	}
}

func (g *siege) header(n int) {
	g.say(g.inside(n), []byte("POST /rpc HTTP/1.1\r\nHost: x\r\nA: "+strings.Repeat("a", 1<<20)+"\r\n\r\n"))
}

func (g *siege) refused(n int, own tls.Certificate) {
	if c := g.knock(n); c != nil {
		config := g.noisy.Clone()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		g.say(tls.Client(c, config), []byte("x"))
	}
}

const listMethods = `{"jsonrpc":"2.0","id":1,"method":"system.listMethods"}`

func (g *siege) pipeline(n int) {
	one := fmt.Sprintf("POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(listMethods), listMethods)
	last := strings.Replace(one, "Host: x", "Host: x\r\nConnection: close", 1)
	g.say(g.inside(n), []byte(strings.Repeat(one, 99)+last))
}

func (g *siege) hurry(int) {
	if response, err := g.hurried.Post(g.url+"/rpc", "application/json", strings.NewReader(listMethods)); err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
}

// bluff is a key that its holder does not have.
type bluff struct{ public *rsa.PublicKey }

func (k bluff) Public() crypto.PublicKey { return k.public }

func (k bluff) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, k.public.Size()), nil
}

// hugeKey is an RSA key of a length, which nobody can sign with.
func hugeKey(b *testing.B, bits int) *rsa.PublicKey {
	n := make([]byte, bits/8)
	_ = got(rand.Read(n))(b)
	n[0] |= 0x80
	n[len(n)-1] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 1<<31 - 1}
}

// made is a certificate of a CA that nobody trusts.
func made(b *testing.B, subject, issuer string, key crypto.PublicKey, by crypto.Signer) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: subject}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: subject == issuer, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return got(x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}, key, by))(b)
}
