package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// draftFolder is a folder for what is not yet in a backup. One process at a time has it.
type draftFolder struct {
	path string
	lock *os.File
}

// lockedDraft makes the folder for a state, and clears what a process that died left in it.
func lockedDraft(state string) (*draftFolder, error) {
	path, err := draftPath(state)
	if err != nil {
		return nil, fmt.Errorf("finding a folder for the copy of the store: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making a folder for the copy of the store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("making a folder for the copy of the store: %w; if it is no folder, remove it", err)
	}
	d := &draftFolder{path, f}
	if err := d.takeOver(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// takeOver makes sure that the folder is this process's alone.
func (d *draftFolder) takeOver() error {
	info, err := d.lock.Stat()
	if err != nil {
		return fmt.Errorf("looking at the folder for the copy of the store: %w", err)
	}
	if uid := ownerOf(info); uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is for the copy of the store, and belongs to uid %d: remove it", d.path, uid)
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("another backup is being made: wait until it is done")
	}
	left, err := filepath.Glob(filepath.Join(d.path, "*"))
	for _, file := range left {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		return fmt.Errorf("clearing what an earlier backup left: %w", err)
	}
	return nil
}

// remove takes the folder away; what cannot be removed is cleared by the next backup.
func (d *draftFolder) remove() {
	_ = os.RemoveAll(d.path)
	_ = d.lock.Close()
}

// draftPath is in the state; for root in the nearest folder above where only root can put something else in
// its place, such as a link: the daemon, whose state it is, must not choose what root clears and writes.
func draftPath(state string) (string, error) {
	state, err := filepath.EvalSymlinks(state)
	if err != nil {
		return "", err
	}
	if os.Geteuid() != 0 {
		return filepath.Join(state, ".backup"), nil
	}
	safe := "/"
	for at := "/"; ; {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if !onlyRoots(info) {
			break
		}
		if safe = at; at == state {
			return filepath.Join(state, ".backup"), nil
		}
		next, _, _ := strings.Cut(strings.TrimPrefix(state[len(at):], "/"), "/")
		at = filepath.Join(at, next)
	}
	return filepath.Join(safe, ".chancery-backup"), nil
}

// onlyRoots tells whether nobody but root can exchange what root has in a folder.
func onlyRoots(info fs.FileInfo) bool {
	stat := info.Sys().(*syscall.Stat_t)
	othersWrite := info.Mode().Perm()&0o002 != 0 || info.Mode().Perm()&0o020 != 0 && stat.Gid != 0
	return info.IsDir() && stat.Uid == 0 && (!othersWrite || info.Mode()&fs.ModeSticky != 0)
}

func ownerOf(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
