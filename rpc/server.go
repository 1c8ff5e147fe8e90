// Package rpc is the one way in: who is calling, may they, and one table of methods behind two codecs.
//
// POST /RPC2 is XML-RPC and POST /rpc is JSON-RPC 2.0, over HTTP/1.1 and mutual TLS. A caller is known
// by a client certificate of the CA's own callers issuer, or by a credential that is configured for it. The
// configuration and the books are asked on every request, so that a revocation ends a connection that is already
// open. Every ca method takes one struct and answers ok, a message that says what to do next, and details with a
// stable code; a call that is not understood gets a fault.
//
// It promises that every refused and every malformed call of a known caller is on the log before it is
// answered, that strangers are counted on the log by cause and minute, and that no error text of another
// package reaches a caller unless it was written for one.
//
// It may import ca, store, audit and what they stand on, and rpc/xmlrpc.
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
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/store"
)

// Options are what a server works with. All of them are needed except MinTLS12 and Observe.
type Options struct {
	Authority      *ca.Authority
	Store          *store.Store
	Config         Config
	CallersCA      *x509.Certificate      // issuer of the callers' certificates
	TLSCertificate func() tls.Certificate // the server's own, with its chain; asked for each connection
	MinTLS12       bool                   // accept TLS 1.2 as well as 1.3
	Log            *zap.Logger
	Now            func() time.Time
	Rand           io.Reader

	// Observe is called once for each request of a known caller, when it is answered. method is one of
	// the table or "none"; transport is "xmlrpc", "jsonrpc" or "none"; result is one of the words below.
	// Optional.
	Observe func(method, transport, result string, took time.Duration)
}

// How a request of a known caller can end, as Options.Observe is told.
const (
	resultOK            = "ok"            // done, or planned
	resultRefused       = "refused"       // a clear no
	resultFailed        = "failed"        // nothing was done, because something is in trouble
	resultUnknown       = "unknown"       // it is not known yet how it ended
	resultMisunderstood = "misunderstood" // no proper call
	resultInternal      = "internal"      // an error that is in the service's journal
	resultTooMany       = "too_many"      // not looked at: the caller makes too many
)

// Bounds of one connection and one call. A call may take longer than the waits of package ca together;
// the answer must fit behind it.
const (
	headerTime = 10 * time.Second // also of a TLS handshake
	readTime   = 20 * time.Second
	callTime   = 60 * time.Second
	writeTime  = readTime + callTime + 20*time.Second
	idleTime   = 2 * time.Minute
	recordTime = 10 * time.Second // for the record of a refusal
	graceTime  = 10 * time.Second // for calls under way when the server stops
	maxHeader  = 16 << 10
)

// Server answers the RPC.
type Server struct {
	authority *ca.Authority
	store     *store.Store
	rules     atomic.Pointer[rules]
	callersCA *x509.Certificate
	own       func() tls.Certificate
	log       *zap.Logger
	now       func() time.Time
	rand      io.Reader
	methods   map[string]row
	crowd     *crowd
	shelf     *shelf
	callTime  time.Duration
	observe   func(method, transport, result string, took time.Duration)
}

// New checks the configuration and makes a server.
func New(o Options) (*Server, error) {
	s := &Server{
		authority: o.Authority, store: o.Store, callersCA: o.CallersCA, own: o.TLSCertificate,
		log: o.Log, now: o.Now, rand: o.Rand, crowd: newCrowd(o.Store, o.Log, o.Now), shelf: newShelf(), callTime: callTime, observe: o.Observe,
	}
	if s.observe == nil {
		s.observe = func(string, string, string, time.Duration) {}
	}
	s.methods = s.table()
	first, err := s.newRules(o.Config, o.MinTLS12)
	if err != nil {
		return nil, err
	}
	s.rules.Store(first)
	return s, nil
}

// Serve answers on a TCP listener until ctx ends; then calls under way are finished, for a moment, what
// was counted is entered on the log, and it returns nil. The store must stay open until then.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	journal, err := zap.NewStdLogAt(s.log, zap.ErrorLevel)
	if err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	h := &http.Server{
		Handler:                      http.HandlerFunc(s.serve),
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            headerTime,
		ReadTimeout:                  readTime,
		WriteTimeout:                 writeTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               maxHeader,
		TLSNextProto:                 map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only
		ErrorLog:                     journal,
		BaseContext:                  func(net.Listener) context.Context { return calls },
		ConnContext:                  withConn,
		ConnState:                    s.connState,
	}
	door := newDoor(s, l)
	folding := make(chan struct{})
	go func() {
		defer close(folding)
		s.crowd.run(calls)
	}()
	var failed error
	served := make(chan struct{})
	go func() {
		defer close(served)
		failed = h.Serve(door)
	}()

	select {
	case <-served:
		err = fmt.Errorf("serving: %w", failed)
	case <-ctx.Done():
		defer func() { <-served }()
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
	defer cancel()
	if stopped := h.Shutdown(grace); stopped != nil {
		s.log.Warn("calls were cut off", zap.Error(stopped))
		err = errors.Join(err, h.Close())
	}
	door.wait()
	cut()
	<-folding
	return errors.Join(err, s.crowd.flush(context.WithoutCancel(ctx), s.now().Add(time.Minute)))
}

// zapCall is what the operational log says of a call.
func zapCall(rq *request, err error) []zap.Field {
	return []zap.Field{
		zap.String("reference", rq.id), zap.String("caller", rq.caller.name), zap.String("peer", rq.who.Peer),
		zap.String("method", quoted(rq.method)), zap.Error(err),
	}
}
