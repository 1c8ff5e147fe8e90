package profile

import (
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/ca/cert"
)

const (
	maxCN    = 64  // ub-common-name and ub-organization-name, RFC 5280 appendix A.1
	maxNames = 100 // a certificate that a person can still read
	maxURL   = 1024
)

// check refuses a request that this issuer must not certify.
func (b *Builder) check(r Request) error {
	rules, err := rulesOf(r.Purpose)
	if err != nil {
		return err
	}
	if !rules.allowedBy(r.Purpose, b.issuer.ExtKeyUsage) {
		return refuse("purpose.issuer", "the issuer %s is not for purpose %s; the operator of the CA has to correct keyroom.json", b.issuer.Subject.CommonName, r.Purpose)
	}
	// Only what ParseSerial would have made: positive and 20 octets in DER (RFC 5280 section 4.1.2.2).
	if s, err := cert.ParseSerial(string(r.Serial)); err != nil || s != r.Serial {
		return refuse("serial.invalid", "serial %q is not a canonical serial number", clip(string(r.Serial)))
	}
	if err := CheckKey(r.Public); err != nil {
		return err
	}
	if err := checkText(r.CN); err != nil {
		return err
	}
	if err := checkNames(r); err != nil {
		return err
	}
	if err := withinConstraints(r.SANs, b.issuer); err != nil {
		return err
	}
	if err := b.checkWindow(r, rules.longest); err != nil {
		return err
	}
	return checkCRLURL(r.CRLURL)
}

func (b *Builder) checkWindow(r Request, longest time.Duration) error {
	switch {
	case r.NotBefore.Nanosecond() != 0 || r.NotAfter.Nanosecond() != 0:
		return refuse("validity.seconds", "a validity is in whole seconds")
	case !r.NotBefore.Before(r.NotAfter):
		return refuse("validity.order", "notAfter is not after notBefore")
	case r.NotBefore.Before(b.issuer.NotBefore) || r.NotAfter.After(b.issuer.NotAfter):
		return refuse("validity.issuer", "the validity is not inside the issuer's")
	case r.NotAfter.Sub(r.NotBefore)+time.Second > longest:
		return refuse("validity.days", "longer than %d days", longest/day)
	}
	return nil
}

// checkText refuses what no name of a person, server or organisation needs and a reader could be
// fooled with: control and format characters, separators other than the space, private use.
func checkText(s string) error {
	switch {
	case s == "" || !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return refuse("name.cn", "a name is 1 to %d characters of UTF-8", maxCN)
	case utf8.RuneCountInString(s) > maxCN:
		return refuse("name.cn", "a name is at most %d characters (RFC 5280 appendix A.1)", maxCN)
	case strings.TrimSpace(s) != s:
		return refuse("name.cn", "a name neither begins nor ends with a space")
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return refuse("name.cn", "a name does not contain the character %U", c)
		}
	}
	return nil
}

// checkNames refuses kinds of names that the purpose does not have, and names out of form.
func checkNames(r Request) error {
	names := r.SANs
	if names.Count() > maxNames {
		return refuse("san.count", "%d names; want at most %d", names.Count(), maxNames)
	}
	server, user := r.Purpose == cert.Server, r.Purpose == cert.User
	kinds := []struct {
		name    string
		allowed bool
		texts   []string
		valid   func(string) bool
	}{
		{"dns", server, names.DNS, validDNS},
		{"ip", server, names.IP, validIP},
		{"email", user, names.Email, validEmail},
		{"uri", false, names.URI, nil},
	}
	for _, k := range kinds {
		if len(k.texts) > 0 && !k.allowed {
			return refuse("san.kind", "purpose %s has no names of kind %s", r.Purpose, k.name)
		}
		for i, text := range k.texts {
			if !k.valid(text) {
				return refuse("san."+k.name, "%q is not a name of kind %s in canonical form", clip(text), k.name)
			}
			if slices.Contains(k.texts[:i], text) {
				return refuse("san.repeated", "%q stands twice", clip(text))
			}
		}
	}
	// Not the IP addresses as well: OpenSSL reads a CN such as 192.0.2.1 as a DNS name under name
	// constraints unless a dNSName is there.
	if server && !slices.Contains(names.DNS, r.CN) {
		return refuse("san.cn", "the name of a server is one of its DNS names")
	}
	return nil
}

// validDNS accepts lower-case host names (RFC 1123 section 2.1): no wildcard, underscore or trailing
// dot, and nothing that an application could take for an IP address.
func validDNS(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if !only(label, "abcdefghijklmnopqrstuvwxyz0123456789-") {
			return false
		}
	}
	return !only(labels[len(labels)-1], "0123456789")
}

func validIP(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Zone() == "" && !addr.Is4In6() && addr.String() == s
}

// validEmail accepts the dot-atom form of RFC 5322 section 3.4.1, which needs no quoting.
func validEmail(s string) bool {
	local, domain, found := strings.Cut(s, "@")
	if !found || len(local) > 64 || len(s) > 254 || !validDNS(domain) {
		return false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || !only(atom, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~") {
			return false
		}
	}
	return true
}

func only(s, set string) bool { return strings.Trim(s, set) == "" }

// checkCRLURL accepts an http URL: fetching a list over https needs a certificate that needs a list
// (RFC 5280 section 8).
func checkCRLURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	foreign := strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) // not an IA5String, or no URL
	if err != nil || foreign || len(s) > maxURL || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Opaque != "" ||
		strings.Contains(s, "#") || u.String() != s {
		return refuse("crl.url", "%q is not a plain http URL; the operator of the CA has to correct crl_url in keyroom.json", clip(s))
	}
	return nil
}

// withinConstraints refuses names that the issuer's name constraints exclude (RFC 5280 section
// 4.2.1.10), so that no certificate is issued that a verifier would refuse.
func withinConstraints(names cert.SANs, issuer *x509.Certificate) error {
	for _, name := range names.DNS {
		if len(issuer.PermittedDNSDomains) > 0 && !slices.ContainsFunc(issuer.PermittedDNSDomains, func(domain string) bool {
			return name == domain || strings.HasSuffix(name, "."+domain)
		}) {
			return refuse("san.constraint", "the issuer is not for the domain of %q; leave it out, or ask for a name that the CA is for", clip(name))
		}
	}
	for _, name := range names.Email {
		_, host, _ := strings.Cut(name, "@")
		if len(issuer.PermittedEmailAddresses) > 0 && !slices.ContainsFunc(issuer.PermittedEmailAddresses, func(domain string) bool {
			return host == domain || strings.HasPrefix(domain, ".") && strings.HasSuffix(host, domain)
		}) {
			return refuse("san.constraint", "the issuer is not for the domain of %q; leave it out, or ask for a name that the CA is for", clip(name))
		}
	}
	for _, name := range names.IP {
		inside := func(n *net.IPNet) bool { return n.Contains(net.ParseIP(name)) }
		if slices.ContainsFunc(issuer.ExcludedIPRanges, inside) ||
			len(issuer.PermittedIPRanges) > 0 && !slices.ContainsFunc(issuer.PermittedIPRanges, inside) {
			return refuse("san.constraint", "the issuer is not for the address %s; leave it out, or ask for one that the CA is for", name)
		}
	}
	return nil
}

// clip shortens hostile input for a reason.
func clip(s string) string {
	if len(s) > 48 {
		return s[:48] + "..."
	}
	return s
}
