package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// How many connections there may be: of callers, of any one of them, and on top of that of those who have
// not shown who they are. One caller in trouble keeps no other out. Where there are too many strangers, one
// makes room, of the address that has the most of them the one that has taken longest: an honest handshake
// takes milliseconds, and strangers who only hold the door, or run against it, would otherwise shut it.
const (
	maxConns      = 1024
	maxPerCaller  = 256
	maxHandshakes = 256
)

// maxStrange is how many bytes are read of a client that has not proved who it is. A hello with keys of
// every kind and a chain of RSA certificates have room in it.
const maxStrange = 32 << 10

// door is the listener of the HTTP server: it hands over connections of callers whose TLS handshake is
// done, and counts the others by what went wrong.
type door struct {
	server  *Server
	tcp     net.Listener
	ctx     context.Context
	close   context.CancelFunc
	ready   chan net.Conn
	workers sync.WaitGroup

	mu      sync.Mutex
	knocked []*knock             // oldest first
	strange map[netip.Prefix]int // of them, by where they come from
	inside  map[string]int       // connections of each caller
	total   int                  // of all of them
}

// knock is a handshake under way.
type knock struct {
	from netip.Prefix
	give func()
}

func newDoor(s *Server, tcp net.Listener) *door {
	ctx, cancel := context.WithCancel(context.Background())
	d := &door{server: s, tcp: tcp, ctx: ctx, close: cancel, ready: make(chan net.Conn), strange: make(map[netip.Prefix]int), inside: make(map[string]int)}
	d.workers.Go(d.welcome)
	return d
}

// Accept gives the next connection of a caller.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.ready:
		return c, nil
	case <-d.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr is the TCP address.
func (d *door) Addr() net.Addr { return d.tcp.Addr() }

// Close ends the listener and every handshake.
func (d *door) Close() error {
	d.close()
	return d.tcp.Close()
}

func (d *door) wait() { d.workers.Wait() }

const acceptPause = 100 * time.Millisecond // out of descriptors, most likely

func (d *door) welcome() {
	for {
		c, err := d.tcp.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			d.close()
			return
		case err != nil:
			d.server.log.Error("accepting a connection", zap.Error(err))
			time.Sleep(acceptPause)
			continue
		}
		ctx, leave := d.enter(origin(c.RemoteAddr()))
		d.workers.Go(func() {
			defer leave()
			d.handshake(ctx, c)
		})
	}
}

// origin is what counts as one address: an IPv4 address, or the /64 of an IPv6 one, of which a single host has
// any number.
func origin(a net.Addr) netip.Prefix {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	p, _ := ip.Prefix(min(ip.BitLen(), 64)) // a length that the address has
	return p
}

// enter takes a place for a handshake. Its context ends with the handshake's time, or when the place is
// needed.
func (d *door) enter(from netip.Prefix) (ctx context.Context, leave func()) {
	ctx, cancel := context.WithTimeout(d.ctx, headerTime)
	ctx, give := context.WithCancelCause(ctx)
	k := &knock{from, func() { give(errCrowded) }}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.knocked = append(d.knocked, k)
	d.strange[from]++
	if len(d.knocked) > maxHandshakes {
		d.makeRoom()
	}
	return ctx, func() {
		give(nil)
		cancel()
		d.mu.Lock()
		defer d.mu.Unlock()
		if i := slices.Index(d.knocked, k); i >= 0 {
			d.forget(i)
		}
	}
}

// makeRoom ends one handshake: the oldest, of the address that has the most.
func (d *door) makeRoom() {
	at := 0
	for i, k := range d.knocked {
		if d.strange[k.from] > d.strange[d.knocked[at].from] {
			at = i
		}
	}
	d.knocked[at].give()
	d.forget(at)
}

func (d *door) forget(i int) {
	from := d.knocked[i].from
	if d.strange[from]--; d.strange[from] == 0 {
		delete(d.strange, from)
	}
	d.knocked = slices.Delete(d.knocked, i, i+1)
}

var errCrowded = errors.New("too many connections")

// How far a handshake got.
const (
	atHello       int32 = iota // nothing that can be answered was read
	atCertificate              // the server answered and wants the client's certificate
	atProof                    // the certificate is a caller's, and wants its key
)

// strange is the cause for which a certificate that could be a caller's is not let in.
type strange string

func (s strange) Error() string { return string(s) }

// errUnidentified means that the books could not be asked.
var errUnidentified = errors.New("cannot tell who is calling")

func (d *door) handshake(ctx context.Context, tcp net.Conn) {
	var stage atomic.Int32
	var name string
	config := d.server.rules.Load().tls.Clone()
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		stage.Store(atCertificate)
		own := d.server.own()
		return &own, nil
	}
	c := &conn{Conn: tcp, leave: func() {}, left: maxStrange}
	// Package tls would try to build a chain out of all the certificates that a stranger sent, which can be
	// made to take a quarter of a second.
	config.ClientAuth = tls.RequireAnyClientCert
	// Whom every request would be turned away for gets no place to hold.
	config.VerifyConnection = func(state tls.ConnectionState) error {
		proved, err := d.server.verify(state.PeerCertificates)
		if err != nil {
			return err
		}
		caller, _, stranger, err := d.server.known(ctx, proved)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errUnidentified, err)
		case caller == nil:
			return strange(stranger)
		}
		c.shown, name = proved, caller.name
		stage.Store(atProof)
		return nil
	}
	secure := tls.Server(c, config)
	err := secure.HandshakeContext(ctx)
	if err == nil {
		err = d.admit(c, name)
	}
	if err != nil {
		_ = secure.Close()
		if errors.Is(context.Cause(ctx), errCrowded) {
			err = errCrowded
		}
		switch {
		case d.ctx.Err() != nil:
		case errors.Is(err, errUnidentified):
			d.server.log.Error("a handshake failed", zap.Error(err))
		default:
			d.server.crowd.stranger(handshakeCause(err, stage.Load()))
		}
		return
	}
	c.left = unbounded
	select {
	case d.ready <- secure:
	case <-d.ctx.Done():
		_ = secure.Close()
	}
}

// admit takes a place for a caller's connection, which its end gives back.
func (d *door) admit(c *conn, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total >= maxConns || d.inside[name] >= maxPerCaller {
		return errCrowded
	}
	d.total++
	d.inside[name]++
	c.leave = sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.total--
		d.inside[name]--
	})
	return nil
}

// handshakeCause names what ended a handshake, from a small fixed set.
func handshakeCause(err error, stage int32) string {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var network *net.OpError
	var stranger strange
	switch {
	case errors.Is(err, errCrowded):
		return "tcp.crowded"
	case errors.As(err, &stranger):
		return string(stranger)
	case errors.As(err, &certificate):
		return certificateCause(certificate)
	case errors.Is(err, context.DeadlineExceeded):
		return "tls.timeout"
	case errors.As(err, &record):
		return "tls.not_tls"
	case errors.Is(err, io.EOF), errors.As(err, &network):
		return "tls.given_up" // by the client, with an alert or without
	case stage == atHello:
		return "tls.hello" // no version, cipher or protocol in common, or nonsense
	case stage == atCertificate:
		return "tls.no_certificate" // or none that can be read
	}
	return "tls.no_proof"
}

func certificateCause(err *tls.CertificateVerificationError) string {
	var unknown x509.UnknownAuthorityError
	var bad x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "tls.other_ca"
	case errors.As(err, &bad) && bad.Reason == x509.Expired:
		return "tls.expired"
	case errors.As(err, &bad) && bad.Reason == x509.IncompatibleUsage:
		return "tls.eku"
	}
	return "tls.bad_certificate"
}

// conn is the TCP side of a connection. It knows whether everything that was read from it became a
// request.
type conn struct {
	net.Conn
	leave  func()
	left   int          // bytes that the client may still send, or unbounded
	shown  shown        // who it is
	begun  atomic.Int64 // requests of which something was read
	served atomic.Int64 // requests that were handed over
}

const unbounded = -1

var errTooLong = errors.New("a handshake that is too long")

// Read reads no more of a stranger than it may send.
func (c *conn) Read(p []byte) (int, error) {
	if c.left == unbounded {
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Close gives the place back.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

type connKey struct{}

func tcpOf(c net.Conn) *conn { return c.(*tls.Conn).NetConn().(*conn) }

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, tcpOf(c))
}

// connState counts what the HTTP server turns away by itself: a request that it cannot read never
// reaches a handler.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	tcp := tcpOf(c)
	switch state {
	case http.StateActive:
		tcp.begun.Add(1)
	case http.StateClosed:
		if tcp.begun.Load() > tcp.served.Load() {
			s.crowd.stranger("http.malformed")
		}
	}
}
