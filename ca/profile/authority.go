package profile

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// The lives of CA certificates, in years. The root outlives every issuing CA that is made in its
// first half.
const (
	RootYears   = 20
	IssuerYears = 10
)

// RootSpec is what a root certificate depends on besides its key. A new key is a new generation: it
// gets another DN, because many verifiers find a list by the DN of its issuer.
type RootSpec struct {
	Org        string
	Generation int // from 1
}

// Root makes a self-signed root certificate O=Org, CN=Org Root CA G1 for a P-256, P-384 or RSA-3072
// key, valid for RootYears, for a chain of one issuing CA.
func Root(rand io.Reader, key crypto.Signer, spec RootSpec, now time.Time) (der []byte, err error) {
	notBefore := caStart(now)
	t, err := authorityTemplate(rand, key.Public(), spec.Org, "Root", spec.Generation)
	if err != nil {
		return nil, err
	}
	t.NotBefore, t.NotAfter = notBefore, notBefore.AddDate(RootYears, 0, 0).Add(-time.Second)
	t.MaxPathLen = 1
	_, how, err := authorityKey(key.Public())
	if err != nil {
		return nil, err
	}
	t.SignatureAlgorithm = how.x509
	if der, err = x509.CreateCertificate(rand, t, t, key.Public(), key); err != nil {
		return nil, fmt.Errorf("making the root certificate: %w", err)
	}
	return der, nil
}

// IssuerSpec is what the certificate of an issuing CA depends on besides the keys.
type IssuerSpec struct {
	Org        string
	Generation int            // from 1
	Purposes   []cert.Purpose // name the CA in its DN and decide its extended key usages

	// Domains, if there are any, constrain the names of the kinds that the purposes have: a server's
	// DNS names and a user's mail addresses are in these domains or below them, and a server's IP
	// addresses are in Networks, none by default. Callers have no names to constrain.
	Domains  []string
	Networks []netip.Prefix
}

// IssuerCert makes the certificate of an issuing CA O=Org, CN=Org Users CA G1 under the root, valid
// for IssuerYears but not beyond the root. It can issue end-entity certificates only, for its
// purposes only.
func IssuerCert(rand io.Reader, root *x509.Certificate, rootKey crypto.Signer, spec IssuerSpec, public crypto.PublicKey, now time.Time) (der []byte, err error) {
	_, how, err := authorityKey(root.PublicKey)
	if err != nil {
		return nil, err
	}
	if !root.IsCA || root.KeyUsage&x509.KeyUsageCertSign == 0 || root.MaxPathLen != 1 || len(root.SubjectKeyId) == 0 {
		return nil, errors.New("the certificate of the root is not one that this package made")
	}
	if now.Before(root.NotBefore) || !now.Before(root.NotAfter) {
		return nil, refuse("validity.issuer", "the root is not valid now")
	}
	title, usages, err := spec.purposes()
	if err != nil {
		return nil, err
	}
	t, err := authorityTemplate(rand, public, spec.Org, title, spec.Generation)
	if err != nil {
		return nil, err
	}
	t.SignatureAlgorithm = how.x509
	t.NotBefore = caStart(now)
	t.NotAfter = t.NotBefore.AddDate(IssuerYears, 0, 0).Add(-time.Second)
	if t.NotBefore.Before(root.NotBefore) {
		t.NotBefore = root.NotBefore
	}
	if t.NotAfter.After(root.NotAfter) {
		t.NotAfter = root.NotAfter
	}
	t.MaxPathLenZero = true
	t.ExtKeyUsage = usages
	if err := spec.constrain(t); err != nil {
		return nil, err
	}
	if der, err = x509.CreateCertificate(rand, t, root, public, rootKey); err != nil {
		return nil, fmt.Errorf("making the certificate of %s: %w", t.Subject.CommonName, err)
	}
	return der, nil
}

func caStart(now time.Time) time.Time { return now.UTC().Add(-Backdate).Truncate(time.Second) }

// authorityTemplate is what a root and an issuing CA have in common.
func authorityTemplate(rand io.Reader, public crypto.PublicKey, org, title string, generation int) (*x509.Certificate, error) {
	if _, _, err := authorityKey(public); err != nil {
		return nil, err
	}
	if generation < 1 {
		return nil, refuse("name.cn", "generation %d; want 1 or more", generation)
	}
	name := fmt.Sprintf("%s %s CA G%d", org, title, generation)
	for _, text := range []string{org, name} {
		if err := checkText(text); err != nil {
			return nil, err
		}
	}
	serial, err := cert.NewSerial(rand)
	if err != nil {
		return nil, err
	}
	id, err := keyID(public)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial.Int(),
		Subject:      pkix.Name{Organization: []string{org}, CommonName: name},
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		SubjectKeyId: id,
	}, nil
}

// purposes gives the title and the union of the extended key usages.
func (s IssuerSpec) purposes() (title string, usages []x509.ExtKeyUsage, err error) {
	var titles []string
	for i, p := range s.Purposes {
		r, err := rulesOf(p)
		if err != nil {
			return "", nil, err
		}
		if slices.Contains(s.Purposes[:i], p) {
			return "", nil, refuse("purpose.issuer", "purpose %s stands twice", p)
		}
		titles = append(titles, r.title)
		for _, u := range r.usages {
			if !slices.Contains(usages, u) {
				usages = append(usages, u)
			}
		}
	}
	users, servers := slices.Contains(s.Purposes, cert.User), slices.Contains(s.Purposes, cert.Server)
	switch {
	case len(s.Purposes) == 0:
		return "", nil, refuse("purpose.issuer", "an issuing CA has a purpose")
	case len(s.Purposes) > 1 && slices.Contains(s.Purposes, cert.Caller):
		return "", nil, refuse("purpose.issuer", "the CA of callers is the trust anchor of the RPC and issues nothing else")
	case users && servers && len(s.Domains) > 0:
		// OpenSSL holds the CN of a certificate without DNS names against the DNS constraints: alice.smith
		// would be outside the domain.
		return "", nil, refuse("purpose.issuer", "users and servers do not share a CA that is constrained to domains")
	}
	return strings.Join(titles, " and "), usages, nil
}

// constrain adds the critical name constraints (RFC 5280 section 4.2.1.10).
func (s IssuerSpec) constrain(t *x509.Certificate) error {
	if len(s.Domains) == 0 {
		if len(s.Networks) > 0 {
			return refuse("san.constraint", "networks constrain nothing without domains")
		}
		return nil
	}
	for _, d := range s.Domains {
		if !validDNS(d) {
			return refuse("san.constraint", "%q is not a domain in lower case", clip(d))
		}
	}
	if slices.Contains(s.Purposes, cert.Server) {
		t.PermittedDNSDomainsCritical = true
		t.PermittedDNSDomains = s.Domains
		for _, n := range s.Networks {
			if !n.IsValid() || n.Masked() != n || n.Addr().Is4In6() {
				return refuse("san.constraint", "%s is not a network", n)
			}
			t.PermittedIPRanges = append(t.PermittedIPRanges, ipNet(n))
		}
		if len(s.Networks) == 0 {
			// A constraint on DNS names alone would leave every IP address open.
			t.ExcludedIPRanges = []*net.IPNet{ipNet(netip.MustParsePrefix("0.0.0.0/0")), ipNet(netip.MustParsePrefix("::/0"))}
		}
	}
	if slices.Contains(s.Purposes, cert.User) {
		t.PermittedDNSDomainsCritical = true
		for _, d := range s.Domains {
			// For mail a host name means that host only; what is below it has a leading dot.
			t.PermittedEmailAddresses = append(t.PermittedEmailAddresses, d, "."+d)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// checkIssuer refuses a CA that IssuerCert would not have made, so that the rules here and the
// constraints there cannot drift apart unnoticed.
func checkIssuer(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the certificate of the issuer is not that of a CA")
	case len(c.SubjectKeyId) == 0:
		return errors.New("the certificate of the issuer has no subject key identifier")
	case len(c.UnknownExtKeyUsage) > 0:
		return errors.New("the certificate of the issuer has extended key usages that this package does not know")
	case len(c.UnhandledCriticalExtensions) > 0 || len(c.ExcludedDNSDomains)+len(c.ExcludedEmailAddresses)+
		len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0:
		return errors.New("the certificate of the issuer has constraints that this package does not know")
	}
	return nil
}
