package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHostedPublish(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		h := s.open(t)
		files, tip, err := Read(context.Background(), h, "site/pki")
		if err != nil || len(files) != 0 || tip.Commit != "" {
			t.Fatalf("an empty repository: %v %v %v", files, tip, err)
		}
		// No branch yet: the first commit makes it.
		want := Files{"users.crl": {0, 1, '\r', '\n'}, "ca/users.pem": []byte("pem\n"), "empty": {}}
		first := publish(t, h, want)
		checkRepo(t, s.path)
		verifyCommit(t, s.path, first)
		if got := git(t, s.path, "rev-parse", "main"); got != first {
			t.Fatalf("the branch is at %s, not %s", got, first)
		}
		// Others have files beside ours, and below the folder.
		work := clone(t, s.path)
		commitAll(t, work, "modules/a", "theirs")
		commitAll(t, work, "site/pki/note", "a stranger's")
		git(t, work, "push", "-q", "origin", "main")
		second := publish(t, h, Files{"users.crl": []byte("two")})
		checkRepo(t, s.path)
		verifyCommit(t, s.path, second)
		want["users.crl"], want["note"] = []byte("two"), []byte("a stranger's")
		for _, reader := range []*Hosted{h, s.open(t)} {
			files, tip, err = Read(context.Background(), reader, "site/pki")
			if diff := cmp.Diff(want, files); err != nil || diff != "" || tip.Commit != second {
				t.Errorf("%v, tip %v, want %s: %s", err, tip, second, diff)
			}
		}
		if got := git(t, s.path, "show", "main:modules/a"); got != "theirs" {
			t.Errorf("their file is %q", got)
		}
		// The same again is no commit.
		commit, changed, err := publisher(h).Publish(context.Background(), func(Files) (Change, error) {
			return Change{Files: Files{"users.crl": []byte("two")}, Message: "m"}, nil
		})
		if err != nil || changed || commit != second {
			t.Error(commit, changed, err)
		}
	})
}

func TestHostedHistory(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		h := s.open(t)
		var want []string
		for n := range 5 {
			want = append([]string{publish(t, h, Files{"number": fmt.Append(nil, n)})}, want...)
			work := clone(t, s.path)
			commitAll(t, work, "theirs", fmt.Sprint(n))
			git(t, work, "push", "-q", "origin", "main")
		}
		git(t, s.path, "repack", "-adq", "--depth=50")
		for range 2 {
			var got, numbers []string
			err := History(context.Background(), h, "site/pki", func(c *Commit) error {
				content, ok, err := c.File(context.Background(), "number")
				if err != nil || !ok {
					return fmt.Errorf("%v %w", ok, err)
				}
				got, numbers = append(got, c.Hash), append(numbers, string(content))
				return nil
			})
			if err != nil || !cmp.Equal(got, want) || strings.Join(numbers, "") != "43210" {
				t.Errorf("%v: %v, want %v; numbers %v", err, got, want, numbers)
			}
		}
	})
}

func TestHostedLostReply(t *testing.T) {
	for name, stalls := range map[string]bool{"cut": false, "stalls": true} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, s *server) { lostReply(t, s, stalls) })
		})
	}
}

func lostReply(t *testing.T, s *server, stalls bool) {
	first := publish(t, s.open(t), Files{"number": []byte("1")})
	p := newProxy(t, s.url)
	p.stalls.Store(stalls)
	h := s.through(t, p).open(t)
	h.limit = 3 * time.Second
	var swallowed atomic.Int32
	cut := func() bool {
		if swallowed.Load() == 0 && git(t, s.path, "rev-parse", "main") != first {
			swallowed.Add(1)
			return true
		}
		return false
	}
	p.cut.Store(&cut)
	commit, changed, err := publisher(h).Publish(context.Background(), increment)
	if err != nil || !changed || swallowed.Load() != 1 {
		t.Fatal(commit, changed, err, swallowed.Load())
	}
	if got := git(t, s.path, "rev-list", "--count", "main"); got != "2" || git(t, s.path, "rev-parse", "main") != commit {
		t.Errorf("%s commits, the tip is not %s", got, commit)
	}
	if _, changed, err = publisher(h).Publish(context.Background(), func(Files) (Change, error) {
		return Change{Files: Files{"number": []byte("2")}, Message: "m"}, nil
	}); err != nil || changed {
		t.Error("a second commit:", changed, err)
	}
}

func TestHostedServerDown(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		publish(t, s.open(t), Files{"number": []byte("1")})
		p := newProxy(t, s.url)
		h := s.through(t, p).open(t)
		h.limit = 500 * time.Millisecond
		cut := func() bool { return true }
		p.cut.Store(&cut)
		for _, stalls := range []bool{false, true} {
			p.stalls.Store(stalls)
			start := time.Now()
			_, _, err := publisher(h).Publish(context.Background(), increment)
			if err == nil || errors.Is(err, ErrMoved) || errors.Is(err, ErrRefused) || time.Since(start) > 5*time.Second {
				t.Errorf("stalling %v: %v after %s", stalls, err, time.Since(start))
			}
			if stalls && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a hanging server: %v", err)
			}
			t.Log(err)
		}
		p.cut.Store(nil)
		h.limit = inTime
		if _, changed, err := publisher(h).Publish(context.Background(), increment); err != nil || !changed {
			t.Error("the server is back:", changed, err)
		}
		if got := git(t, s.path, "show", "main:site/pki/number"); got != "2" {
			t.Errorf("number %s", got)
		}
	})
}

func TestHostedRewritten(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		h := s.open(t)
		publish(t, h, Files{"number": []byte("1")})
		publish(t, h, Files{"number": []byte("2")})
		git(t, s.path, "update-ref", "refs/heads/main", "main~1")
		if _, _, err := publisher(h).Publish(context.Background(), increment); err != nil {
			t.Error("put back:", err)
		}
		// A history that shares nothing, and the old one is pruned away.
		tree := rawTree(t, s.path, "40000", "site", rawTree(t, s.path, "40000", "pki", rawTree(t, s.path, "100644", "number", blob(t, s.path, "40"))))
		setTree(t, s.path, tree)
		git(t, s.path, "prune", "--expire=now")
		if _, _, err := publisher(h).Publish(context.Background(), increment); err != nil {
			t.Error("another history:", err)
		}
		if got := git(t, s.path, "show", "main:site/pki/number"); got != "41" {
			t.Errorf("number %s", got)
		}
		// The branch is gone, then there again.
		git(t, s.path, "update-ref", "-d", "refs/heads/main")
		if _, _, err := publisher(h).Publish(context.Background(), increment); err != nil {
			t.Error("no branch:", err)
		}
		// The folder is moved here from where it was not looked at.
		work := clone(t, s.path)
		commitAll(t, work, "elsewhere/deep/x", "x")
		git(t, work, "push", "-q", "origin", "main")
		if _, _, err := Read(context.Background(), h, "site/pki"); err != nil {
			t.Fatal(err)
		}
		git(t, work, "mv", "elsewhere/deep", "site/pki/deep")
		git(t, work, "commit", "-qm", "moved")
		git(t, work, "push", "-q", "origin", "main")
		files, _, err := Read(context.Background(), h, "site/pki")
		if err != nil || string(files["deep/x"]) != "x" {
			t.Error("moved here:", files, err)
		}
		checkRepo(t, s.path)
	})
}
