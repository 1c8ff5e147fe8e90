package gitrepo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/crashpoint"
)

// How the branch moves. Native git locks a branch by creating
// refs/heads/NAME.lock exclusively, reads the value once more, and renames the
// lock over the branch. A process that is killed in between leaves a lock that
// nobody may remove, because nobody can tell whose it is.
//
// So ours is made in a way that tells: the new value is written and synced as
// a draft, and the lock is a second name of that same file (link(2) is as
// exclusive as O_EXCL). While it works, the process holds flock on a guard
// file, which the kernel gives back when the process dies. Whoever gets the
// guard and finds a lock that is the draft therefore holds the proof that it
// was left by a dead process of ours. Any other lock is waited for, and never
// removed.

func (l *Local) refPath() string  { return filepath.Join(l.path, filepath.FromSlash(l.ref.String())) }
func (l *Local) lockPath() string { return l.refPath() + ".lock" }

// readRef returns the branch's value, "" if there is none: the loose file, and
// only if there is no such file the packed ones. In that order, because git
// packs a value before it deletes the file.
func (l *Local) readRef() (string, error) {
	f, err := os.OpenFile(l.refPath(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return l.packedRef()
	}
	if err != nil {
		return "", fmt.Errorf("reading branch: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", fmt.Errorf("reading branch: %w", err)
	} else if info.IsDir() {
		return l.packedRef()
	}
	raw, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return "", fmt.Errorf("reading branch: %w", err)
	}
	id := strings.TrimSpace(string(raw))
	if !isHash(id) {
		return "", fmt.Errorf("%w: %s is not a commit's name", ErrHostile, l.refPath())
	}
	return id, nil
}

// packedRef looks the branch up in packed-refs. A name of which ours is a
// folder, or the other way round, would make a branch that git cannot store.
func (l *Local) packedRef() (string, error) {
	f, err := os.Open(filepath.Join(l.path, "packed-refs"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading branch: %w", err)
	}
	defer f.Close()
	want := l.ref.String()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		id, name, ok := strings.Cut(lines.Text(), " ")
		if !ok || !isHash(id) {
			continue // the header, and the targets of tags
		}
		switch {
		case name == want:
			return id, nil
		case strings.HasPrefix(name, want+"/"), strings.HasPrefix(want, name+"/"):
			return "", fmt.Errorf("branch %s cannot exist beside %s", want, name)
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("reading packed-refs: %w", err)
	}
	return "", nil
}

// moveRef moves the branch from old to new, "" meaning no branch, or returns
// ErrMoved.
func (l *Local) moveRef(ctx context.Context, old, new string) error {
	release, err := l.hold(ctx, l.wait)
	if err != nil {
		return err
	}
	defer release()
	if err := l.settle(); err != nil {
		return err
	}
	// Whatever happens from here, lock and draft go. What cannot be removed now
	// is found by the next settle.
	defer func() { _ = l.settle() }()
	if err := writeSynced(l.draft, 0o666, []byte(new+"\n")); err != nil {
		return fmt.Errorf("writing the branch: %w", err)
	}
	// The draft's name must outlive a power cut wherever the lock's name does.
	if err := syncDirs(l.path); err != nil {
		return err
	}
	if err := l.lock(ctx); err != nil {
		return err
	}
	now, err := l.readRef()
	if err != nil {
		return err
	}
	if now != old {
		return ErrMoved
	}
	crashpoint.Before("git.push")
	if err := os.Rename(l.lockPath(), l.refPath()); err != nil {
		return fmt.Errorf("moving the branch: %w", err)
	}
	if err := l.syncRef(); err != nil {
		return err
	}
	crashpoint.After("git.push")
	return nil
}

// lock gives the draft the lock's name.
func (l *Local) lock(ctx context.Context) error {
	return waitFor(ctx, l.wait, l.lockPath(), func() (bool, error) {
		err := os.Link(l.draft, l.lockPath())
		if errors.Is(err, fs.ErrNotExist) {
			// A branch in a folder of its own; git removes such folders
			// when they are empty, so this can happen at any time.
			err = os.MkdirAll(filepath.Dir(l.refPath()), 0o777)
			return false, err
		}
		if errors.Is(err, fs.ErrExist) {
			return false, nil
		}
		return err == nil, err
	})
}

// hold takes the guard, and returns what gives it back.
func (l *Local) hold(ctx context.Context, wait time.Duration) (release func(), err error) {
	f, err := os.OpenFile(l.guard, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o666)
	if err != nil {
		return nil, fmt.Errorf("opening the guard: %w", err)
	}
	err = waitFor(ctx, wait, l.guard, func() (bool, error) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// settle removes our lock, if it is there, and the draft. The caller holds the
// guard, so they are its own, or those of a process that is dead.
func (l *Local) settle() error {
	draft, err := os.Lstat(l.draft)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for our old lock: %w", err)
	}
	if lock, err := os.Lstat(l.lockPath()); err == nil && os.SameFile(draft, lock) {
		if err := os.Remove(l.lockPath()); err != nil {
			return fmt.Errorf("removing our old lock: %w", err)
		}
	}
	// The draft goes last: without it the lock could not be told from another's.
	if err := os.Remove(l.draft); err != nil {
		return fmt.Errorf("removing our old draft: %w", err)
	}
	return nil
}

// recover settles at start. The draft says that a process was at work; if that
// one lives, nothing is done. The branch is synced because a process killed
// between the rename and the sync leaves a value that is read now and could be
// gone after a power cut. A reader without the right to write leaves all as it is.
func (l *Local) recover() error {
	if _, err := os.Lstat(l.draft); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	release, err := l.hold(context.Background(), 0)
	if errors.Is(err, ErrLocked) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	if err := l.syncRef(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.settle()
}

// syncRef makes the branch's name durable, and those of the folders it is in.
func (l *Local) syncRef() error {
	top := filepath.Join(l.path, "refs")
	for dir := filepath.Dir(l.refPath()); dir != top; dir = filepath.Dir(dir) {
		if err := syncDirs(dir); err != nil {
			return err
		}
	}
	return nil
}

// waitFor tries until it is done, the time is over, or ctx ends.
func waitFor(ctx context.Context, wait time.Duration, name string, try func() (bool, error)) error {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		done, err := try()
		if err != nil {
			return fmt.Errorf("locking %s: %w", name, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: waiting for %s: %w", ErrLocked, name, ctx.Err())
		case <-deadline.C:
			return fmt.Errorf("%w: %s is there for longer than %s; if no git command is running, remove it", ErrLocked, name, wait)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
