package list

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/google/go-cmp/cmp"
)

// everyReason is one entry for each reason code, with the edges of serials and times.
func everyReason() []Entry {
	longest := cert.Serial("7f" + strings.Repeat("ff", 19))
	return []Entry{
		{"01", time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC), cert.Unspecified},
		{"80", noon.Add(-9 * time.Hour), cert.KeyCompromise},
		{"ff00", noon.Add(-8 * time.Hour), cert.CACompromise},
		{longest, noon.Add(-7 * time.Hour), cert.AffiliationChanged},
		{"0a0b0c0d0e0f10111213141516171819", noon.Add(-6 * time.Hour), cert.Superseded},
		{"8a0b0c0d0e0f10111213141516171819", noon.Add(-5 * time.Hour), cert.CessationOfOperation},
		{"1000", noon.Add(-4 * time.Hour), cert.CertificateHold},
		{"1001", time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), cert.PrivilegeWithdrawn},
		{"1002", time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), cert.AACompromise},
	}
}

// What is signed with each kind of key is read back by openssl, by crypto/x509 and by Parse.
func TestSignIsReadByOthers(t *testing.T) {
	for _, kind := range []cert.KeyType{cert.P256, cert.P384, cert.RSA2048, cert.RSA3072, cert.Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			ca := newCA(t, kind, "Issuer "+string(kind), nil)
			der := ca.sign(t, 0x80ff, everyReason()...)
			readByOpenSSL(t, ca, der)
			readByX509(t, ca, der)
			l := mustParse(t, der)
			if diff := cmp.Diff(everyReason(), l.Entries); diff != "" {
				t.Error(diff)
			}
			if err := l.Verify(ca.cert); err != nil {
				t.Error(err)
			}
			if l.Number.Int64() != 0x80ff || !l.ThisUpdate.Equal(noon.Add(-time.Hour)) || !l.NextUpdate.Equal(noon.AddDate(0, 0, 7)) {
				t.Errorf("read back %s %s %s", l.Number, l.ThisUpdate, l.NextUpdate)
			}
		})
	}
}

func readByOpenSSL(t *testing.T, ca *authority, der []byte) {
	t.Helper()
	args := []string{"crl", "-inform", "DER", "-noout", "-text", "-nameopt", "RFC2253", "-in", file(t, "list.crl", der), "-CAfile", file(t, "ca.pem", ca.pem()), "-verify"}
	out := openssl(t, args...)
	want := []string{
		"verify OK", "Version 2", "Issuer: " + "CN=" + ca.cert.Subject.CommonName + ",O=Example",
		"Last Update: Nov 20 11:00:00 2026 GMT", "Next Update: Nov 27 12:00:00 2026 GMT",
		"X509v3 CRL Number: \n                33023", "X509v3 Authority Key Identifier: \n",
		"Revocation Date: Dec 31 23:59:59 1999 GMT", "Revocation Date: Jan  1 00:00:00 2050 GMT",
		"Key Compromise", "CA Compromise", "Affiliation Changed", "Superseded", "Cessation Of Operation",
		"Certificate Hold", "Privilege Withdrawn", "AA Compromise",
	}
	for _, e := range everyReason() {
		want = append(want, "Serial Number: "+strings.ToUpper(string(e.Serial))+"\n")
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("openssl does not say %q:\n%s", w, out)
		}
	}
	if n := strings.Count(out, "CRL Reason Code"); n != len(everyReason())-1 {
		t.Errorf("%d reason codes; unspecified has none", n)
	}
	if strings.Contains(out, "critical") {
		t.Errorf("a critical extension:\n%s", out)
	}
	again := openssl(t, "asn1parse", "-inform", "DER", "-in", file(t, "list.crl", der))
	if strings.Count(again, "GENERALIZEDTIME") != 1 || strings.Contains(strings.ToLower(again), "error") {
		t.Errorf("asn1parse:\n%s", again)
	}
}

func readByX509(t *testing.T, ca *authority, der []byte) {
	t.Helper()
	theirs, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.CheckSignatureFrom(ca.cert); err != nil {
		t.Error(err)
	}
	sameAsX509(t, mustParse(t, der), theirs)
}

// sameAsX509 compares what Parse and crypto/x509 have read.
func sameAsX509(t testing.TB, l *List, theirs *x509.RevocationList) {
	t.Helper()
	var entries []Entry
	for _, e := range theirs.RevokedCertificateEntries {
		entries = append(entries, Entry{cert.SerialOf(e.SerialNumber), e.RevocationTime.UTC(), cert.Reason(e.ReasonCode)})
	}
	if diff := cmp.Diff(entries, l.Entries); diff != "" {
		t.Error(diff)
	}
	if theirs.Number == nil || l.Number.Cmp(theirs.Number) != 0 || !bytes.Equal(l.AuthorityKeyID, theirs.AuthorityKeyId) ||
		!bytes.Equal(l.RawIssuer, theirs.RawIssuer) || !bytes.Equal(l.signature, theirs.Signature) ||
		!l.ThisUpdate.Equal(theirs.ThisUpdate) || !l.NextUpdate.Equal(theirs.NextUpdate) {
		t.Errorf("read %+v, crypto/x509 %+v", l, theirs)
	}
}

// Except for the signature, a list is octet for octet what crypto/x509 writes: an encoder that shares
// no code with this one.
func TestSignedPartEqualsX509(t *testing.T) {
	ca := newCA(t, cert.P256, "Issuer", nil)
	for n := range 300 {
		entries := everyReason()[:n%10]
		for i := range n {
			entries = append(entries, Entry{cert.SerialOf(big.NewInt(int64(20000 + i))), noon.Add(-time.Minute), cert.Superseded})
		}
		template := &x509.RevocationList{Number: big.NewInt(int64(1 + n)), ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.AddDate(0, 0, 7)}
		for _, e := range entries {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: e.Serial.Int(), RevocationTime: e.RevokedAt, ReasonCode: int(e.Reason)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		want, got := mustParse(t, der), mustParse(t, ca.sign(t, int64(1+n), entries...))
		if !bytes.Equal(want.tbs, got.tbs) {
			t.Fatalf("%d entries: got\n%x, crypto/x509 writes\n%x", len(entries), got.tbs, want.tbs)
		}
	}
}

// Lengths of one to four octets in the outer header, and serials and times at their limits.
func TestSignSizes(t *testing.T) {
	ca := newCA(t, cert.Ed25519, "Issuer", nil)
	for _, n := range []int{0, 1, 2, 3, 5, 10, 1300, 1310, 1320, 1330, 350_000} {
		entries := make([]byte, 0, 50*n)
		for i := range n {
			var err error
			if entries, err = AppendEntry(entries, numbered(i)); err != nil {
				t.Fatal(err)
			}
		}
		der, err := Sign(rand.Reader, ca.template(1), entries, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		l := mustParse(t, der)
		if len(l.Entries) != n || l.Verify(ca.cert) != nil {
			t.Errorf("%d entries: read %d", n, len(l.Entries))
		}
		if n > 0 && l.Entries[n-1] != numbered(n-1) {
			t.Errorf("last of %d is %v", n, l.Entries[n-1])
		}
	}
	if _, err := Sign(rand.Reader, ca.template(1), bytes.Repeat(encode(t, numbered(1)), MaxSize/49+1), ca.key); err == nil {
		t.Error("a list that Parse would refuse for its size was signed")
	}
}

// numbered is the i-th of many entries, 49 octets long.
func numbered(i int) Entry {
	return Entry{cert.Serial(fmt.Sprintf("4a%030x", i)), noon.Add(-time.Hour), cert.Superseded}
}

func TestEmptyListHasNoRevokedCertificates(t *testing.T) {
	ca := newCA(t, cert.P256, "Issuer", nil)
	out := openssl(t, "crl", "-inform", "DER", "-noout", "-text", "-in", file(t, "list.crl", ca.sign(t, 1)))
	if !strings.Contains(out, "No Revoked Certificates.") {
		t.Errorf("openssl says:\n%s", out)
	}
	// openssl says so of an empty sequence too: what follows the two times has to be the extensions.
	tree := openssl(t, "asn1parse", "-inform", "DER", "-in", file(t, "list.crl", ca.sign(t, 1)))
	_, after, _ := strings.Cut(tree, "UTCTIME")
	_, after, _ = strings.Cut(after, "UTCTIME")
	if lines := strings.SplitN(after, "\n", 3); len(lines) < 3 || !strings.Contains(lines[1], "cont [ 0 ]") {
		t.Errorf("asn1parse:\n%s", tree)
	}
	if l := mustParse(t, ca.sign(t, 1)); l.Entries != nil {
		t.Errorf("entries %v", l.Entries)
	}
}

// openssl refuses a revoked certificate and accepts another one by our bundle, over the whole chain.
func TestOpenSSLRefusesRevoked(t *testing.T) {
	root := newCA(t, cert.P384, "Root", nil)
	users := newCA(t, cert.P256, "Users", root)
	leaf := func(serial int64) *authority {
		key, err := cert.GenerateKey(rand.Reader, cert.P256)
		if err != nil {
			t.Fatal(err)
		}
		return issue(t, key, &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "alice"},
			NotBefore: noon.AddDate(0, 0, -1), NotAfter: noon.AddDate(1, 0, 0),
		}, users)
	}
	bundle := EncodeBundle(users.sign(t, 7, Entry{"c0ffee", noon.Add(-2 * time.Hour), cert.KeyCompromise}), root.sign(t, 3))
	if err := CheckBundle(bundle, []*x509.Certificate{users.cert, root.cert}, noon); err != nil {
		t.Fatal(err)
	}
	check := func(leaf *authority, bundle []byte) string {
		return openssl(t, "verify", "-crl_check_all", "-attime", fmt.Sprint(noon.Unix()),
			"-CAfile", file(t, "root.pem", root.pem()), "-untrusted", file(t, "users.pem", users.pem()),
			"-CRLfile", file(t, "bundle.crl.pem", bundle), file(t, "leaf.pem", leaf.pem()))
	}
	if out := check(leaf(0xc0ffee), bundle); !strings.Contains(out, "error 23 at 0 depth lookup: certificate revoked") {
		t.Errorf("revoked:\n%s", out)
	}
	if out := check(leaf(0xc0ffed), bundle); !strings.Contains(out, "leaf.pem: OK") {
		t.Errorf("not revoked:\n%s", out)
	}
	if out := check(leaf(0xc0ffed), EncodeBundle(users.sign(t, 7))); !strings.Contains(out, "unable to get certificate CRL") {
		t.Errorf("without the root's list:\n%s", out)
	}
}

func TestSignRefuses(t *testing.T) {
	ca, other := newCA(t, cert.P256, "Issuer", nil), newCA(t, cert.P256, "Other", nil)
	certOnly := certifiedWith(t, ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	leaf := certifiedWith(t, ca, func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageCRLSign })
	one := encode(t, numbered(1))
	cases := map[string]struct {
		change  func(*Template)
		entries []byte
		key     crypto.Signer
	}{
		"another key":        {key: other.key},
		"no cRLSign":         {change: func(t *Template) { t.Issuer = certOnly }},
		"no CA":              {change: func(t *Template) { t.Issuer = leaf }},
		"no number":          {change: func(t *Template) { t.Number = nil }},
		"number 0":           {change: func(t *Template) { t.Number = new(big.Int) }},
		"negative number":    {change: func(t *Template) { t.Number = big.NewInt(-1) }},
		"number of 21":       {change: func(t *Template) { t.Number = new(big.Int).Lsh(big.NewInt(1), 159) }},
		"no time":            {change: func(t *Template) { t.NextUpdate = t.ThisUpdate }},
		"half a second":      {change: func(t *Template) { t.ThisUpdate = t.ThisUpdate.Add(time.Second / 2) }},
		"half a second next": {change: func(t *Template) { t.NextUpdate = t.NextUpdate.Add(time.Second / 2) }},
		"year 1949":          {change: func(t *Template) { t.ThisUpdate = time.Date(1949, 12, 31, 0, 0, 0, 0, time.UTC) }},
		"year 10000":         {change: func(t *Template) { t.NextUpdate = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		"half an entry":      {entries: one[:len(one)-1]},
		"one octet more":     {entries: append(bytes.Clone(one), 0x30)},
		"no entry":           {entries: []byte("entries")},
		"long form":          {entries: []byte{0x30, 0x81, 0x80, 0}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			template, key := ca.template(1), ca.key
			if c.change != nil {
				c.change(&template)
			}
			if c.key != nil {
				key = c.key
			}
			if der, err := Sign(rand.Reader, template, c.entries, broken{key}); err == nil || der != nil || errors.Is(err, errBroken) {
				t.Errorf("the key was asked: %x, %v", der, err)
			}
		})
	}
	longest := ca.template(1)
	longest.Number = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(1))
	if l := mustParse(t, ca.signAt(t, longest)); l.Number.Cmp(longest.Number) != 0 {
		t.Errorf("the longest number came back as %s", l.Number)
	}
}

func certifiedWith(t *testing.T, ca *authority, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := *ca.cert
	change(&c)
	return issue(t, ca.key, &c, ca).cert
}

// faulty signs, and every signature has one bit wrong.
type faulty struct{ crypto.Signer }

func (f faulty) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := f.Signer.Sign(rand, digest, opts)
	if err == nil {
		sig[len(sig)-1] ^= 1
	}
	return sig, err
}

// broken cannot sign.
type broken struct{ crypto.Signer }

var errBroken = errors.New("the token is gone")

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errBroken }

func TestSignFaultDoesNotLeave(t *testing.T) {
	for _, kind := range []cert.KeyType{cert.P256, cert.P384, cert.RSA2048, cert.Ed25519} {
		ca := newCA(t, kind, "Issuer", nil)
		var out bytes.Buffer
		if err := SignTo(&out, rand.Reader, ca.template(1), nil, faulty{ca.key}); err == nil || out.Len() > 0 {
			t.Errorf("%s: a faulty signature left: %x, %v", kind, out.Bytes(), err)
		}
		if err := SignTo(&out, rand.Reader, ca.template(1), nil, broken{ca.key}); !errors.Is(err, errBroken) || out.Len() > 0 {
			t.Errorf("%s: %x, %v", kind, out.Bytes(), err)
		}
	}
}

// full takes n octets and no more.
type full struct{ n int }

var errFull = errors.New("no space")

func (f *full) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestSignToTellsOfLostWrites(t *testing.T) {
	ca := newCA(t, cert.RSA2048, "Issuer", nil)
	size := len(ca.sign(t, 1, everyReason()...))
	for _, n := range []int{0, size / 3, size - 1} {
		if err := SignTo(&full{n}, rand.Reader, ca.template(1), encode(t, everyReason()...), ca.key); !errors.Is(err, errFull) {
			t.Errorf("%d of %d octets: %v", n, size, err)
		}
	}
	if err := SignTo(&full{size}, rand.Reader, ca.template(1), encode(t, everyReason()...), ca.key); err != nil {
		t.Error(err)
	}
}

func TestAppendEntryRefuses(t *testing.T) {
	for name, change := range map[string]func(*Entry){
		"no serial":        func(e *Entry) { e.Serial = "" },
		"serial 0":         func(e *Entry) { e.Serial = "00" },
		"capitals":         func(e *Entry) { e.Serial = "AB" },
		"leading zero":     func(e *Entry) { e.Serial = "00ab" },
		"half an octet":    func(e *Entry) { e.Serial = "abc" },
		"21 octets":        func(e *Entry) { e.Serial = cert.Serial("80" + strings.Repeat("00", 19)) },
		"reason 7":         func(e *Entry) { e.Reason = 7 },
		"removeFromCRL":    func(e *Entry) { e.Reason = 8 },
		"reason 11":        func(e *Entry) { e.Reason = 11 },
		"reason -1":        func(e *Entry) { e.Reason = -1 },
		"part of a second": func(e *Entry) { e.RevokedAt = e.RevokedAt.Add(1) },
		"zero time":        func(e *Entry) { e.RevokedAt = time.Time{} },
		"year 10000":       func(e *Entry) { e.RevokedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := numbered(1)
		change(&e)
		if out, err := AppendEntry([]byte("before"), e); err == nil {
			t.Errorf("%s: wrote %x", name, out)
		}
	}
	zone := time.FixedZone("", 3600)
	if !bytes.Equal(encode(t, numbered(1)), encode(t, Entry{numbered(1).Serial, numbered(1).RevokedAt.In(zone), cert.Superseded})) {
		t.Error("a time in another zone gives another encoding")
	}
	if n := len(encode(t, Entry{cert.Serial("7f" + strings.Repeat("ff", 19)), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), 1})); n >= 0x80 {
		t.Errorf("the longest entry has %d octets: wholeEntries would refuse it", n)
	}
}

// A header announces its length in the fewest octets, on both sides of every step.
func TestHeaderLengths(t *testing.T) {
	for n, want := range map[int]string{
		0: "3000", 127: "307f", 128: "308180", 255: "3081ff", 256: "30820100", 65535: "3082ffff", 65536: "3083010000",
		1<<24 - 1: "3083ffffff", 1 << 24: "308401000000", MaxSize: "308404000000",
	} {
		if got := fmt.Sprintf("%x", appendHeader(nil, tagSequence, n)); got != want {
			t.Errorf("%d octets: %s, want %s", n, got, want)
		}
	}
}
