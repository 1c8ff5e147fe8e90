package site_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/site"
	"github.com/chancery-ca/chancery/store"
)

// hangUp tells the daemon below a process to read its configuration anew.
func hangUp(up int) error {
	daemon := children(up)["chanceryd"]
	if daemon == 0 {
		return errors.New("the daemon does not run")
	}
	return syscall.Kill(daemon, syscall.SIGHUP)
}

// reloads counts what is on the log of configurations that were taken.
func reloads(t *testing.T, dir string) (n int, last string) {
	t.Helper()
	err := inStore(dir, func(leaves [][]byte, _ []store.Debt) bool {
		n = 0
		for _, text := range leaves {
			var leaf struct {
				Type  string
				Event struct{ To string }
			}
			if err := json.Unmarshal(text, &leaf); err != nil {
				t.Error(err)
			}
			if leaf.Type == "config.reloaded" {
				n, last = n+1, leaf.Event.To
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, last
}

// TestReloadUnderLoad: a hundred signals while callers work. The configuration alternates between two that
// both allow what is asked, and at times is half written; nobody notices.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	path := filepath.Join(dir, site.ConfigName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good = bytes.Replace(good, []byte("- name: provisioning\n"), []byte("- name: provisioning\n    per_second: 100000\n"), 1)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	stable := t.TempDir() // for the callers, who learn the address from a file too
	run(t, "cp", "-a", path, filepath.Join(dir, "trust"), filepath.Join(dir, "callers"), stable)
	put := func(text string) error {
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	}
	var asked atomic.Int64
	err = serving(bin(t), dir, func(up int) error {
		var callers sync.WaitGroup
		var mu sync.Mutex
		var failed error
		done := make(chan struct{})
		for who := range 4 {
			callers.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					c := call{"ca.status", map[string]any{"cn": "alice"}}
					if n%4 == 0 {
						c = issue("user", fmt.Sprintf("user%d-%d", who, n))
					}
					asked.Add(1)
					if err := callAll(stable, c); err != nil {
						mu.Lock()
						failed = errors.Join(failed, err)
						mu.Unlock()
						return
					}
				}
			})
		}
		for n := range 100 {
			text := string(good)
			switch n % 4 {
			case 1, 3:
				text += fmt.Sprintf("# %d\n  - name: somebody\n    grants: []\n", n)
			case 2:
				text = text[:len(text)/2]
			}
			if err := errors.Join(put(text), hangUp(up)); err != nil {
				return err
			}
			time.Sleep(time.Duration(n%7) * 5 * time.Millisecond)
		}
		if err := put(string(good)); err != nil {
			return err
		}
		want := config(t, dir).SHA256
		if err := hangUp(up); err != nil {
			return err
		}
		eventually(t, func() bool { _, last := reloads(t, dir); return last == want })
		close(done)
		callers.Wait()
		return failed
	})
	if err != nil {
		t.Fatal(err)
	}
	n, _ := reloads(t, dir)
	t.Logf("%d calls, %d configurations taken", asked.Load(), n)
	if n < 10 {
		t.Errorf("only %d configurations were taken", n)
	}
	if code, stdout, stderr := chancery(t, "audit", "verify", "--dir", dir); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	room(t, dir)
	clean(t, dir)
}

// TestReloadReadsSecretsAnew: the password of the git server is changed there and in the file.
func TestReloadReadsSecretsAnew(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	var password atomic.Value
	moveGit(t, dir, &password)
	err := serving(bin(t), dir, func(up int) error {
		password.Store("open")
		if err := callAll(dir, revoke("alice", "keyCompromise")); err != nil {
			return err
		}
		owed := func() bool {
			report, err := site.Fsck(t.Context(), config(t, dir))
			if err != nil {
				return true
			}
			return len(report.Findings) > 0
		}
		time.Sleep(time.Second)
		if !owed() {
			return errors.New("the lists are published with the old password")
		}
		file := filepath.Join(dir, "secrets", "git.password")
		if err := errors.Join(os.WriteFile(file+".new", []byte("open\n"), 0o400), os.Rename(file+".new", file)); err != nil {
			return err
		}
		if err := hangUp(up); err != nil {
			return err
		}
		eventually(t, func() bool { return !owed() })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, last := reloads(t, dir); n != 1 || last != config(t, dir).SHA256 {
		t.Errorf("%d configurations taken, the last is %s", n, last)
	}
}

// TestReloadAsksGit: a repository that has seen more of the log than there is is not taken, as at start.
func TestReloadAsksGit(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	files(`cp -a "`+worlds(t).day+`"/config.git later.git`)(t, dir)
	p, err := launch("ready https://", nil, filepath.Join(bin(t), "chancery"), "up", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	run(t, "sed", "-i", "s/config.git/later.git/", filepath.Join(dir, site.ConfigName))
	if err := hangUp(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return strings.Contains(p.String(), `"code":"config.refused"`) })
	if !strings.Contains(p.String(), "git holds a checkpoint that this log does not continue") {
		t.Errorf("%s", p)
	}
	if err := callAll(dir, issue("user", "frank")); err != nil {
		t.Error(err)
	}
	if n, _ := reloads(t, dir); n != 0 {
		t.Errorf("%d configurations were taken", n)
	}
	// One that cannot be reached is taken, and the lists stay owed.
	run(t, "sed", "-i", "s/repository: later.git/url: https:\\/\\/127.0.0.1:9\\/x/", filepath.Join(dir, site.ConfigName))
	if err := hangUp(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { n, _ := reloads(t, dir); return n == 1 })
	run(t, "sed", "-i", "s/url: https:.*/repository: config.git/", filepath.Join(dir, site.ConfigName))
	if err := hangUp(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { n, _ := reloads(t, dir); return n == 2 })
	if code, err := p.end(syscall.SIGTERM); err != nil || code != 0 {
		t.Errorf("exit code %d, %v\n%s", code, err, p)
	}
	room(t, dir)
	clean(t, dir)
}
