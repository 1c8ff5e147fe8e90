package ldapsync

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

const (
	// nameMark stands in a filter template for the name, which is escaped when it is put there.
	nameMark = "{cn}"

	// An entry can change between the search for it and the change to it. Then both are done again,
	// and this often at most.
	applyRounds = 4

	// assertion is the control of RFC 4528: a change is made only if the entry still fits a filter.
	assertion = "1.3.6.1.1.12"
)

// LDAPConfig says how an LDAP directory is reached and where its entries are. The files are read
// anew for each connection.
type LDAPConfig struct {
	// URLs are of one directory: ldaps://host, ldap://host, which always means StartTLS, and
	// ldapi://%2Fpath or ldapi:///path. They are tried in this order.
	URLs []string
	// CA is a PEM file of the only CAs that may have issued a server's certificate. Without it, any
	// CA of the system may.
	CA string
	// ClientCert and ClientKey are PEM files. They are needed for SASL EXTERNAL over TLS.
	ClientCert, ClientKey string
	// BindDN and PasswordFile are for a simple bind. Without them the bind is SASL EXTERNAL. One
	// line end behind the password is not part of it.
	BindDN, PasswordFile string
	// Places are where entries of each published purpose are.
	Places map[cert.Purpose]Place
}

// Place is where entries of one purpose are.
type Place struct {
	// Base is the DN that they are below.
	Base string
	// Filter finds the entry of a name, which stands for {cn} in it (RFC 4515).
	Filter string
}

// DefaultPlaces are the people below ou=people and the servers below ou=hosts of a DN, found by cn.
func DefaultPlaces(base string) map[cert.Purpose]Place {
	return map[cert.Purpose]Place{
		cert.User:   {"ou=people," + base, "(&(objectClass=inetOrgPerson)(cn=" + nameMark + "))"},
		cert.Server: {"ou=hosts," + base, "(&(objectClass=device)(cn=" + nameMark + "))"},
	}
}

// LDAP is a directory behind servers that speak LDAP (RFC 4511). Entries are known by their entryUUID
// (RFC 4530), which a server must have; referrals are not followed, aliases not dereferenced.
type LDAP struct {
	*dialer
	places map[cert.Purpose]Place
}

// OpenLDAP checks the configuration. No server is asked yet.
func OpenLDAP(c LDAPConfig) (*LDAP, error) {
	places := make(map[cert.Purpose]Place)
	for purpose, p := range c.Places {
		where, err := parseDN(p.Base)
		if err == nil && len(where) == 0 {
			err = errors.New("it is empty")
		}
		if err != nil {
			return nil, badSetting(string(purpose)+".base", "directory base %q: %w", p.Base, err)
		}
		if !strings.Contains(p.Filter, nameMark) {
			return nil, badSetting(string(purpose)+".filter", "directory filter %q: want %s in it, where the name goes", p.Filter, nameMark)
		}
		if _, err := ldap.CompileFilter(p.filter("x")); err != nil {
			return nil, badSetting(string(purpose)+".filter", "directory filter %q: %w", p.Filter, err)
		}
		places[purpose] = p
	}
	d, err := newDialer(c)
	if err != nil {
		return nil, err
	}
	return &LDAP{d, places}, nil
}

// filter puts a name into the template.
func (p Place) filter(cn string) string {
	return strings.ReplaceAll(p.Filter, nameMark, ldap.EscapeFilter(cn))
}

func (d *LDAP) place(purpose cert.Purpose) (Place, error) {
	p, ok := d.places[purpose]
	if !ok {
		return p, fmt.Errorf("%w: certificates of the purpose %q are not published", ErrNoEntry, purpose)
	}
	return p, nil
}

// Find implements Directory.
func (d *LDAP) Find(ctx context.Context, purpose cert.Purpose, n name.Name) (string, error) {
	p, err := d.place(purpose)
	if err != nil {
		return "", err
	}
	e, err := d.only(ctx, p.Base, p.filter(n.Text), "entryUUID")
	if err != nil {
		return "", err
	}
	id := strings.ToLower(e.GetEqualFoldAttributeValue("entryUUID"))
	if id == "" {
		return "", fmt.Errorf("%.200q shows no entryUUID (RFC 4530); the server has to keep one and let us read it", e.DN)
	}
	return id, nil
}

// Read implements Directory.
func (d *LDAP) Read(ctx context.Context, t Target) ([][]byte, error) {
	e, err := d.target(ctx, t)
	if err != nil {
		return nil, err
	}
	return e.GetEqualFoldRawAttributeValues(published), nil
}

// Apply implements Directory. Nothing but values of userCertificate;binary is changed, each by its
// exact bytes, and the object class pkiUser added where the server says that the entry needs it. What
// is added and what is removed are two changes: a refused addition must not keep a revoked certificate.
func (d *LDAP) Apply(ctx context.Context, t Target, add, remove [][]byte) error {
	for _, der := range add {
		// A server may take octets that no reader of the entry can parse.
		if _, err := x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("%w: not a certificate in DER: %w", ErrRefused, err)
		}
	}
	var added, removed error
	if len(add) > 0 {
		added = d.change(ctx, t, add, nil)
	}
	if len(remove) > 0 {
		removed = d.change(ctx, t, nil, remove)
	}
	return errors.Join(added, removed)
}

// change looks at the entry and changes what has to be changed, until both agree.
func (d *LDAP) change(ctx context.Context, t Target, add, remove [][]byte) error {
	needsClass := false
	var last error
	for range applyRounds {
		e, err := d.target(ctx, t)
		if err != nil {
			return err
		}
		have := e.GetEqualFoldRawAttributeValues(published)
		missing, extra := without(add, have), common(remove, have)
		if len(missing)+len(extra) == 0 {
			return nil
		}
		last = d.modify(ctx, alteration{e.DN, e.GetEqualFoldAttributeValue("entryUUID"), missing, extra, needsClass})
		switch resultCode(last) {
		case ldap.LDAPResultSuccess:
			return nil
		case ldap.LDAPResultAttributeOrValueExists, ldap.LDAPResultNoSuchAttribute:
			needsClass = false // it may be what exists
		case ldap.LDAPResultNoSuchObject, ldap.LDAPResultAssertionFailed:
		case ldap.LDAPResultObjectClassViolation:
			if needsClass || len(missing) == 0 {
				return refusal(last)
			}
			needsClass = true
		default:
			return refusal(last)
		}
	}
	if resultCode(last) == ldap.LDAPResultAttributeOrValueExists {
		// certificateExactMatch compares the issuer and the serial number (RFC 4523 section 2.1).
		return fmt.Errorf("%w: the entry holds other bytes under the same issuer and serial number: %w", ErrRefused, last)
	}
	return fmt.Errorf("the entry changed during each of %d attempts: %w", applyRounds, last)
}

// alteration is one change of one entry.
type alteration struct {
	dn, entry      string
	missing, extra [][]byte
	class          bool // add the class that allows certificates (RFC 4523 section 3.1)
}

func (d *LDAP) modify(ctx context.Context, c alteration) error {
	request := ldap.NewModifyRequest(c.dn, nil)
	if c.class {
		request.Add("objectClass", []string{"pkiUser"})
	}
	if len(c.missing) > 0 {
		request.Add(published, texts(c.missing))
	}
	if len(c.extra) > 0 {
		request.Delete(published, texts(c.extra))
	}
	_, err := ask(ctx, d.dialer, func(l *link) (struct{}, error) {
		if l.asserts {
			// Another entry may have got the DN since the search.
			filter, err := ldap.CompileFilter(byIdentifier(c.entry))
			if err != nil {
				return struct{}{}, err
			}
			request.Controls = []ldap.Control{ldap.NewControlString(assertion, true, string(filter.Bytes()))}
		}
		return struct{}{}, l.conn.Modify(request)
	})
	return err
}

// target gives the entry with the identifier, wherever it was moved below the base.
func (d *LDAP) target(ctx context.Context, t Target) (*ldap.Entry, error) {
	p, err := d.place(t.Purpose)
	if err != nil {
		return nil, err
	}
	filter := byIdentifier(t.Entry)
	if t.Entry == madeEntry(t.Purpose, t.Name) {
		// The certificate is from a time when the directory was a file, which made entries by their name.
		filter = p.filter(t.Name.Text)
	}
	return d.only(ctx, p.Base, filter, "entryUUID", published)
}

func byIdentifier(entry string) string { return "(entryUUID=" + ldap.EscapeFilter(entry) + ")" }

// only gives the one entry that fits a filter.
func (d *LDAP) only(ctx context.Context, base, filter string, attributes ...string) (*ldap.Entry, error) {
	seconds := int(d.opTime / time.Second)
	request := ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, seconds, false, filter, attributes, nil)
	r, err := ask(ctx, d.dialer, func(l *link) (*ldap.SearchResult, error) { return l.conn.Search(request) })
	switch {
	case r != nil && len(r.Entries) > 1: // more may follow: the size limit is two
		return nil, fmt.Errorf("%w: %.200q and %.200q", ErrManyEntries, r.Entries[0].DN, r.Entries[1].DN)
	case resultCode(err) == ldap.LDAPResultNoSuchObject:
		// That says nothing of one name: the base is wrong, hidden from us, or not loaded yet.
		return nil, fmt.Errorf("there is no %q, or we may not see it: %w", base, err)
	case err != nil:
		return nil, err
	case len(r.Referrals) > 0:
		return nil, fmt.Errorf("the answer refers to %.200q, which is not followed", r.Referrals[0])
	case len(r.Entries) == 0:
		return nil, ErrNoEntry
	}
	return r.Entries[0], nil
}

// resultCode gives the result code of RFC 4511 section 4.1.9, or one above all of them.
func resultCode(err error) uint16 {
	var answer *ldap.Error
	switch {
	case err == nil:
		return ldap.LDAPResultSuccess
	case errors.As(err, &answer):
		return answer.ResultCode
	}
	return ldap.ErrorNetwork
}

// refusal marks those errors by which a server says that it will not make this change.
func refusal(err error) error {
	switch resultCode(err) {
	case ldap.LDAPResultReferral, ldap.LDAPResultAdminLimitExceeded, ldap.LDAPResultUnavailableCriticalExtension,
		ldap.LDAPResultUndefinedAttributeType, ldap.LDAPResultInappropriateMatching, ldap.LDAPResultConstraintViolation,
		ldap.LDAPResultInvalidAttributeSyntax, ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultUnwillingToPerform,
		ldap.LDAPResultObjectClassViolation, ldap.LDAPResultObjectClassModsProhibited:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// without gives the values of list that are not in have, each once.
func without(list, have [][]byte) (out [][]byte) {
	for _, v := range list {
		if !contains(have, v) && !contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// common gives the values of list that are in have, each once.
func common(list, have [][]byte) (out [][]byte) {
	for _, v := range list {
		if contains(have, v) && !contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func contains(list [][]byte, value []byte) bool {
	return slices.ContainsFunc(list, func(v []byte) bool { return bytes.Equal(v, value) })
}

func texts(values [][]byte) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
