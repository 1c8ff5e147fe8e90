package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// answers is what a child was told before it died.
type answers struct {
	acked  map[int]int64 // to the index
	nacked map[int]bool
	broken map[int]bool
}

func newAnswers() *answers {
	return &answers{acked: make(map[int]int64), nacked: make(map[int]bool), broken: make(map[int]bool)}
}

func (a *answers) line(t *testing.T, line string) {
	word, rest, _ := strings.Cut(line, " ")
	var n int
	var index int64
	fmt.Sscan(rest, &n, &index)
	switch word {
	case "ack":
		a.acked[n] = index
	case "nack":
		a.nacked[n] = true
	case "broken":
		a.broken[n] = true
	case "error":
		t.Log(line)
	case "ready":
	default:
		t.Fatalf("the child says %q", line)
	}
}

func child(t *testing.T, role, path string, from int, wrap ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, pathEnv+"="+path, fmt.Sprintf("%s=%d", fromEnv, from))
	cmd.Stderr = os.Stderr
	return cmd
}

// listen starts the child and takes down its answers; line is called after each.
func (a *answers) listen(t *testing.T, cmd *exec.Cmd, line func()) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		a.line(t, scanner.Text())
		line()
	}
	cmd.Wait() // killed, or exited after its last line
}

// holdAnswers opens what the child left and checks that it was told the truth.
func holdAnswers(t *testing.T, path string, a *answers) {
	t.Helper()
	s, err := Open(context.Background(), path, childNow)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	verify(t, s)
	d := dump(t, path)
	for n, index := range a.acked {
		leaf, err := audit.Decode(d.Leaves[index].Bytes)
		if err != nil || leaf.Event.(*audit.IssueIntent).Serial != certificate(n).Serial {
			t.Fatalf("certificate %d was acknowledged at %d, where there is %v, %v", n, index, leaf.Event, err)
		}
		if d.Intents[string(certificate(n).Serial)] != index {
			t.Fatalf("certificate %d was acknowledged and has no row", n)
		}
	}
	for n := range a.nacked {
		if _, there := d.Intents[string(certificate(n).Serial)]; there {
			t.Fatalf("certificate %d was reported as not done, and is there", n)
		}
	}
}

func TestKilledAtAnyTimeLosesNothingAcknowledged(t *testing.T) {
	s := closedStore(t, 0)
	a := newAnswers()
	const rounds = 15
	for round := range rounds {
		cmd := child(t, "crowd", s.path, (round+1)*1_000_000)
		began := false
		a.listen(t, cmd, func() {
			if !began {
				began = true
				wait := time.Duration(rand.IntN(60)) * time.Millisecond
				time.AfterFunc(wait, func() { cmd.Process.Kill() })
			}
		})
		if state := cmd.ProcessState; !state.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("the child was not killed: %v", state)
		}
		holdAnswers(t, s.path, a)
	}
	t.Logf("%d kills, %d acknowledged", rounds, len(a.acked))
	if len(a.acked) == 0 || len(a.nacked)+len(a.broken) > 0 {
		t.Fatal("nothing was acknowledged, or something was refused")
	}
}

func TestKilledWhileCreatingLeavesAllOrNothing(t *testing.T) {
	made, not := 0, 0
	for tries := 0; tries < 100 && (made < 4 || not < 4); tries++ {
		path := filepath.Join(t.TempDir(), "store.db")
		cmd := child(t, "create", path, 0)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		s, err := Open(context.Background(), path, childNow)
		if errors.Is(err, fs.ErrNotExist) {
			not++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		made++
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d were made, %d not", made, not)
}

// The sync or the write of a commit fails in the kernel: once, or from then on. What the caller was
// told must be what the next process finds.
func TestFailingDisk(t *testing.T) {
	for _, fault := range []string{"fsync,fdatasync:error=EIO", "pwrite64:error=ENOSPC", "pwrite64:error=EIO"} {
		for _, when := range []string{"3", "6", "11", "20", "9..10", "9..11", "9..13", "9+"} {
			t.Run(strings.ReplaceAll(fault, "/", "")+":"+when, func(t *testing.T) {
				s := closedStore(t, 0)
				calls, _, _ := strings.Cut(fault, ":")
				a := newAnswers()
				trace := filepath.Join(t.TempDir(), "strace")
				a.listen(t, child(t, "one", s.path, 1, "strace", "-f", "-qq", "-o", trace, "-e", "trace="+calls,
					"-e", "signal=none", "-e", "inject="+fault+":when="+when), func() {})
				text, err := os.ReadFile(trace)
				if err != nil {
					t.Fatal(err)
				}
				injected := strings.Count(string(text), "(INJECTED)")
				t.Logf("%d faults: %d acknowledged, %d not, %d unknown", injected, len(a.acked), len(a.nacked), len(a.broken))
				if injected == 0 && len(text) == 0 {
					t.Fatal("strace saw no call")
				}
				if injected == 0 && len(a.acked) != 40 {
					t.Fatal("the child failed without a fault")
				}
				holdAnswers(t, s.path, a)
			})
		}
	}
}

// insideEnv tells the test that it runs in its own mount namespace.
const insideEnv = "STORE_TEST_MOUNT"

// A file system of 2 MiB fills up, gets room again, and fills up. The test runs itself in a mount
// namespace, so that the mount goes with it.
func TestFullFileSystem(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestFullFileSystem$", "-test.v")
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
		return
	}
	dir := os.Getenv(insideEnv)
	if err := errors.Join(
		syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("none", dir, "tmpfs", 0, "size=2m"),
	); err != nil {
		t.Fatal(err)
	}
	fillTwice(t, dir)
}

func fillTwice(t *testing.T, dir string) {
	ballast := []string{filepath.Join(dir, "ballast1"), filepath.Join(dir, "ballast2")}
	for _, name := range ballast {
		if err := os.WriteFile(name, make([]byte, 300<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Create(context.Background(), filepath.Join(dir, "store.db"), childNow, who, opened())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	all := make(map[int]audit.Entry)
	for round, name := range ballast {
		acked, failed := crowd(960, func(n int) (audit.Entry, error) {
			return s.Update(context.Background(), who, reserve(certificate(round*10_000+n)))
		})
		for n, entry := range acked {
			all[round*10_000+n] = entry
		}
		kinds := make(map[string]int)
		for _, err := range failed {
			kinds[err.Error()]++
		}
		t.Logf("%d acknowledged, %d failed: %v", len(acked), len(failed), kinds)
		if len(failed) == 0 || len(acked) == 0 {
			t.Fatal("want some of both")
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		mustUpdate(t, s, stopped)
		hold(t, s, all)
	}
}
