package chancery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// scratch holds everything that these tests make. Its path is short because that of a Unix socket has
// to be: at most 107 octets.
var scratch string

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if scratch, err = os.MkdirTemp("/tmp", "ch-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(scratch)
	code = m.Run()
}

// The programs are built once: as they are released, and as they die where a test says.
var (
	released = sync.OnceValues(func() (string, error) { return build("released") })
	mortal   = sync.OnceValues(func() (string, error) { return build("mortal", "-tags", "crashpoint") })
)

func build(name string, flags ...string) (string, error) {
	dir := filepath.Join(scratch, name)
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}, flags...)
	cmd := exec.Command("go", append(args, "./cmd/...")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
}

// built gives the folder of programs that the function makes.
func built(t *testing.T, programs func() (string, error)) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestReleasedProgramsCannotCrash: what kills a process on demand is in no program that is released.
func TestReleasedProgramsCannotCrash(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^FLAGS := -trimpath -ldflags "[^"]*"$`).Match(makefile) {
		t.Error("the Makefile builds with other flags than this test")
	}
	for name, want := range map[string]struct {
		dir   string
		armed bool
	}{"released": {built(t, released), false}, "mortal": {built(t, mortal), true}} {
		for _, program := range []string{"chancery", "chanceryd", "chancery-keyroom"} {
			code, err := os.ReadFile(filepath.Join(want.dir, program))
			if err != nil {
				t.Fatal(err)
			}
			if armed := bytes.Contains(code, []byte("CHANCERY_CRASH")); armed != want.armed {
				t.Errorf("%s %s: knows CHANCERY_CRASH: %v", name, program, armed)
			}
		}
	}
}

var lastPort atomic.Int64

// freeAddress gives an address that nothing listens at and that no outgoing connection takes: it is
// below the ports that the system hands out, and no other test of this process gets it.
func freeAddress() (string, error) {
	lastPort.CompareAndSwap(0, 20000+int64(os.Getpid()%50)*200)
	for range 200 {
		address := "127.0.0.1:" + strconv.FormatInt(lastPort.Add(1), 10)
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port")
}

// process is a program that runs beside the test.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
	out   output // of both streams
}

// output is what a process has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// launch starts a program with more in its environment. It dies with the test.
func launch(env []string, path string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(path), cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState says how it ended
		close(p.ended)
	}()
	return p, nil
}

const (
	startTime = 30 * time.Second
	pollTime  = 5 * time.Millisecond
)

// await waits until ready is true, and fails if the process ends before.
func (p *process) await(ready func() bool) error {
	deadline := time.After(startTime)
	for !ready() {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended with exit code %d:\n%s", p.name, p.code(), &p.out)
		case <-deadline:
			return fmt.Errorf("%s is not ready after %s:\n%s", p.name, startTime, &p.out)
		case <-time.After(pollTime):
		}
	}
	return nil
}

func (p *process) says(text string) func() bool {
	return func() bool { return strings.Contains(p.out.String(), text) }
}

func (p *process) code() int { return p.cmd.ProcessState.ExitCode() }

// dead tells whether the process has ended.
func (p *process) dead() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// wait gives the exit code when the process has ended by itself.
func (p *process) wait(patience time.Duration) (int, error) {
	select {
	case <-p.ended:
		return p.code(), nil
	case <-time.After(patience):
		return 0, fmt.Errorf("%s still runs after %s:\n%s", p.name, patience, &p.out)
	}
}

// stop ends the process in order.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping %s: %w\n%s", p.name, err, &p.out)
	}
	code, err := p.wait(startTime)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s stopped with exit code %d:\n%s", p.name, code, &p.out)
	}
	return err
}

// kill ends it as a power cut does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// children gives the processes that one has started, by name.
func children(pid int) (map[string]int, error) {
	found := make(map[string]int)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (name) state parent ...; the name may hold anything, so its end is the last parenthesis.
		head, rest, _ := strings.Cut(string(text), "(")
		end := strings.LastIndexByte(rest, ')')
		fields := strings.Fields(rest[end+1:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		child, err := strconv.Atoi(strings.TrimSpace(head))
		if err != nil {
			return nil, err
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		if err == nil {
			found[filepath.Base(link)] = child
		}
	}
	return found, err
}

// startRoom runs the key room of the installation in dir alone, and returns when it listens.
func startRoom(bin, dir string, env ...string) (*process, error) {
	p, err := launch(env, filepath.Join(bin, "chancery-keyroom"), "--config", filepath.Join(dir, "keyroom.json"))
	if err != nil {
		return nil, err
	}
	return p, p.await(p.says(`"msg":"serving"`))
}

// startDaemon runs the daemon alone, and returns when it answers.
func startDaemon(bin, dir string, env ...string) (*process, error) {
	p, err := launch(env, filepath.Join(bin, "chanceryd"), "--config", filepath.Join(dir, "chancery.yaml"))
	if err != nil {
		return nil, err
	}
	return p, p.await(p.says("ready https://"))
}

// command runs a program and gives what it said, and its exit code.
func command(ctx context.Context, stdout, stderr io.Writer, dir string, env []string, name string, args ...string) (int, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, stdout, stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return exit.ExitCode(), nil
	}
	return 0, err
}
