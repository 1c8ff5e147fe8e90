package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// increment is a change that goes wrong if it is not made on what is there.
func increment(now Files) (Change, error) {
	n, err := strconv.Atoi(string(now["number"]))
	if err != nil && len(now["number"]) > 0 {
		return Change{}, err
	}
	next := strconv.Itoa(n + 1)
	return Change{Files: Files{"number": []byte(next)}, Message: "number " + next}, nil
}

// Another committer pushes with native git in a tight loop, and a third
// process repacks. Nobody's commit is lost, and nobody's fails for good.
func TestNativePushesWhileWePublish(t *testing.T) {
	path := newBare(t)
	raceNative(t, path, openMain(t, path), 12, 0)
}

// raceNative expects that both sides get that many commits in. Native git rests after each push.
func raceNative(t *testing.T, path string, l Remote, enough int, rest time.Duration) {
	publish(t, l, Files{"a": []byte("1")})
	work := clone(t, path)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var others sync.WaitGroup
	var pushed atomic.Int32
	others.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			// Not the bytes of a file of ours: a server does not send again what our last tip has elsewhere, and
			// the whole tip that is fetched then does not show the way back to our commit.
			os.WriteFile(filepath.Join(work, "theirs"), fmt.Append(nil, "theirs ", n), 0o644)
			for _, args := range [][]string{{"add", "-A"}, {"commit", "-qm", fmt.Sprintf("theirs %d", n)}} {
				if out, err := gitCommand(work, args...).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", args, out)
					return
				}
			}
			for gitCommand(work, "push", "-q", "origin", "main").Run() != nil {
				if out, err := gitCommand(work, "pull", "-q", "--rebase", "origin", "main").CombinedOutput(); err != nil {
					t.Errorf("pull: %s", out)
					return
				}
			}
			pushed.Store(int32(n))
			time.Sleep(rest)
		}
	})
	others.Go(func() {
		for packed := (time.Time{}); ctx.Err() == nil; {
			// Native git tells by size, inode and the second whether packed-refs was replaced since it read it. Within
			// one second it may take what it has for the tip, and push over a commit that came meanwhile.
			if time.Since(packed) > 2*time.Second {
				gitCommand(path, "pack-refs", "--all", "--prune").Run()
				packed = time.Now()
			}
			gitCommand(path, "repack", "-adq").Run()
			time.Sleep(50 * time.Millisecond)
		}
	})
	ours, inTheWay := 0, 0
	for start := time.Now(); (ours < enough || int(pushed.Load()) < enough) && time.Since(start) < 3*time.Minute; ours++ {
		_, changed, err := publisher(l).Publish(context.Background(), increment)
		// Ten races lost, or the server's repack was in its own way three times: the caller's turn to insist.
		for errors.Is(err, ErrMoved) || errors.Is(err, ErrNotStored) {
			if errors.Is(err, ErrNotStored) {
				inTheWay++
			}
			_, changed, err = publisher(l).Publish(context.Background(), increment)
		}
		if err != nil || !changed {
			t.Errorf("publishing %d: %v %v", ours+1, changed, err)
			break
		}
		// Native git needs several processes for a push; leave it gaps to win.
		time.Sleep(rand.N(300 * time.Millisecond))
	}
	stop()
	others.Wait()
	theirs := int(pushed.Load())
	if ours < enough || theirs < enough {
		t.Errorf("%d of ours, %d of theirs", ours, theirs)
	}
	if inTheWay > 1 {
		t.Errorf("%d of our %d publications met a repack three times", inTheWay, ours)
	}
	checkRepo(t, path)
	have := map[string]int{}
	for subject := range strings.SplitSeq(git(t, path, "log", "--format=%s", "main"), "\n") {
		have[subject]++
	}
	for n := 1; n <= ours; n++ {
		if have[fmt.Sprintf("number %d", n)] != 1 {
			t.Errorf("our number %d is there %d times", n, have[fmt.Sprintf("number %d", n)])
		}
	}
	for n := 1; n <= theirs; n++ {
		if have[fmt.Sprintf("theirs %d", n)] != 1 {
			t.Errorf("their %d is there %d times", n, have[fmt.Sprintf("theirs %d", n)])
		}
	}
	if got := git(t, path, "show", "main:theirs"); got != fmt.Sprint("theirs ", theirs) {
		t.Errorf("their file is %s, pushed %d", got, theirs)
	}
}

// Several of our own, through one Local and through separate ones.
func TestPublishersDoNotLoseEachOthersChange(t *testing.T) {
	path := newBare(t)
	shared := openMain(t, path)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			l := shared
			if i > 1 {
				l = openMain(t, path)
			}
			for done := 0; done < 8; {
				_, changed, err := publisher(l).Publish(context.Background(), increment)
				if err != nil && !errors.Is(err, ErrMoved) {
					t.Error(err)
					return
				}
				if changed {
					done++
				}
			}
		})
	}
	all.Wait()
	if got := git(t, path, "show", "main:site/pki/number"); got != "32" {
		t.Errorf("number is %s", got)
	}
	if got := git(t, path, "rev-list", "--count", "main"); got != "32" {
		t.Errorf("%s commits", got)
	}
	checkRepo(t, path)
}

// mover lets somebody else be faster, each time.
type mover struct {
	Remote
	before func()
}

func (m mover) Push(ctx context.Context, old Tip, commit plumbing.Hash, objects []Object) error {
	m.before()
	return m.Remote.Push(ctx, old, commit, objects)
}

func TestLostRacesEnd(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	lost := 0
	r := mover{l, func() {
		lost++
		setTree(t, path, rawTree(t, path, "100644", "n", blob(t, path, strconv.Itoa(lost))))
	}}
	asked := 0
	_, _, err := publisher(r).Publish(context.Background(), func(Files) (Change, error) {
		asked++
		return Change{Files: Files{"a": []byte("1")}, Message: "m"}, nil
	})
	if !errors.Is(err, ErrMoved) || asked != tries || lost != tries {
		t.Errorf("asked %d times, lost %d races: %v", asked, lost, err)
	}
	checkRepo(t, path)
}

// rewriter does something to the repository right after the push.
type rewriter struct {
	Remote
	after func()
}

func (r rewriter) Push(ctx context.Context, old Tip, commit plumbing.Hash, objects []Object) error {
	err := r.Remote.Push(ctx, old, commit, objects)
	r.after()
	return err
}

func TestReadBackNotices(t *testing.T) {
	for name, after := range map[string]func(path string){
		"branch put back": func(p string) { git(t, p, "update-ref", "refs/heads/main", "main~1") },
		"branch gone":     func(p string) { git(t, p, "update-ref", "-d", "refs/heads/main") },
		"blob gone":       func(p string) { removeObject(t, p, "main:site/pki/a") },
		"tree gone":       func(p string) { removeObject(t, p, "main:site") },
	} {
		t.Run(name, func(t *testing.T) {
			path := newBare(t)
			l := openMain(t, path)
			publish(t, l, Files{"a": []byte("1")})
			_, _, err := publisher(rewriter{l, func() { after(path) }}).Publish(context.Background(), func(Files) (Change, error) {
				return Change{Files: Files{"a": []byte("2")}, Message: "m"}, nil
			})
			if err == nil || !strings.Contains(err.Error(), "reading back") {
				t.Errorf("error: %v", err)
			}
		})
	}
	// Others' commits on top are no reason to complain.
	path := newBare(t)
	l := openMain(t, path)
	publish(t, l, Files{"a": []byte("1")})
	top := func() {
		for range 3 {
			c := git(t, path, "commit-tree", "-m", "other", "-p", "main", "main^{tree}")
			git(t, path, "update-ref", "refs/heads/main", c)
		}
	}
	commit, changed, err := publisher(rewriter{l, top}).Publish(context.Background(), increment)
	if err != nil || !changed || commit != git(t, path, "rev-parse", "main~3") {
		t.Error(commit, changed, err)
	}
}

func removeObject(t *testing.T, path, name string) {
	id := git(t, path, "rev-parse", name)
	if err := os.Remove(filepath.Join(path, "objects", id[:2], id[2:])); err != nil {
		t.Fatal(err)
	}
}

func TestSomebodyElsesLock(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	first := publish(t, l, Files{"a": []byte("1")})
	lock := filepath.Join(path, "refs/heads/main.lock")
	if err := os.WriteFile(lock, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l.wait = 50 * time.Millisecond
	_, _, err := publisher(l).Publish(context.Background(), increment)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), lock) {
		t.Errorf("error: %v", err)
	}
	l.wait = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Lstat(l.draft); err == nil { // only the lock is still to be had
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, _, err = publisher(l).Publish(ctx, increment)
	cancel()
	if !errors.Is(err, ErrLocked) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), lock) {
		t.Errorf("error: %v", err)
	}
	openMain(t, path)
	if _, err := os.Lstat(lock); err != nil {
		t.Fatal("the lock is gone")
	}
	if got := git(t, path, "rev-parse", "main"); got != first {
		t.Errorf("the branch moved to %s", got)
	}
	// A lock that is given back in time is waited for.
	time.AfterFunc(100*time.Millisecond, func() { os.Remove(lock) })
	if _, changed, err := publisher(l).Publish(context.Background(), increment); err != nil || !changed {
		t.Error(changed, err)
	}
	checkRepo(t, path)
}

// While we hold the lock native git stays out.
func TestOurLockKeepsNativeGitOut(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	publish(t, l, Files{"a": []byte("1")})
	if err := writeSynced(l.draft, 0o644, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := l.lock(context.Background()); err != nil {
		t.Fatal(err)
	}
	if out, err := gitCommand(path, "update-ref", "refs/heads/main", "main").CombinedOutput(); err == nil || !strings.Contains(string(out), "main.lock") {
		t.Errorf("update-ref: %v %s", err, out)
	}
	// A living process of ours with the guard is not disturbed by another's start.
	release, err := l.hold(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	openMain(t, path)
	if _, err := os.Lstat(l.lockPath()); err != nil {
		t.Error("a living process's lock was removed")
	}
	release()
	openMain(t, path)
	checkRepo(t, path)
}

func TestCancelled(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	_, _, err := publisher(l).Publish(ctx, func(now Files) (Change, error) {
		cancel()
		return increment(now)
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if refs := git(t, path, "for-each-ref"); refs != "" {
		t.Errorf("written: %s", refs)
	}
}
