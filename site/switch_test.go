package site

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ldapsync"
)

// watched is a directory that tells how it is used.
type watched struct {
	directory
	path           string
	inside, closed atomic.Int64
	enter, leave   chan struct{} // nil: nobody waits
}

func (w *watched) Find(ctx context.Context, p cert.Purpose, n name.Name) (string, error) {
	w.inside.Add(1)
	defer w.inside.Add(-1)
	if w.enter != nil {
		w.enter <- struct{}{}
		<-w.leave
	}
	if w.closed.Load() > 0 {
		return "", errors.New("asked after it was closed")
	}
	return w.directory.Find(ctx, p, n)
}

func (w *watched) Close() error {
	if n := w.inside.Load(); n > 0 {
		return errors.New("closed while it is asked")
	}
	w.closed.Add(1)
	return w.directory.Close()
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	path := filepath.Join(t.TempDir(), "directory.ldif")
	if err := ldapsync.WriteEmpty(path, "dc=example,dc=org"); err != nil {
		t.Fatal(err)
	}
	d, err := ldapsync.OpenLDIF("ldif://"+path, true, "dc=example,dc=org")
	if err != nil {
		t.Fatal(err)
	}
	return &watched{directory: d, path: path}
}

// TestSwitched: a request ends with the directory that it began with, which is closed behind it, and one that
// hangs holds nobody up.
func TestSwitched(t *testing.T) {
	first, second := newWatched(t), newWatched(t)
	first.enter, first.leave = make(chan struct{}), make(chan struct{})
	s := newSwitched(first)
	var asking sync.WaitGroup
	asking.Go(func() { _, _ = s.Find(t.Context(), cert.User, name.Name{Text: "alice", Key: "alice"}) })
	<-first.enter
	s.replace(second, true)
	_, _ = s.Find(t.Context(), cert.User, name.Name{Text: "alice", Key: "alice"}) // returns
	if first.closed.Load() != 0 {
		t.Error("the directory is closed, and somebody still waits for it")
	}
	for _, want := range []bool{true, false} {
		if sweep, err := s.look(t.Context()); sweep != want || err != nil {
			t.Errorf("another directory is swept once: %v, want %v; %v", sweep, want, err)
		}
	}
	away := second.path + ".away"
	if err := os.Rename(second.path, away); err != nil {
		t.Fatal(err)
	}
	if sweep, err := s.look(t.Context()); sweep || err == nil {
		t.Errorf("it is away: %v, %v", sweep, err)
	}
	if err := os.Rename(away, second.path); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if sweep, err := s.look(t.Context()); sweep != want || err != nil {
			t.Errorf("one that was away is swept once: %v, want %v; %v", sweep, want, err)
		}
	}
	close(first.leave)
	asking.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if first.closed.Load() != 1 || second.closed.Load() != 1 {
		t.Errorf("closed %d and %d times", first.closed.Load(), second.closed.Load())
	}
}

// TestSwitchedUnderLoad: nobody is ever handed a directory that is closed.
func TestSwitchedUnderLoad(t *testing.T) {
	all := []*watched{newWatched(t)}
	s := newSwitched(all[0])
	done := make(chan struct{})
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := s.Find(t.Context(), cert.User, name.Name{Text: "alice", Key: "alice"})
				if err != nil && err.Error() == "asked after it was closed" {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		next := newWatched(t)
		all = append(all, next)
		s.replace(next, false)
	}
	close(done)
	asking.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for n, one := range all {
		if one.closed.Load() != 1 {
			t.Errorf("directory %d was closed %d times", n, one.closed.Load())
		}
	}
}
