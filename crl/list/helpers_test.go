package list

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newCA makes a CA certificate under parent, or a root.
func newCA(t testing.TB, kind cert.KeyType, name string, parent *authority) *authority {
	t.Helper()
	key, err := cert.GenerateKey(rand.Reader, kind)
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, key, name, parent)
}

func certify(t testing.TB, key crypto.Signer, name string, parent *authority) *authority {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(spki)
	return issue(t, key, &x509.Certificate{
		SerialNumber:          big.NewInt(noon.Unix()),
		Subject:               pkix.Name{Organization: []string{"Example"}, CommonName: name},
		NotBefore:             noon.AddDate(0, -1, 0),
		NotAfter:              noon.AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId:          id[:20],
	}, parent)
}

func issue(t testing.TB, key crypto.Signer, template *x509.Certificate, parent *authority) *authority {
	t.Helper()
	if parent == nil {
		parent = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}
}

// template is the head of a list that is good at noon.
func (a *authority) template(number int64) Template {
	return Template{
		Issuer: a.cert, Number: big.NewInt(number),
		ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.AddDate(0, 0, 7),
	}
}

// sign makes a list of the entries.
func (a *authority) sign(t testing.TB, number int64, entries ...Entry) []byte {
	t.Helper()
	return a.signAt(t, a.template(number), entries...)
}

func (a *authority) signAt(t testing.TB, template Template, entries ...Entry) []byte {
	t.Helper()
	der, err := Sign(rand.Reader, template, encode(t, entries...), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func encode(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var out []byte
	for _, e := range entries {
		var err error
		if out, err = AppendEntry(out, e); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func mustParse(t testing.TB, der []byte) *List {
	t.Helper()
	l, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wantCode checks that err is a Fault with the code; "" wants no error.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var f *Fault
	switch {
	case code == "" && err == nil:
	case code == "" || !errors.As(err, &f):
		t.Errorf("got %v, want code %q", err, code)
	case f.Code != code:
		t.Errorf("got %v, want code %q", err, code)
	case f.Reason == "":
		t.Errorf("%s has no reason", code)
	}
}

// openssl runs it and gives both of its outputs; its exit code says little, so callers read the text.
func openssl(t testing.TB, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String()
}

func file(t testing.TB, name string, contents []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}
