package site_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/site"
	"github.com/chancery-ca/chancery/store"
)

// scratch holds everything. Its path is short because that of a Unix socket has to be.
var scratch string

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if scratch, err = os.MkdirTemp("/tmp", "cs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(scratch)
	code = m.Run()
}

// programs builds the three programs once.
var programs = sync.OnceValues(func() (string, error) { return build("bin") })

// mortal builds them once more, so that they die where the environment says.
var mortal = sync.OnceValues(func() (string, error) { return build("mortal", "-tags", "crashpoint") })

func build(name string, flags ...string) (string, error) {
	dir := filepath.Join(scratch, name)
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", dir + "/"}, flags...), "../cmd/...")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
}

func bin(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

const passphrase = "correct horse battery staple"

// history is one installation at several moments. Nobody writes to these folders: tests work on copies.
type history struct {
	night string // alice and www.example.org have certificates
	day   string // bob, carol and dave too, which are revoked; dave's was while the key room made it
	other string // another installation, as init makes it
}

var made = sync.OnceValues(makeHistory)

func makeHistory() (h history, err error) {
	h = history{filepath.Join(scratch, "night"), filepath.Join(scratch, "day"), filepath.Join(scratch, "other")}
	dir, err := programs()
	if err != nil {
		return h, err
	}
	live := filepath.Join(scratch, "live")
	for _, folder := range []string{live, h.other} {
		if err := initInto(dir, folder); err != nil {
			return h, err
		}
	}
	for _, step := range []struct {
		work func(pid int) error
		to   string
	}{
		{func(int) error { return callAll(live, issue("user", "alice"), issue("server", "www.example.org")) }, h.night},
		{func(pid int) error {
			err := callAll(live, issue("user", "bob"), issue("user", "carol"), revoke("bob", "superseded"),
				revoke("carol", "cessationOfOperation"), revoke("carol", "keyCompromise"))
			if err != nil {
				return err
			}
			return revokeEarly(live, pid)
		}, h.day},
	} {
		if err := serving(dir, live, step.work); err != nil {
			return h, err
		}
		if out, err := exec.Command("cp", "-a", live, step.to).CombinedOutput(); err != nil {
			return h, fmt.Errorf("copying: %w\n%s", err, out)
		}
	}
	return h, nil
}

// revokeEarly revokes a certificate while its intent is open: the key room sleeps meanwhile.
func revokeEarly(live string, up int) error {
	room := children(up)["chancery-keyroom"]
	if err := freeze(room); err != nil {
		return err
	}
	done := make(chan error, 2)
	go func() { done <- callAll(live, issue("user", "dave")) }()
	err := announcedIn(live, "dave")
	go func() { done <- callAll(live, revoke("dave", "affiliationChanged")) }()
	if err == nil {
		err = announcedIn(live, "revoke-dave-affiliationChanged")
	}
	err = errors.Join(err, syscall.Kill(room, syscall.SIGCONT), <-done, <-done)
	if err != nil {
		return err
	}
	return inStore(live, func(_ [][]byte, debts []store.Debt) bool { return len(debts) == 0 })
}

// freeze stops a process for a while, and waits until it has stopped: the signal alone does not.
func freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " T ") {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// announcedIn waits until a text is in a leaf that announces something.
func announcedIn(folder, text string) error {
	return inStore(folder, func(leaves [][]byte, _ []store.Debt) bool {
		return slices.ContainsFunc(leaves, func(leaf []byte) bool {
			return bytes.Contains(leaf, []byte(text)) && (bytes.Contains(leaf, []byte("issue.intent")) || bytes.Contains(leaf, []byte("revoke.done")))
		})
	})
}

// inStore waits until something is true of the log and the debts.
func inStore(folder string, is func(leaves [][]byte, debts []store.Debt) bool) error {
	ctx := context.Background()
	for range 600 {
		s, err := store.OpenReader(ctx, filepath.Join(folder, "state", "store.db"), time.Now)
		if err != nil {
			return err
		}
		size, _ := s.Head()
		leaves, err := s.Leaves(ctx, 0, size)
		debts, noDebts := s.Debts(ctx)
		if err := errors.Join(err, noDebts, s.Close()); err != nil {
			return err
		}
		if is(leaves, debts) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("what was waited for does not get into the store")
}

// children gives what a process has started and still runs, by the name of the program.
func children(pid int) map[string]int {
	found := make(map[string]int)
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children") // the pattern is good
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			program, gone := os.Readlink("/proc/" + field + "/exe")
			if err == nil && gone == nil {
				found[filepath.Base(program)] = child
			}
		}
	}
	return found
}

func initInto(dir, folder string) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(dir, "chancery"), "init", folder, "--domain", "example.org", "--listen", address, "--passphrase-fd", "0")
	cmd.Stdin = strings.NewReader(passphrase)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("chancery init: %w\n%s", err, out)
	}
	return nil
}

func worlds(t testing.TB) history {
	t.Helper()
	h, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var copies, lastPort atomic.Int64

// copyOf copies an installation into a folder with a short name, and gives it an address of its own.
func copyOf(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(scratch, strconv.FormatInt(copies.Add(1), 10))
	run(t, "cp", "-a", from, to)
	t.Cleanup(func() { os.RemoveAll(to) })
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	run(t, "sed", "-i", "s/^listen: .*/listen: "+address+"/", filepath.Join(to, site.ConfigName))
	return to
}

func freeAddress() (string, error) {
	lastPort.CompareAndSwap(0, 10100+int64(os.Getpid()%24)*400)
	for range 400 {
		address := "127.0.0.1:" + strconv.FormatInt(lastPort.Add(1), 10)
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port")
}

// process is one that a test runs beside itself, with what it says on both streams.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	said  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// launch starts a program and waits until it says something.
func launch(until string, env []string, path string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState says how it ended
		close(p.ended)
	}()
	deadline := time.After(time.Minute)
	for !strings.Contains(p.String(), until) {
		select {
		case <-p.ended:
			return p, fmt.Errorf("%s ended with exit code %d:\n%s", filepath.Base(path), p.cmd.ProcessState.ExitCode(), p)
		case <-deadline:
			p.kill()
			return nil, fmt.Errorf("%s does not say %q:\n%s", filepath.Base(path), until, p)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return p, nil
}

// end asks the process to stop and gives its exit code.
func (p *process) end(signal syscall.Signal) (int, error) {
	_ = p.cmd.Process.Signal(signal) // it may have ended
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(time.Minute):
		p.kill()
		return 0, fmt.Errorf("it did not stop:\n%s", p)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// serving runs an installation while do works with it.
func serving(dir, folder string, do func(pid int) error) error {
	p, err := launch("ready https://", nil, filepath.Join(dir, "chancery"), "up", folder)
	if err != nil {
		return err
	}
	if err := do(p.cmd.Process.Pid); err != nil {
		p.kill()
		return fmt.Errorf("%w\n%s", err, p)
	}
	code, err := p.end(syscall.SIGTERM)
	if err == nil && code != 0 {
		err = fmt.Errorf("chancery up ended with exit code %d:\n%s", code, p)
	}
	return err
}

func serve(t testing.TB, folder string, do func() error) {
	t.Helper()
	if err := serving(bin(t), folder, func(int) error { return do() }); err != nil {
		t.Fatal(err)
	}
}

// room runs the key room of an installation alone, until the test ends.
func room(t testing.TB, folder string) *process {
	t.Helper()
	p, err := launch(`"msg":"serving"`, nil, filepath.Join(bin(t), "chancery-keyroom"), "--config", filepath.Join(folder, "keyroom.json"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// chancery runs the command and gives its exit code and what it said.
func chancery(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, failed strings.Builder
	cmd := exec.Command(filepath.Join(bin(t), "chancery"), args...)
	cmd.Stdout, cmd.Stderr = &out, &failed
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), failed.String()
}

func config(t testing.TB, folder string) site.Config {
	t.Helper()
	c, err := site.LoadConfig(filepath.Join(folder, site.ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// call is one call of the RPC.
type call struct {
	method string
	params map[string]any
}

func issue(purpose, cn string) call {
	return call{"ca.issue", map[string]any{"purpose": purpose, "cn": cn, "request_id": "issue-" + cn}}
}

func revoke(cn, reason string) call {
	return call{"ca.revoke", map[string]any{"cn": cn, "reason": reason, "request_id": "revoke-" + cn + "-" + reason}}
}

// callAll makes calls that must all succeed.
func callAll(folder string, calls ...call) error {
	for _, c := range calls {
		answer, err := ask(folder, c)
		if err == nil && !answer.OK {
			err = errors.New(answer.Msg)
		}
		if err != nil {
			return fmt.Errorf("%s %v: %w", c.method, c.params, err)
		}
	}
	return nil
}

func ask(folder string, c call) (client.Answer, error) {
	var answer client.Answer
	conf, err := site.LoadConfig(filepath.Join(folder, site.ConfigName))
	if err != nil {
		return answer, err
	}
	roots := x509.NewCertPool()
	root, err := os.ReadFile(filepath.Join(folder, "trust", "root.pem"))
	if err != nil || !roots.AppendCertsFromPEM(root) {
		return answer, fmt.Errorf("reading the root: %w", err)
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(folder, "callers", "provisioning.pem"), filepath.Join(folder, "callers", "provisioning.key"))
	if err != nil {
		return answer, err
	}
	caller := client.New("https://"+conf.Listen+"/rpc", &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}})
	defer caller.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return answer, caller.Call(ctx, c.method, c.params, &answer)
}

func eventually(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
}
