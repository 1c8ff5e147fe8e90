package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// large is content that a pack cannot make small.
func large() []byte {
	content := make([]byte, 200_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	return content
}

// A server that stops listening in the middle of our pack, whose hook does not end, or that sends an
// octet at a time, costs a bounded time. What came of the push shows when the fault ends: there is one
// commit, whoever finished it.
func TestHostedHangs(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, s *server, p *proxy) (end func()){
		"while the pack is sent": func(_ *testing.T, _ *server, p *proxy) func() {
			p.deaf.Store(50_000)
			return func() { p.deaf.Store(0) }
		},
		"before the report": func(t *testing.T, s *server, _ *proxy) func() {
			flag := write(t, 0o600, "")
			writeHook(t, s.path, "while [ -e "+flag+" ]; do sleep 0.05; done")
			return func() {
				if err := os.Remove(flag); err != nil {
					t.Error(err)
				}
			}
		},
		"an octet at a time": func(_ *testing.T, _ *server, p *proxy) func() {
			p.slow.Store(int64(20 * time.Millisecond))
			return func() { p.slow.Store(0) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, s *server) {
				first := publish(t, s.open(t), Files{"number": []byte("1")})
				p := newProxy(t, s.url)
				h := s.through(t, p).open(t)
				if _, _, err := h.Fetch(context.Background()); err != nil {
					t.Fatal(err)
				}
				h.limit = 2 * time.Second
				end := fault(t, s, p)
				change := func(Files) (Change, error) {
					return Change{Files: Files{"number": []byte("2"), "large": large()}, Message: "number 2"}, nil
				}
				start := time.Now()
				_, _, err := publisher(h).Publish(context.Background(), change)
				if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the git server took more than 2s") || took > 4*h.limit {
					t.Errorf("after %s: %v", took, err)
				}
				if got := git(t, s.path, "rev-parse", "main"); got != first {
					t.Errorf("the branch is at %s", got)
				}
				end()
				h.limit = inTime
				commit, _, err := publisher(h).Publish(context.Background(), change)
				if err != nil || git(t, s.path, "rev-parse", "main") != commit {
					t.Errorf("the fault ended: commit %q: %v", commit, err)
				}
				if got := git(t, s.path, "log", "--format=%s", "main"); got != "number 2\ncrl(users): number 1" {
					t.Errorf("the branch holds\n%s", got)
				}
			})
		})
	}
}

func writeHook(t *testing.T, path, script string) {
	t.Helper()
	hook := filepath.Join(path, "hooks", "pre-receive")
	if err := errors.Join(os.MkdirAll(filepath.Dir(hook), 0o755), os.WriteFile(hook, []byte("#!/bin/sh\n"+script+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
}

// The server has another repository at the address, or none, and then ours again.
func TestHostedReplaced(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		h := s.open(t)
		publish(t, h, Files{"number": []byte("1")})
		away := s.path + ".away"
		swap := func(from, to string) {
			t.Helper()
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		swap(s.path, away)
		if _, _, err := publisher(h).Publish(context.Background(), increment); err == nil ||
			!strings.Contains(err.Error(), "no such repository") && !strings.Contains(err.Error(), "does not appear to be a git repository") {
			t.Errorf("no repository: %v", err)
		}
		if err := InitBare(s.path, "main"); err != nil {
			t.Fatal(err)
		}
		publish(t, h, Files{"number": []byte("1")})
		checkRepo(t, s.path)
		setTree(t, s.path, rawTree(t, s.path, "100644", "theirs", blob(t, s.path, "of others")))
		publish(t, h, Files{"number": []byte("1")})
		if got := git(t, s.path, "show", "main:theirs"); got != "of others" {
			t.Errorf("their file is %q", got)
		}
		checkRepo(t, s.path)
		swap(s.path, s.path+".other")
		swap(away, s.path)
		if _, changed, err := publisher(h).Publish(context.Background(), increment); err != nil || !changed {
			t.Error(changed, err)
		}
		if got := git(t, s.path, "show", "main:site/pki/number"); got != "2" {
			t.Errorf("number %s", got)
		}
		checkRepo(t, s.path)
	})
}

const insideEnv = "GITREPO_MOUNTS"

// A server whose disk is full, at every moment at which it can be: from the first object of the
// quarantine to the branch itself. Inodes are counted out, because a block may hold much or little.
func TestHostedDiskFull(t *testing.T) {
	dir := os.Getenv(insideEnv)
	if dir == "" {
		inMounts(t, "^TestHostedDiskFull$")
		return
	}
	if err := errors.Join(
		syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("none", dir, "tmpfs", 0, "size=2m"),
	); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.git")
	if err := InitBare(path, "main"); err != nil {
		t.Fatal(err)
	}
	s := overTLS(t, path, nil)
	first := publish(t, s.open(t), Files{"number": []byte("1")})
	git(t, path, "gc", "-q")
	git(t, path, "pack-refs", "--all")
	remount := func(options string) {
		t.Helper()
		if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT, options); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for free := 0; ; free++ {
		remount(fmt.Sprintf("size=2m,nr_inodes=%d", inodes(t, dir)+free))
		start := time.Now()
		_, _, err := publisher(s.open(t)).Publish(context.Background(), increment)
		if err == nil {
			break
		}
		seen[stage(err)]++
		if !errors.Is(err, ErrNotStored) || errors.Is(err, ErrMoved) || !strings.Contains(err.Error(), "No space left on device") && !strings.Contains(err.Error(), "look for a full disk") || time.Since(start) > 30*time.Second {
			t.Errorf("with %d inodes free, after %s: %v", free, time.Since(start), err)
		}
		if got := git(t, path, "rev-parse", "main"); got != first || free > 60 {
			t.Fatalf("with %d inodes free the branch is at %s", free, got)
		}
	}
	t.Log(seen)
	for _, at := range []string{"unpack", "migrate"} {
		if seen[at] == 0 {
			t.Errorf("it never was full when it had to %s", at)
		}
	}
	if got := git(t, path, "show", "main:site/pki/number"); got != "2" {
		t.Errorf("number %s", got)
	}
	remount("size=2m,nr_inodes=0")
	checkRepo(t, path)
}

// stage tells what the server was about to do when its disk was full.
func stage(err error) string {
	for _, word := range []string{"migrate", "update ref", "unpack"} {
		if strings.Contains(err.Error(), word) {
			return word
		}
	}
	return err.Error()
}

// inodes counts those in use on a file system.
func inodes(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	if err := filepath.WalkDir(dir, func(string, os.DirEntry, error) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// inMounts runs one test of this program in a mount namespace of its own.
func inMounts(t *testing.T, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run="+name, "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a mount namespace of its own: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
