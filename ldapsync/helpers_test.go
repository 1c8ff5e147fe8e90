package ldapsync

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

const base = "dc=example,dc=org"

// entry is what the independent reader says of one entry.
type entry struct {
	DN    string
	Attrs [][2]any
}

func (e entry) values(attr string) (out [][]byte) {
	for _, a := range e.Attrs {
		if strings.EqualFold(a[0].(string), attr) {
			var v []byte
			if err := json.Unmarshal([]byte(`"`+a[1].(string)+`"`), &v); err != nil {
				panic(err)
			}
			out = append(out, v)
		}
	}
	return out
}

// readBack reads the file with testdata/readldif.py.
func readBack(t *testing.T, path string) []entry {
	t.Helper()
	out, err := exec.Command("python3", "testdata/readldif.py", path).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("python3 cannot read the file: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var entries []entry
	if err := json.Unmarshal(out, &entries); err != nil {
		t.Fatal(err)
	}
	return entries
}

func readEntry(t *testing.T, path, dn string) entry {
	t.Helper()
	for _, e := range readBack(t, path) {
		if e.DN == dn {
			return e
		}
	}
	t.Fatalf("no entry %s", dn)
	return entry{}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// emptyFile is a directory with nobody in it.
func emptyFile(t *testing.T) (*LDIF, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "directory.ldif")
	if err := WriteEmpty(path, base); err != nil {
		t.Fatal(err)
	}
	return open(t, path), path
}

// foreignFile is a directory that people keep by hand.
func foreignFile(t *testing.T) (d *LDIF, path string, before []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "directory.ldif")
	before = readFile(t, "testdata/foreign.ldif")
	writeFile(t, path, before)
	return open(t, path), path, before
}

func open(t *testing.T, path string) *LDIF {
	t.Helper()
	d, err := OpenLDIF("ldif://"+path, true, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func mustName(t *testing.T, purpose cert.Purpose, cn string) name.Name {
	t.Helper()
	n, err := name.Canonical(purpose, cn)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func find(t *testing.T, d *LDIF, purpose cert.Purpose, cn string) Target {
	t.Helper()
	n := mustName(t, purpose, cn)
	id, err := d.Find(context.Background(), purpose, n)
	if err != nil {
		t.Fatal(err)
	}
	return Target{purpose, n, id}
}

func apply(t *testing.T, d *LDIF, to Target, add, remove [][]byte) {
	t.Helper()
	if err := d.Apply(context.Background(), to, add, remove); err != nil {
		t.Fatal(err)
	}
}

// selfSigned makes a certificate. Its extension makes it longer than one line of LDIF by far.
func selfSigned(t *testing.T, cn string, serial int64, notAfter time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    notAfter.Add(-time.Hour),
		NotAfter:     notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func checkOpenSSL(t *testing.T, der []byte, want string) {
	t.Helper()
	cmd := exec.Command("openssl", "x509", "-inform", "DER", "-noout", "-serial", "-subject")
	cmd.Stdin = bytes.NewReader(der)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Fatalf("openssl: %v: %s; want %s", err, out, want)
	}
}

// newOfficeOf opens books for a directory that is there.
func newOfficeOf(t *testing.T, d Directory) *office {
	t.Helper()
	o := &office{t: t}
	core, logged := observer.New(zap.DebugLevel)
	o.logged = logged
	now := func() time.Time { return epoch.Add(time.Duration(o.offset.Load())) }
	s, err := store.Create(context.Background(), filepath.Join(t.TempDir(), "chancery.db"), now, who,
		[]audit.Event{&audit.LogOpened{Origin: "log.example.org", Room: "room-1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	o.Loop = &Loop{Store: s, Directory: d, Log: zap.New(core), Now: now}
	return o
}
