package profile

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 500, time.UTC)

// ring keeps the keys of a test run: RSA keys are slow to make.
var ring = struct {
	sync.Mutex
	keys map[string]crypto.Signer
}{keys: map[string]crypto.Signer{}}

func keyFor(t testing.TB, role string, kind cert.KeyType) crypto.Signer {
	t.Helper()
	ring.Lock()
	defer ring.Unlock()
	name := role + "/" + string(kind)
	if ring.keys[name] == nil {
		key, err := cert.GenerateKey(rand.Reader, kind)
		if err != nil {
			t.Fatal(err)
		}
		ring.keys[name] = key
	}
	return ring.keys[name]
}

// authority is a root and one issuing CA below it.
type authority struct {
	root, issuer *x509.Certificate
	key          crypto.Signer
	builder      *Builder
}

func newAuthority(t testing.TB, kind cert.KeyType, spec IssuerSpec) *authority {
	t.Helper()
	rootKey, key := keyFor(t, "root", kind), keyFor(t, "issuer", kind)
	rootDER, err := Root(rand.Reader, rootKey, RootSpec{Org: "Example", Generation: 1}, now)
	if err != nil {
		t.Fatal(err)
	}
	root := parse(t, rootDER)
	spec.Org, spec.Generation = "Example", 1
	der, err := IssuerCert(rand.Reader, root, rootKey, spec, key.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{root: root, issuer: parse(t, der), key: key}
	if a.builder, err = NewBuilder(a.issuer, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return a
}

func issuerFor(t testing.TB, kind cert.KeyType, p cert.Purpose) *authority {
	t.Helper()
	return newAuthority(t, kind, IssuerSpec{Purposes: []cert.Purpose{p}})
}

// request is an ordinary request of a purpose.
func (a *authority) request(t testing.TB, p cert.Purpose, public crypto.PublicKey) Request {
	t.Helper()
	r := Request{Serial: "5a0102030405060708090a0b0c0d0e0f", Purpose: p, CN: "alice", Public: public}
	switch p {
	case cert.User:
		r.SANs.Email = []string{"alice@example.org"}
	case cert.Server:
		r.CN = "www.example.org"
		r.SANs.DNS = []string{"example.org", "www.example.org"}
		r.SANs.IP = []string{"192.0.2.7", "2001:db8::7"}
	}
	var err error
	if r.NotBefore, r.NotAfter, err = Window(a.issuer, p, 0, now); err != nil {
		t.Fatal(err)
	}
	return r
}

func (a *authority) seal(t testing.TB, r Request) []byte {
	t.Helper()
	_, tbs, err := a.builder.Precertificate(r)
	if err != nil {
		t.Fatal(err)
	}
	der, err := Seal(rand.Reader, a.issuer, tbs, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writePEM(t testing.TB, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openssl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := tryOpenssl(t, args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryOpenssl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal(err)
	}
	return string(out), err
}

// code gives the code of a refusal, and "" for anything else.
func code(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}
