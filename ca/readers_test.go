package ca

import (
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

// What people open a PKCS#12 with, besides openssl: each has to find the key, the certificate and the
// chain, and refuse another password. Java stands for whatever runs on it.
func TestPKCS12Readers(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []cert.KeyType{cert.P256, cert.P384, cert.RSA2048} {
		r := w.request(cert.User, "Alice Example")
		r.KeyType = kind
		issued, err := w.authority.Issue(t.Context(), call(string(kind), "x"), r)
		if err != nil {
			t.Fatal(err)
		}
		w.unpack(issued)
		p := packed{w, kind, issued, w.write("packed.p12", issued.PKCS12)}
		want := w.tool(asPEM(issued.Certificate), "openssl", "x509", "-noout", "-pubkey")
		for reader, read := range map[string]func() string{"certtool": p.certtool, "pk12util": p.pk12util, "keytool": p.keytool} {
			if got := read(); !strings.Contains(got, want) {
				t.Errorf("%s: the key that %s finds is not that of the certificate:\n%s", kind, reader, got)
			}
		}
	}
}

// packed is one PKCS#12 in a file. Each of its readers gives a text with the public key that belongs to
// the private key it found.
type packed struct {
	*world
	kind   cert.KeyType
	issued *Issued
	path   string
}

var certificateBlock = regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----`)

// holds checks that the text shows the certificate and its chain, and nothing more.
func (p packed) holds(reader, text string) {
	p.Helper()
	found := make(map[string]bool)
	for _, block := range certificateBlock.FindAllString(strings.ReplaceAll(text, "\r", ""), -1) {
		found[block] = true
	}
	for _, der := range append([][]byte{p.issued.Certificate}, p.issued.Chain...) {
		block := strings.TrimSpace(string(asPEM(der)))
		if !found[block] {
			p.Errorf("%s: %s does not show\n%s", p.kind, reader, block)
		}
		delete(found, block)
	}
	if len(found) > 0 {
		p.Errorf("%s: %s shows %d more", p.kind, reader, len(found))
	}
}

func (p packed) certtool() string {
	p.refused("certtool", "--p12-info", "--inder", "--infile", p.path, "--password", "another")
	text := p.tool(nil, "certtool", "--p12-info", "--inder", "--infile", p.path, "--password", p.issued.Password)
	p.holds("certtool", text)
	key := p.write("key.pem", []byte(text[strings.Index(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----"):]))
	return p.tool(nil, "certtool", "--pubkey-info", "--load-privkey", key, "--password", p.issued.Password, "--outfile", "/dev/stdout")
}

func (p packed) pk12util() string {
	database := "sql:" + p.TempDir()
	p.tool(nil, "certutil", "-N", "-d", database, "--empty-password")
	p.refused("pk12util", "-i", p.path, "-d", database, "-K", "", "-W", "another")
	p.tool(nil, "pk12util", "-i", p.path, "-d", database, "-K", "", "-W", p.issued.Password)
	// NSS keeps what it has read in a database; what it gives out of there is opened by openssl.
	again := filepath.Join(p.dir, "again.p12")
	p.tool(nil, "pk12util", "-o", again, "-n", "Alice Example - Example", "-d", database, "-K", "", "-W", "again")
	text := p.tool(nil, "openssl", "pkcs12", "-in", again, "-passin", "pass:again", "-nodes")
	p.holds("pk12util", text)
	return p.tool([]byte(text), "openssl", "pkey", "-pubout")
}

func (p packed) keytool() string {
	store := []string{"-storetype", "PKCS12", "-keystore", p.path, "-storepass"}
	p.refused("keytool", append(append([]string{"-list"}, store...), "another-password")...)
	store = append(store, p.issued.Password)
	p.holds("keytool", p.tool(nil, "keytool", append([]string{"-list", "-rfc"}, store...)...))
	request := p.tool(nil, "keytool", append([]string{"-certreq", "-alias", "1"}, store...)...)
	return p.tool([]byte(request), "openssl", "req", "-verify", "-noout", "-pubkey")
}

// refused runs a reader with a password that is not the right one.
func (p packed) refused(program string, args ...string) {
	p.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		p.Fatalf("%s took another password: %v\n%s", program, err, out)
	}
}
