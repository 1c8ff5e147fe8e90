package sdnotify_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/sdnotify"
)

// manager runs the Python program that stands where systemd does, and gives what reaches it.
func manager(t *testing.T, socket string) <-chan string {
	t.Helper()
	cmd := exec.Command("python3", "testdata/manager.py", socket)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "listening" {
		t.Fatalf("the manager says %q", lines.Text())
	}
	heard := make(chan string, 1000)
	go func() {
		defer close(heard)
		for lines.Scan() {
			var datagram string
			if json.Unmarshal(lines.Bytes(), &datagram) == nil {
				heard <- datagram
			}
		}
	}()
	t.Setenv("NOTIFY_SOCKET", socket)
	return heard
}

func next(t *testing.T, heard <-chan string) string {
	t.Helper()
	select {
	case datagram := <-heard:
		return datagram
	case <-time.After(10 * time.Second):
		t.Fatal("nothing reaches the manager")
		return ""
	}
}

func TestMessages(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@chancery/test/" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			heard := manager(t, socket)
			for _, c := range []struct {
				err  error
				want string
			}{
				{sdnotify.Starting(90*time.Second, "reading: 7 leaves"), "EXTEND_TIMEOUT_USEC=90000000\nSTATUS=reading: 7 leaves"},
				{sdnotify.Ready("answering"), "READY=1\nSTATUS=answering"},
				{sdnotify.Reloading(), "RELOADING=1\nSTATUS=reading the configuration"},
				{sdnotify.Stopping(), "STOPPING=1\nSTATUS=stopping"},
			} {
				if c.err != nil {
					t.Fatal(c.err)
				}
				if got := next(t, heard); got != c.want {
					t.Errorf("systemd reads %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := sdnotify.Ready("answering"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := sdnotify.Ready("answering"); err == nil || !strings.Contains(err.Error(), "telling systemd") {
		t.Errorf("with a socket that is not there: %v", err)
	}
}

// TestWatch: no sign of life goes out while the service is not well, and they come again when it is.
func TestWatch(t *testing.T) {
	heard := manager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	var ill atomic.Bool
	var told atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- sdnotify.Watch(ctx, func(context.Context) error {
			if ill.Load() {
				return errors.New("the store does not answer")
			}
			return nil
		}, func(error) { told.Add(1) })
	}()
	for range 3 {
		if got := next(t, heard); got != "WATCHDOG=1" {
			t.Errorf("systemd reads %q", got)
		}
	}
	ill.Store(true)
	time.Sleep(100 * time.Millisecond) // one may be on its way
	for len(heard) > 0 {
		<-heard
	}
	time.Sleep(300 * time.Millisecond)
	if len(heard) > 0 || told.Load() < 2 {
		t.Errorf("%d signs of life of a service that is not well; it was told %d times", len(heard), told.Load())
	}
	ill.Store(false)
	next(t, heard)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNoWatchdog: without one, or with one for another process, nothing is sent; nonsense is an error.
func TestNoWatchdog(t *testing.T) {
	heard := manager(t, filepath.Join(t.TempDir(), "notify"))
	for _, c := range []struct{ usec, pid, want string }{
		{"", "", ""}, {"1000", "1", ""}, {"often", "", "often"}, {"-5", "", "-5"}, {"0", "", `"0"`}, {"99999999999999999999", "", "want microseconds"},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		var asked atomic.Bool
		err := sdnotify.Watch(ctx, func(context.Context) error { asked.Store(true); return nil }, func(error) {})
		cancel()
		if asked.Load() || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, asked: %v", c.usec, c.pid, err, asked.Load())
		}
	}
	if len(heard) > 0 {
		t.Errorf("systemd reads %q", <-heard)
	}
}
