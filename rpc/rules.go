package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// rules are what may change while the server answers: who may do what, and how a connection begins. They
// are never written to. A request keeps the caller that it began with.
type rules struct {
	callers     map[string]*caller
	credentials *credentials
	anchors     anchors
	tls         *tls.Config
}

// Prepare checks a configuration. What it returns, called by one at a time, puts it into force, for every
// request and connection that begins from then on, also on connections that are open already.
func (s *Server) Prepare(c Config, minTLS12 bool) (apply func(), err error) {
	next, err := s.newRules(c, minTLS12)
	if err == nil {
		err = c.unexpired(s.now())
	}
	if err != nil {
		return nil, err
	}
	return func() {
		before := s.rules.Load().callers
		for name, c := range next.callers {
			// Otherwise each reload would be another burst for everybody.
			was := before[name]
			if was != nil {
				c.refusals = was.refusals
				c.keepHourly(was)
			}
			if was != nil && was.limit.Limit() == c.limit.Limit() {
				c.limit = was.limit
			}
		}
		s.rules.Store(next)
	}, nil
}

func (s *Server) newRules(c Config, minTLS12 bool) (*rules, error) {
	callers, wrongCallers := newCallers(c, grantedIn(s.methods), s.now)
	known, wrongCredentials := newCredentials(c)
	cas, wrongCAs := newAnchors([]*x509.Certificate{s.callersCA}, s.ownCAs(), c.ForeignCAs)
	err := errors.Join(wrongCallers, wrongCredentials, wrongCAs)
	if err == nil {
		err = known.resolve(cas)
	}
	if err != nil {
		return nil, err
	}
	r := &rules{callers: callers, credentials: known, anchors: cas, tls: &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, // the door verifies by itself
		ClientCAs:  known.wanted(cas),
		NextProtos: []string{"http/1.1"},
		// A resumed session would bring a caller in on what was true before.
		SessionTicketsDisabled: true,
		Time:                   s.now,
	}}
	if minTLS12 {
		r.tls.MinVersion = tls.VersionTLS12
		r.tls.CipherSuites = []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		}
	}
	return r, nil
}
