package profile

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

func caKinds() []cert.KeyType { return []cert.KeyType{cert.P256, cert.P384, cert.RSA3072} }

// verify asks openssl whether a leaf is good for a purpose.
func (a *authority) verify(t *testing.T, leaf []byte, purpose string, more ...string) (string, error) {
	t.Helper()
	args := []string{
		"verify", "-x509_strict", "-attime", strconv.FormatInt(now.Unix(), 10), "-purpose", purpose,
		"-CAfile", writePEM(t, "CERTIFICATE", a.root.Raw), "-untrusted", writePEM(t, "CERTIFICATE", a.issuer.Raw),
	}
	return tryOpenssl(t, append(append(args, more...), writePEM(t, "CERTIFICATE", leaf))...)
}

func TestChainInOpenSSL(t *testing.T) {
	good := map[cert.Purpose][]string{
		cert.User: {"sslclient", "smimesign"}, cert.Server: {"sslserver"}, cert.Caller: {"sslclient"},
	}
	for _, p := range cert.Purposes() {
		for _, ca := range caKinds() {
			a := issuerFor(t, ca, p)
			for _, kind := range cert.SubjectKeyTypes() {
				t.Run(string(p)+"/"+string(ca)+"/"+string(kind), func(t *testing.T) {
					leaf := a.seal(t, a.request(t, p, keyFor(t, "subject", kind).Public()))
					for _, use := range []string{"sslclient", "sslserver", "smimesign"} {
						out, err := a.verify(t, leaf, use)
						if want := slices.Contains(good[p], use); want != (err == nil) {
							t.Errorf("openssl verify -purpose %s: %v, want ok=%t\n%s", use, err, want, out)
						}
					}
				})
			}
		}
	}
}

// section gives the lines of openssl's text under one extension, joined.
func section(text, name string) string {
	_, after, found := strings.Cut(text, "X509v3 "+name+":")
	if !found {
		return "absent"
	}
	lines := strings.Split(after, "\n")
	parts := []string{strings.TrimSpace(lines[0])}
	for _, line := range lines[1:] {
		if !strings.HasPrefix(line, strings.Repeat(" ", 16)) {
			break
		}
		parts = append(parts, strings.TrimSpace(line))
	}
	return strings.TrimSpace(strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " "))
}

func TestLeafContents(t *testing.T) {
	const rsaUsage, usage = "critical Digital Signature, Key Encipherment", "critical Digital Signature"
	email := "TLS Web Client Authentication, E-mail Protection"
	for _, c := range []struct {
		purpose          cert.Purpose
		kind             cert.KeyType
		change           func(*Request)
		usage, eku, sans string
		subject          string
	}{
		{cert.User, cert.P256, nil, usage, email, "email:alice@example.org", "CN = alice"},
		{cert.User, cert.P384, nil, usage, email, "email:alice@example.org", "CN = alice"},
		{cert.User, cert.RSA2048, nil, rsaUsage, email, "email:alice@example.org", "CN = alice"},
		{cert.User, cert.RSA3072, func(r *Request) { r.SANs.Email = nil }, usage, "TLS Web Client Authentication", "absent", "CN = alice"},
		{cert.Server, cert.P256, nil, usage, "TLS Web Server Authentication",
			"DNS:example.org, DNS:www.example.org, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7", "CN = www.example.org"},
		{cert.Server, cert.RSA2048, func(r *Request) { r.SANs.IP = nil }, rsaUsage, "TLS Web Server Authentication",
			"DNS:example.org, DNS:www.example.org", "CN = www.example.org"},
		{cert.Caller, cert.P256, nil, usage, "TLS Web Client Authentication", "absent", "CN = alice"},
		{cert.Caller, cert.RSA3072, nil, usage, "TLS Web Client Authentication", "absent", "CN = alice"},
	} {
		t.Run(string(c.purpose)+"/"+string(c.kind), func(t *testing.T) {
			a := issuerFor(t, cert.P256, c.purpose)
			r := a.request(t, c.purpose, keyFor(t, "subject", c.kind).Public())
			r.CRLURL = "http://crl.example.org/users.crl"
			if c.change != nil {
				c.change(&r)
			}
			der := a.seal(t, r)
			text := openssl(t, "x509", "-noout", "-text", "-in", writePEM(t, "CERTIFICATE", der))
			leaf := parse(t, der)
			for name, want := range map[string]string{
				"Key Usage": c.usage, "Extended Key Usage": c.eku, "Subject Alternative Name": c.sans,
				"Basic Constraints":        "critical CA:FALSE",
				"Authority Key Identifier": colons(a.issuer.SubjectKeyId),
				"Subject Key Identifier":   colons(leaf.SubjectKeyId),
				"CRL Distribution Points":  "Full Name: URI:http://crl.example.org/users.crl",
			} {
				if got := section(text, name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			wantExtensions := 7
			if c.sans == "absent" {
				wantExtensions--
			}
			if n := strings.Count(text, "            X509v3 "); n != wantExtensions || len(leaf.Extensions) != n {
				t.Errorf("%d extensions, want %d:\n%s", n, wantExtensions, text)
			}
			for _, want := range []string{
				"Version: 3 (0x2)", "5a:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f", "Subject: " + c.subject + "\n",
				"Issuer: O = Example, CN = Example ", "Not Before: Dec  1 11:55:00 2026 GMT",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			r.CRLURL = ""
			if text := openssl(t, "x509", "-noout", "-text", "-in", writePEM(t, "CERTIFICATE", a.seal(t, r))); strings.Contains(text, "CRL Dist") {
				t.Error("a CRL distribution point although no URL is given")
			}
		})
	}
}

func colons(b []byte) string {
	var parts []string
	for _, c := range b {
		parts = append(parts, strings.ToUpper(hex.EncodeToString([]byte{c})))
	}
	return strings.Join(parts, ":")
}

// The point as openssl prints it is the contents of the BIT STRING.
func TestSubjectKeyIdentifier(t *testing.T) {
	a := issuerFor(t, cert.P256, cert.Caller)
	der := a.seal(t, a.request(t, cert.Caller, keyFor(t, "subject", cert.P256).Public()))
	text := openssl(t, "x509", "-noout", "-text", "-in", writePEM(t, "CERTIFICATE", der))
	_, after, _ := strings.Cut(text, "pub:")
	digits, _, _ := strings.Cut(after, "ASN1")
	point, err := hex.DecodeString(regexp.MustCompile(`[:\s]`).ReplaceAllString(digits, ""))
	if err != nil || len(point) != 65 {
		t.Fatalf("reading the point: %d octets, %v", len(point), err)
	}
	if sum := sha256.Sum256(point); !bytes.Equal(parse(t, der).SubjectKeyId, sum[:20]) {
		t.Error("not method 1 of RFC 7093")
	}
}

func TestAuthorityContents(t *testing.T) {
	a := newAuthority(t, cert.P384, IssuerSpec{
		Purposes: []cert.Purpose{cert.Server}, Domains: []string{"example.org"},
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	root := openssl(t, "x509", "-noout", "-text", "-in", writePEM(t, "CERTIFICATE", a.root.Raw))
	issuer := openssl(t, "x509", "-noout", "-text", "-in", writePEM(t, "CERTIFICATE", a.issuer.Raw))
	for _, c := range []struct{ text, name, want string }{
		{root, "Key Usage", "critical Certificate Sign, CRL Sign"},
		{root, "Basic Constraints", "critical CA:TRUE, pathlen:1"},
		{root, "Extended Key Usage", "absent"},
		{root, "Name Constraints", "absent"},
		{root, "Subject Key Identifier", colons(a.root.SubjectKeyId)},
		{issuer, "Key Usage", "critical Certificate Sign, CRL Sign"},
		{issuer, "Basic Constraints", "critical CA:TRUE, pathlen:0"},
		{issuer, "Extended Key Usage", "TLS Web Server Authentication"},
		{issuer, "Name Constraints", "critical Permitted: DNS:example.org IP:127.0.0.1/255.255.255.255"},
		{issuer, "Authority Key Identifier", colons(a.root.SubjectKeyId)},
		{issuer, "Subject Key Identifier", colons(a.issuer.SubjectKeyId)},
	} {
		if got := section(c.text, c.name); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for text, wants := range map[string][]string{
		root:   {"Subject: O = Example, CN = Example Root CA G1\n", "ecdsa-with-SHA384", "Not Before: Dec  1 11:55:00 2026", "Not After : Dec  1 11:54:59 2046"},
		issuer: {"Subject: O = Example, CN = Example Servers CA G1\n", "Issuer: O = Example, CN = Example Root CA G1\n", "Not After : Dec  1 11:54:59 2036"},
	} {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	mixed := newAuthority(t, cert.P256, IssuerSpec{Purposes: []cert.Purpose{cert.User, cert.Server}})
	text := openssl(t, "x509", "-noout", "-text", "-in", writePEM(t, "CERTIFICATE", mixed.issuer.Raw))
	if got := section(text, "Extended Key Usage"); got != "TLS Web Client Authentication, E-mail Protection, TLS Web Server Authentication" {
		t.Errorf("EKU of a CA for two purposes: %q", got)
	}
}

// The issuing CA's key is used here without this package's rules: what it could sign outside of its
// domains, openssl refuses.
func TestNameConstraintsInOpenSSL(t *testing.T) {
	domains := []string{"example.org"}
	closed := newAuthority(t, cert.P256, IssuerSpec{Purposes: []cert.Purpose{cert.Server}, Domains: domains})
	local := newAuthority(t, cert.P256, IssuerSpec{Purposes: []cert.Purpose{cert.Server}, Domains: domains,
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	users := newAuthority(t, cert.P256, IssuerSpec{Purposes: []cert.Purpose{cert.User}, Domains: domains})
	dns := func(names ...string) cert.SANs { return cert.SANs{DNS: names} }
	ip := func(a string) cert.SANs { return cert.SANs{DNS: []string{"www.example.org"}, IP: []string{a}} }
	mail := func(a string) cert.SANs { return cert.SANs{Email: []string{a}} }
	for _, c := range []struct {
		a    *authority
		p    cert.Purpose
		cn   string
		sans cert.SANs
		ok   bool
	}{
		{closed, cert.Server, "example.org", dns("example.org"), true},
		{closed, cert.Server, "a.b.example.org", dns("a.b.example.org"), true},
		{closed, cert.Server, "www.example.com", dns("www.example.com"), false},
		{closed, cert.Server, "badexample.org", dns("badexample.org"), false},
		{closed, cert.Server, "www.example.org", dns("www.example.org", "www.example.com"), false},
		{closed, cert.Server, "www.example.org", ip("192.0.2.1"), false},
		{closed, cert.Server, "www.example.org", ip("2001:db8::1"), false},
		{local, cert.Server, "www.example.org", ip("127.0.0.1"), true},
		{local, cert.Server, "www.example.org", ip("192.0.2.1"), false},
		{local, cert.Server, "www.example.org", ip("::1"), false},
		{users, cert.User, "alice", mail("alice@example.org"), true},
		{users, cert.User, "alice.smith", mail("alice@mail.example.org"), true},
		{users, cert.User, "alice.smith", cert.SANs{}, true},
		{users, cert.User, "alice", mail("alice@example.com"), false},
		{users, cert.User, "alice", mail("alice@badexample.org"), false},
	} {
		r := c.a.request(t, c.p, keyFor(t, "subject", cert.P256).Public())
		r.CN, r.SANs = c.cn, c.sans
		purpose := map[cert.Purpose]string{cert.Server: "sslserver", cert.User: "sslclient"}[c.p]
		out, err := c.a.verify(t, c.a.unguarded(t, r), purpose)
		if (err == nil) != c.ok || !c.ok && !strings.Contains(out, "subtree violation") {
			t.Errorf("%s %v: openssl says %v, want ok=%t\n%s", c.cn, c.sans, err, c.ok, out)
		}
		_, _, err = c.a.builder.Precertificate(r)
		if (err == nil) != c.ok || !c.ok && code(err) != "san.constraint" {
			t.Errorf("%s %v: Precertificate says %v, want ok=%t", c.cn, c.sans, err, c.ok)
		}
	}
}

// unguarded signs what Precertificate might refuse.
func (a *authority) unguarded(t *testing.T, r Request) []byte {
	t.Helper()
	template, err := a.builder.template(r)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.issuer, r.Public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRefusedAuthorities(t *testing.T) {
	a := issuerFor(t, cert.P256, cert.User)
	rootKey, public := keyFor(t, "root", cert.P256), keyFor(t, "issuer", cert.P256).Public()
	user, server := []cert.Purpose{cert.User}, []cert.Purpose{cert.Server}
	for want, spec := range map[string]IssuerSpec{
		"name.cn":         {Org: "Example", Generation: 0, Purposes: user},
		"name.cn ":        {Org: "", Generation: 1, Purposes: user},
		"name.cn  ":       {Org: "Exam\u202eple", Generation: 1, Purposes: user},
		"name.cn   ":      {Org: strings.Repeat("x", 60), Generation: 1, Purposes: user},
		"purpose.issuer":  {Org: "Example", Generation: 1},
		"purpose.issuer ": {Org: "Example", Generation: 1, Purposes: []cert.Purpose{cert.Caller, cert.Server}},
		"purpose.issuer  ": {Org: "Example", Generation: 1, Purposes: []cert.Purpose{cert.User, cert.Server},
			Domains: []string{"example.org"}},
		"purpose.issuer   ": {Org: "Example", Generation: 1, Purposes: []cert.Purpose{cert.User, cert.User}},
		"purpose.unknown":   {Org: "Example", Generation: 1, Purposes: []cert.Purpose{"device"}},
		"san.constraint":    {Org: "Example", Generation: 1, Purposes: user, Domains: []string{".example.org"}},
		"san.constraint ":   {Org: "Example", Generation: 1, Purposes: user, Domains: []string{""}},
		"san.constraint  ": {Org: "Example", Generation: 1, Purposes: server, Domains: []string{"example.org"},
			Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		"san.constraint   ": {Org: "Example", Generation: 1, Purposes: server,
			Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	} {
		_, err := IssuerCert(rand.Reader, a.root, rootKey, spec, public, now)
		if code(err) != strings.TrimSpace(want) {
			t.Errorf("%+v: %v, want %s", spec, err, want)
		}
	}
	good := IssuerSpec{Org: "Example", Generation: 1, Purposes: user}
	for _, kind := range []cert.KeyType{cert.RSA2048, cert.Ed25519} {
		if _, err := IssuerCert(rand.Reader, a.root, rootKey, good, keyFor(t, "subject", kind).Public(), now); code(err) != "key.type" {
			t.Errorf("an issuing CA with %s: %v", kind, err)
		}
		if _, err := Root(rand.Reader, keyFor(t, "subject", kind), RootSpec{Org: "Example", Generation: 1}, now); code(err) != "key.type" {
			t.Errorf("a root with %s: %v", kind, err)
		}
	}
	if _, err := IssuerCert(rand.Reader, a.root, keyFor(t, "issuer", cert.P256), good, public, now); err == nil {
		t.Error("an issuing CA under a key that is not the root's")
	}
	if _, err := IssuerCert(rand.Reader, a.issuer, keyFor(t, "issuer", cert.P256), good, public, now); err == nil {
		t.Error("an issuing CA under an issuing CA")
	}
	if _, err := IssuerCert(rand.Reader, a.root, rootKey, good, public, now.AddDate(21, 0, 0)); code(err) != "validity.issuer" {
		t.Errorf("an issuing CA under an expired root: %v", err)
	}
	if _, err := IssuerCert(rand.Reader, a.root, rootKey, good, public, a.root.NotBefore.Add(-time.Second)); code(err) != "validity.issuer" {
		t.Errorf("an issuing CA under a root that is not valid yet: %v", err)
	}
	early, err := IssuerCert(rand.Reader, a.root, rootKey, good, public, now.Add(-Backdate/2))
	if err != nil {
		t.Fatal(err)
	}
	if start := parse(t, early).NotBefore; !start.Equal(a.root.NotBefore) {
		t.Errorf("an issuing CA made early begins on %s, the root on %s", start, a.root.NotBefore)
	}
	late, err := IssuerCert(rand.Reader, a.root, rootKey, good, public, now.AddDate(15, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if end := parse(t, late).NotAfter; !end.Equal(a.root.NotAfter) {
		t.Errorf("an issuing CA made late ends on %s, the root on %s", end, a.root.NotAfter)
	}
}

func TestRefusedIssuers(t *testing.T) {
	a := issuerFor(t, cert.P256, cert.Server)
	leaf := parse(t, a.seal(t, a.request(t, cert.Server, keyFor(t, "subject", cert.P256).Public())))
	if _, err := NewBuilder(leaf, rand.Reader); err == nil {
		t.Error("a leaf as issuer")
	}
	rootBuilder, err := NewBuilder(a.root, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := rootBuilder.Precertificate(a.request(t, cert.Server, leaf.PublicKey)); code(err) != "purpose.issuer" {
		t.Errorf("a leaf under the root: %v", err)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"no key identifier":             func(c *x509.Certificate) { c.SubjectKeyId = nil },
		"an unknown critical extension": func(c *x509.Certificate) { c.UnhandledCriticalExtensions = []asn1.ObjectIdentifier{{1, 2, 3}} },
	} {
		issuer := *a.issuer
		change(&issuer)
		if _, err := NewBuilder(&issuer, rand.Reader); err == nil {
			t.Errorf("an issuer with %s", name)
		}
	}
	for name, change := range map[string]func(*x509.Certificate){
		"constraints of another form":   func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"example.com"} },
		"no right to sign certificates": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign },
		"an unknown usage":              func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, []int{1, 2, 3}) },
	} {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Other CA"}, NotBefore: now, NotAfter: now.Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		change(template)
		der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewBuilder(parse(t, der), rand.Reader); err == nil {
			t.Errorf("an issuer with %s", name)
		}
	}
}
