package ldapsync

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands before a server, ends the TLS itself, and so sees each request and each answer.
type proxy struct {
	t       *testing.T
	s       *slapd
	address string
	before  func(request []byte) // if not nil, called before a request goes on to the server
	mute    atomic.Bool          // answers are dropped
	mu      sync.Mutex
	open    []net.Conn
	served  sync.WaitGroup
}

func newProxy(t *testing.T, s *slapd) *proxy {
	t.Helper()
	own, err := tls.LoadX509KeyPair(s.dir+"/server.pem", s.dir+"/server.key")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}})
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, s: s, address: l.Addr().String()}
	p.served.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", s.dir+"/socket")
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, client, server)
			p.mu.Unlock()
			p.served.Go(func() { p.pass(server, client, true) })
			p.served.Go(func() { p.pass(client, server, false) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.served.Wait()
	})
	return p
}

func (p *proxy) pass(to, from net.Conn, requests bool) {
	defer to.Close()
	buffer := make([]byte, 1<<20)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if requests && p.before != nil {
			p.before(buffer[:n])
		}
		if !requests && p.mute.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
}

func (p *proxy) config() LDAPConfig {
	c := p.s.config()
	c.URLs = []string{"ldaps://" + p.address}
	return c
}

// listen runs a server that does with each connection what it is told, and counts them.
func listen(t *testing.T, serve func(net.Conn)) (address string, count *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = new(atomic.Int64)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			served.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); served.Wait() })
	return l.Addr().String(), count
}

// drain reads until the other side ends the connection.
func drain(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// passOn gives another address of a server.
func passOn(t *testing.T, address, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			served.Go(func() { defer server.Close(); _, _ = io.Copy(server, client) })
			served.Go(func() { defer client.Close(); _, _ = io.Copy(client, server) })
		}
	})
	t.Cleanup(func() { l.Close(); served.Wait() })
	return l.Addr().String()
}
