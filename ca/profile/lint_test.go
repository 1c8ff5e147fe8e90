package profile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// lints are those of the RFCs and the community. The others hold a private CA to the rules of public
// ones.
func lints(t *testing.T) lint.Registry {
	t.Helper()
	r, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// findings gives what zlint has to say, by name.
func findings(t *testing.T, registry lint.Registry, der []byte) map[string]lint.LintStatus {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]lint.LintStatus{}
	for name, result := range zlint.LintCertificateEx(c, registry).Results {
		if result.Status > lint.Pass {
			found[name] = result.Status
		}
	}
	return found
}

// Not even a notice.
func TestLint(t *testing.T) {
	registry := lints(t)
	check := func(name string, der []byte) {
		if found := findings(t, registry, der); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	for _, p := range cert.Purposes() {
		for _, ca := range caKinds() {
			open := IssuerSpec{Purposes: []cert.Purpose{p}}
			constrained := IssuerSpec{Purposes: []cert.Purpose{p}, Domains: []string{"example.org"}, Networks: networks}
			for _, spec := range []IssuerSpec{open, constrained} {
				a := newAuthority(t, ca, spec)
				check("root", a.root.Raw)
				check(a.issuer.Subject.CommonName, a.issuer.Raw)
				for _, kind := range cert.SubjectKeyTypes() {
					r := a.request(t, p, keyFor(t, "subject", kind).Public())
					for _, r.CRLURL = range []string{"", "http://crl.example.org/x.crl"} {
						der, _, err := a.builder.Precertificate(r)
						if err != nil {
							t.Fatal(err)
						}
						check(fmt.Sprintf("%s from %s, %s, %q", p, ca, kind, r.CRLURL), der)
					}
					if p == cert.User {
						r.SANs = cert.SANs{}
						der, _, err := a.builder.Precertificate(r)
						if err != nil {
							t.Fatal(err)
						}
						check(fmt.Sprintf("user without mail from %s, %s", ca, kind), der)
					}
				}
			}
		}
	}
}

// The linter sees what it should: a certificate that this package would not make.
func TestLintFindsFaults(t *testing.T) {
	a := issuerFor(t, cert.P256, cert.Server)
	r := a.request(t, cert.Server, keyFor(t, "subject", cert.P256).Public())
	r.CN, r.Serial = "www.example.org", "00"
	if found := findings(t, lints(t), a.unguarded(t, r)); found["e_serial_number_not_positive"] != lint.Error {
		t.Errorf("zlint on serial 0: %v", found)
	}
}
