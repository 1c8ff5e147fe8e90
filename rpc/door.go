package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// How many connections there may be. Those that have not proved who they are have places of their own,
// so that strangers cannot take all of them.
const (
	maxConns      = 1024
	maxHandshakes = 256
)

// door is the listener of the HTTP server: it hands over connections whose TLS handshake is done, and
// counts the others by what went wrong.
type door struct {
	server     *Server
	tcp        net.Listener
	ctx        context.Context
	close      context.CancelFunc
	ready      chan net.Conn
	handshakes chan struct{}
	conns      chan struct{}
	workers    sync.WaitGroup
}

func newDoor(s *Server, tcp net.Listener) *door {
	ctx, cancel := context.WithCancel(context.Background())
	d := &door{
		server: s, tcp: tcp, ctx: ctx, close: cancel, ready: make(chan net.Conn),
		handshakes: make(chan struct{}, maxHandshakes), conns: make(chan struct{}, maxConns),
	}
	d.workers.Go(d.welcome)
	return d
}

// Accept gives the next connection of somebody with a certificate of the callers issuer.
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
		conn, full := d.place(c)
		if full {
			d.server.crowd.stranger("tcp.crowded")
			_ = c.Close()
			continue
		}
		d.workers.Go(func() { d.handshake(conn) })
	}
}

// place takes a place for a connection, and one for its handshake.
func (d *door) place(c net.Conn) (placed *conn, full bool) {
	select {
	case d.handshakes <- struct{}{}:
	default:
		return nil, true
	}
	select {
	case d.conns <- struct{}{}:
	default:
		<-d.handshakes
		return nil, true
	}
	return &conn{Conn: c, leave: sync.OnceFunc(func() { <-d.conns })}, false
}

// How far a handshake got.
const (
	atHello       int32 = iota // nothing that can be answered was read
	atCertificate              // the server answered and wants the client's certificate
	atProof                    // the certificate is good, and wants its key
)

func (d *door) handshake(c *conn) {
	defer func() { <-d.handshakes }()
	var stage atomic.Int32
	config := d.server.tls.Clone()
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		stage.Store(atCertificate)
		own := d.server.own()
		return &own, nil
	}
	config.VerifyConnection = func(tls.ConnectionState) error {
		stage.Store(atProof)
		return nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, headerTime)
	defer cancel()
	secure := tls.Server(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = secure.Close()
		if d.ctx.Err() == nil {
			d.server.crowd.stranger(handshakeCause(err, stage.Load()))
		}
		return
	}
	select {
	case d.ready <- secure:
	case <-d.ctx.Done():
		_ = secure.Close()
	}
}

// handshakeCause names what ended a handshake, from a small fixed set.
func handshakeCause(err error, stage int32) string {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var network *net.OpError
	switch {
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
	begun  atomic.Int64 // requests of which something was read
	served atomic.Int64 // requests that were handed over
}

// Close gives the place free.
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
