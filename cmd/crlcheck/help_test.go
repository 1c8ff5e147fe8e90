package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newCA makes a CA under parent, or a root.
func newCA(t testing.TB, kind cert.KeyType, name string, parent *authority) *authority {
	t.Helper()
	key, err := cert.GenerateKey(rand.Reader, kind)
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	id := sha256.Sum256(spki)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(noon.Unix()), Subject: pkix.Name{Organization: []string{"Example"}, CommonName: name},
		NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: id[:20],
	}
	if parent == nil {
		parent = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{c, key}
}

// list signs a list with the standard library's encoder: it is not the one under test, and it also makes
// lists that no CA may sign.
func (a *authority) list(t testing.TB, number int64, edits ...func(*x509.RevocationList)) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.AddDate(0, 0, 7)}
	for _, edit := range edits {
		edit(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	must(t, err)
	return der
}

// revoked adds entries, revoked some days before noon.
func revoked(days int, reason cert.Reason, serials ...int64) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		for _, s := range serials {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: big.NewInt(s), RevocationTime: noon.AddDate(0, 0, -days), ReasonCode: int(reason),
			})
		}
	}
}

// during sets the times of a list, in hours from noon.
func during(from, to int) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = noon.Add(time.Duration(from)*time.Hour), noon.Add(time.Duration(to)*time.Hour)
	}
}

// extended adds a critical extension.
func extended(value []byte, oid ...int) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: oid, Critical: true, Value: value})
	}
}

func trust(authorities ...*authority) []byte {
	var out []byte
	for _, a := range authorities {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	return out
}

func bundle(ders ...[]byte) []byte { return list.EncodeBundle(ders...) }

// altered gives a copy with one octet changed.
func altered(der []byte, at int) []byte {
	out := bytes.Clone(der)
	out[at] ^= 1
	return out
}

// host is a folder with the files of one check. A nil file is not there.
type host struct{ dir string }

func newHost(t testing.TB, chain, file, installed []byte) host {
	t.Helper()
	h := host{t.TempDir()}
	for name, content := range map[string][]byte{"chain.pem": chain, "new": file, "installed": installed} {
		if content != nil {
			must(t, os.WriteFile(h.path(name), content, 0o600))
		}
	}
	return h
}

func (h host) path(name string) string { return filepath.Join(h.dir, name) }

func (h host) args(more ...string) []string {
	return append([]string{h.path("new"), "--trust", h.path("chain.pem")}, more...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
