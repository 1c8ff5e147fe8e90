package profile

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

func TestMakeCSR(t *testing.T) {
	for _, kind := range cert.SubjectKeyTypes() {
		key := keyFor(t, "subject", kind)
		der, err := MakeCSR(rand.Reader, key, "alice")
		if err != nil {
			t.Fatal(err)
		}
		csr, err := CheckCSR(der)
		if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(csr.PublicKey) {
			t.Errorf("%s: %v", kind, err)
		}
		out := openssl(t, "req", "-noout", "-verify", "-subject", "-in", writePEM(t, "CERTIFICATE REQUEST", der))
		if !strings.Contains(out, "verify OK") || !strings.Contains(out, "CN = alice") {
			t.Errorf("%s: %s", kind, out)
		}
	}
}

// fromOpenssl makes a CSR with the openssl command.
func fromOpenssl(t *testing.T, newKey []string, config string, more ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	conf, out := filepath.Join(dir, "req.conf"), filepath.Join(dir, "csr.der")
	if err := os.WriteFile(conf, []byte("[req]\nprompt=no\ndistinguished_name=dn\n[dn]\nCN=alice\n"+config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"req", "-new", "-nodes", "-config", conf, "-keyout", filepath.Join(dir, "key"), "-outform", "DER", "-out", out}, newKey...)
	openssl(t, append(args, more...)...)
	der, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCSRsOfOpenssl(t *testing.T) {
	ec := func(curve string) []string {
		return []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	rsaKey := func(bits string) []string { return []string{"-newkey", "rsa:" + bits} }
	exponent3 := []string{"-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"}
	password := "[req]\nattributes=a\n[a]\nchallengePassword=secret\n"
	for _, c := range []struct {
		name   string
		key    []string
		config string
		more   []string
		code   string
	}{
		{"P-256", ec("P-256"), "", nil, ""},
		{"P-384", ec("P-384"), "", nil, ""},
		{"RSA-2048", rsaKey("2048"), "", nil, ""},
		{"RSA-3072", rsaKey("3072"), "", nil, ""},
		{"requested extensions", ec("P-256"), "", []string{"-addext", "subjectAltName=DNS:www.example.org", "-addext", "basicConstraints=CA:TRUE"}, ""},
		{"RSA-PSS signature", rsaKey("2048"), "", []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"}, ""},
		{"challengePassword", ec("P-256"), password, nil, "csr.attributes"},
		{"challengePassword and extensions", ec("P-256"), password, []string{"-addext", "keyUsage=keyCertSign"}, "csr.attributes"},
		{"RSA-1024", rsaKey("1024"), "", nil, "key.rsa_size"},
		{"RSA-4096", rsaKey("4096"), "", nil, "key.rsa_size"},
		{"exponent 3", exponent3, "", nil, "key.rsa_exponent"},
		{"P-521", ec("P-521"), "", nil, "key.type"},
		{"secp256k1", ec("secp256k1"), "", nil, "csr.malformed"},
		{"Ed25519", []string{"-newkey", "ed25519"}, "", nil, "key.type"},
		{"explicit curve", append(ec("P-256"), "-pkeyopt", "ec_param_enc:explicit"), "", nil, "csr.malformed"},
		{"SHA-1", rsaKey("2048"), "", []string{"-sha1"}, "csr.signature"},
		{"SHA-1 and EC", ec("P-256"), "", []string{"-sha1"}, "csr.signature"},
		{"MD5", rsaKey("2048"), "", []string{"-md5"}, "csr.signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			csr, err := CheckCSR(fromOpenssl(t, c.key, c.config, c.more...))
			if code(err) != c.code || (err == nil) != (c.code == "") || (csr == nil) != (err != nil) {
				t.Errorf("%v, want %q", err, c.code)
			}
		})
	}
}

// parts is a CSR taken apart, to be put together wrongly.
type parts struct {
	Info      info
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type info struct {
	Version    int
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0"`
	Extra      []int           `asn1:"optional,omitempty,tag:5"`
}

// sign makes a CSR of whatever stands in i, with a good signature.
func sign(t *testing.T, i info, key crypto.Signer) []byte {
	t.Helper()
	tbs, err := asn1.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	der, err := asn1.Marshal(parts{i, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func attribute(t *testing.T, oid asn1.ObjectIdentifier, value any) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(struct {
		Type   asn1.ObjectIdentifier
		Values []any `asn1:"set"`
	}{oid, []any{value}})
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{FullBytes: der}
}

func TestHostileCSRs(t *testing.T) {
	key := keyFor(t, "subject", cert.P256)
	good, err := MakeCSR(rand.Reader, key, "alice")
	if err != nil {
		t.Fatal(err)
	}
	extensionRequest := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	extensions := attribute(t, extensionRequest, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0}}})
	more := attribute(t, extensionRequest, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 99}, Value: []byte{0x30, 0}}})
	change := func(edit func(*info)) []byte {
		var p parts
		if _, err := asn1.Unmarshal(good, &p); err != nil {
			t.Fatal(err)
		}
		edit(&p.Info)
		return sign(t, p.Info, key)
	}
	if _, err := CheckCSR(change(func(*info) {})); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	other, err := x509.MarshalPKIXPublicKey(keyFor(t, "root", cert.P256).Public())
	if err != nil {
		t.Fatal(err)
	}
	honest := keyFor(t, "subject", cert.RSA2048).Public().(*rsa.PublicKey)
	exponent1, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: honest.N, E: 1})
	if err != nil {
		t.Fatal(err)
	}
	var p parts
	if _, err := asn1.Unmarshal(good, &p); err != nil {
		t.Fatal(err)
	}
	longer, err := asn1.Marshal(struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Extra     int
	}{p.Info, p.Algorithm, p.Signature, 1})
	if err != nil {
		t.Fatal(err)
	}
	long := attribute(t, extensionRequest, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 99}, Value: make([]byte, MaxCSR)}})
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
		Extra     int `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(p.Info.Key.FullBytes, &spki); err != nil {
		t.Fatal(err)
	}
	spki.Extra = 1
	odd, err := asn1.Marshal(spki)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name string
		der  []byte
		code string
	}{
		{"nothing", nil, "csr.malformed"},
		{"PEM", []byte("-----BEGIN CERTIFICATE REQUEST-----\n"), "csr.malformed"},
		{"a byte more", append(bytes.Clone(good), 0), "csr.malformed"},
		{"a byte less", good[:len(good)-1], "csr.malformed"},
		{"a certificate", issuerFor(t, cert.P256, cert.User).issuer.Raw, "csr.malformed"},
		{"too long", change(func(i *info) { i.Attributes = []asn1.RawValue{long} }), "csr.malformed"},
		{"a member after the signature", longer, "csr.malformed"},
		{"flipped signature", flipped, "csr.signature"},
		{"another's key", change(func(i *info) { i.Key = asn1.RawValue{FullBytes: other} }), "csr.signature"},
		{"exponent 1", change(func(i *info) { i.Key = asn1.RawValue{FullBytes: exponent1} }), "key.rsa_exponent"},
		{"a member after the key", change(func(i *info) { i.Key = asn1.RawValue{FullBytes: odd} }), "csr.malformed"},
		{"version 1", change(func(i *info) { i.Version = 1 }), "csr.malformed"},
		{"an unknown member", change(func(i *info) { i.Extra = []int{1} }), "csr.malformed"},
		{"one extensionRequest", change(func(i *info) { i.Attributes = []asn1.RawValue{extensions} }), ""},
		{"two extensionRequests", change(func(i *info) { i.Attributes = []asn1.RawValue{extensions, more} }), "csr.attributes"},
		{"unstructuredName", change(func(i *info) {
			i.Attributes = []asn1.RawValue{attribute(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 2}, "x")}
		}), "csr.attributes"},
		{"an attribute that x509 does not show", change(func(i *info) {
			i.Attributes = []asn1.RawValue{attribute(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, 42)}
		}), "csr.attributes"},
		{"an attribute that is none", change(func(i *info) {
			i.Attributes = []asn1.RawValue{{FullBytes: []byte{0x02, 1, 1}}}
		}), "csr.malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			csr, err := CheckCSR(c.der)
			if code(err) != c.code || (err == nil) != (c.code == "") || (csr == nil) != (err != nil) {
				t.Errorf("%v, want %q", err, c.code)
			}
			ownWords(t, err)
		})
	}
}

// ownWords wants no text of another package in a refusal, since a caller reads it.
func ownWords(t *testing.T, err error) {
	t.Helper()
	for _, foreign := range []string{"asn1:", "x509:", "pem:", "{"} {
		if err != nil && strings.Contains(err.Error(), foreign) {
			t.Errorf("%q in the words of another package", err)
		}
	}
}

// Whatever comes in: no panic, and nothing but a *Refusal; what is accepted can be certified.
func FuzzCheckCSR(f *testing.F) {
	for _, kind := range []cert.KeyType{cert.P256, cert.RSA2048} {
		der, err := MakeCSR(rand.Reader, keyFor(f, "subject", kind), "alice")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	a := issuerFor(f, cert.P256, cert.Caller)
	r := a.request(f, cert.Caller, nil)
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := CheckCSR(der)
		if err != nil {
			if code(err) == "" {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		r := r
		r.Public = csr.PublicKey
		if _, _, err := a.builder.Precertificate(r); err != nil {
			t.Fatalf("accepted the CSR, but: %v", err)
		}
	})
}
