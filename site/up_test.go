package site_test

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func gone(t *testing.T, all map[string]int) {
	t.Helper()
	for name, pid := range all {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("%s still runs", name)
		}
	}
}

// TestUpEnds: whatever ends it, nothing is left running, and the exit code says what it was.
func TestUpEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		victim string // "" is up itself
		signal syscall.Signal
		code   int
		says   string
	}{
		"SIGTERM":                {"", syscall.SIGTERM, 0, ""},
		"SIGINT":                 {"", syscall.SIGINT, 0, ""},
		"the key room is killed": {"chancery-keyroom", syscall.SIGKILL, 3, "chancery-keyroom: signal: killed"},
		"the key room ends":      {"chancery-keyroom", syscall.SIGTERM, 3, "chancery-keyroom: exit status 0"},
		"the daemon is killed":   {"chanceryd", syscall.SIGKILL, 3, "chanceryd: signal: killed"},
		"the daemon ends":        {"chanceryd", syscall.SIGTERM, 3, "chanceryd: exit status 0"},
		"up is killed":           {"", syscall.SIGKILL, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, worlds(t).night)
			p, err := launch("ready https://", nil, filepath.Join(bin(t), "chancery"), "up", dir)
			if err != nil {
				t.Fatal(err)
			}
			started := children(p.cmd.Process.Pid)
			if len(started) != 2 {
				t.Errorf("it runs %v", started)
			}
			signal := c.signal
			if c.victim != "" {
				if err := syscall.Kill(started[c.victim], c.signal); err != nil {
					t.Fatal(err)
				}
				signal = 0
			}
			code, err := p.end(signal)
			if err != nil || code != c.code || !strings.Contains(p.String(), c.says) {
				t.Errorf("exit code %d, %v\n%s", code, err, p)
			}
			if c.signal == syscall.SIGKILL && c.victim == "" {
				eventually(t, func() bool {
					return syscall.Kill(started["chanceryd"], 0) != nil && syscall.Kill(started["chancery-keyroom"], 0) != nil
				})
			}
			gone(t, started)
			if n := strings.Count(p.String(), "ready https://"); n != 1 {
				t.Errorf("ready is said %d times\n%s", n, p)
			}
			room(t, dir)
			clean(t, dir)
		})
	}
}

// TestUpStopsWhileItStarts: whenever it is asked to stop while it starts, it stops in order, and the next start
// finds nothing amiss.
func TestUpStopsWhileItStarts(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	for after := time.Duration(0); after <= 440*time.Millisecond; after += 10 * time.Millisecond {
		p, err := launch("evaluation:", nil, filepath.Join(bin(t), "chancery"), "up", dir)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		started := children(p.cmd.Process.Pid)
		if code, err := p.end(syscall.SIGTERM); err != nil || code != 0 {
			t.Errorf("after %s with %v: exit code %d, %v\n%s", after, started, code, err, p)
		}
		gone(t, started)
	}
	room(t, dir)
	clean(t, dir)
}

// TestUpCannot: what keeps it from starting is said, and nothing runs afterwards.
func TestUpCannot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		code  int
		want  string
	}{
		"the port is taken": {func(t *testing.T, dir string) {
			t.Helper()
			l, err := net.Listen("tcp", config(t, dir).Listen)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, 3, "address already in use"},
		"no daemon's key":    {files(`rm -f secrets/server.key`), 3, "server.key"},
		"no key room's keys": {files(`rm -rf keyroom`), 3, "the key room does not start"},
		"no configuration":   {files(`rm chancery.yaml`), 2, "chancery init makes an installation"},
		"another key room":   {files(`rm -r keyroom; cp -a "$other"/keyroom "$other"/keyroom.json .; chmod u+w secrets/*; cp "$other"/secrets/keyroom.passphrase secrets/`), 3, "the store and the key room hold different logs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, worlds(t).day)
			c.spoil(t, dir)
			code, stdout, stderr := chancery(t, "up", dir)
			if code != c.code || !strings.Contains(stderr, c.want) || strings.Contains(stdout, "ready") {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			if _, err := net.Dial("unix", filepath.Join(dir, "keyroom", "socket")); err == nil {
				t.Error("the key room still runs")
			}
		})
	}
}
