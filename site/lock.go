package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrRuns says that another process works on the state, the daemon as a rule.
var ErrRuns = errors.New("another process works on it: stop the daemon first")

// lockFile is in the folder of the state.
const lockFile = "lock"

// lockState makes sure that one process at a time works on a store. Closing the file frees it, and so
// does the end of the process. A missing folder is an error: state is never made anew.
func lockState(state string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(state, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", state, ErrRuns), f.Close())
	}
	return f, nil
}

// worksOn tells whether a process holds the lock of the state. The look is a shared lock, which ends at
// once.
func worksOn(state string) (bool, error) {
	f, err := os.Open(filepath.Join(state, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // no store was ever opened here, and checkDisk tells of a missing folder
	} else if err != nil {
		return false, fmt.Errorf("looking at the lock: %w", err)
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	} else if err != nil {
		return false, fmt.Errorf("looking at the lock: %w", err)
	}
	return false, nil
}
