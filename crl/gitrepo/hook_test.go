package gitrepo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

func TestHostedNativePushesWhileWePublish(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) { raceNative(t, s.path, s.open(t), 4, time.Second) })
}

// The server's hook, as it is in deploy/git: our commits pass, and others' that leave the folder alone.
func TestHookOnTheServer(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		hook(t, s.path)
		h := s.open(t)
		verifyCommit(t, s.path, publish(t, h, Files{"number": []byte("1")}))
		verifyCommit(t, s.path, publish(t, h, Files{"number": []byte("2")}))
		work := clone(t, s.path)
		commitAll(t, work, "theirs", "1")
		git(t, work, "push", "-q", "origin", "main")
		if _, changed, err := publisher(h).Publish(context.Background(), increment); err != nil || !changed {
			t.Error(changed, err)
		}
		// And so does a merge of what others did on an older state.
		git(t, work, "fetch", "-q")
		commitAll(t, work, "theirs", "2")
		git(t, work, "merge", "-q", "-m", "merged", "origin/main")
		git(t, work, "push", "-q", "origin", "main")
		// Somebody with another key.
		stranger := publisher(h)
		private, _ := newKey(t)
		stranger.Signer = signerOf(t, private)
		_, _, err := stranger.Publish(context.Background(), increment)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "is not signed by the CA") {
			t.Errorf("a stranger's signature: %v", err)
		}
		if got := git(t, s.path, "show", "main:site/pki/number"); got != "3" {
			t.Errorf("number %s", got)
		}
	})
}

func TestHookRefuses(t *testing.T) {
	path := newBare(t)
	hook(t, path)
	l := overTLS(t, path, nil).open(t)
	publish(t, l, Files{"number": []byte("1")})
	for name, change := range map[string]func(work string){
		"an unsigned change":  func(w string) { commitAll(t, w, "site/pki/number", "9") },
		"an unsigned file":    func(w string) { commitAll(t, w, "site/pki/new", "9") },
		"the folder replaced": func(w string) { git(t, w, "rm", "-rq", "site"); commitAll(t, w, "site", "9") },
		"an unsigned change that another branch holds already": func(w string) {
			commitAll(t, w, "site/pki/number", "9")
			git(t, w, "push", "-q", "origin", "HEAD:other")
		},
		"changed and put back": func(w string) {
			commitAll(t, w, "site/pki/number", "9")
			git(t, w, "revert", "--no-edit", "HEAD")
		},
		"a merge that changes it": func(w string) {
			git(t, w, "checkout", "-qb", "side")
			commitAll(t, w, "side", "9")
			git(t, w, "checkout", "-q", "main")
			git(t, w, "merge", "-q", "--no-ff", "--no-commit", "side")
			commitAll(t, w, "site/pki/number", "9")
		},
		"a merge that brings an old state back": func(w string) {
			git(t, w, "checkout", "-qb", "old", "main~1")
			commitAll(t, w, "side", "9")
			git(t, w, "checkout", "-q", "main")
			git(t, w, "merge", "-q", "--no-commit", "old")
			git(t, w, "checkout", "-q", "old", "--", "site/pki")
			git(t, w, "commit", "-qm", "merged")
		},
	} {
		t.Run(name, func(t *testing.T) {
			publish(t, l, Files{"number": []byte(name)})
			before := git(t, path, "rev-parse", "main")
			work := clone(t, path)
			change(work)
			out, err := gitCommand(work, "push", "origin", "HEAD:main").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "hook declined") {
				t.Errorf("%v: %s", err, out)
			}
			if got := git(t, path, "rev-parse", "main"); got != before {
				t.Errorf("the branch is at %s", got)
			}
		})
	}
}

// What a hook says is shown, but cannot write into our log as it likes.
func TestHookSays(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		first := publish(t, s.open(t), Files{"number": []byte("1")})
		script := "#!/bin/sh\nprintf 'no lists\\non fridays\\033[2J\\377\\n' >&2\nhead -c 100000 /dev/zero | tr '\\0' x >&2\nexit 1\n"
		if err := os.MkdirAll(filepath.Join(s.path, "hooks"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.path, "hooks/pre-receive"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		h := s.open(t)
		_, _, err := publisher(h).Publish(context.Background(), increment)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no lists on fridays") || len(err.Error()) > 2*maxTold ||
			strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%v", err)
		}
		if got := git(t, s.path, "rev-parse", "main"); got != first {
			t.Errorf("the branch is at %s", got)
		}
		// The hook gives in.
		if err := os.Remove(filepath.Join(s.path, "hooks/pre-receive")); err != nil {
			t.Fatal(err)
		}
		if _, changed, err := publisher(h).Publish(context.Background(), increment); err != nil || !changed {
			t.Error(changed, err)
		}
	})
}

// A command that comes too late is refused by the server itself, and is a lost race.
func TestHostedPushComparesAndSwaps(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		h := s.open(t)
		first := publish(t, h, Files{"number": []byte("1")})
		second := publish(t, h, Files{"number": []byte("2")})
		made := Object{Type: plumbing.BlobObject, Content: []byte("x")}
		made.Hash = plumbing.ComputeHash(made.Type, made.Content)
		err := h.Push(context.Background(), Tip{Commit: first}, plumbing.NewHash(first), []Object{made})
		if !errors.Is(err, ErrMoved) {
			t.Errorf("known before it is sent: %v", err)
		}
		for _, old := range []Tip{{Commit: first}, {}} {
			if err := late(h, old, plumbing.NewHash(first), made); err == nil || !errors.Is(err, ErrMoved) {
				t.Errorf("found by the server, from %v: %v", old, err)
			}
		}
		if got := git(t, s.path, "rev-parse", "main"); got != second {
			t.Errorf("the branch is at %s", got)
		}
		// A lock that somebody holds.
		lock := filepath.Join(s.path, "refs/heads/main.lock")
		if err := os.WriteFile(lock, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := publisher(h).Publish(context.Background(), increment); !errors.Is(err, ErrNotStored) || !strings.Contains(err.Error(), "main.lock': File exists") {
			t.Errorf("locked: %v", err)
		}
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
		if _, changed, err := publisher(h).Publish(context.Background(), increment); err != nil || !changed {
			t.Error(changed, err)
		}
		checkRepo(t, s.path)
	})
}

// late sends a command although the list of references says that it is too late.
func late(h *Hosted, old Tip, commit plumbing.Hash, objects ...Object) error {
	e, _, err := h.greet(context.Background(), "git-receive-pack")
	if err != nil {
		return err
	}
	defer func() { _ = e.close() }()
	request, err := update(h.ref, plumbing.NewHash(old.Commit), commit, objects)
	if err != nil {
		return err
	}
	reply, err := e.ask(request)
	if err != nil {
		return err
	}
	r, err := readReport(reply, h.ref)
	if err != nil {
		return err
	}
	return h.outcome(context.Background(), old, commit, r.verdict())
}

// What is kept does not grow with what was pushed.
func TestHostedKeepsOnlyTheTip(t *testing.T) {
	s := overTLS(t, newBare(t), nil)
	h := s.open(t)
	content := make([]byte, 200_000)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for n := range 200 {
		if n == 10 {
			before = heap()
		}
		for i := range content {
			content[i] = byte(n * i >> 3)
		}
		publish(t, h, Files{"number": content})
	}
	if after := heap(); after > before+2<<20 {
		t.Errorf("%d octets, then %d", before, after)
	}
	if n := len(h.known.from.(*kept).objects); n > 12 {
		t.Errorf("%d objects are kept", n)
	}
	if got := git(t, s.path, "rev-list", "--count", "main"); got != "200" {
		t.Errorf("%s commits", got)
	}
	checkRepo(t, s.path)
}
