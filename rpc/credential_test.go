package rpc

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

// TestForeignCAsThatAreNone: what is no CA, is ours, cannot be told from another, or is over, is refused at its key.
func TestForeignCAsThatAreNone(t *testing.T) {
	w := newWorld(t)
	corp, twin, old := w.elsewhere("corp", "/CN=Corp", 1000), w.elsewhere("twin", "/CN=Corp", 1000), w.elsewhere("old", "/CN=Old", 2)
	bare := w.elsewhere("bare", "/CN=Corp", 1000)
	bare.selfSigned(bare.at, "/CN=Corp", "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=none", 1000)
	leaf := corp.own("/CN=leaf", onlyClient, 1000)
	unsigning := corp.own("/CN=list", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign", 1000)
	imitated := w.elsewhere("imitated", "/CN=x", 9)
	imitated.Certificate = newTestCA(t, w.server.callersCA.RawSubject).cert
	another := newTestCA(t, nil)
	renamed, err := x509.CreateCertificate(rand.Reader, another.cert, &x509.Certificate{Subject: another.cert.Subject}, w.server.callersCA.PublicKey, another.key)
	w.must(err)
	users, err := w.authority.Chain(cert.User)
	w.must(err)
	parsed := func(der []byte) *x509.Certificate {
		c, err := x509.ParseCertificate(der)
		w.must(err)
		return c
	}
	file := func(name string, c *x509.Certificate) ForeignCA { return ForeignCA{name, name + ".pem", c} }
	for what, c := range map[string]struct {
		cas  []ForeignCA
		key  string
		want string
	}{
		"a leaf":         {[]ForeignCA{file("a", leaf.Leaf)}, "foreign_cas[0].file", "not the certificate of a CA"},
		"signs no leaf":  {[]ForeignCA{file("a", unsigning.Leaf)}, "foreign_cas[0].file", "not the certificate of a CA"},
		"the callers CA": {[]ForeignCA{corp.ForeignCA, file("a", w.server.callersCA)}, "foreign_cas[1].file", "a CA of this installation"},
		"its name":       {[]ForeignCA{file("a", imitated.Certificate)}, "foreign_cas[0].file", "a CA of this installation"},
		"its key":        {[]ForeignCA{file("a", parsed(renamed))}, "foreign_cas[0].file", "a CA of this installation"},
		"the root":       {[]ForeignCA{file("a", parsed(users.Certificates[1]))}, "foreign_cas[0].file", "a CA of this installation"},
		"the users' CA":  {[]ForeignCA{file("a", parsed(users.Certificates[0]))}, "foreign_cas[0].file", "a CA of this installation"},
		"no certificate": {[]ForeignCA{file("a", nil)}, "foreign_cas[0].file", "was not read"},
		"twice":          {[]ForeignCA{corp.ForeignCA, file("again", corp.Certificate)}, "foreign_cas[1].file", "tell their keys apart"},
		"without key id": {[]ForeignCA{corp.ForeignCA, file("bare", w.leaf(bare.at+".pem"))}, "foreign_cas[1].file", "tell their keys apart"},
		"name twice":     {[]ForeignCA{corp.ForeignCA, file("corp", twin.Certificate)}, "foreign_cas[1].name", "corp is there twice"},
		"bad name":       {[]ForeignCA{{"A B", "a.pem", corp.Certificate}}, "foreign_cas[0].name", "want 1 to 63 of"},
		"no file":        {[]ForeignCA{{"a", "", corp.Certificate}}, "foreign_cas[0].file", "file is missing"},
	} {
		w.refused(what, plus(c.cas), c.key, c.want)
	}

	// A CA that changes its key is there twice for a while; each certificate is checked by the key that it names.
	w.apply(plus([]ForeignCA{corp.ForeignCA, twin.ForeignCA}, with("hr", Credential{Issuer: "CN=Corp", Subject: "CN=hr"})), false)
	const both = onlyClient + "\nauthorityKeyIdentifier=keyid"
	w.comesIn(corp.issue("/CN=hr", both, 300), "hr")
	w.comesIn(twin.issue("/CN=hr", both, 300), "hr")
	w.staysOut("by a third of the name", bare.issue("/CN=hr", onlyClient, 300), "tls.other_ca")

	// One that ends while the service runs lets nobody in, and is not taken again. A start does not stumble on it.
	long := old.issue("/CN=hr", onlyClient, 300)
	over := plus([]ForeignCA{old.ForeignCA}, with("hr", Credential{Issuer: "CN=Old", Subject: "CN=hr"}))
	w.apply(over, false)
	h := w.forced(long)
	if n, _ := w.list(h); n != 0 {
		t.Fatalf("fault %d", n)
	}
	w.setDays(3)
	if n, reused := w.list(h); n != 4010 || !reused {
		t.Errorf("after the end of its CA: fault %d, on the same connection: %v", n, reused)
	}
	w.staysOut("after the end of its CA", long, "tls.expired")
	w.refused("over", over, "foreign_cas[0].file", "put the newer certificate there")
	o := w.options()
	o.Config = over
	if _, err := New(o); err != nil {
		t.Error(err)
	}
}

// refused wants a configuration not to be taken, for what is wrong at a key, neither by a reload nor by a check.
func (w *world) refused(what string, c Config, key, want string) {
	w.Helper()
	_, err := w.server.Prepare(c, false)
	for _, err := range []error{err, c.CheckCAs(w.server.ownCAs(), w.now())} {
		var at *ConfigError
		if !errors.As(err, &at) || at.Key != key || !strings.Contains(err.Error(), want) {
			w.Errorf("%s: %+v %v, want %s: %s", what, at, err, key, want)
		}
	}
}

// TestBadCredentials: a credential that means nothing, or two callers, is refused at its key.
func TestBadCredentials(t *testing.T) {
	w := newWorld(t)
	corp := w.elsewhere("corp", "/CN=Corp", 1000)
	hash, ours := strings.Repeat("0f", 32), w.callersName()
	for what, c := range map[string]struct {
		one  []Credential
		key  string
		want string
	}{
		"none":              {[]Credential{}, "", "credentials is empty"},
		"nothing in it":     {[]Credential{{}}, "[0].issuer", "a credential is spki, or issuer and subject"},
		"issuer alone":      {[]Credential{{Issuer: "CN=Corp"}}, "[0].subject", "is missing"},
		"subject alone":     {[]Credential{{SPKI: hash}, {Subject: "CN=hr"}}, "[1].issuer", "is missing"},
		"both kinds":        {[]Credential{{SPKI: hash, Subject: "CN=hr"}}, "[0].spki", "make two of it"},
		"short hash":        {[]Credential{{SPKI: hash[2:]}}, "[0].spki", "64 digits"},
		"long hash":         {[]Credential{{SPKI: hash + "00"}}, "[0].spki", "64 digits"},
		"upper case":        {[]Credential{{SPKI: strings.ToUpper(hash)}}, "[0].spki", "64 digits"},
		"not hex":           {[]Credential{{SPKI: strings.Repeat("zz", 32)}}, "[0].spki", "64 digits"},
		"no name":           {[]Credential{{Issuer: "CN=Corp", Subject: "hr"}}, "[0].subject", "want TYPE=VALUE"},
		"space":             {[]Credential{{Issuer: "CN=Corp", Subject: "CN=hr, O=Corp"}}, "[0].subject", "no space around it"},
		"openssl's old way": {[]Credential{{Issuer: "/CN=Corp", Subject: "CN=hr"}}, "[0].issuer", `attribute type "/CN"`},
		"no such CA":        {[]Credential{{Issuer: "CN=corp", Subject: "CN=hr"}}, "[0].issuer", `there is no CA "CN=corp"; there are: ` + strconv.Quote(ours) + `, "`},
		"another's name":    {[]Credential{{Issuer: ours, Subject: "CN=provisioning"}}, "[0].subject", `has the subject "CN=hr"`},
		"twice":             {[]Credential{{SPKI: hash}, {SPKI: hash}}, "[1]", "caller hr has this credential already"},
		"name twice":        {[]Credential{{Issuer: "CN=Corp", Subject: "CN=a"}, {Issuer: "cn=Corp", Subject: "2.5.4.3=#0c0161"}}, "[1]", "caller hr has this credential already"},
		"somebody else's":   {[]Credential{{SPKI: strings.Repeat("aa", 32)}}, "[0]", "caller other has this credential already"},
	} {
		config := plus([]ForeignCA{corp.ForeignCA}, with("other", Credential{SPKI: strings.Repeat("aa", 32)}), with("hr", c.one...))
		if c.one != nil && len(c.one) == 0 {
			config.Callers[len(config.Callers)-1].Credentials = c.one
		}
		w.refused(what, config, "callers[5].credentials"+c.key, c.want)
	}
}
