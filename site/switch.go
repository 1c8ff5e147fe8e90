package site

import (
	"context"
	"sync"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ldapsync"
)

// switched is the directory of the configuration that is in force. A request ends with the directory that
// it began with, which is closed behind the last one.
type switched struct {
	mu      sync.Mutex
	now     *opened
	other   bool // nobody has looked at the directory since it became this one
	away    bool // it was not there when somebody looked last
	leaving sync.WaitGroup
}

type opened struct {
	directory
	users sync.WaitGroup
}

func newSwitched(first directory) *switched {
	_, servers := first.(*ldapsync.LDAP) // servers may have been put back while the service was away
	return &switched{now: &opened{directory: first}, other: servers}
}

// replace puts another directory in the place of the one before.
func (s *switched) replace(next directory, other bool) {
	s.mu.Lock()
	before := s.now
	s.now = &opened{directory: next}
	s.other = s.other || other
	s.mu.Unlock()
	s.leaving.Go(func() {
		before.users.Wait()
		_ = before.Close() // nothing is asked of it any more
	})
}

func (s *switched) use() (d *opened, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.users.Add(1)
	return s.now, s.now.users.Done
}

// look tells whether the directory is there, and keeps the connection to LDAP servers. It has to be swept if it is
// another one, or was away. The error says that it is.
func (s *switched) look(ctx context.Context) (sweep bool, err error) {
	d, done := s.use()
	defer done()
	err = d.Check(ctx)
	if servers, ok := d.directory.(*ldapsync.LDAP); ok {
		select {
		case <-servers.Reconnected():
			sweep = true
		default:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sweep, s.other = sweep || s.other || s.away && err == nil, false
	s.away = err != nil
	return sweep, err
}

// Find implements ldapsync.Directory.
func (s *switched) Find(ctx context.Context, purpose cert.Purpose, n name.Name) (string, error) {
	d, done := s.use()
	defer done()
	return d.Find(ctx, purpose, n)
}

// Read implements ldapsync.Directory.
func (s *switched) Read(ctx context.Context, t ldapsync.Target) ([][]byte, error) {
	d, done := s.use()
	defer done()
	return d.Read(ctx, t)
}

// Apply implements ldapsync.Directory.
func (s *switched) Apply(ctx context.Context, t ldapsync.Target, add, remove [][]byte) error {
	d, done := s.use()
	defer done()
	return d.Apply(ctx, t, add, remove)
}

// Close closes the directory, when nothing goes on in those before it any more.
func (s *switched) Close() error {
	s.leaving.Wait()
	return s.now.Close()
}
