package keyroom

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

// rootCA is an installation's root with its key, to sign lists that Sign would not.
type rootCA struct {
	t       *testing.T
	offline string
	cert    *x509.Certificate
	key     crypto.Signer
}

func newRootCA(t *testing.T, dir string) *rootCA {
	t.Helper()
	offline := filepath.Join(dir, "offline")
	key, err := readKey(filepath.Join(offline, rootKeyFile), []byte("correct horse battery"))
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := readRootList(offline)
	if err != nil {
		t.Fatal(err)
	}
	return &rootCA{t, offline, root, key.(crypto.Signer)}
}

func (r *rootCA) list(number int64, this, next time.Time, entries ...list.Entry) []byte {
	r.t.Helper()
	var encoded []byte
	var err error
	for _, e := range entries {
		if encoded, err = list.AppendEntry(encoded, e); err != nil {
			r.t.Fatal(err)
		}
	}
	der, err := list.Sign(rand.Reader, list.Template{Issuer: r.cert, Number: big.NewInt(number), ThisUpdate: this, NextUpdate: next}, encoded, r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return list.EncodePEM(der)
}

func (r *rootCA) signing(at time.Time, days int) RootList {
	return RootList{
		Offline: r.offline, Days: days, Passphrase: "correct horse battery", Rand: rand.Reader,
		Now: func() time.Time { return at },
	}
}

// put replaces a file that is read-only.
func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := replaceFile(path, text); err != nil {
		t.Fatal(err)
	}
}

// TestRootListThroughOpenSSL: list after list from the offline folder alone, each with the next number and
// all entries, as openssl reads them.
func TestRootListThroughOpenSSL(t *testing.T) {
	dir := install(t, noon)
	r := newRootCA(t, dir)
	revoked := list.Entry{Serial: "7f01", RevokedAt: noon.Add(-time.Hour).UTC().Truncate(time.Second), Reason: cert.CACompromise}
	put(t, filepath.Join(r.offline, rootListFile), r.list(255, noon, noon.AddDate(0, 0, 1), revoked))
	for _, folder := range []string{"keyroom", "secrets", "trust", "keyroom.json"} {
		if err := os.RemoveAll(filepath.Join(dir, folder)); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"0x0100", "0x0101"} {
		at := noon.AddDate(1, 0, i)
		signed, err := r.signing(at, 30).Sign()
		if err != nil || len(signed.Entries) != 1 || signed.Entries[0] != revoked || !signed.NextUpdate.Equal(at.AddDate(0, 0, 30)) {
			t.Fatalf("%+v, %v", signed, err)
		}
		out := tool(t, nil, "sh", "-c", `openssl crl -in "$1/root.crl.pem" -noout -verify -CAfile "$1/root.pem" -text -crlnumber 2>&1`, "sh", r.offline)
		for _, line := range []string{"verify OK", "crlNumber=" + want, "Serial Number: 7F01", "CA Compromise"} {
			if !strings.Contains(out, line) {
				t.Errorf("openssl does not say %q:\n%s", line, out)
			}
		}
	}
}

func TestRootListIsNotSigned(t *testing.T) {
	dir := install(t, noon)
	r := newRootCA(t, dir)
	before, err := os.ReadFile(filepath.Join(r.offline, rootListFile))
	if err != nil {
		t.Fatal(err)
	}
	wrong := r.signing(noon, 0)
	wrong.Passphrase = "incorrect horse"
	for what, c := range map[string]struct {
		signing RootList
		says    string
	}{
		"wrong passphrase":     {wrong, "wrong passphrase"},
		"too long":             {r.signing(noon, 801), "want 1 to 800"},
		"negative":             {r.signing(noon, -1), "want 1 to 800"},
		"beyond the root":      {r.signing(r.cert.NotAfter.AddDate(0, 0, -10), 30), "outlive the root"},
		"a clock that is back": {r.signing(noon.AddDate(0, 0, -1), 30), "look at the clock"},
	} {
		if _, err := c.signing.Sign(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", what, err, c.says)
		}
	}
	if after, err := os.ReadFile(filepath.Join(r.offline, rootListFile)); err != nil || string(after) != string(before) {
		t.Errorf("the list has changed, %v", err)
	}
	if err := os.Remove(filepath.Join(r.offline, rootFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.signing(noon, 30).Sign(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "copy trust/root.pem") {
		t.Errorf("without the root's certificate: %v", err)
	}
}

// TestRootListInstalled: what follows the list that is there takes its place, in a running room too, and
// whatever else there is does not.
func TestRootListInstalled(t *testing.T) {
	h := newHall(t)
	r := newRootCA(t, filepath.Dir(h.config.State))
	path := filepath.Join(t.TempDir(), "new.pem")
	at := noon.Add(time.Hour)
	year := at.AddDate(1, 0, 0)
	revoked := list.Entry{Serial: "7f01", RevokedAt: noon.UTC().Truncate(time.Second), Reason: cert.CACompromise}
	install := func(text []byte) error {
		put(t, path, text)
		_, err := InstallRootList(h.config, path, at)
		return err
	}
	good := r.list(5, at, year, revoked)
	for range 2 {
		if err := install(good); err != nil {
			t.Fatal(err)
		}
	}
	if held := h.room.Hello().RootCRL; string(list.EncodePEM(held)) != string(good) {
		t.Error("the running room does not give the new list")
	}
	other := newRootCA(t, anotherRoot(t))
	for what, c := range map[string]struct {
		text []byte
		says string
	}{
		"the same number":        {r.list(5, at, year, revoked, list.Entry{Serial: "7f02", RevokedAt: revoked.RevokedAt}), "number 5"},
		"a lower number":         {r.list(4, at, year, revoked), "number 4"},
		"an old one":             {r.list(4, at.Add(-time.Minute), year, revoked), "number 4"},
		"a lost entry":           {r.list(6, at, year), "7f01"},
		"an entry with a date":   {r.list(6, at, year, list.Entry{Serial: "7f01", RevokedAt: at.UTC(), Reason: cert.CACompromise}), "7f01"},
		"an older list":          {r.list(6, at.Add(-time.Minute), year, revoked), "look at the clock"},
		"an expired list":        {r.list(6, at.Add(-time.Hour), at.Add(-time.Minute), revoked), "expired"},
		"a list to come":         {r.list(6, at.AddDate(0, 0, 1), year, revoked), "thisUpdate"},
		"another root's":         {other.list(6, at, year, revoked), "issuer"},
		"two lists":              {append(r.list(6, at, year, revoked), r.list(7, at, year, revoked)...), "duplicate_issuer"},
		"half a list":            {good[:len(good)/2], ""},
		"nothing":                {nil, ""},
		"something large":        {make([]byte, 2<<20), "more than"},
		"the root's certificate": {contents(t, filepath.Join(h.config.State, rootFile)), ""},
	} {
		if err := install(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", what, err, c.says)
		}
	}
	if _, err := InstallRootList(h.config, filepath.Join(t.TempDir(), "none"), at); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(h.config.State, rootListFile)); err != nil || string(text) != string(good) {
		t.Errorf("the list has changed, %v", err)
	}
	left, err := filepath.Glob(filepath.Join(h.config.State, ".root*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
	// What gets there in another way changes nothing while the room runs, and keeps it from starting.
	put(t, filepath.Join(h.config.State, rootListFile), other.list(9, at, year))
	if held := h.room.Hello().RootCRL; string(list.EncodePEM(held)) != string(good) {
		t.Error("the room gives a list of another root")
	}
}

// anotherRoot makes another installation, with a root of its own.
func anotherRoot(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	if err := ceremony(dir, noon).Init(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
