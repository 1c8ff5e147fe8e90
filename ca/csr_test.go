package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
)

// csr has openssl make a request with a key of its own.
func (w *world) csr(genpkey, subject, config string) []byte {
	w.Helper()
	key := filepath.Join(w.dir, "subject.key")
	w.tool(nil, "openssl", append([]string{"genpkey", "-out", key}, strings.Fields(genpkey)...)...)
	conf := w.write("req.cnf", []byte("[req]\nprompt=no\nutf8=yes\ndistinguished_name=dn\n"+config+"\n[dn]\n"+subject+"\n"))
	text := w.tool(nil, "openssl", "req", "-new", "-utf8", "-key", key, "-config", conf)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		w.Fatalf("openssl gave no CSR:\n%s", text)
	}
	return block.Bytes
}

const ecKey = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"

func TestIssueFromCSR(t *testing.T) {
	w := newWorld(t)
	r := w.request(cert.User, "Alice")
	r.CSR = w.csr(ecKey, "CN=Alice", "req_extensions=ext\n[ext]\nsubjectAltName=email:root@example.org\nbasicConstraints=CA:TRUE")
	from := w.head()
	issued, err := w.authority.Issue(t.Context(), call("one", "x"), r)
	w.must(err)
	if issued.PKCS12 != nil || issued.Password != "" || issued.Code != "issued" {
		t.Errorf("%+v", issued)
	}
	w.verify(issued)
	text := w.tool(asPEM(issued.Certificate), "openssl", "x509", "-noout", "-text")
	if strings.Contains(text, "root@example.org") || strings.Contains(text, "CA:TRUE") {
		t.Errorf("the CSR's extensions are in the certificate:\n%s", text)
	}
	events := w.events(from)
	if e := events[0].(*audit.IssueIntent); e.KeyMadeBy != "caller" || e.SealedSHA256 != "" || events[2].(*audit.IssueAnswering).Secrets {
		t.Errorf("the log says %+v", e)
	}
	again, err := w.authority.Issue(t.Context(), call("one", "x"), r)
	w.must(err)
	w.same(issued, again)
	if again.Code != "issued" {
		t.Errorf("the second answer is %s", again.Code)
	}
}

func TestBadCSR(t *testing.T) {
	w := newWorld(t)
	spoilt := w.csr(ecKey, "CN=Alice", "")
	spoilt[len(spoilt)-1] ^= 1
	for what, c := range map[string]struct {
		csr  []byte
		code string
	}{
		"other name":    {w.csr(ecKey, "CN=Bob", ""), "csr.other_name"},
		"bad signature": {spoilt, "csr.signature"},
		"RSA-1024":      {w.csr("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "CN=Alice", ""), "key."},
		"exponent 3":    {w.csr("-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3", "CN=Alice", ""), "key."},
		"Ed25519":       {w.csr("-algorithm ED25519", "CN=Alice", ""), "key."},
		"P-521":         {w.csr("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "CN=Alice", ""), "key."},
		"challenge":     {w.csr(ecKey, "CN=Alice", "attributes=attr\n[attr]\nchallengePassword=secret word"), "csr.attributes"},
		"trailing":      {append(w.csr(ecKey, "CN=Alice", ""), 0), "csr.malformed"},
		"no CSR":        {[]byte("-----BEGIN"), "csr.malformed"},
		"huge":          {make([]byte, profile.MaxCSR+1), "csr.malformed"},
	} {
		t.Run(what, func(t *testing.T) {
			from := w.head()
			r := w.request(cert.User, "Alice")
			r.CSR = c.csr
			_, err := w.authority.Issue(context.Background(), call(what, "x"), r)
			var ours *Refusal
			var theirs *profile.Refusal
			code := ""
			if errors.As(err, &ours) {
				code = ours.Code
			} else if errors.As(err, &theirs) {
				code = theirs.Code
			}
			if !strings.HasPrefix(code, c.code) || w.head() != from {
				t.Errorf("%v; want %s, and nothing done but %q", err, c.code, w.types(from))
			}
		})
	}
	if r := w.request(cert.User, "Alice"); true {
		r.CSR = w.csr(ecKey, "O=Example", "") // a subject without a common name
		if _, err := w.authority.Issue(t.Context(), call("no name", "x"), r); err != nil {
			t.Error(err)
		}
	}
}

// No request reaches it, because the profile makes nothing that lint finds fault with: so it is shown
// certificates that the profile would not make.
func TestLintRefuses(t *testing.T) {
	l, err := newLinter()
	if err != nil {
		t.Fatal(err)
	}
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	bad := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Alice"}, NotBefore: now, NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, // of no CA
	}
	der, err := x509.CreateCertificate(rand.Reader, bad, bad, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if r := refusalOf(t, l.check(der)); r.Code != "lint.failed" || !strings.Contains(r.Reason, "e_") {
		t.Error(r)
	}
	if r := refusalOf(t, l.check(der[:len(der)-1])); r.Code != "lint.failed" {
		t.Error(r)
	}
}

func TestUnknownPurpose(t *testing.T) {
	w := newWorld(t)
	r := w.request(cert.User, "Alice")
	r.Purpose = "robot"
	for _, plan := range []bool{false, true} {
		c := call("one", "x")
		c.Plan = plan
		if _, err := w.authority.Issue(t.Context(), c, r); refusalOf(t, err).Code != "purpose.unknown" {
			t.Error(err)
		}
	}
	if _, err := w.authority.Chain("robot"); refusalOf(t, err).Code != "purpose.unknown" {
		t.Error(err)
	}
}
