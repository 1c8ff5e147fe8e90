package gitrepo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// read reads the folder, as whoever has that access.
func read(s *server, url string, a Access) error {
	h, err := OpenHosted(url, "main", "site/pki", a)
	if err != nil {
		return err
	}
	_, _, err = Read(context.Background(), h, "site/pki")
	return err
}

func TestHTTPSAccess(t *testing.T) {
	s := overTLS(t, newBare(t), nil)
	for name, c := range map[string]struct {
		change func(a *Access)
		url    string
		want   string
	}{
		"as it should be":       {func(*Access) {}, s.url, ""},
		"with a slash":          {func(*Access) {}, s.url + "/", ""},
		"wrong password":        {func(a *Access) { a.PasswordFile = write(t, 0o400, "battery staple") }, s.url, "does not let us in (401)"},
		"no password":           {func(a *Access) { a.Username, a.PasswordFile = "", "" }, s.url, "does not let us in (401)"},
		"password for everyone": {func(a *Access) { a.PasswordFile = write(t, 0o444, password) }, s.url, "everybody can read"},
		"unknown CA":            {func(a *Access) { a.CA = "" }, s.url, "certificate signed by unknown authority"},
		"no such repository":    {func(*Access) {}, s.url + "x", "no such repository"},
		"not git": {func(a *Access) {
			web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
			t.Cleanup(web.Close)
			a.CA = write(t, 0o644, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})))
			a.KnownHosts = web.URL // carried to below
		}, "", "no git server"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.access
			c.change(&a)
			if c.url == "" {
				c.url, a.KnownHosts = a.KnownHosts+"/x", ""
			}
			check(t, read(s, c.url, a), c.want)
		})
	}
}

// check compares an error with the text that it should hold, "" for none.
func check(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%v; want %q", err, want)
	}
	if err != nil && strings.Contains(err.Error(), password) {
		t.Errorf("the password is in %v", err)
	}
}

// A server that sends us elsewhere, where somebody waits for the password.
func TestRedirectIsNotFollowed(t *testing.T) {
	path := newBare(t)
	var seen atomic.Int64
	thief := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	t.Cleanup(thief.Close)
	var onlyPost atomic.Bool
	s := overTLS(t, path, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if onlyPost.Load() && r.Method != http.MethodPost {
				next.ServeHTTP(w, r)
				return
			}
			http.Redirect(w, r, thief.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		})
	})
	for _, post := range []bool{false, true} {
		onlyPost.Store(post)
		_, _, err := publisher(s.open(t)).Publish(context.Background(), increment)
		check(t, err, "is not followed")
		if err == nil || !strings.Contains(err.Error(), thief.URL) {
			t.Errorf("it does not say where to: %v", err)
		}
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
	if refs := git(t, path, "for-each-ref"); refs != "" {
		t.Errorf("written: %s", refs)
	}
}

func TestHTTPSClientCertificate(t *testing.T) {
	path := newBare(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(backend(t, path))
	web.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		if !bytes.Equal(raw[0], der) {
			return errors.New("a stranger")
		}
		return nil
	}}
	web.StartTLS()
	t.Cleanup(web.Close)
	s := &server{path, web.URL + "/" + filepath.Base(path), Access{
		CA:         write(t, 0o644, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))),
		ClientCert: write(t, 0o644, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		ClientKey:  write(t, 0o400, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))),
	}}
	commit := publish(t, s.open(t), Files{"users.crl": []byte("1")})
	verifyCommit(t, path, commit)
	check(t, read(s, s.url, Access{CA: s.access.CA}), "certificate required")
}

func TestSSHAccess(t *testing.T) {
	s := overSSHD(t, newBare(t))
	address := strings.Fields(read1(t, s.access.KnownHosts))[0]
	other, otherPublic := newKey(t)
	rsa := `ssh-rsa ` + strings.Repeat("A", 40)
	for name, c := range map[string]struct {
		change func(a *Access)
		url    string
		want   string
	}{
		"as it should be": {func(*Access) {}, s.url, ""},
		"another host key": {func(a *Access) { a.KnownHosts = write(t, 0o644, address+" "+otherPublic) }, s.url,
			"knownhosts: key mismatch"},
		"an unknown host": {func(a *Access) { a.KnownHosts = write(t, 0o644, "git.example.org "+otherPublic) }, s.url, "no key of 127.0.0.1"},
		"a revoked host key": {func(a *Access) {
			a.KnownHosts = write(t, 0o644, "@revoked "+read1(t, a.KnownHosts)+read1(t, a.KnownHosts))
		}, s.url, "revoked"},
		"no key in known hosts": {func(a *Access) { a.KnownHosts = write(t, 0o644, address+" "+rsa) }, s.url, "reading the known hosts"},
		"another deploy key":    {func(a *Access) { a.SSHKey = write(t, 0o400, other) }, s.url, "unable to authenticate"},
		"deploy key for all":    {func(a *Access) { a.SSHKey = write(t, 0o444, other) }, s.url, "everybody can read"},
		"no such repository":    {func(*Access) {}, s.url + "x", "not appear to be a git repository"},
		"a passphrase": {func(a *Access) {
			key, err := ssh.ParseRawPrivateKey([]byte(other))
			if err != nil {
				t.Fatal(err)
			}
			block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			a.SSHKey = write(t, 0o400, string(pem.EncodeToMemory(block)))
		}, s.url, "passphrase protected"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.access
			c.change(&a)
			check(t, read(s, c.url, a), c.want)
		})
	}
}

func read1(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"https://git.example.org/config.git":         "",
		"https://git.example.org:8443/a/b":           "",
		"ssh://git@git.example.org/srv/config.git":   "",
		"ssh://git@git.example.org:2222/~/x.git":     "",
		"http://git.example.org/config.git":          "want https",
		"git://git.example.org/config.git":           "want https",
		"ext::sh -c true":                            "want https",
		"git@git.example.org:config.git":             "no URL",
		"https://alice:secret@git.example.org/x":     "belongs into a file",
		"https://alice@git.example.org/x":            "a key of its own",
		"ssh://git.example.org/x":                    "no user",
		"ssh://git@-oProxyCommand=x/x":               "no host",
		"ssh://git@git.example.org/x'%20;id;'":       "quotes",
		"ssh://git@git.example.org/x%0a":             "unprintable",
		"ssh://git@git.example.org/":                 "no path",
		"https://git.example.org/x?service=y":        "nothing may follow",
		"https://git.example.org/x#y":                "nothing may follow",
		"https://alice:secret@git.example.org/\x7fx": "no URL",
		"": "want https",
	} {
		_, err := ParseURL(url)
		check(t, err, want)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %v", err)
		}
	}
	for _, c := range []struct {
		scheme, want string
		access       Access
	}{
		{"https", "", Access{}},
		{"https", "go together", Access{Username: "a"}},
		{"https", "go together", Access{PasswordFile: "a"}},
		{"https", "go together", Access{ClientCert: "a"}},
		{"https", "for ssh", Access{SSHKey: "a"}},
		{"ssh", "needs", Access{SSHKey: "a"}},
		{"ssh", "needs", Access{KnownHosts: "a"}},
		{"ssh", "for https", Access{SSHKey: "a", KnownHosts: "a", CA: "a"}},
		{"ssh", "", Access{SSHKey: "a", KnownHosts: "a"}},
	} {
		check(t, c.access.Check(c.scheme), c.want)
	}
}

func signerOf(t *testing.T, private string) ssh.Signer {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
