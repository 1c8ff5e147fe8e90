package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// identify tells who makes a request, or why that is a stranger. The door has asked before it let the
// connection in; it is asked again on every request, because a connection outlives what was true when it was
// made: the certificate expires, or is revoked.
func (s *Server) identify(ctx context.Context, r *http.Request) (rq *request, stranger string, err error) {
	chains := r.Context().Value(connKey{}).(*conn).chains
	c, stranger, err := s.known(ctx, chains)
	if c == nil {
		return nil, stranger, err
	}
	own := chains[0][0]
	id, err := s.newID()
	return &request{id: id, made: true, caller: c, ends: own.NotAfter, who: audit.Actor{
		Kind: audit.ByCaller, Name: c.name, Key: cert.SHA256(own.RawSubjectPublicKeyInfo), Peer: r.RemoteAddr,
	}}, "", err
}

// verify makes the chain of a client's certificate: signed by the callers issuer itself, valid now, for a client.
// What else the client sent is not looked at, so it costs one signature whatever that is.
func (s *Server) verify(sent []*x509.Certificate) ([][]*x509.Certificate, error) {
	chains, err := sent[0].Verify(x509.VerifyOptions{
		Roots: s.anchors, CurrentTime: s.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, &tls.CertificateVerificationError{UnverifiedCertificates: sent, Err: err}
	}
	return chains, nil
}

// known tells which caller a verified certificate is that of now, or why it is a stranger's.
func (s *Server) known(ctx context.Context, chains [][]*x509.Certificate) (c *caller, stranger string, err error) {
	if len(chains) == 0 {
		return nil, "caller.no_certificate", nil
	}
	chain := chains[0]
	leaf, now := chain[0], s.now()
	switch {
	case len(chain) != 2 || !chain[1].Equal(s.callersCA):
		return nil, "caller.other_ca", nil
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) || now.After(chain[1].NotAfter):
		return nil, "caller.expired", nil
	case len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(leaf.UnknownExtKeyUsage) > 0:
		return nil, "caller.eku", nil
	}
	c = s.rules.Load().callers[leaf.Subject.CommonName]
	if c == nil {
		return nil, "caller.unknown", nil
	}
	found, err := s.store.Find(ctx, store.Query{Serial: cert.SerialOf(leaf.SerialNumber), Limit: 1})
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("looking the caller's certificate up: %w", err)
	case len(found) == 0 || found[0].Purpose != cert.Caller || !bytes.Equal(found[0].DER, leaf.Raw):
		return nil, "caller.not_in_books", nil
	case found[0].State != store.StateLive:
		return nil, "caller.revoked", nil
	}
	return c, "", nil
}
