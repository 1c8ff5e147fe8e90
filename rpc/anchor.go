package rpc

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// anchor is a CA that signs certificates of callers.
type anchor struct {
	name    string // of a foreign CA; empty: one of our own, which is the callers CA
	cert    *x509.Certificate
	subject string // as spelled by spellDN
	pool    *x509.CertPool
}

func (a *anchor) foreign() bool { return a.name != "" }

// anchors are the callers CA and the foreign CAs.
type anchors []*anchor

func newAnchor(name string, c *x509.Certificate) (*anchor, error) {
	subject, err := spellDN(c.RawSubject)
	a := &anchor{name: name, cert: c, subject: subject, pool: x509.NewCertPool()}
	a.pool.AddCert(c)
	return a, err
}

// String lists their names.
func (all anchors) String() string {
	var names []string
	for _, a := range all {
		names = append(names, fmt.Sprintf("%q", a.subject))
	}
	return strings.Join(names, ", ")
}

func (all anchors) named(subject string) *anchor {
	for _, a := range all {
		if a.subject == subject {
			return a
		}
	}
	return nil
}

// of chooses the one CA whose signature on a certificate is worth a look, nil if there is none. Of several with
// one name the key identifier decides.
func (all anchors) of(leaf *x509.Certificate) *anchor {
	var found *anchor
	for _, a := range all {
		if !bytes.Equal(a.cert.RawSubject, leaf.RawIssuer) {
			continue
		}
		if found == nil || len(leaf.AuthorityKeyId) > 0 && bytes.Equal(a.cert.SubjectKeyId, leaf.AuthorityKeyId) {
			found = a
		}
	}
	return found
}

// verify checks that it has signed a certificate itself, which is valid at a time, for a client. That is one
// signature, whatever the certificate is.
func (a *anchor) verify(leaf *x509.Certificate, at time.Time) error {
	_, err := leaf.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// newAnchors checks the foreign CAs against those of the installation itself. Errors are ConfigErrors, joined.
func newAnchors(callers, own []*x509.Certificate, foreign []ForeignCA) (anchors, error) {
	var all anchors
	for _, c := range callers {
		one, err := newAnchor("", c)
		if err != nil {
			return nil, fmt.Errorf("reading the name of a CA of this installation: %w", err)
		}
		all = append(all, one)
	}
	var wrong []error
	for i, f := range foreign {
		one, err := newForeign(f, all, own)
		if err != nil {
			wrong = append(wrong, &ConfigError{fmt.Sprintf("foreign_cas[%d].file", i), fmt.Errorf("foreign CA %s: %w", f.Name, err)})
			continue
		}
		all = append(all, one)
	}
	return all, errors.Join(wrong...)
}

func newForeign(f ForeignCA, before anchors, own []*x509.Certificate) (*anchor, error) {
	c := f.Certificate
	switch {
	case c == nil:
		return nil, errors.New("its certificate was not read")
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%s is not the certificate of a CA", f.File)
	}
	a, err := newAnchor(f.Name, c)
	if err != nil {
		return nil, err
	}
	for _, ours := range own {
		// What we have revoked would come in again by a CA that nobody asks.
		if subject, err := spellDN(ours.RawSubject); err != nil || subject == a.subject || bytes.Equal(ours.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
			return nil, fmt.Errorf("%s has the name or the key of %q, a CA of this installation, and is not foreign", f.File, ours.Subject.CommonName)
		}
	}
	for _, b := range before {
		same := b.subject == a.subject
		if same && (!bytes.Equal(b.cert.RawSubject, c.RawSubject) || len(b.cert.SubjectKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(b.cert.SubjectKeyId, c.SubjectKeyId)) {
			return nil, fmt.Errorf("it is called %q, as foreign CA %s is: two CAs of one name must tell their keys apart by subject key identifiers", a.subject, b.name)
		}
	}
	return a, nil
}

// checkForeignCAs looks at what can be judged without the certificates.
func checkForeignCAs(foreign []ForeignCA) (wrong []error) {
	const plain = "abcdefghijklmnopqrstuvwxyz0123456789-"
	seen := make(map[string]bool)
	for i, f := range foreign {
		key := fmt.Sprintf("foreign_cas[%d]", i)
		if f.Name == "" || len(f.Name) > 63 || strings.Trim(f.Name, plain) != "" {
			wrong = append(wrong, &ConfigError{key + ".name", fmt.Errorf("%s: name %.80q: want 1 to 63 of a-z 0-9 -", key, f.Name)})
		} else if seen[f.Name] {
			wrong = append(wrong, &ConfigError{key + ".name", fmt.Errorf("%s: %s is there twice", key, f.Name)})
		}
		seen[f.Name] = true
		if f.File == "" {
			wrong = append(wrong, &ConfigError{key + ".file", fmt.Errorf("%s: file is missing: the CA's certificate, PEM", key)})
		}
	}
	return wrong
}

// CheckCAs looks at what NewPolicy cannot know: whether the foreign CAs are such, have not expired, and are, with
// those of the installation, own, the ones that the credentials name. Which of its own the callers CA is, only the
// service knows. Errors are ConfigErrors, joined.
func (c Config) CheckCAs(own []*x509.Certificate, now time.Time) error {
	all, err := newAnchors(own, own, c.ForeignCAs)
	if err != nil {
		return err
	}
	known, err := newCredentials(c)
	if err != nil {
		return err
	}
	return errors.Join(known.resolve(all), c.unexpired(now))
}

// unexpired refuses a foreign CA that lets nobody in any more, or not yet. A service that starts does not ask:
// whoever depends on it has nothing to do with that CA.
func (c Config) unexpired(now time.Time) error {
	var wrong []error
	for i, f := range c.ForeignCAs {
		if now.Before(f.Certificate.NotBefore) || now.After(f.Certificate.NotAfter) {
			wrong = append(wrong, &ConfigError{fmt.Sprintf("foreign_cas[%d].file", i), fmt.Errorf("foreign CA %s: %s is valid from %s to %s: put the newer certificate there, or take the CA out",
				f.Name, f.File, f.Certificate.NotBefore.UTC().Format(time.RFC3339), f.Certificate.NotAfter.UTC().Format(time.RFC3339))})
		}
	}
	return errors.Join(wrong...)
}

// ownCAs are the CAs of the installation.
func (s *Server) ownCAs() []*x509.Certificate {
	own := []*x509.Certificate{s.callersCA}
	for _, purpose := range cert.Purposes() {
		chain, err := s.authority.Chain(purpose)
		if err != nil {
			continue // there need not be a CA for each purpose
		}
		for _, der := range chain.Certificates {
			if c, err := x509.ParseCertificate(der); err == nil { // they were parsed as the key room named them
				own = append(own, c)
			}
		}
	}
	return own
}
