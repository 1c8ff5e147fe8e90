package ldapsync

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

const (
	admin     = "cn=admin,dc=example,dc=org"
	service   = "cn=chancery,ou=services,dc=example,dc=org"
	aliceLDAP = "cn=Alice,ou=people,dc=example,dc=org"
	hostLDAP  = "cn=www.example.org,ou=hosts,dc=example,dc=org"
)

// slapd is a server of its own, set up with the files of deploy/ldap. Beside what these allow, it
// allows nothing.
type slapd struct {
	t         *testing.T
	dir       string
	plain     string // host:port
	secure    string // host:port
	ca        string // files
	cert, key string
	password  string // file
	running   *exec.Cmd
}

// sbin finds a program that need not be in the path of users.
func sbin(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	t.Fatalf("no %s; make deps installs it", name)
	return ""
}

// newSlapd starts a server that has an entry of alice, of a host, and two of one name.
func newSlapd(t *testing.T) *slapd {
	t.Helper()
	dir, err := os.MkdirTemp("", "slapd") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &slapd{
		t: t, dir: dir, plain: freeAddress(t), secure: freeAddress(t),
		ca: dir + "/ca.pem", cert: dir + "/client.pem", key: dir + "/client.key", password: dir + "/password",
	}
	ca := newTestCA(t, s.ca)
	ca.issue(t, "localhost", dir+"/server.pem", dir+"/server.key")
	ca.issue(t, "chancery", s.cert, s.key)
	for _, sub := range []string{"config", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := strings.ReplaceAll(string(readFile(t, "testdata/slapd.ldif")), "DIR", dir)
	writeFile(t, dir+"/config.ldif", []byte(config))
	s.tool("", sbin(t, "slapadd"), "-n0", "-F", dir+"/config", "-l", dir+"/config.ldif")
	s.start()
	t.Cleanup(s.stop)

	s.modify(admin, readText(t, "testdata/suffix.ldif"), "-a")
	s.deployed("tree.ldif", admin, "-a")
	s.modify(admin, readText(t, "testdata/entries.ldif"), "-a")
	s.deployed("access.ldif", "cn=config")
	s.deployed("external.ldif", "cn=config")
	s.deployed("password.ldif", admin)
	s.setPassword("correct horse")
	writeFile(t, s.password, []byte("correct horse\n"))
	return s
}

func readText(t *testing.T, path string) string { return string(readFile(t, path)) }

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *slapd) ldapi() string { return "ldapi://" + url.PathEscape(s.dir+"/socket") }

func (s *slapd) start() {
	s.t.Helper()
	var log bytes.Buffer
	s.running = exec.Command(sbin(s.t, "slapd"), "-d0", "-F", s.dir+"/config", "-h", fmt.Sprintf("ldap://%s ldaps://%s %s", s.plain, s.secure, s.ldapi()))
	s.running.Stderr = &log
	if err := s.running.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 500 {
		if c, err := net.Dial("tcp", s.secure); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.stop()
	s.t.Fatalf("slapd does not start: %s", &log)
}

func (s *slapd) stop() {
	if s.running != nil {
		s.running.Process.Kill() // with its whole state on disk, as in a power cut
		s.running.Wait()
		s.running = nil
	}
}

// tool runs a program that must succeed.
func (s *slapd) tool(input, program string, args ...string) string {
	s.t.Helper()
	out, err := s.try(input, program, args...)
	if err != nil {
		s.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return out
}

func (s *slapd) try(input, program string, args ...string) (string, error) {
	c := exec.Command(program, args...)
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	return string(out), err
}

// write makes a file for a tool to read.
func (s *slapd) write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	writeFile(s.t, path, []byte(content))
	return path
}

func (s *slapd) as(who string) []string {
	secret := "admin"
	if who == service {
		secret = strings.TrimSuffix(readText(s.t, s.password), "\n")
	}
	return []string{"-x", "-H", s.ldapi(), "-D", who, "-w", secret}
}

func (s *slapd) modify(who, ldif string, more ...string) {
	s.t.Helper()
	s.tool(ldif, "ldapmodify", append(s.as(who), more...)...)
}

func (s *slapd) deployed(file, who string, more ...string) {
	s.t.Helper()
	s.modify(who, readText(s.t, "../deploy/ldap/"+file), more...)
}

func (s *slapd) setPassword(secret string) {
	s.t.Helper()
	s.tool("", "ldappasswd", append(s.as(admin), "-s", secret, service)...)
}

// entry reads one entry with ldapsearch.
func (s *slapd) entry(dn string) entry {
	s.t.Helper()
	out := s.tool("", "ldapsearch", append(s.as(admin), "-LLL", "-o", "ldif-wrap=no", "-s", "base", "-b", dn, "*", "entryUUID")...)
	e := entry{DN: dn}
	for _, line := range strings.Split(out, "\n") {
		kind, value, found := strings.Cut(line, ":")
		encoded, isEncoded := strings.CutPrefix(value, ": ")
		if !found {
			continue
		}
		if isEncoded {
			value = encoded
		} else {
			value = base64.StdEncoding.EncodeToString([]byte(strings.TrimPrefix(value, " ")))
		}
		e.Attrs = append(e.Attrs, [2]any{kind, value})
	}
	return e
}

func (s *slapd) wantHeld(dn string, want ...[]byte) {
	s.t.Helper()
	got := s.entry(dn).values(published)
	if len(got) != len(want) || len(without(want, got)) > 0 {
		s.t.Errorf("%s holds %d values, want %d or others", dn, len(got), len(want))
	}
}

func (s *slapd) classes(dn string) string {
	s.t.Helper()
	return string(bytes.Join(s.entry(dn).values("objectClass"), []byte(" ")))
}

// config is that of the simple bind over ldaps.
func (s *slapd) config() LDAPConfig {
	return LDAPConfig{URLs: []string{"ldaps://" + s.secure}, CA: s.ca, BindDN: service, PasswordFile: s.password, Places: DefaultPlaces(base)}
}

func openLDAP(t *testing.T, c LDAPConfig) *LDAP {
	t.Helper()
	d, err := OpenLDAP(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func findLDAP(t *testing.T, d *LDAP, purpose cert.Purpose, cn string) Target {
	t.Helper()
	n := mustName(t, purpose, cn)
	id, err := d.Find(context.Background(), purpose, n)
	if err != nil {
		t.Fatal(err)
	}
	return Target{purpose, n, id}
}

func applyLDAP(t *testing.T, d *LDAP, to Target, add, remove [][]byte) {
	t.Helper()
	if err := d.Apply(context.Background(), to, add, remove); err != nil {
		t.Fatal(err)
	}
}

// testCA issues the certificates of the connections.
type testCA struct {
	der  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T, path string) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "directory CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{der, c, key}
}

func (ca *testCA) issue(t *testing.T, cn, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, DNSNames: []string{cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if cn == "localhost" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}
