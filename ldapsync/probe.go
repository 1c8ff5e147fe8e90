package ldapsync

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/chancery-ca/chancery/ca/cert"
)

// What Probe found, beside ErrTLS and ErrBind. Any other error says that the server could not be asked.
var (
	ErrNoBase    = errors.New("the base is not there, or we may not see it")
	ErrNothing   = errors.New("no entry to try it with")
	ErrNoUUID    = errors.New("no entryUUID is shown")
	ErrMayNot    = errors.New("we may not write certificates")
	ErrNotWriter = errors.New("the server takes no changes")
)

// Probed is what one server said of the entries of one purpose.
type Probed struct {
	URL     string
	Purpose cert.Purpose // "" if it did not come to that
	Err     error        // nil: all is as it should be
}

// Probe asks each server, on a connection of its own, whether certificates could be published there. It
// leaves no trace: the right to write is tried by taking away a certificate that no entry holds. A server
// looks at the rights first, and says noSuchAttribute only to those who have them (RFC 4511 section 4.6).
func (d *LDAP) Probe(ctx context.Context) []Probed {
	answers := make([][]Probed, len(d.servers))
	var all sync.WaitGroup
	for i, s := range d.servers {
		all.Go(func() { answers[i] = d.probe(ctx, s) })
	}
	all.Wait()
	var out []Probed
	for _, a := range answers {
		out = append(out, a...)
	}
	return out
}

func (d *LDAP) probe(ctx context.Context, s server) []Probed {
	connecting, cancel := context.WithTimeout(ctx, d.connectTime)
	defer cancel()
	l, err := d.connect(connecting, s)
	if err != nil {
		return []Probed{{URL: s.url, Err: err}}
	}
	defer l.close()
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	var out []Probed
	for _, purpose := range []cert.Purpose{cert.User, cert.Server} {
		if p, ok := d.places[purpose]; ok {
			out = append(out, Probed{s.url, purpose, l.probe(p)})
		}
	}
	return out
}

// probe looks for any entry at a place, and tries to write to it.
func (l *link) probe(p Place) error {
	find := func(scope int, filter string) (*ldap.SearchResult, error) {
		r, err := l.conn.Search(ldap.NewSearchRequest(p.Base, scope, ldap.NeverDerefAliases, 1, int(opTime/time.Second), false,
			filter, []string{"entryUUID"}, nil))
		if resultCode(err) == ldap.LDAPResultSizeLimitExceeded {
			err = nil // there are more
		}
		return r, err
	}
	if _, err := find(ldap.ScopeBaseObject, "(objectClass=*)"); resultCode(err) == ldap.LDAPResultNoSuchObject {
		return fmt.Errorf("%w: %q", ErrNoBase, p.Base)
	} else if err != nil {
		return fmt.Errorf("looking for %q: %w", p.Base, err)
	}
	// The name's place in the filter is left open.
	r, err := find(ldap.ScopeWholeSubtree, strings.ReplaceAll(p.Filter, nameMark, "*"))
	switch {
	case err != nil:
		return fmt.Errorf("looking for entries below %q: %w", p.Base, err)
	case len(r.Entries) == 0:
		return fmt.Errorf("%w below %q", ErrNothing, p.Base)
	case r.Entries[0].GetEqualFoldAttributeValue("entryUUID") == "":
		return fmt.Errorf("%w by %.200q", ErrNoUUID, r.Entries[0].DN)
	}
	return l.tryWriting(r.Entries[0].DN)
}

func (l *link) tryWriting(dn string) error {
	nobodys, err := nobodysCertificate()
	if err != nil {
		return err
	}
	request := ldap.NewModifyRequest(dn, nil)
	request.Delete(published, []string{string(nobodys)})
	err = l.conn.Modify(request)
	switch resultCode(err) {
	case ldap.LDAPResultNoSuchAttribute:
		return nil
	case ldap.LDAPResultReferral, ldap.LDAPResultUnwillingToPerform:
		return fmt.Errorf("%w: %w", ErrNotWriter, err)
	case ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultUndefinedAttributeType:
		return fmt.Errorf("%w to %.200q: %w", ErrMayNot, dn, err)
	case ldap.LDAPResultSuccess:
		return fmt.Errorf("%.200q: the server says that it took away a certificate which cannot have been there", dn)
	}
	return fmt.Errorf("trying to write to %.200q: %w", dn, err)
}

// nobodysCertificate is one that was never anywhere: its serial number is new.
func nobodysCertificate() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	serial, err := cert.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Int(), Subject: pkix.Name{CommonName: "chancery doctor"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0), // of no use to anybody
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return der, nil
}
