package gitrepo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child is the process that is killed: it publishes until it is, or a number
// of times.
func child(path string) error {
	times, err := strconv.Atoi(os.Getenv("GITREPO_TIMES"))
	if err != nil {
		return err
	}
	l, err := OpenLocal(path, "main")
	if err != nil {
		return err
	}
	for range times {
		if _, _, err := publisher(l).Publish(context.Background(), increment); err != nil {
			return err
		}
		fmt.Println("published")
	}
	return nil
}

// killable builds this test binary with the crash points in it.
func killable(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "killable")
	if out, err := exec.Command("go", "test", "-c", "-tags", "crashpoint", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func startChild(binary, path string, times int, env ...string) *exec.Cmd {
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), append(env, "GITREPO_CHILD="+path, "GITREPO_TIMES="+strconv.Itoa(times))...)
	return cmd
}

func wasKilled(err error) bool {
	exit, ok := err.(*exec.ExitError)
	return ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func TestKilledAtEachDurableStep(t *testing.T) {
	binary := killable(t)
	steps := filepath.Join(t.TempDir(), "steps")
	if out, err := startChild(binary, newBare(t), 3, "CHANCERY_CRASH_LOG="+steps).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if log, _ := os.ReadFile(steps); string(log) != "1 git.push\n2 git.push\n3 git.push\n" {
		t.Fatalf("steps:\n%s", log)
	}
	for _, c := range []struct {
		at   string
		want string // the number that is there after the kill
	}{{"before:1", ""}, {"after:1", "1"}, {"before:2", "1"}, {"after:2", "2"}, {"before:3", "2"}, {"after:3", "3"}} {
		t.Run(c.at, func(t *testing.T) {
			path := newBare(t)
			out, err := startChild(binary, path, 3, "CHANCERY_CRASH="+c.at).CombinedOutput()
			if !wasKilled(err) {
				t.Fatalf("not killed: %v\n%s", err, out)
			}
			// Native git reads a sound repository before we clean up.
			if out, err := gitCommand(path, "fsck", "--strict").CombinedOutput(); err != nil {
				t.Fatalf("fsck: %s", out)
			}
			l := openMain(t, path)
			checkRepo(t, path)
			files, _, err := Read(context.Background(), l, "site/pki")
			if err != nil || string(files["number"]) != c.want {
				t.Fatalf("number %q, %v", files["number"], err)
			}
			if _, changed, err := publisher(l).Publish(context.Background(), increment); err != nil || !changed {
				t.Fatal(changed, err)
			}
			checkRepo(t, path)
		})
	}
	// A process that is already open gets past a lock that another one of
	// ours left, and a wrong setting does not go unnoticed.
	path := newBare(t)
	l := openMain(t, path)
	if _, err := startChild(binary, path, 1, "CHANCERY_CRASH=before:1").CombinedOutput(); !wasKilled(err) {
		t.Fatal(err)
	}
	publish(t, l, Files{"a": []byte("1")})
	checkRepo(t, path)
	for _, bad := range []string{"before", "after:0", "during:1", "before:x"} {
		if err := startChild(binary, path, 1, "CHANCERY_CRASH="+bad).Run(); err == nil || wasKilled(err) {
			t.Errorf("CHANCERY_CRASH=%s: %v", bad, err)
		}
		checkRepo(t, path) // a panic with the lock in hand leaves no lock either
	}
}

func TestKilledAnywhere(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := newBare(t)
	acknowledged := 0
	for i := range 25 {
		cmd := startChild(binary, path, 1000)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+7*i) * time.Millisecond)
		cmd.Process.Kill()
		if err := cmd.Wait(); !wasKilled(err) {
			t.Fatalf("%v\n%s", err, out.String())
		}
		acknowledged += strings.Count(out.String(), "published\n")
		if out, err := gitCommand(path, "fsck", "--strict", "--no-dangling").CombinedOutput(); err != nil {
			t.Fatalf("fsck: %s", out)
		}
	}
	files, _, err := Read(context.Background(), openMain(t, path), "site/pki")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(files["number"]))
	t.Logf("%d published, %d acknowledged", n, acknowledged)
	if err != nil || n < acknowledged || acknowledged == 0 {
		t.Errorf("number %d, %d acknowledged, %v", n, acknowledged, err)
	}
	if got := git(t, path, "rev-list", "--count", "main"); got != strconv.Itoa(n) {
		t.Errorf("%s commits for number %d", got, n)
	}
}

// The order on disk, as the kernel saw it: every object is synced before it
// gets its name, the folders before the branch moves, the branch's folder after.
func TestOrderOfDurableSteps(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := newBare(t)
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-y", "-o", trace, "-s", "300",
		"-e", "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat", binary)
	cmd.Env = append(os.Environ(), "GITREPO_CHILD="+path, "GITREPO_TIMES=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string // "sync PATH", "name FROM TO"
	synced := regexp.MustCompile(`f(?:data)?sync\(\d+<([^>]*)>`)
	named := regexp.MustCompile(`(?:rename|link)[at2]*\(.*?"([^"]*)",.*?"([^"]*)"`)
	for line := range strings.SplitSeq(string(raw), "\n") {
		line = strings.ReplaceAll(line, path, "")
		if m := synced.FindStringSubmatch(line); m != nil {
			steps = append(steps, "sync "+m[1])
		} else if m := named.FindStringSubmatch(line); m != nil {
			steps = append(steps, "name "+m[1]+" "+m[2])
		}
	}
	after := func(from int, step string) int {
		i := slices.Index(steps[from:], step)
		if i < 0 {
			t.Fatalf("no %q after step %d of\n%s", step, from, strings.Join(steps, "\n"))
		}
		return from + i
	}
	moved := after(0, "name /refs/heads/main.lock /refs/heads/main")
	objects := 0
	for i, step := range steps {
		names, ok := strings.CutPrefix(step, "name ")
		from, to, _ := strings.Cut(names, " ")
		if !ok || !strings.HasPrefix(to, "/objects/") {
			continue
		}
		objects++
		if after(0, "sync "+from) > i || after(i, "sync "+filepath.Dir(to)) > moved {
			t.Errorf("%s was not synced in time", to)
		}
	}
	if objects != 5 { // blob, pki, site, root, commit
		t.Errorf("%d objects", objects)
	}
	if after(0, "sync /objects") > moved || after(0, "sync /chancery-main.ref") > moved ||
		after(0, "sync ") > after(0, "name /chancery-main.ref /refs/heads/main.lock") {
		t.Errorf("out of order:\n%s", strings.Join(steps, "\n"))
	}
	after(moved, "sync /refs/heads")
}
