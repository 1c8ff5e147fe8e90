// Package deploy_test installs Chancery on machines of its own and watches it run there.
package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// scratch holds what these tests make.
var scratch string

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if scratch, err = os.MkdirTemp("/tmp", "cd-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(scratch)
	code = m.Run()
}

// packages builds the programs and the packages once, with the very commands of the Makefile.
var packages = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("make", "-s", "-C", "..", "deb", "BIN="+filepath.Join(scratch, "bin"), "DIST="+filepath.Join(scratch, "dist"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the race detector of the tests has it on
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the packages: %w\n%s", err, out)
	}
	return filepath.Join(scratch, "dist"), nil
})

// built gives the folder with the packages; the programs are in bin beside it.
func built(t *testing.T) string {
	t.Helper()
	dist, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return dist
}

// asRoot is a command that runs as root, since that is who installs.
func asRoot(ctx context.Context, args ...string) *exec.Cmd {
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// machine is a systemd with a file system, processes and a network of its own.
type machine struct {
	pid int // of its process 1, as it is seen from here
}

// boot starts a machine with files in /payload. It ends with the test.
func boot(t *testing.T, files ...string) *machine {
	t.Helper()
	top, payload := t.TempDir(), t.TempDir()
	for _, file := range files {
		if out, err := exec.Command("cp", "-r", file, payload).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cmd := asRoot(context.Background(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--cgroup",
		"sh", "testdata/boot.sh", top, payload)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{}
	t.Cleanup(func() {
		// With its process 1 the whole machine ends. unshare itself does not listen to SIGTERM.
		_ = asRoot(context.Background(), "kill", "-9", strconv.Itoa(max(m.pid, cmd.Process.Pid))).Run()
		_ = cmd.Wait()
	})
	out := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if m.pid = descendant(cmd.Process.Pid, "systemd"); m.pid == 0 {
			continue
		}
		if out, _ = m.try("systemctl is-active machine.target"); strings.TrimSpace(out) == "active" {
			return m
		}
	}
	t.Fatalf("the machine does not boot: %s\n%s", out, &said)
	return nil
}

// descendant finds the program of this name that a process has become or started; 0: there is none.
func descendant(pid int, program string) int {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return 0
	}
	if strings.TrimSpace(string(name)) == program {
		return pid
	}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is good
	for _, list := range lists {
		text, _ := os.ReadFile(list) // it may have ended
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				if found := descendant(child, program); found != 0 {
					return found
				}
			}
		}
	}
	return 0
}

// try runs a script as root of the machine and gives what it said and its exit code.
func (m *machine) try(script string) (out string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := asRoot(ctx, "nsenter", "--target", strconv.Itoa(m.pid), "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup",
		"--root", "env", "-i", "-C", "/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-euc", script)
	cmd.WaitDelay = 5 * time.Second // what a script started and left behind holds its output open
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(text), 0
	case errors.As(err, &exit):
		return string(text), exit.ExitCode()
	}
	return err.Error(), -1
}

// run runs a script that has to work.
func (m *machine) run(t *testing.T, script string) string {
	t.Helper()
	out, code := m.try(script)
	if code != 0 {
		log, _ := m.try("systemctl --no-pager status chanceryd chancery-keyroom; journalctl --no-pager -n 40")
		t.Fatalf("exit code %d of:\n%s\n%s\n%s", code, script, out, log)
	}
	return out
}

// refuses runs a script that has to fail, in words that say why.
func (m *machine) refuses(t *testing.T, script, why string) {
	t.Helper()
	if out, code := m.try(script); code == 0 || !strings.Contains(out, why) {
		t.Errorf("exit code %d, want a refusal that says %q:\n%s\n%s", code, why, script, out)
	}
}

// becomes waits until a script says something.
func (m *machine) becomes(t *testing.T, script, want string) {
	t.Helper()
	var out string
	for range 300 {
		if out, _ = m.try(script); strings.TrimSpace(out) == want {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	log, _ := m.try("systemctl --no-pager status chanceryd chancery-keyroom; journalctl --no-pager -n 40")
	t.Fatalf("%s\nsays %q, want %q\n%s", script, out, want, log)
}
