package keyroom

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
)

const commandPackage = "github.com/chancery-ca/chancery/cmd/chancery-keyroom"

// command builds the program once a test run.
func command(t testing.TB) string {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.room == "" {
		path := filepath.Join(tempDir(nil), "chancery-keyroom")
		tool(t, nil, "go", "build", "-o", path, commandPackage)
		made.room = path
	}
	return made.room
}

// process is the program, serving an installation of its own.
type process struct {
	*hall
	cmd    *exec.Cmd
	stderr *lockedBuffer
	exited chan error
}

// newProcess installs and runs the program, behind the words of wrap if there are any.
func newProcess(t *testing.T, wrap ...string) *process {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	p := &process{hall: &hall{
		T: t, dir: install(t, now), clock: &clock{t: now}, log: new(memLog),
		builder: make(map[cert.Issuer]*profile.Builder),
	}}
	var err error
	if p.config, err = LoadConfig(filepath.Join(p.dir, "keyroom.json")); err != nil {
		t.Fatal(err)
	}
	hello := p.run(wrap...)
	for _, i := range hello.Issuers {
		if p.builder[i.ID], err = profile.NewBuilder(parseCert(t, i.Certificate), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	p.add(audit.Actor{Kind: audit.ByCeremony}, opening(hello))
	return p
}

// run starts the program and waits for its hello.
func (p *process) run(wrap ...string) signer.Hello {
	p.Helper()
	words := append(wrap, command(p), "--config", filepath.Join(p.dir, "keyroom.json"))
	cmd, stderr, exited := exec.Command(words[0], words[1:]...), new(lockedBuffer), make(chan error, 1)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	go func() { exited <- cmd.Wait() }()
	p.cmd, p.stderr, p.exited = cmd, stderr, exited
	p.Cleanup(func() {
		select {
		case <-exited:
		default:
			_ = syscall.Kill(roomOf(cmd), syscall.SIGKILL)
			<-exited
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r, err := signer.DialReader(p.Context(), p.config.Socket)
		if err == nil {
			r.Close()
			return r.Hello()
		}
		if time.Now().After(deadline) || !errors.Is(err, signer.ErrUnreachable) {
			p.Fatalf("the key room does not answer: %v\n%s", err, stderr)
		}
	}
}

// roomOf is the process id of the room: strace, which keeps signals to itself, has it as its only child.
func roomOf(cmd *exec.Cmd) int {
	pid := cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if child, err2 := strconv.Atoi(strings.TrimSpace(string(children))); err == nil && err2 == nil {
		return child
	}
	return pid
}

func (p *process) terminate() {
	p.Helper()
	if err := syscall.Kill(roomOf(p.cmd), syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
}

// end waits for the exit of the program and gives its code.
func (p *process) end() int {
	p.Helper()
	select {
	case err := <-p.exited:
		p.exited <- err
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		p.Fatalf("the key room did not end:\n%s", p.stderr)
		return 0
	}
}

func (p *process) client() *signer.Client {
	p.Helper()
	c, err := signer.Dial(p.Context(), p.config.Socket, p.log)
	if err != nil {
		p.Fatal(err)
	}
	return c
}

// TestSyncBeforeReply watches the system calls of one signature: the record is written, it is synced, and
// only then does the reply leave.
func TestSyncBeforeReply(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	p := newProcess(t, "strace", "-f", "-y", "-s", "64", "-o", trace, "-e", "trace=fsync,fdatasync,write,pwrite64,sendto,sendmsg")
	client := p.client()
	defer client.Close()
	w := p.want("alice", nil, nil)
	index := p.add(alice, w.IssueIntent)
	if _, err := client.SignCert(t.Context(), audit.Entry{Index: index}, w.csr); err != nil {
		t.Fatal(err)
	}
	p.terminate()
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	syncing := make(map[string]bool) // threads in the middle of the journal's sync
	for lines.Scan() {
		line := lines.Text()
		thread, call, _ := strings.Cut(line, " ")
		call = strings.TrimLeft(call, " ")
		journal := strings.Contains(call, p.config.State+"/journal>")
		switch {
		case journal && strings.HasPrefix(call, "pwrite64("):
			order = append(order, "write")
		case journal && (strings.HasPrefix(call, "fsync(") || strings.HasPrefix(call, "fdatasync(")):
			if syncing[thread] = strings.Contains(call, "unfinished"); !syncing[thread] && strings.HasSuffix(call, "= 0") {
				order = append(order, "sync")
			}
		case syncing[thread] && strings.Contains(call, "sync resumed>") && strings.HasSuffix(call, "= 0"):
			order = append(order, "sync")
		case strings.Contains(call, "<socket:[") && strings.Contains(call, `{\"state\":`):
			order = append(order, "reply")
		}
	}
	if got := strings.Join(order, " "); got != "write sync reply" {
		t.Errorf("the order is %q, want write, sync, reply:\n%s", got, text)
	}
}

// TestSyncFails has the kernel answer the journal's sync with EIO. The process ends, the caller learns
// that nothing is known, and a room on that journal says one thing from then on.
func TestSyncFails(t *testing.T) {
	p := newProcess(t)
	client := p.client()
	w := p.want("alice", nil, nil)
	if _, err := client.SignCert(t.Context(), audit.Entry{Index: p.add(alice, w.IssueIntent)}, w.csr); err != nil {
		t.Fatal(err)
	}
	client.Close()
	p.terminate()
	if code := p.end(); code != 0 {
		t.Fatalf("SIGTERM: exit code %d\n%s", code, p.stderr)
	}

	p.run("strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
	client = p.client()
	w = p.want("bob", nil, nil)
	index := p.add(alice, w.IssueIntent)
	der, err := client.SignCert(t.Context(), audit.Entry{Index: index}, w.csr)
	if !errors.Is(err, signer.ErrUnknown) || der != nil {
		t.Errorf("the caller got %d octets and %v, want ErrUnknown", len(der), err)
	}
	client.Close()
	if code := p.end(); code != 1 || !strings.Contains(p.stderr.String(), "syncing the journal") {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}

	p.run()
	client = p.client()
	defer client.Close()
	first, err := client.Settle(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	again, err := client.SignCert(t.Context(), audit.Entry{Index: index}, w.csr)
	var refusal *signer.Refusal
	switch {
	case first == nil && errors.As(err, &refusal) && refusal.Code == "serial.voided":
	case first != nil && err == nil && bytes.Equal(first, again):
	default:
		t.Errorf("settled as %d octets, then signed: %d octets, %v", len(first), len(again), err)
	}
}

// TestTwoProcesses starts a second room and a clock confirmation beside a room that runs.
func TestTwoProcesses(t *testing.T) {
	p := newProcess(t)
	config := filepath.Join(p.dir, "keyroom.json")
	for _, words := range [][]string{{"--config", config}, {"confirm-clock", "--config", config}} {
		out, err := exec.Command(command(t), words...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "another key room runs on this journal") {
			t.Errorf("%v: %v: %s", words, err, out)
		}
	}
	client := p.client() // the socket is still the first one's
	defer client.Close()
	w := p.want("alice", nil, nil)
	if _, err := client.SignCert(t.Context(), audit.Entry{Index: p.add(alice, w.IssueIntent)}, w.csr); err != nil {
		t.Fatal(err)
	}
}

// TestProcess looks at how the program behaves as one: its memory, its exits, and what it says.
func TestProcess(t *testing.T) {
	p := newProcess(t)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(after(string(limits), "Max core file size")); len(fields) < 2 || fields[0] != "0" || fields[1] != "0" {
		t.Errorf("core files: %v", fields)
	}
	mode := func(name string, want os.FileMode) {
		t.Helper()
		info, err := os.Stat(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
	mode("keyroom/socket", 0o600)
	p.terminate()
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d on SIGTERM:\n%s", code, p.stderr)
	}
	for _, line := range strings.Split(strings.TrimSpace(p.stderr.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("a log line that is not JSON: %s", line)
		}
	}
	for _, c := range []struct {
		words []string
		code  int
		says  string
	}{
		{[]string{"sign"}, 2, "there is no command"},
		{[]string{"--config"}, 2, "config"},
		{nil, 2, "--config FILE is needed"},
		{[]string{"--config", "/nowhere.json"}, 2, "no such file"},
		{[]string{"init", "--dir", p.dir, "--org", "Example"}, 1, "an installation is never overwritten"},
		{[]string{"init", "--dir", p.dir}, 2, "--dir and --org are needed"},
		{[]string{"init", "--dir", p.dir, "--org", "Example", "--domain", "Example.org"}, 2, "want a lower-case name"},
	} {
		out, err := exec.Command(command(t), c.words...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%v: %v: %s", c.words, err, out)
		}
	}
}

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}

// TestImports holds the program to the few modules that may see a CA key.
func TestImports(t *testing.T) {
	info, err := buildinfo.ReadFile(command(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range info.Deps {
		if module.Path != "golang.org/x/mod" && module.Path != "golang.org/x/crypto" {
			t.Errorf("the key room links the module %s", module.Path)
		}
	}
	const ours = "github.com/chancery-ca/chancery/"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "list", "-deps", commandPackage).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		switch {
		case path == "net/http" || path == "crypto/tls" || path == "os/exec" || path == "plugin" || path == "database/sql":
			t.Errorf("the key room imports %s", path)
		case strings.HasPrefix(path, "golang.org/x/mod/"):
			if path != "golang.org/x/mod/sumdb/note" && path != "golang.org/x/mod/sumdb/tlog" && !strings.Contains(path, "/internal/") {
				t.Errorf("the key room imports %s", path)
			}
		case strings.HasPrefix(path, ours):
			switch strings.TrimPrefix(path, ours) {
			case "audit", "ca/cert", "ca/profile", "ca/signer", "ca/keyroom", "crl/list", "crashpoint", "nodump", "credential", "sdnotify", "cmd/chancery-keyroom":
			default:
				t.Errorf("the key room imports %s", path)
			}
		}
	}
}
