// Package store is one database: the books (which certificates there are), the log (what happened) and
// the debts (what the world has yet to be told), changed in one transaction.
//
// It may import audit, ca/cert, crashpoint, x/mod's tlog and the database driver. It knows no keys, no
// network and no policy: who may do what is decided above it.
//
// It promises:
//
//   - No write without its record. The only way to change the books is Update, whose function returns
//     the event that says what it did. State, leaf, Merkle nodes and debts commit together or not at
//     all.
//   - When Update returns nil, all of it survives a power cut. When it returns an error, nothing of it
//     was done, except with ErrBroken, after which nobody knows until the process starts again.
//   - Indexes are dense: a change that fails or panics takes none.
//   - Reads see only what is committed.
//
// The process that has a store open must not open the database file in another way: closing any
// descriptor of a file drops the POSIX locks that SQLite holds on it.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// Errors that callers branch on.
var (
	ErrClosed         = errors.New("the store is closed")
	ErrBroken         = errors.New("the store lost its database; the last changes may or may not be in it; restart to find out")
	ErrSerialTaken    = errors.New("the serial number is taken")
	ErrRequestBound   = errors.New("the caller has used this request id before")
	ErrUnknownSerial  = errors.New("no certificate has this serial number")
	ErrNotOpen        = errors.New("the intent is not open any more")
	ErrAlreadyRevoked = errors.New("the certificate is already revoked")
	ErrNotHeld        = errors.New("the certificate is not on hold")
	ErrAbandoned      = errors.New("the certificate was never signed")
	ErrListNumber     = errors.New("the list's number does not follow")
	ErrHole           = errors.New("the log has a hole")
)

// Store is an open database. Its methods are safe for concurrent use.
type Store struct {
	now      func() time.Time
	path     string
	commits  atomic.Int64
	failures atomic.Int64                     // of the engine
	see      func(index int64, e audit.Event) // nil, or who is told of each event

	readOnly bool // OpenReader made it: there is no writer

	queue   chan *job
	closing chan struct{} // closed by Close: start no further batch
	stopped chan struct{} // closed by the writer: nothing runs any more
	once    sync.Once

	// mu is held for writing only while the connections are exchanged, so that nobody reads between
	// an unknown commit and its reconciliation.
	mu     sync.RWMutex
	engine *engine // nil when the store is closed or broken
	gone   error   // why engine is nil

	tree *audit.Tree // of the committed log; belongs to the writer
	head atomic.Pointer[head]

	debts debtors
}

type head struct {
	size int64
	root audit.Hash
}

// Create makes a new database whose first leaves are events, and opens it. The file appears under its
// name only when the leaves are durable in it; an existing file is never touched. The file has mode
// 0600.
func Create(ctx context.Context, path string, now func() time.Time, who audit.Actor, events []audit.Event) (*Store, error) {
	if len(events) == 0 {
		return nil, errors.New("creating a store: a log begins with an event")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return nil, fmt.Errorf("creating the store %s: %w", path, err)
	}
	if err := create(ctx, path, now, who, events); err != nil {
		return nil, fmt.Errorf("creating the store %s: %w", path, err)
	}
	return Open(ctx, path, now)
}

func create(ctx context.Context, path string, now func() time.Time, who audit.Actor, events []audit.Event) error {
	dir := filepath.Dir(path)
	draft, err := os.MkdirTemp(dir, ".new-store-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft)
	file := filepath.Join(draft, "db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := fill(ctx, file, now, who, events); err != nil {
		return err
	}
	// Unlike a rename, a link does not replace what somebody else made meanwhile.
	if err := os.Link(file, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// fill writes the first leaves, and leaves nothing in the WAL, which does not go with the file.
func fill(ctx context.Context, file string, now func() time.Time, who audit.Actor, events []audit.Event) error {
	s, err := open(ctx, file, now, true)
	if err != nil {
		return err
	}
	err = s.run(ctx, &job{scrub: true, change: func(tx *Tx) error {
		for _, event := range events {
			if err := tx.append(who, event); err != nil {
				return err
			}
		}
		return nil
	}})
	return errors.Join(err, s.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open opens a database that Create made. A missing file is an error (fs.ErrNotExist); a newer schema
// or a changed one is ErrSchema.
func Open(ctx context.Context, path string, now func() time.Time) (*Store, error) {
	s, err := open(ctx, path, now, false)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, now func() time.Time, fresh bool) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	e, err := openEngine(ctx, path)
	if err != nil {
		return nil, err
	}
	tree, err := func() (*audit.Tree, error) {
		if err := e.migrate(ctx, sqliteMigrations, fresh); err != nil {
			return nil, err
		}
		tree, err := loadTree(ctx, e.write)
		if err == nil && tree.Size() == 0 && !fresh {
			err = errors.New("the log is empty, so it is not a store that Create made")
		}
		return tree, err
	}()
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	s := &Store{
		now: now, path: path, engine: e,
		queue: make(chan *job, maxBatch), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	s.setTree(tree)
	go s.writer()
	return s, nil
}

// OpenReader opens a database to read it and to check it, also one that Open refuses because the log in
// it is damaged. Every change is refused with ErrClosed, and the head stays the one that the log had.
func OpenReader(ctx context.Context, path string, now func() time.Time) (*Store, error) {
	s, err := openReader(ctx, path, now)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return s, nil
}

func openReader(ctx context.Context, path string, now func() time.Time) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	e, err := openReadEngine(path)
	if err != nil {
		return nil, err
	}
	size, err := func() (int64, error) {
		if done, err := migrated(ctx, e.read, sqliteMigrations); err != nil || done < len(sqliteMigrations) {
			return 0, errors.Join(ErrSchema, err)
		}
		return logSize(ctx, e.read)
	}()
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	h := &head{size: size}
	if tree, err := edgeTree(ctx, e.read, size); err == nil {
		h.root = tree.Root() // otherwise it agrees with nothing, and Check says why
	}
	s := &Store{now: now, path: path, engine: e, closing: make(chan struct{}), stopped: make(chan struct{}), readOnly: true}
	s.head.Store(h)
	close(s.closing)
	close(s.stopped)
	return s, nil
}

// Close waits for the batch in work, answers everybody who still waits with ErrClosed, and closes the
// database.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		if !s.readOnly {
			close(s.closing)
		}
		<-s.stopped
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.engine != nil {
			err = s.engine.close()
			s.engine, s.gone = nil, ErrClosed
		}
	})
	return err
}

// Now is the clock of the store: UTC, whole microseconds.
func (s *Store) Now() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// reading runs f on the read-only connections.
func (s *Store) reading(f func(*statements) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.engine == nil {
		return s.gone
	}
	err := f(s.engine.read)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		s.failures.Add(1)
	}
	return err
}
