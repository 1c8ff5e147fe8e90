package profile

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// hostile is one change that turns an ordinary request into one to refuse.
type hostile struct {
	name    string
	purpose cert.Purpose
	change  func(*Request)
	code    string
}

func hostileNames() []hostile {
	cn := func(s string) func(*Request) { return func(r *Request) { r.CN = s } }
	dns := func(s string) func(*Request) { return func(r *Request) { r.SANs.DNS = append(r.SANs.DNS, s) } }
	ip := func(s string) func(*Request) { return func(r *Request) { r.SANs.IP = []string{s} } }
	email := func(s string) func(*Request) { return func(r *Request) { r.SANs.Email = []string{s} } }
	return []hostile{
		{"empty CN", cert.User, cn(""), "name.cn"},
		{"NUL", cert.User, cn("ali\x00ce"), "name.cn"},
		{"newline", cert.User, cn("alice\nbob"), "name.cn"},
		{"tab", cert.User, cn("ali\tce"), "name.cn"},
		{"RTL override", cert.User, cn("ali\u202ece"), "name.cn"},
		{"soft hyphen", cert.User, cn("ali\u00adce"), "name.cn"},
		{"zero width joiner", cert.User, cn("ali\u200dce"), "name.cn"},
		{"no-break space", cert.User, cn("ali\u00a0ce"), "name.cn"},
		{"line separator", cert.User, cn("ali\u2028ce"), "name.cn"},
		{"private use", cert.User, cn("ali\ue000ce"), "name.cn"},
		{"bad UTF-8", cert.User, cn("ali\xffce"), "name.cn"},
		{"leading space", cert.User, cn(" alice"), "name.cn"},
		{"trailing space", cert.User, cn("alice "), "name.cn"},
		{"65 characters", cert.User, cn(strings.Repeat("ä", 65)), "name.cn"},
		{"100,000 characters", cert.User, cn(strings.Repeat("a", 100_000)), "name.cn"},
		{"user with DNS name", cert.User, dns("www.example.org"), "san.kind"},
		{"user with IP", cert.User, ip("192.0.2.1"), "san.kind"},
		{"user with URI", cert.User, func(r *Request) { r.SANs.URI = []string{"https://example.org/"} }, "san.kind"},
		{"server with mail", cert.Server, email("alice@example.org"), "san.kind"},
		{"server with URI", cert.Server, func(r *Request) { r.SANs.URI = []string{"spiffe://example.org/x"} }, "san.kind"},
		{"caller with mail", cert.Caller, email("alice@example.org"), "san.kind"},
		{"caller with DNS name", cert.Caller, dns("www.example.org"), "san.kind"},
		{"server without names", cert.Server, func(r *Request) { r.SANs = cert.SANs{} }, "san.cn"},
		{"server with its CN not among its names", cert.Server, cn("mail.example.org"), "san.cn"},
		{"server with an address as CN", cert.Server, func(r *Request) { r.CN, r.SANs = "192.0.2.1", cert.SANs{IP: []string{"192.0.2.1"}} }, "san.cn"},
		{"empty DNS name", cert.Server, dns(""), "san.dns"},
		{"space in DNS name", cert.Server, dns("bad name"), "san.dns"},
		{"capitals in DNS name", cert.Server, dns("WWW.example.org"), "san.dns"},
		{"underscore", cert.Server, dns("a_b.example.org"), "san.dns"},
		{"wildcard", cert.Server, dns("*.example.org"), "san.dns"},
		{"trailing dot", cert.Server, dns("a.example.org."), "san.dns"},
		{"empty label", cert.Server, dns("a..example.org"), "san.dns"},
		{"hyphen first", cert.Server, dns("-a.example.org"), "san.dns"},
		{"hyphen last", cert.Server, dns("a-.example.org"), "san.dns"},
		{"label of 64", cert.Server, dns(strings.Repeat("a", 64) + ".example.org"), "san.dns"},
		{"name of 254", cert.Server, dns(strings.Repeat("a.", 126) + "aa"), "san.dns"},
		{"address as DNS name", cert.Server, dns("192.0.2.1"), "san.dns"},
		{"not ASCII", cert.Server, dns("bücher.example.org"), "san.dns"},
		{"NUL in DNS name", cert.Server, dns("www.example.org\x00.example.com"), "san.dns"},
		{"twice the same", cert.Server, dns("www.example.org"), "san.repeated"},
		{"101 names", cert.Server, func(r *Request) { r.SANs.DNS = make([]string, 101) }, "san.count"},
		{"no address", cert.Server, ip("example"), "san.ip"},
		{"address with zone", cert.Server, ip("fe80::1%eth0"), "san.ip"},
		{"address in two forms", cert.Server, ip("::ffff:192.0.2.1"), "san.ip"},
		{"address not canonical", cert.Server, ip("2001:DB8::1"), "san.ip"},
		{"address with port", cert.Server, ip("192.0.2.1:80"), "san.ip"},
		{"mail without domain", cert.User, email("alice"), "san.email"},
		{"mail without local part", cert.User, email("@example.org"), "san.email"},
		{"mail with two @", cert.User, email("alice@bob@example.org"), "san.email"},
		{"mail quoted", cert.User, email(`"alice smith"@example.org`), "san.email"},
		{"mail with name", cert.User, email("Alice <alice@example.org>"), "san.email"},
		{"mail not ASCII", cert.User, email("älice@example.org"), "san.email"},
		{"mail with capital domain", cert.User, email("alice@Example.org"), "san.email"},
		{"mail with newline", cert.User, email("alice@example.org\n"), "san.email"},
		{"mail with two dots", cert.User, email("a..b@example.org"), "san.email"},
	}
}

func hostileFields(t *testing.T) []hostile {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := func(s string) func(*Request) { return func(r *Request) { r.Serial = cert.Serial(s) } }
	url := func(s string) func(*Request) { return func(r *Request) { r.CRLURL = s } }
	return []hostile{
		{"serial 0", cert.User, serial("00"), "serial.invalid"},
		{"no serial", cert.User, serial(""), "serial.invalid"},
		{"serial of 2^159", cert.User, serial("80" + strings.Repeat("00", 19)), "serial.invalid"},
		{"serial of 21 octets", cert.User, serial(strings.Repeat("01", 21)), "serial.invalid"},
		{"serial in capitals", cert.User, serial("5A"), "serial.invalid"},
		{"serial with a leading zero", cert.User, serial("0001"), "serial.invalid"},
		{"unknown purpose", cert.User, func(r *Request) { r.Purpose = "device" }, "purpose.unknown"},
		{"server from the users' CA", cert.User, func(r *Request) { r.Purpose = cert.Server }, "purpose.issuer"},
		{"caller from the users' CA", cert.User, func(r *Request) { r.Purpose, r.SANs = cert.Caller, cert.SANs{} }, "purpose.issuer"},
		{"user from the callers' CA", cert.Caller, func(r *Request) { r.Purpose = cert.User }, "purpose.issuer"},
		{"user from the servers' CA", cert.Server, func(r *Request) { r.Purpose, r.SANs = cert.User, cert.SANs{} }, "purpose.issuer"},
		{"no key", cert.User, func(r *Request) { r.Public = nil }, "key.type"},
		{"P-224", cert.User, func(r *Request) { r.Public = p224.Public() }, "key.type"},
		{"Ed25519", cert.User, func(r *Request) { r.Public = edwards }, "key.type"},
		{"half seconds", cert.User, func(r *Request) { r.NotAfter = r.NotAfter.Add(time.Second / 2) }, "validity.seconds"},
		{"ends before it begins", cert.User, func(r *Request) { r.NotAfter = r.NotBefore.Add(-time.Second) }, "validity.order"},
		{"before the issuer", cert.User, func(r *Request) { r.NotBefore = r.NotBefore.Add(-time.Second) }, "validity.issuer"},
		{"beyond the issuer", cert.User, func(r *Request) { r.NotAfter = r.NotAfter.AddDate(10, 0, 0) }, "validity.issuer"},
		{"no end", cert.User, func(r *Request) { r.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, "validity.issuer"},
		{"no dates", cert.User, func(r *Request) { r.NotBefore, r.NotAfter = time.Time{}, time.Time{} }, "validity.order"},
		{"one second more than allowed", cert.User, func(r *Request) { r.NotAfter = r.NotBefore.Add(MaxValidity(cert.User)) }, "validity.days"},
		{"list over https", cert.User, url("https://crl.example.org/a.crl"), "crl.url"},
		{"list over ldap", cert.User, url("ldap://example.org/cn=a"), "crl.url"},
		{"list without host", cert.User, url("http:///a.crl"), "crl.url"},
		{"list with password", cert.User, url("http://a:b@example.org/a.crl"), "crl.url"},
		{"list with fragment", cert.User, url("http://example.org/a.crl#b"), "crl.url"},
		{"list URL not ASCII", cert.User, url("http://example.org/?ä"), "crl.url"},
		{"list URL relative", cert.User, url("a.crl"), "crl.url"},
		{"list URL with space", cert.User, url("http://example.org/a crl"), "crl.url"},
	}
}

func TestHostileRequests(t *testing.T) {
	authorities := map[cert.Purpose]*authority{}
	for _, p := range cert.Purposes() {
		authorities[p] = issuerFor(t, cert.P256, p)
	}
	for _, h := range append(hostileNames(), hostileFields(t)...) {
		t.Run(h.name, func(t *testing.T) {
			a := authorities[h.purpose]
			r := a.request(t, h.purpose, keyFor(t, "subject", cert.P256).Public())
			if _, _, err := a.builder.Precertificate(r); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			h.change(&r)
			der, tbs, err := a.builder.Precertificate(r)
			if code(err) != h.code || der != nil || tbs != nil {
				t.Errorf("%v, want %s and no bytes", err, h.code)
			}
		})
	}
}

func TestUsualRequests(t *testing.T) {
	for _, c := range []struct {
		purpose cert.Purpose
		change  func(*Request)
		show    string // what openssl prints
	}{
		{cert.User, func(r *Request) { r.CN = strings.Repeat("ä", 64) }, "CN = " + strings.Repeat("ä", 64)},
		{cert.User, func(r *Request) { r.CN = `Smith, "Alice" <x=1>+(y)` }, `CN = "Smith, \"Alice\" <x=1>+(y)"`},
		{cert.User, func(r *Request) { r.SANs.Email = []string{"o'brien+x@mail.example.org", "a@example.org"} }, "email:o'brien+x@mail.example.org, email:a@example.org"},
		{cert.User, func(r *Request) { r.Serial = cert.Serial("7f" + strings.Repeat("ff", 19)) }, "7f" + strings.Repeat(":ff", 19)},
		{cert.Server, func(r *Request) { r.CN, r.SANs.DNS = "b.org", []string{"xn--bcher-kva.example.org", "b.org", "a.org"} }, "DNS:xn--bcher-kva.example.org, DNS:b.org, DNS:a.org"},
		{cert.Server, func(r *Request) { r.CN, r.SANs.DNS = "localhost", []string{"localhost"} }, "DNS:localhost"},
		{cert.Caller, func(r *Request) { r.CRLURL = "http://crl.example.org:8080/a/b.crl?x=%20" }, "URI:http://crl.example.org:8080/a/b.crl?x=%20"},
	} {
		a := issuerFor(t, cert.P256, c.purpose)
		r := a.request(t, c.purpose, keyFor(t, "subject", cert.P256).Public())
		c.change(&r)
		text := openssl(t, "x509", "-noout", "-text", "-nameopt", "oneline,-esc_msb,utf8", "-in", writePEM(t, "CERTIFICATE", a.seal(t, r)))
		if !strings.Contains(text, c.show) {
			t.Errorf("no %q in\n%s", c.show, text)
		}
	}
}

func TestWindow(t *testing.T) {
	issuer := issuerFor(t, cert.P256, cert.User).issuer
	later := now.AddDate(1, 0, 0)
	for _, c := range []struct {
		name string
		p    cert.Purpose
		days int
		now  time.Time
		from time.Time
		to   time.Time
		code string
	}{
		{"default", cert.User, 0, later, at("2027-12-01T11:55:00Z"), at("2028-11-30T11:54:59Z"), ""},
		{"one day", cert.User, 1, later, at("2027-12-01T11:55:00Z"), at("2027-12-02T11:54:59Z"), ""},
		{"most", cert.Server, 397, later, at("2027-12-01T11:55:00Z"), at("2029-01-01T11:54:59Z"), ""},
		{"other zone", cert.User, 1, later.In(time.FixedZone("x", 3600)), at("2027-12-01T11:55:00Z"), at("2027-12-02T11:54:59Z"), ""},
		{"young issuer", cert.User, 1, issuer.NotBefore, issuer.NotBefore, issuer.NotBefore.Add(day - time.Second), ""},
		{"default cut short", cert.User, 0, at("2036-11-01T00:05:00Z"), at("2036-11-01T00:00:00Z"), issuer.NotAfter, ""},
		{"last day in full", cert.User, 1, at("2036-11-30T12:00:00Z"), at("2036-11-30T11:55:00Z"), issuer.NotAfter, ""},
		{"asked beyond the issuer", cert.User, 1, at("2036-11-30T12:00:01Z"), time.Time{}, time.Time{}, "validity.issuer"},
		{"too many days", cert.User, 826, later, time.Time{}, time.Time{}, "validity.days"},
		{"overflowing days", cert.User, 1 << 62, later, time.Time{}, time.Time{}, "validity.days"},
		{"negative days", cert.User, -1, later, time.Time{}, time.Time{}, "validity.days"},
		{"unknown purpose", "device", 1, later, time.Time{}, time.Time{}, "purpose.unknown"},
		{"issuer not yet valid", cert.User, 0, issuer.NotBefore.Add(-time.Second), time.Time{}, time.Time{}, "validity.issuer"},
		{"issuer expired", cert.User, 0, issuer.NotAfter.Add(time.Second), time.Time{}, time.Time{}, "validity.issuer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to, err := Window(issuer, c.p, c.days, c.now)
			if code(err) != c.code || (err == nil) != (c.code == "") || !from.Equal(c.from) || !to.Equal(c.to) {
				t.Errorf("%s to %s, %v; want %s to %s, %q", from, to, err, c.from, c.to, c.code)
			}
		})
	}
}

func at(s string) time.Time {
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return v
}

// From 2050 on a date is a GeneralizedTime (RFC 5280 section 4.1.2.5).
func TestYear2050(t *testing.T) {
	then := at("2049-12-31T12:00:00Z")
	rootKey, key := keyFor(t, "root", cert.P256), keyFor(t, "issuer", cert.P256)
	rootDER, err := Root(rand.Reader, rootKey, RootSpec{Org: "Example", Generation: 2}, then)
	if err != nil {
		t.Fatal(err)
	}
	der, err := IssuerCert(rand.Reader, parse(t, rootDER), rootKey, IssuerSpec{Org: "Example", Generation: 2, Purposes: []cert.Purpose{cert.Caller}}, key.Public(), then)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{root: parse(t, rootDER), issuer: parse(t, der), key: key}
	if a.builder, err = NewBuilder(a.issuer, rand.Reader); err != nil {
		t.Fatal(err)
	}
	r := Request{Serial: "01", Purpose: cert.Caller, CN: "alice", Public: keyFor(t, "subject", cert.P256).Public()}
	if r.NotBefore, r.NotAfter, err = Window(a.issuer, cert.Caller, 1, then); err != nil {
		t.Fatal(err)
	}
	out := openssl(t, "asn1parse", "-in", writePEM(t, "CERTIFICATE", a.seal(t, r)))
	for _, want := range []string{"UTCTIME           :491231115500Z", "GENERALIZEDTIME   :20500101115459Z"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
