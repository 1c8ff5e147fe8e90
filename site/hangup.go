package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// How HangUp can end.
var (
	// ErrStopped: the daemon does not run.
	ErrStopped = errors.New("the daemon does not run")
	// ErrNotTaken: it was told, or could not be, and its log does not say that it took the configuration.
	ErrNotTaken = errors.New("the log does not say that the daemon took the configuration")
)

const reloadWait = 10 * time.Second

// HangUp has the daemon of an installation take its configuration up, and waits until the log says so.
func HangUp(ctx context.Context, c Config) error {
	works, err := worksOn(c.State)
	if err != nil {
		return err
	} else if !works {
		return ErrStopped
	}
	pid, err := daemonOf(c)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotTaken, err)
	}
	from, err := c.logSize(ctx)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return fmt.Errorf("%w: it could not be told: %w", ErrNotTaken, err)
	}
	for end := time.Now().Add(reloadWait); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if taken, err := c.taken(ctx, from); taken || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w within %v", ErrNotTaken, reloadWait)
}

// daemonOf finds the process of the daemon, which is started with the path of its configuration and runs as the user
// whose the store is: anybody can start one that is called the same.
func daemonOf(c Config) (pid int, err error) {
	want, err := filepath.EvalSymlinks(c.Path)
	if err != nil {
		return 0, err
	}
	books, err := os.Stat(c.StorePath())
	if err != nil {
		return 0, err
	}
	owner := books.Sys().(*syscall.Stat_t).Uid
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range all {
		if !runsAs(filepath.Dir(file), owner) {
			continue
		}
		text, err := os.ReadFile(file)
		words := strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00")
		if err != nil || filepath.Base(words[0]) != "chanceryd" { // it may have ended
			continue
		}
		for i, word := range words {
			key, value, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
			if key != "config" {
				continue
			}
			if !joined && i+1 < len(words) {
				value = words[i+1]
			}
			if !filepath.IsAbs(value) {
				cwd, _ := os.Readlink(filepath.Join(filepath.Dir(file), "cwd")) // what is not found is not it
				value = filepath.Join(cwd, value)
			}
			if real, err := filepath.EvalSymlinks(value); err == nil && real == want {
				return strconv.Atoi(filepath.Base(filepath.Dir(file)))
			}
		}
	}
	return 0, fmt.Errorf("no process is chanceryd --config %s", want)
}

// runsAs tells whether a process in /proc was started by a user, also if nobody may look into it.
func runsAs(process string, user uint32) bool {
	status, err := os.ReadFile(filepath.Join(process, "status"))
	return err == nil && bytes.Contains(status, fmt.Appendf(nil, "\nUid:\t%d\t", user))
}

func (c Config) logSize(ctx context.Context) (size int64, err error) {
	s, err := store.OpenReader(ctx, c.StorePath(), time.Now)
	if err != nil {
		return 0, err
	}
	size, _ = s.Head()
	return size, s.Close()
}

// taken tells whether the log says, behind so many leaves, that this configuration was put into force. If another
// command has changed the file since, the daemon may have read it only then.
func (c Config) taken(ctx context.Context, from int64) (taken bool, err error) {
	text, err := readText(c.Path)
	if err != nil {
		return false, err
	}
	now := cert.SHA256(text)
	s, err := store.OpenReader(ctx, c.StorePath(), time.Now)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	size, _ := s.Head()
	err = eachLeaf(ctx, s, from, size, nil, func(_ int64, leaf audit.Leaf) error {
		if e, ok := leaf.Event.(*audit.ConfigReloaded); ok {
			taken = taken || e.To == c.SHA256 || e.To == now
		}
		return nil
	})
	return taken, err
}
