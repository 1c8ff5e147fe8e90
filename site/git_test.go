package site_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chancery-ca/chancery/site"
)

// moveGit puts an installation's repository behind git http-backend and basic authentication, where the
// password is sesame at first.
func moveGit(t *testing.T, dir string, password *atomic.Value) {
	t.Helper()
	password.Store("sesame")
	handler := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(run(t, "git", "--exec-path")), "git-http-backend"), Stderr: io.Discard, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=chancery", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent"},
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, given, _ := r.BasicAuth(); user != "chancery" || given != password.Load() {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for path, content := range map[string]string{"trust/git.pem": string(ca), "secrets/git.password": "sesame\n"} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	keys := "  url: " + server.URL + "/config.git\\n  ca: trust/git.pem\\n  username: chancery\\n  password_file: secrets/git.password"
	run(t, "sed", "-i", "s,^  repository: config.git$,"+keys+",", filepath.Join(dir, site.ConfigName))
}

// TestGitServer: lists go to a server. While its hook refuses them, what is owed is told with the hook's words.
func TestGitServer(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	moveGit(t, dir, new(atomic.Value))
	repository := filepath.Join(dir, "config.git")
	tip := func() string { return run(t, "git", "-C", repository, "rev-parse", "main") }
	before := tip()
	hook := filepath.Join(repository, "hooks", "pre-receive")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho not on fridays >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, func() error {
		if err := callAll(dir, revoke("alice", "keyCompromise")); err != nil {
			return err
		}
		eventually(t, func() bool {
			report, err := site.Fsck(t.Context(), config(t, dir))
			return err == nil && slices.ContainsFunc(report.Findings, func(f site.Finding) bool {
				return f.Pending && f.Subject == "crl users" && strings.Contains(f.Reason, "not on fridays")
			})
		})
		if now := tip(); now != before {
			return fmt.Errorf("the branch is at %s", now)
		}
		if err := os.Remove(hook); err != nil {
			return err
		}
		eventually(t, func() bool {
			report, err := site.Fsck(t.Context(), config(t, dir))
			return err == nil && len(report.Findings) == 0
		})
		return nil
	})
	room(t, dir)
	clean(t, dir)
	if code, stdout, stderr := chancery(t, "audit", "verify", "--dir", dir); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	run(t, "git", "clone", "-q", repository, clone)
	text := run(t, "openssl", "crl", "-in", filepath.Join(clone, config(t, dir).Git.Folder, "users.crl"), "-inform", "DER", "-noout", "-text")
	if n := strings.Count(text, "Serial Number:"); n != 4 {
		t.Errorf("%d certificates are revoked\n%s", n, text)
	}
	run(t, "git", "-C", repository, "fsck", "--strict")
}

func TestGitConfig(t *testing.T) {
	t.Parallel()
	with := func(keys string) string {
		return strings.Replace(wholeConfig, "  repository: config.git\n", keys, 1)
	}
	dir := t.TempDir()
	c, err := load(t, dir, with("  url: ssh://git@git.example.org/srv/config.git\n  ssh_key: secrets/deploy.key\n  known_hosts: /etc/known\n"))
	if err != nil || c.Git.SSHKey != filepath.Join(dir, "secrets/deploy.key") || c.Git.KnownHosts != "/etc/known" {
		t.Errorf("%v %+v", err, c.Git)
	}
	if _, err := c.Git.Open(); err == nil || !strings.Contains(err.Error(), "deploy.key") {
		t.Errorf("without its files: %v", err)
	}
	c, err = load(t, dir, with("  url: file://"+filepath.Join(dir, "config.git")+"\n"))
	if err != nil {
		t.Error(err)
	}
	run(t, "git", "init", "-q", "--bare", filepath.Join(dir, "config.git"))
	if _, err := c.Git.Open(); err != nil {
		t.Error(err)
	}
	for keys, want := range map[string]string{
		"  repository: x\n  url: https://git.example.org/x\n":         "either url or repository",
		"  repository: x\n  username: alice\n":                        "on this machine needs no name",
		"  url: file://x\n":                                           "is not file:///PATH",
		"  url: http://git.example.org/x\n":                           "want https",
		"  url: https://alice:secret@git.example.org/x\n":             "belongs into a file",
		"  url: https://git.example.org/x\n  username: alice\n":       "name and password go together",
		"  url: https://git.example.org/x\n  client_cert: a\n":        "certificate and key go together",
		"  url: https://git.example.org/x\n  ssh_key: a\n":            "for ssh",
		"  url: ssh://git@git.example.org/x\n  ssh_key: a\n":          "needs a deploy key and the known hosts",
		"  url: ssh://git@git.example.org/x\n  password: correct\n":   "unknown field",
		"  url: ssh://git@git.example.org/x\n  known_hosts: [a, b]\n": "known_hosts",
	} {
		_, err := load(t, dir, with(keys))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s%v", keys, err)
		}
	}
}
