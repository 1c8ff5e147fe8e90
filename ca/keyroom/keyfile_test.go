package keyroom

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

var passphrase = []byte("correct horse battery")

func keysOfAllKinds(t *testing.T) map[string]any {
	t.Helper()
	keys := make(map[string]any)
	for _, kind := range []cert.KeyType{cert.P256, cert.P384, cert.RSA3072, cert.Ed25519} {
		key, err := cert.GenerateKey(rand.Reader, kind)
		if err != nil {
			t.Fatal(err)
		}
		keys[string(kind)] = key
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["X25519"] = x
	return keys
}

// TestKeyFiles writes keys, reads them back, and has openssl read them; and openssl writes one that is
// read here.
func TestKeyFiles(t *testing.T) {
	for kind, key := range keysOfAllKinds(t) {
		t.Run(kind, func(t *testing.T) {
			text, err := encryptKey(rand.Reader, key, passphrase)
			if err != nil {
				t.Fatal(err)
			}
			back, err := decryptKey(text, passphrase)
			if err != nil {
				t.Fatal(err)
			}
			if k, ok := back.(interface{ Equal(crypto.PrivateKey) bool }); !ok || !k.Equal(key) {
				t.Errorf("read back as %T", back)
			}
			want, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, want[8:24]) {
				t.Error("the key stands in clear in its file")
			}
			der := tool(t, text, "openssl", "pkcs8", "-topk8", "-nocrypt", "-passin", "pass:"+string(passphrase), "-outform", "DER")
			read, err := x509.ParsePKCS8PrivateKey([]byte(der))
			if k, ok := read.(interface{ Equal(crypto.PrivateKey) bool }); err != nil || !ok || !k.Equal(key) {
				t.Errorf("openssl reads another key: %T, %v", read, err)
			}
			tool(t, text, "openssl", "pkey", "-noout", "-check", "-passin", "pass:"+string(passphrase))
			theirs := tool(t, []byte(der), "openssl", "pkcs8", "-topk8", "-inform", "DER", "-scrypt", "-scrypt_N", "1024",
				"-v2", "aes-256-cbc", "-passout", "pass:"+string(passphrase))
			if _, err := decryptKey([]byte(theirs), passphrase); err != nil {
				t.Errorf("reading what openssl wrote: %v", err)
			}
		})
	}
}

// TestCeremonyKeys has openssl open every key that a ceremony leaves behind, with the passphrase that it
// names, and only with that.
func TestCeremonyKeys(t *testing.T) {
	dir := tempDir(t)
	if err := ceremony(dir, noon).Init(); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secrets", "keyroom.passphrase")
	room := []string{"log", "users", "servers", "callers"}
	for _, name := range room {
		path := filepath.Join(dir, "keyroom", name+".key")
		tool(t, nil, "openssl", "pkey", "-in", path, "-noout", "-check", "-passin", "file:"+secret)
	}
	for _, name := range []string{"root", "recovery"} {
		path := filepath.Join(dir, "offline", name+".key")
		tool(t, nil, "openssl", "pkey", "-in", path, "-noout", "-check", "-passin", "pass:correct horse battery")
		text, err := os.ReadFile(secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readKey(path, bytes.TrimSpace(text)); err == nil {
			t.Errorf("the key room's passphrase opens %s", path)
		}
	}
	for _, issuer := range room[1:] {
		tool(t, nil, "openssl", "verify", "-x509_strict", "-attime", fmt.Sprint(noon.Unix()), "-CAfile", filepath.Join(dir, "trust", "root.pem"), filepath.Join(dir, "keyroom", issuer+".pem"))
	}
}

// TestBadKeyFiles damages key files.
func TestBadKeyFiles(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := encryptKey(rand.Reader, key, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	fails := func(what, want string, text, passphrase []byte) {
		t.Helper()
		began := time.Now()
		if key, err := decryptKey(text, passphrase); err == nil || key != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %T, %v; want %q", what, key, err, want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", what, took)
		}
	}
	fails("the wrong passphrase", "wrong passphrase", text, []byte("correct horse batterz"))
	fails("an empty passphrase", "empty", text, nil)
	fails("two keys", "exactly one", append(bytes.Clone(text), text...), passphrase)
	fails("nothing", "exactly one", nil, passphrase)
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	fails("a key in clear", "exactly one", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), passphrase)
	block, _ := pem.Decode(text)
	wrap := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}) }
	for n := range len(block.Bytes) {
		fails("cut", "", wrap(block.Bytes[:n]), passphrase)
	}
	fails("trailing octets", "not a PKCS#8 key", wrap(append(bytes.Clone(block.Bytes), 0)), passphrase)
	for name, c := range map[string]struct {
		want string
		edit func(*scryptParams)
	}{
		"N is not a power of two":  {"power of 2", func(p *scryptParams) { p.N = 1000 }},
		"N is one":                 {"power of 2", func(p *scryptParams) { p.N = 1 }},
		"N is negative":            {"power of 2", func(p *scryptParams) { p.N = -1 << 14 }},
		"N is huge":                {"too much", func(p *scryptParams) { p.N = 1 << 40 }},
		"R is nothing":             {"must be > 0", func(p *scryptParams) { p.R = 0 }},
		"R is negative":            {"must be > 0", func(p *scryptParams) { p.R = -8 }},
		"R is huge":                {"too much", func(p *scryptParams) { p.R = 1 << 20 }},
		"N and R are huge at once": {"too much", func(p *scryptParams) { p.N, p.R = 1<<20, 32 }},
		"P is nothing":             {"must be > 0", func(p *scryptParams) { p.P = 0 }},
		"P is huge":                {"too much", func(p *scryptParams) { p.P = 1 << 20 }},
		"a shorter key":            {"cannot be read", func(p *scryptParams) { p.KeyLength = 16 }},
		"the salt is another":      {"wrong passphrase", func(p *scryptParams) { p.Salt[0] ^= 1 }},
	} {
		fails(name, c.want, wrap(withScrypt(t, block.Bytes, c.edit)), passphrase)
	}
}

// withScrypt changes the key derivation in an encrypted key.
func withScrypt(t *testing.T, der []byte, edit func(*scryptParams)) []byte {
	t.Helper()
	var e encryptedKey
	var p pbes2Params
	var s scryptParams
	for _, part := range []struct {
		raw  func() []byte
		into any
	}{
		{func() []byte { return der }, &e},
		{func() []byte { return e.Algorithm.Parameters.FullBytes }, &p},
		{func() []byte { return p.KDF.Parameters.FullBytes }, &s},
	} {
		if _, err := asn1.Unmarshal(part.raw(), part.into); err != nil {
			t.Fatal(err)
		}
	}
	edit(&s)
	marshal := func(v any) asn1.RawValue {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return asn1.RawValue{FullBytes: der}
	}
	p.KDF.Parameters = marshal(s)
	e.Algorithm.Parameters = marshal(p)
	return marshal(e).FullBytes
}

// TestSecretsForOthers lets others read the passphrase, and then a key.
func TestSecretsForOthers(t *testing.T) {
	for _, name := range []string{"secrets/keyroom.passphrase", "keyroom/users.key"} {
		for _, mode := range []os.FileMode{0o440, 0o404, 0o620} {
			dir := install(t, noon)
			path := filepath.Join(dir, name)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			config, err := LoadConfig(filepath.Join(dir, "keyroom.json"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(Options{Config: config, Build: "test", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), "chmod 0400") {
				t.Errorf("%s with mode %04o: %v", name, mode, err)
			}
		}
	}
}
