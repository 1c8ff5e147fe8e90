package site_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/site"
)

// making is an Init into a folder that does not exist yet, alone in its parent.
func making(t *testing.T) site.Init {
	t.Helper()
	parent, err := os.MkdirTemp(scratch, "i")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	return site.Init{
		Dir: filepath.Join(parent, "ca"), Listen: "127.0.0.1:8443", Org: "Example", Bin: bin(t), Out: t.Output(), Log: zap.NewNop(),
	}
}

// TestInitListens: the service's certificate is for the host that callers will use.
func TestInitListens(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"[::1]:8443":                "DNS:localhost, IP Address:0:0:0:0:0:0:0:1",
		"ca.example.org:8443":       "DNS:ca.example.org",
		"CA.other-example.net:8443": "DNS:ca.other-example.net",
		"0.0.0.0:8443":              "DNS:localhost, IP Address:127.0.0.1",
		":8443":                     "DNS:localhost, IP Address:127.0.0.1",
		"192.0.2.7:8443":            "DNS:localhost, IP Address:192.0.2.7",
	} {
		t.Run(listen, func(t *testing.T) {
			t.Parallel()
			i := making(t)
			i.Listen, i.Domain = listen, "example.org"
			if err := i.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			own := filepath.Join(i.Dir, "secrets", "server.pem")
			if text := run(t, "openssl", "x509", "-in", own, "-noout", "-ext", "subjectAltName"); !strings.HasSuffix(strings.TrimSpace(text), want) {
				t.Errorf("%s, want %s", text, want)
			}
			run(t, "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", filepath.Join(i.Dir, "trust", "root.pem"), "-untrusted", own, own)
			room(t, i.Dir)
			clean(t, i.Dir)
		})
	}
}

func TestInitOrganisations(t *testing.T) {
	t.Parallel()
	for _, org := range []string{`Smith, Jones & Sons "S+J" <x>; #1 = \o/`, "Bücher für Ängstliche ЖЗ 東京", strings.Repeat("ö", 48), "#", `"`} {
		t.Run(org, func(t *testing.T) {
			t.Parallel()
			i := making(t)
			i.Org = org
			address, err := freeAddress()
			if err != nil {
				t.Fatal(err)
			}
			i.Listen = address
			if err := i.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			subject := run(t, "openssl", "x509", "-in", filepath.Join(i.Dir, "trust", "root.pem"), "-noout", "-subject", "-nameopt", "utf8,sep_multiline,show_type")
			if !strings.Contains(subject, "UTF8STRING:"+org+"\n") && !strings.Contains(subject, "PRINTABLESTRING:"+org+"\n") {
				t.Error(subject)
			}
			serve(t, i.Dir, func() error { return callAll(i.Dir, issue("user", "alice"), revoke("alice", "superseded")) })
			room(t, i.Dir)
			clean(t, i.Dir)
		})
	}
}

// TestInitRefuses: what cannot be is refused before anything is made, in words that name it.
func TestInitRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*site.Init)
		want   string
	}{
		"port 0":            {func(i *site.Init) { i.Listen = "127.0.0.1:0" }, "--listen: \"0\" is not a port"},
		"port too high":     {func(i *site.Init) { i.Listen = "127.0.0.1:65536" }, "--listen: \"65536\" is not a port"},
		"no port":           {func(i *site.Init) { i.Listen = "127.0.0.1" }, "--listen: want HOST:PORT"},
		"a short host":      {func(i *site.Init) { i.Listen = "ca:8443" }, "--listen: name.single_label"},
		"an odd host":       {func(i *site.Init) { i.Listen = "c_a.example.org:8443" }, "--listen: name.underscore"},
		"no organisation":   {func(i *site.Init) { i.Org = "" }, "--org: it is empty"},
		"blank":             {func(i *site.Init) { i.Org = " \t" }, "--org: it is empty"},
		"too long":          {func(i *site.Init) { i.Org = strings.Repeat("o", 200) }, "--org: it has 200 characters; at most 48"},
		"one too long":      {func(i *site.Init) { i.Org = strings.Repeat("ö", 49) }, "--org: it has 49 characters; at most 48"},
		"two lines":         {func(i *site.Init) { i.Org = "Example\nkeyroom: /tmp/socket" }, "--org: "},
		"a NUL":             {func(i *site.Init) { i.Org = "Exam\x00ple" }, "--org: "},
		"right to left":     {func(i *site.Init) { i.Org = "Exam\u202eple" }, "--org: "},
		"not UTF-8":         {func(i *site.Init) { i.Org = "Exam\xffple" }, "--org: it is not UTF-8"},
		"a wide domain":     {func(i *site.Init) { i.Domain = "*.example.org" }, "--domain: name."},
		"upper case":        {func(i *site.Init) { i.Domain = "Example.ORG" }, "--domain: want \"Example.ORG\" as \"example.org\""},
		"a dot in front":    {func(i *site.Init) { i.Domain = ".example.org" }, "--domain: name.label"},
		"one label":         {func(i *site.Init) { i.Domain = "org" }, "--domain: name.single_label"},
		"an address":        {func(i *site.Init) { i.Domain = "192.0.2.1" }, "--domain: name.ip_as_dns"},
		"two domains":       {func(i *site.Init) { i.Domain = "example.org,example.net" }, "--domain: name.characters"},
		"a flag":            {func(i *site.Init) { i.Domain = "--org" }, "--domain: name."},
		"no key room there": {func(i *site.Init) { i.Bin = t.TempDir() }, "chancery-keyroom: no such file"},
		"a bad passphrase":  {func(i *site.Init) { i.Passphrase = textFile(t, "short\n") }, "give at least 12"},
		"it is there":       {func(i *site.Init) { _ = os.Mkdir(i.Dir, 0o700) }, "ca exists; an installation is never overwritten"},
		"a dangling link":   {func(i *site.Init) { _ = os.Symlink("nowhere", i.Dir) }, "ca exists; an installation is never overwritten"},
		"below a file":      {func(i *site.Init) { i.Dir = "/dev/null/ca" }, "/dev/null"},
		"not writable":      {func(i *site.Init) { i.Dir = "/proc/ca" }, "/proc"},
		"too deep":          {func(i *site.Init) { i.Dir = filepath.Join(i.Dir, strings.Repeat("long/", 20), "ca") }, "socket"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := making(t)
			parent := filepath.Dir(i.Dir)
			c.change(&i)
			err := i.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %s\n%v", c.want, err)
			}
			if strings.HasPrefix(c.want, "--") != (errors.Is(err, site.ErrConfig) && strings.Contains(err.Error(), "--")) {
				t.Errorf("not as of the command line: %v", err)
			}
			left, err := os.ReadDir(parent)
			if len(left) > 0 && left[0].Name() == "ca" {
				left = left[1:] // it was there before
			}
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func textFile(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestInitIsStopped: a signal in the middle leaves nothing.
func TestInitIsStopped(t *testing.T) {
	t.Parallel()
	i := making(t)
	parent := filepath.Dir(i.Dir)
	p, err := launch("printed this once", nil, filepath.Join(i.Bin, "chancery"), "init", i.Dir)
	if err != nil {
		t.Fatal(err)
	}
	code, err := p.end(syscall.SIGINT)
	if err != nil || code == 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestInitKeepsSecrets: nobody else reads what is secret, no key lies there in clear but those of the
// service itself, and the offline keys open with the passphrase.
func TestInitKeepsSecrets(t *testing.T) {
	t.Parallel()
	dir := worlds(t).other
	folders := map[string]fs.FileMode{"keyroom": 0o700, "secrets": 0o700, "offline": 0o700, "state": 0o700, "callers": 0o700, "trust": 0o755, ".": 0o700}
	for name, want := range folders {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, want)
		}
	}
	inClear := map[string]bool{"secrets/server.key": true, "secrets/git_signing.key": true, "callers/provisioning.key": true}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		secret := strings.Contains(string(text), "PRIVATE KEY-----") || strings.HasPrefix(rel, "secrets/")
		mode := info.Mode().Perm()
		switch {
		case secret && mode != 0o400:
			t.Errorf("%s: %v", rel, mode)
		case mode&0o022 != 0:
			t.Errorf("%s: others may write it: %v", rel, mode)
		case mode&0o044 != 0 && !strings.HasPrefix(rel, "trust/") && !strings.HasPrefix(rel, "config.git/") && filepath.Ext(rel) != ".pem" && rel != "directory.ldif":
			t.Errorf("%s: others may read it: %v", rel, mode)
		}
		if clear := strings.Contains(string(text), "BEGIN PRIVATE KEY") || strings.Contains(string(text), "BEGIN OPENSSH PRIVATE KEY"); clear != inClear[rel] {
			t.Errorf("%s: a key in clear: %v", rel, clear)
		}
		if strings.Contains(string(text), passphrase) {
			t.Errorf("%s holds the passphrase", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"root.key", "recovery.key"} {
		path := filepath.Join(dir, "offline", key)
		run(t, "openssl", "pkey", "-in", path, "-passin", "pass:"+passphrase, "-noout", "-check")
		if exec.Command("openssl", "pkey", "-in", path, "-passin", "pass:wrong horse battery", "-noout").Run() == nil {
			t.Errorf("%s opens with another passphrase", key)
		}
	}
	root := run(t, "openssl", "x509", "-in", filepath.Join(dir, "trust", "root.pem"), "-noout", "-pubkey")
	if own := run(t, "openssl", "pkey", "-in", filepath.Join(dir, "offline", "root.key"), "-passin", "pass:"+passphrase, "-pubout"); own != root {
		t.Error("offline/root.key is not the root's")
	}
}
