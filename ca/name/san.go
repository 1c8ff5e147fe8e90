package name

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/ca/cert"
)

const (
	maxSANs      = 32
	maxUserMail  = 8
	maxMail      = 254 // RFC 5321 section 4.5.3.1.3, without the angle brackets
	maxLocalPart = 64  // RFC 5321 section 4.5.3.1.1
	maxAddress   = 45  // the longest text of an IPv6 address
)

// CanonicalSANs gives the subject alternative names of a certificate: each canonical, each kind sorted
// and without duplicates, together with what the purpose adds; or a *Refusal.
//
// A user may have up to 8 mail addresses. A server may have host names and IP addresses; its common name
// is always the first of the host names. A caller has none.
func CanonicalSANs(purpose cert.Purpose, cn Name, sans cert.SANs) (cert.SANs, error) {
	out, bad := canonicalSANs(purpose, cn, sans)
	if bad != nil {
		return cert.SANs{}, bad
	}
	return out, nil
}

func canonicalSANs(purpose cert.Purpose, cn Name, sans cert.SANs) (out cert.SANs, bad *Refusal) {
	if n := sans.Count(); n > maxSANs {
		return out, refuse("sans", codeSANCount, "%d names; want at most %d", n, maxSANs)
	}
	if bad := refuseKinds(purpose, sans); bad != nil {
		return out, bad
	}
	switch purpose {
	case cert.User:
		if n := len(sans.Email); n > maxUserMail {
			return out, refuse("sans.email", codeSANCount, "%d addresses; want at most %d", n, maxUserMail)
		}
		out.Email, bad = each("sans.email", sans.Email, mail)
	case cert.Server:
		out, bad = serverSANs(cn, sans)
	case cert.Caller:
	default:
		bad = refuse("sans", codePurpose, "no names are defined for the purpose %s", quote(string(purpose)))
	}
	return out, bad
}

// refuseKinds refuses the kinds of names that the purpose does not have.
func refuseKinds(purpose cert.Purpose, sans cert.SANs) *Refusal {
	kinds := []struct {
		field  string
		values []string
		only   cert.Purpose
	}{
		{"sans.dns", sans.DNS, cert.Server},
		{"sans.ip", sans.IP, cert.Server},
		{"sans.email", sans.Email, cert.User},
		{"sans.uri", sans.URI, ""},
	}
	for _, k := range kinds {
		if len(k.values) > 0 && k.only != purpose {
			return refuse(k.field, codeSANType, "a certificate of the purpose %s has no names of this kind; leave them out", quote(string(purpose)))
		}
	}
	return nil
}

func serverSANs(cn Name, sans cert.SANs) (out cert.SANs, bad *Refusal) {
	first, bad := host("cn", cn.Text, maxCommonName)
	if bad != nil {
		return out, bad
	}
	more, bad := each("sans.dns", sans.DNS, func(field, s string) (string, *Refusal) { return host(field, s, maxHost) })
	if bad != nil {
		return out, bad
	}
	addresses, bad := each("sans.ip", sans.IP, address)
	if bad != nil {
		return out, bad
	}
	more = slices.DeleteFunc(more, func(s string) bool { return s == first })
	out = cert.SANs{DNS: append([]string{first}, more...), IP: addresses}
	if n := out.Count(); n > maxSANs {
		return cert.SANs{}, refuse("sans", codeSANCount, "%d names with the common name; want at most %d", n, maxSANs)
	}
	return out, nil
}

// each makes every value canonical, sorts them and drops duplicates.
func each(field string, values []string, form func(field, s string) (string, *Refusal)) ([]string, *Refusal) {
	var out []string
	for i, s := range values {
		c, bad := form(fmt.Sprintf("%s[%d]", field, i), s)
		if bad != nil {
			return nil, bad
		}
		out = append(out, c)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// mail gives the canonical form of a mail address: a dot-string (RFC 5321 section 4.1.2) as it is, since
// only its host knows what case means in it, and a host name. An rfc822Name is an IA5String (RFC 5280
// section 4.2.1.6), so a local part beyond ASCII has no place in it.
func mail(field, s string) (string, *Refusal) {
	if bad := plausible(field, s, maxMail); bad != nil {
		return "", bad
	}
	if bad := short(field, s, maxMail); bad != nil {
		return "", bad
	}
	for _, r := range s {
		if code := suspect(r); code != "" {
			return "", refuseRune(field, code, s, r)
		}
	}
	local, domain, found := strings.Cut(s, "@")
	if !found || strings.Contains(domain, "@") {
		return "", refuse(field, codeSAN, "%s is no mail address; send name@domain", quote(s))
	}
	if len(local) > maxLocalPart {
		return "", refuse(field, codeTooLong, "the part before '@' has %d octets; want at most %d", len(local), maxLocalPart)
	}
	for atom := range strings.SplitSeq(local, ".") {
		const atext = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'+-/=?^_`{|}~"
		if atom == "" || strings.Trim(atom, atext) != "" {
			return "", refuse(field, codeSAN, "%s before '@' is not words of ASCII letters, digits and !#$%%&'+-/=?^_`{|}~ joined by single dots; send an address that is", quote(local))
		}
	}
	domain, bad := host(field, domain, maxHost)
	if bad != nil {
		return "", bad
	}
	return local + "@" + domain, nil
}

// address accepts the canonical text of an IP address (RFC 5952) that one host can have.
func address(field, s string) (string, *Refusal) {
	if len(s) > maxAddress {
		return "", refuse(field, codeTooLong, "%d octets; want at most %d", len(s), maxAddress)
	}
	if s == "" {
		return "", refuse(field, codeEmpty, "empty; want an IP address")
	}
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return "", refuse(field, codeSAN, "%s is no IP address; send one such as 192.0.2.1 or 2001:db8::1", quote(s))
	case ip.Zone() != "":
		return "", refuse(field, codeSAN, "%s has a zone, which means nothing to another host; send it without", quote(s))
	case ip.Is4In6():
		return "", refuse(field, codeSAN, "%s is an IPv4 address in IPv6 form; send %s", quote(s), ip.Unmap())
	case ip.IsUnspecified() || ip.IsMulticast():
		return "", refuse(field, codeSAN, "%s is not the address of one host; leave it out", quote(s))
	case ip.String() != s:
		return "", refuse(field, codeSAN, "%s is not the canonical text; send %s", quote(s), ip)
	}
	return s, nil
}

// MatchableNetwork tells whether a network has an address that a certificate can have.
func MatchableNetwork(network netip.Prefix) bool {
	// What address refuses: multicast, IPv4 in IPv6 form, unspecified.
	for _, none := range []string{"224.0.0.0/4", "ff00::/8", "::ffff:0:0/96", "0.0.0.0/32", "::/128"} {
		if p := netip.MustParsePrefix(none); p.Bits() <= network.Bits() && p.Contains(network.Addr()) {
			return false
		}
	}
	return true
}
