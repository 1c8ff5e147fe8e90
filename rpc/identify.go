package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

// shown is what the client of a connection has shown of itself: a certificate whose key it has.
type shown struct {
	leaf    *x509.Certificate
	by      *anchor // the CA whose signature was verified; nil: the certificate names none of them, and its key is pinned
	key     string  // SHA-256 of its public key
	subject string  // as spelled by spellDN; empty if it cannot be
}

// pass is by what a request was let in.
type pass struct {
	by      *credential
	ends    time.Time // of the certificate of this connection
	foreign bool      // that is not by the callers CA
}

// identify tells who makes a request, or why that is a stranger. The door has asked before it let the
// connection in; it is asked again on every request, because a connection outlives what was true when it was
// made: the certificate expires, or is revoked, or the configuration does not name it any more.
func (s *Server) identify(ctx context.Context, r *http.Request) (rq *request, stranger string, err error) {
	own := r.Context().Value(connKey{}).(*conn).shown
	c, by, stranger, err := s.known(ctx, own)
	if c == nil {
		return nil, stranger, err
	}
	id, err := s.newID()
	return &request{id: id, made: true, caller: c, pass: pass{by, own.ends(), own.by == nil || own.by.foreign()}, who: audit.Actor{
		Kind: audit.ByCaller, Name: c.name, Key: own.key, Peer: r.RemoteAddr,
	}}, "", err
}

// verify finds the CA that a client's certificate is by: its issuer itself, which is one of ours, and not what
// else the client sent. It costs one signature, whatever that is; for a pinned key of another CA, or of none,
// it costs nothing.
func (s *Server) verify(sent []*x509.Certificate) (shown, error) {
	r, leaf := s.rules.Load(), sent[0]
	own := shown{leaf: leaf, by: r.anchors.of(leaf), key: cert.SHA256(leaf.RawSubjectPublicKeyInfo)}
	var err error
	switch {
	case own.by != nil:
		err = own.by.verify(leaf, s.now())
	case r.credentials.keys[own.key] == nil:
		err = x509.UnknownAuthorityError{Cert: leaf}
	}
	if err != nil {
		return own, &tls.CertificateVerificationError{UnverifiedCertificates: sent, Err: err}
	}
	if subject, err := spellDN(leaf.RawSubject); err == nil {
		own.subject = subject
	}
	return own, nil
}

// ends is when it is not good any more.
func (own shown) ends() time.Time {
	if own.by != nil && own.by.cert.NotAfter.Before(own.leaf.NotAfter) {
		return own.by.cert.NotAfter
	}
	return own.leaf.NotAfter
}

// known tells which caller a client is now, and by which credential, or why it is a stranger.
func (s *Server) known(ctx context.Context, own shown) (c *caller, by *credential, stranger string, err error) {
	r, leaf, now := s.rules.Load(), own.leaf, s.now()
	switch {
	case leaf == nil:
		return nil, nil, "caller.no_certificate", nil
	case !same(r.anchors.of(leaf), own.by):
		return nil, nil, "caller.other_ca", nil
	case now.Before(leaf.NotBefore) || now.After(own.ends()) || own.by != nil && now.Before(own.by.cert.NotBefore):
		return nil, nil, "caller.expired", nil
	case len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(leaf.UnknownExtKeyUsage) > 0:
		return nil, nil, "caller.eku", nil
	}
	if by = r.credentials.match(own); by == nil {
		return nil, nil, "caller.unknown", nil
	}
	if c = r.callers[by.caller]; c == nil {
		return nil, nil, "caller.unknown", nil
	}
	if own.by != nil && !own.by.foreign() {
		stranger, err = s.inBooks(ctx, own, c)
	} else if by.kind == byKey {
		stranger, err = s.keyRevoked(ctx, own, c)
	}
	if err != nil || stranger != "" {
		return nil, nil, stranger, err
	}
	return c, by, "", nil
}

// same tells whether the CA that a certificate is by now is the one whose signature was verified.
func same(now, verified *anchor) bool {
	if now == nil || verified == nil {
		return now == verified
	}
	return now.foreign() == verified.foreign() && now.cert.Equal(verified.cert)
}

// inBooks tells why a certificate of the callers CA is not good for a caller.
func (s *Server) inBooks(ctx context.Context, own shown, c *caller) (stranger string, err error) {
	if own.leaf.Subject.CommonName != c.name { // a key that is pinned for somebody else
		return "caller.unknown", nil
	}
	switch state, err := s.store.StateOf(ctx, cert.Caller, cert.SerialOf(own.leaf.SerialNumber), own.leaf.Raw); {
	case err != nil:
		return "", fmt.Errorf("looking the caller's certificate up: %w", err)
	case state == "":
		return "caller.not_in_books", nil
	case state != store.StateLive:
		return "caller.revoked", nil
	}
	return "", nil
}

// keyRevoked tells whether the callers CA has revoked a certificate of this caller with its pinned key, which
// would otherwise go on in a certificate that whoever has the key makes of it.
func (s *Server) keyRevoked(ctx context.Context, own shown, c *caller) (stranger string, err error) {
	n, err := name.Canonical(cert.Caller, c.name)
	if err != nil {
		return "", fmt.Errorf("looking the caller's key up: %w", err)
	}
	found, err := s.store.Find(ctx, store.Query{Purpose: cert.Caller, Key: n.Key, SPKI: own.key, States: []store.State{store.StateRevoked}, Limit: 1})
	if err != nil {
		return "", fmt.Errorf("looking the caller's key up: %w", err)
	}
	if len(found) > 0 {
		return "caller.revoked", nil
	}
	return "", nil
}
