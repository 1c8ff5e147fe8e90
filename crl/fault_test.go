package crl

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/store"
)

// hasty is a remote whose conversations end soon.
type hasty struct{ gitrepo.Remote }

const patience = 2 * time.Second

func (h hasty) Fetch(ctx context.Context) (gitrepo.Tip, *gitrepo.Objects, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return h.Remote.Fetch(ctx)
}

func (h hasty) Push(ctx context.Context, old gitrepo.Tip, commit gitHash, objects []gitrepo.Object) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return h.Remote.Push(ctx, old, commit, objects)
}

// serveGit puts the repository behind git http-backend. What fault holds, if anything, answers first and
// says whether that was all.
func (w *world) serveGit(fault *atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]) {
	w.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	w.must(err)
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Stderr: io.Discard, InheritEnv: []string{"PATH"},
		Env: []string{
			"GIT_PROJECT_ROOT=" + w.dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=chancery", "HOME=/nonexistent",
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=receive.autogc", "GIT_CONFIG_VALUE_0=false",
			"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
		},
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if f := fault.Load(); f == nil || !(*f)(rw, r) {
			backend.ServeHTTP(rw, r)
		}
	}))
	w.Cleanup(server.Close)
	ca := w.write("git.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	hosted, err := gitrepo.OpenHosted(server.URL+"/config.git", "main", "pki", gitrepo.Access{CA: ca})
	w.must(err)
	w.publisher.Remote = hasty{hosted}
}

// trouble is something that happens to the git server, and what an operator must read of it.
type trouble struct {
	name, code, says string
	begin            func(w *world)
	end              func(w *world)
}

// answers makes the server answer some requests in this way.
func answers(fault *atomic.Pointer[func(http.ResponseWriter, *http.Request) bool], f func(http.ResponseWriter, *http.Request) bool) func(*world) {
	return func(*world) {
		if f == nil {
			fault.Store(nil)
			return
		}
		fault.Store(&f)
	}
}

func isPush(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-receive-pack")
}

func troubles(fault *atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]) []trouble {
	right := answers(fault, nil)
	hang := func(when func(*http.Request) bool) func(*world) {
		return answers(fault, func(_ http.ResponseWriter, r *http.Request) bool {
			if when(r) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}
			return when(r)
		})
	}
	shell := func(script string) func(*world) {
		return func(w *world) {
			w.Helper()
			_, err := w.tool(nil, "sh", "-ec", script)
			w.must(err)
		}
	}
	return []trouble{
		{"it accepts and says nothing", codePublish, "deadline exceeded", hang(func(*http.Request) bool { return true }), right},
		{"it takes the pack and says nothing", codePublish, "deadline exceeded", hang(isPush), right},
		{"it is overloaded", codePublish, "answers 503", answers(fault, func(rw http.ResponseWriter, _ *http.Request) bool {
			http.Error(rw, "come back later", http.StatusServiceUnavailable)
			return true
		}), right},
		{
			"its hook declines", codePublish, "not on fridays",
			shell("mkdir -p config.git/hooks; printf '#!/bin/sh\\necho not on fridays >&2; exit 1\\n' >config.git/hooks/pre-receive; chmod +x config.git/hooks/pre-receive"),
			shell("rm config.git/hooks/pre-receive"),
		},
		{"a lock stays", codePublish, "File exists", shell("touch config.git/refs/heads/main.lock"), shell("rm config.git/refs/heads/main.lock")},
		{"the repository is gone", codePublish, "there is no such repository", shell("mv config.git away"), shell("mv away config.git")},
		{"the branch is gone", codeTampered, "users.crl", shell("git -C config.git update-ref -d refs/heads/main"), right},
		{"it has another repository", codeTampered, "users.crl", shell("mv config.git old; git init -q --bare -b main config.git; git -C config.git config http.receivepack true"), right},
	}
}

// Whatever the git server does, certificates are issued and revoked meanwhile; what is owed stays owed
// and says why; and when the fault ends, the list in git holds every revocation.
func TestGitServerInTrouble(t *testing.T) {
	w := newWorld(t)
	var fault atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	w.serveGit(&fault)
	w.publish()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.loop.Run(ctx) }()
	defer func() { cancel(); w.must(<-ended) }()
	for n, f := range troubles(&fault) {
		w.suffer(f, n+1)
	}
	if _, err := w.tool(nil, "git", "-C", "config.git", "fsck", "--strict", "--no-dangling"); err != nil {
		t.Error(err)
	}
}

// suffer revokes one certificate, the nth, while something is wrong with the git server.
func (w *world) suffer(f trouble, n int) {
	w.Helper()
	before, _, err := w.store.List(context.Background(), "users")
	w.must(err)
	w.logged.TakeAll()
	f.begin(w)
	start := time.Now()
	debt := w.revoke(w.issue(fmt.Sprint("user", n)).Serial, cert.Superseded) // before the fault ends
	var said []string
	for len(said) == 0 && time.Since(start) < 10*patience {
		said = w.alarms(f.code)
		time.Sleep(20 * time.Millisecond)
	}
	if !strings.Contains(strings.Join(said, "\n"), f.says) || strings.Contains(strings.Join(said, "\n"), gitrepo.ErrMoved.Error()) {
		w.Errorf("%s: the log says %q under %s", f.name, said, f.code)
	}
	if f.code == codePublish {
		owed, ok, err := w.store.Owed(context.Background(), store.CRL, "users")
		for ; err == nil && owed.Attempts == 0 && time.Since(start) < 10*patience; time.Sleep(20 * time.Millisecond) {
			owed, ok, err = w.store.Owed(context.Background(), store.CRL, "users")
		}
		if err != nil || !ok || !strings.Contains(owed.LastError, f.says) {
			w.Errorf("%s: owed %v %+v: %v", f.name, ok, owed, err)
		}
	}
	f.end(w)
	patient, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() { // the next attempt is due
		for patient.Err() == nil {
			w.clock.step(lastRetry)
			time.Sleep(time.Second)
		}
	}()
	if err := w.store.AwaitPaid(patient, debt); err != nil {
		w.Errorf("%s: the fault has ended: %v", f.name, err)
	}
	if l := w.list("users"); len(l.Entries) != n || l.Number.Cmp(number(before.Number)) <= 0 {
		w.Errorf("%s: list %s in git has %d entries; before it was list %s", f.name, l.Number, len(l.Entries), before.Number)
	}
}

const fullDisk = "CRL_FULL_DISK"

// A git server with a full disk: the alarm names it, and does not say that the branch moved.
func TestGitServerDiskFull(t *testing.T) {
	dir := os.Getenv(fullDisk)
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("unshare", "-rm", "sh", "-ec", `mount -t tmpfs -o size=2m none "$0"; exec "$1" -test.run='^TestGitServerDiskFull$' -test.v`, t.TempDir(), self)
		cmd.Env = append(os.Environ(), fullDisk+"="+cmd.Args[5])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	w := newWorld(t)
	_, err := w.tool(nil, "mv", "config.git", dir)
	w.must(errors.Join(err, os.Symlink(filepath.Join(dir, "config.git"), w.repo())))
	w.serveGit(new(atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]))
	w.publish()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.loop.Run(ctx) }()
	defer func() { cancel(); w.must(<-ended) }()
	ballast := filepath.Join(dir, "ballast")
	w.suffer(trouble{"its disk is full", codePublish, "No space left on device", func(w *world) {
		if out, err := w.tool(nil, "dd", "if=/dev/zero", "of="+ballast); err == nil {
			w.Errorf("there is room for ever: %s", out)
		}
	}, func(w *world) { w.must(os.Remove(ballast)) }}, 1)
}
