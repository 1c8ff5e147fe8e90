package rpc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/rpc/client"
)

// siege is a served installation, its good callers, and what it was like before an attack.
type siege struct {
	*world
	address string
	kept    *client.Client // one connection for all of its calls
	fresh   *http.Client   // one for each
	reader  *tls.Config    // a caller that attacks with its own connections
	slow    *tls.Config    // another, with its calls
	rounds  atomic.Int64   // of good callers
}

// TestSiege attacks what is served. While an attack runs every call of good callers is answered, on a connection
// that is kept and on new ones, and what the process holds is bounded; after it, everything is as before, and
// the log has grown by a number that does not depend on the attack's size.
func TestSiege(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Config.Callers[1].PerSecond = 1e6
		for _, name := range greedy() {
			o.Config.Callers = append(o.Config.Callers, Caller{Name: name, PerSecond: 1e6, Grants: o.Config.Callers[1].Grants})
		}
	})
	s := &siege{world: w, address: strings.TrimPrefix(w.url, "https://")}
	own := w.caller("provisioning")
	s.kept, s.fresh = w.client(own), w.browser(own)
	s.fresh.Transport.(*http.Transport).DisableKeepAlives = true
	s.reader, s.slow = w.clientTLS(w.caller("reader")), w.clientTLS(w.caller("slow"))
	s.reader.ServerName, s.slow.ServerName = "127.0.0.1", "127.0.0.1"
	s.good(t, 0) // makes what stays open
	// One folded record for each cause and minute: five causes at most, and an attack may be in two minutes.
	const folded = 2 * 5
	for _, a := range []struct {
		what   string
		leaves int
		run    func(*testing.T, *siege)
	}{
		{"slow connections", folded, slowConnections},
		{"garbage", folded, garbage},
		{"half-open handshakes", folded, halfOpen},
		{"huge headers", folded, hugeHeaders},
		{"RSA-16384 client keys", folded, hugeKeys},
		{"chains of RSA-8192", folded, longChains},
		{"pipelined requests", folded, pipelined},
		{"bodies that are no calls", folded + refusalsAtOnce, badBodies},
		{"a caller beyond its rate", folded, tooMany},
		{"large answers that nobody reads", len(greedy()) * (folded + refusalsAtOnce), largeAnswers},
	} {
		t.Run(a.what, func(t *testing.T) { s.attack(t, a.leaves, a.run) })
	}
}

const mostHeld = 256 << 20

func (s *siege) attack(t *testing.T, leaves int, run func(*testing.T, *siege)) {
	runtime.GC()
	sockets, goroutines, from := openSockets(t), runtime.NumGoroutine(), s.head()
	done := make(chan struct{})
	var watch sync.WaitGroup
	var heap, resident uint64
	watch.Go(func() { heap, resident = highest(done) })
	first := s.rounds.Load()
	watch.Go(func() {
		for n := 1; ; n++ {
			s.good(t, n)
			s.rounds.Add(1)
			select {
			case <-done:
				return
			default:
			}
		}
	})
	run(t, s)
	close(done)
	watch.Wait()
	if heap > mostHeld || resident > mostHeld && !raced() {
		t.Errorf("%d MiB of heap and stacks, %d MiB resident", heap>>20, resident>>20)
	}
	eventually(t, func() string {
		if n, g := openSockets(t), runtime.NumGoroutine(); n > sockets || g > goroutines {
			return fmt.Sprintf("%d sockets, %d before; %d goroutines, %d before", n, sockets, g, goroutines)
		}
		return ""
	})
	s.must(s.server.crowd.flush(context.Background(), s.now().Add(time.Hour)))
	grown, counts := 0, make(map[string]int64)
	for _, l := range s.since(from) {
		switch e := l.Event.(type) {
		case *audit.StrangersTurnedAway:
			grown++
			counts[e.Cause] += e.Count
		case *audit.RequestRefused:
			grown++
			counts[e.Code] += max(1, e.Count)
		}
	}
	if grown > leaves || s.logged.Len() != 0 {
		t.Errorf("%d leaves, want %d at most; the operational log has %d entries", grown, leaves, s.logged.Len())
	}
	t.Logf("%d good rounds, heap %d MiB, resident %d MiB, %d leaves for %v", s.rounds.Load()-first, heap>>20, resident>>20, grown, counts)
}

// good makes one round of a good caller's calls, none of them twice.
func (s *siege) good(t *testing.T, n int) {
	var a client.Answer
	if err := s.kept.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": "alice", "plan": true}, &a); err != nil || !a.OK {
		t.Errorf("round %d, on the connection that is kept: %v %s", n, err, a.Msg)
	}
	response, err := s.fresh.Post(s.url+"/rpc", "application/json", strings.NewReader(statusOfAlice))
	if err != nil {
		t.Errorf("round %d, on a new connection: %v", n, err)
		return
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil || !strings.Contains(string(text), `"ok":true`) {
		t.Errorf("round %d, on a new connection: %v %s", n, err, text)
	}
}

// goOn waits until good callers have been through some more rounds, however each of them ended.
func (s *siege) goOn(rounds int64) {
	for end := s.rounds.Load() + rounds; s.rounds.Load() < end; {
		time.Sleep(time.Millisecond)
	}
}

// eventually waits until nothing is wrong, but not until connections end by themselves.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	rightWithin(t, headerTime/2, wrong)
}

func rightWithin(t *testing.T, patience time.Duration, wrong func() string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		what := wrong()
		if what == "" {
			return
		}
		if time.Now().After(end) {
			t.Error(what)
			return
		}
	}
}

// raced tells whether the race detector holds as much again.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// highest is the most that this process, with both sides of every connection, held in heap and stacks, and had
// resident, until done.
func highest(done <-chan struct{}) (heap, resident uint64) {
	held := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		metrics.Read(held)
		heap = max(heap, held[0].Value.Uint64()+held[1].Value.Uint64())
		text, _ := os.ReadFile("/proc/self/statm")
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseUint(fields[1], 10, 64)
			resident = max(resident, pages*uint64(os.Getpagesize()))
		}
		select {
		case <-done:
			return heap, resident
		case <-tick.C:
		}
	}
}

func openSockets(t *testing.T) (n int) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// knockFrom connects from one of a few addresses that are not the good callers'.
func (s *siege) knockFrom(t *testing.T, n int) net.Conn {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n%8))}}
	c, err := d.Dial("tcp", s.address)
	if err != nil {
		t.Error(err)
		return nil
	}
	return c
}

// callFrom is a connection whose handshake is done.
func (s *siege) callFrom(t *testing.T, n int, config *tls.Config) *tls.Conn {
	tcp := s.knockFrom(t, n)
	if tcp == nil {
		return nil
	}
	c := tls.Client(tcp, config)
	if err := c.Handshake(); err != nil {
		t.Error(err)
		_ = tcp.Close()
		return nil
	}
	return c
}

// crews have work done n times by a number of attackers at once.
func crews(attackers, n int, work func(n int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range attackers {
		all.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				work(i)
			}
		})
	}
	all.Wait()
}

// slowConnections: strangers that say nothing or half a hello, and a caller that never ends its headers.
func slowConnections(t *testing.T, s *siege) {
	const connections = 5000
	var limit syscall.Rlimit
	s.must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)) // Go has raised it as far as it goes
	if need := uint64(connections + maxHandshakes + maxPerCaller + 500); limit.Cur < need {
		t.Fatalf("%d descriptors are allowed, and both sides of 5,000 connections are here: raise the hard limit to %d (ulimit -Hn)", limit.Cur, need)
	}
	hello := clientHello(t)
	before := openSockets(t)
	held := make([]net.Conn, connections+1)
	crews(16, maxPerCaller, func(n int) { // first: strangers at the same address would take their places
		if c := s.callFrom(t, n, s.reader); c != nil {
			held[n] = c
			_, _ = io.WriteString(c, "POST /rpc HTTP/1.1\r\nHost: x\r\nA: ")
		}
	})
	crews(16, connections-maxPerCaller, func(n int) {
		n += maxPerCaller
		if c := s.knockFrom(t, n); c != nil {
			held[n] = c
			_, _ = c.Write(hello[:n%2*len(hello)/2])
		}
	})
	eventually(t, func() string {
		if n := openSockets(t) - before - connections; n > maxHandshakes+maxPerCaller+2 {
			return fmt.Sprintf("the server holds %d of %d connections", n, connections)
		}
		return ""
	})
	s.goOn(20)
	for _, c := range held {
		if c != nil {
			_ = c.Close()
		}
	}
}

// clientHello is what a client says first.
func clientHello(t *testing.T) []byte {
	here, there := net.Pipe()
	defer func() { _ = here.Close() }()
	go func() {
		_ = tls.Client(there, &tls.Config{ServerName: "localhost"}).Handshake()
		_ = there.Close()
	}()
	buffer := make([]byte, 16<<10)
	n, err := here.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

// garbage: bytes without meaning, from strangers before the handshake and from a caller after it.
func garbage(t *testing.T, s *siege) {
	noise := make([]byte, 4<<10)
	_, _ = rand.Read(noise)
	record := append([]byte{22, 3, 1, 16, 0}, noise...) // a handshake, it says
	crews(16, 2000, func(n int) {
		if n%20 == 0 {
			if c := s.callFrom(t, n, s.reader); c != nil {
				_, _ = c.Write(noise)
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
			return
		}
		if c := s.knockFrom(t, n); c != nil {
			_, _ = c.Write([][]byte{noise, record}[n%2])
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	})
}

// halfOpen: hellos that are answered, with a signature, and nothing after that.
func halfOpen(t *testing.T, s *siege) {
	hello := clientHello(t)
	held := make([]net.Conn, 2001)
	crews(16, len(held)-1, func(n int) {
		if c := s.knockFrom(t, n); c != nil {
			held[n] = c
			_, _ = c.Write(hello)
			_, _ = c.Read(make([]byte, 1))
		}
	})
	s.goOn(20)
	for _, c := range held {
		if c != nil {
			_ = c.Close()
		}
	}
}

// hugeHeaders: a megabyte in one header, and in very many.
func hugeHeaders(t *testing.T, s *siege) {
	const start = "POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	kinds := []string{start + "A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", start + strings.Repeat("a:\r\n", 1<<18) + "\r\n"}
	crews(32, 200, func(n int) {
		c := s.callFrom(t, n, s.reader)
		if c == nil {
			return
		}
		go func() { _, _ = io.WriteString(c, kinds[n%2]) }()
		line := make([]byte, 12)
		if _, err := io.ReadFull(c, line); err == nil && string(line) != "HTTP/1.1 431" {
			t.Errorf("%q", line)
		}
		_ = c.Close()
	})
}

// bluff is a key that its holder does not have.
type bluff struct{ public crypto.PublicKey }

func (b bluff) Public() crypto.PublicKey { return b.public }

func (b bluff) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, b.public.(*rsa.PublicKey).Size()), nil
}

// bigKey is an RSA key of a length, which nobody can sign with.
func bigKey(t *testing.T, bits int) *rsa.PublicKey {
	n := make([]byte, bits/8)
	if _, err := rand.Read(n); err != nil {
		t.Fatal(err)
	}
	n[0] |= 0x80
	n[len(n)-1] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 1<<31 - 1}
}

// hugeKeys: certificates with keys that take long to check a signature of.
func hugeKeys(t *testing.T, s *siege) {
	own := newTestCA(t, s.server.callersCA.RawSubject)
	key := bigKey(t, 16384)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "provisioning"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, own.cert, key, own.key)
	s.must(err)
	s.asCheapAsOne(t, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: bluff{key}})
}

// longChains: as many issuers as fit, each of them perhaps the one that signed.
func longChains(t *testing.T, s *siege) {
	own := newTestCA(t, nil)
	issuer := pkix.Name{CommonName: "Callers 2"}
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	s.must(err)
	leafKey := selfMade(t, s.server.callersCA)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "provisioning"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, &x509.Certificate{Subject: issuer}, leafKey.PrivateKey.(crypto.Signer).Public(), signer)
	s.must(err)
	for _, issuers := range []int{12, 100} {
		chain := [][]byte{longSignature(t, der)}
		for n := range issuers {
			one, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
				SerialNumber: big.NewInt(int64(n + 1)), Subject: issuer, IsCA: true, BasicConstraintsValid: true,
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
			}, own.cert, bigKey(t, 8192), own.key)
			s.must(err)
			chain = append(chain, one)
		}
		s.asCheapAsOne(t, tls.Certificate{Certificate: chain, PrivateKey: leafKey.PrivateKey})
	}
}

// longSignature makes the signature of a certificate as long as one by an RSA-8192 key.
func longSignature(t *testing.T, der []byte) []byte {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	length := func(n int) []byte { return []byte{0x82, byte(n >> 8), byte(n)} }
	algorithm := []byte{0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 11, 5, 0} // sha256WithRSAEncryption
	signature := slices.Concat([]byte{3}, length(1025), []byte{0}, make([]byte, 1024))
	body := slices.Concat(c.RawTBSCertificate, algorithm, signature)
	return slices.Concat([]byte{0x30}, length(len(body)), body)
}

// asCheapAsOne has a stranger turned away again and again, and wants that to take no more CPU than a few times
// what it takes for a certificate of an ordinary size.
func (s *siege) asCheapAsOne(t *testing.T, bad tls.Certificate) {
	const strangers = 40
	cost := func(own tls.Certificate) time.Duration {
		config := &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1",
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }}
		var before, after syscall.Rusage
		s.must(syscall.Getrusage(syscall.RUSAGE_SELF, &before))
		crews(2, strangers, func(n int) {
			tcp := s.knockFrom(t, n)
			if tcp == nil {
				return
			}
			c := tls.Client(tcp, config)
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if err := c.Handshake(); err == nil && !turnedAway(c) {
				t.Error("it was let in")
			}
			_ = tcp.Close()
		})
		s.must(syscall.Getrusage(syscall.RUSAGE_SELF, &after))
		return time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	}
	one := cost(selfMade(t, s.server.callersCA))
	if many := cost(bad); many > 10*one {
		t.Errorf("%d handshakes took %v of CPU, as many with a P-256 key %v", strangers, many, one)
	} else {
		t.Logf("%d handshakes took %v of CPU, as many with a P-256 key %v", strangers, many, one)
	}
}

const callOf = "POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

// pipelined: hundreds of requests before the first answer is read, and as many of which none ever is.
func pipelined(t *testing.T, s *siege) {
	const each = 300
	one := fmt.Sprintf(callOf, len(listMethods), listMethods)
	crews(8, 24, func(n int) {
		c := s.callFrom(t, n, s.reader)
		if c == nil {
			return
		}
		defer func() { _ = c.Close() }()
		if n%3 == 0 {
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			for _, err := io.WriteString(c, one); err == nil; {
				_, err = io.WriteString(c, one)
			}
			return
		}
		go func() { _, _ = io.WriteString(c, strings.Repeat(one, each)) }()
		answers, buffer := 0, make([]byte, 64<<10)
		var text bytes.Buffer
		for answers < each {
			m, err := c.Read(buffer)
			if err != nil {
				t.Errorf("%d answers to %d requests: %v", answers, each, err)
				return
			}
			text.Write(buffer[:m])
			answers = bytes.Count(text.Bytes(), []byte("HTTP/1.1 200"))
		}
	})
}

// badBodies: calls that nobody can understand, each of which would be a record by itself.
func badBodies(t *testing.T, s *siege) {
	const nonsense = `{"jsonrpc":"2.0","id":1,"method":"ca.destroy","params":[{}]}`
	s.calls(t, s.reader, 16, 3000, nonsense)
}

// tooMany: a caller with a rate of one a second.
func tooMany(t *testing.T, s *siege) { s.calls(t, s.slow, 64, 5000, listMethods) }

func (s *siege) calls(t *testing.T, config *tls.Config, callers, n int, body string) {
	tr := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: callers, DisableCompression: true}
	defer tr.CloseIdleConnections()
	h := &http.Client{Transport: tr}
	crews(callers, n, func(int) {
		response, err := h.Post(s.url+"/rpc", "application/json", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Error(err)
		}
	})
}
