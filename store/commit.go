package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/crashpoint"
)

// maxBatch is how many changes share one commit at most.
const maxBatch = 64

// Update runs change once, on the writer, and enters the event that it returns on the log. The effects
// of change, the leaf, the tree's nodes and the debts commit together or not at all; they are durable
// when Update returns nil. The entry has the index and the bytes of the leaf.
//
// change does no I/O, waits for nothing and calls no Update: every other change waits for it. The
// leaf's time is tx.Now(), its index tx.Index(). An error or a panic of change undoes it alone and is
// returned; so does an event that cannot be encoded.
//
// ctx ends the wait in the queue. Once change has begun, Update returns when its outcome is known.
func (s *Store) Update(ctx context.Context, who audit.Actor, change func(*Tx) (audit.Event, error)) (audit.Entry, error) {
	var entry audit.Entry
	var event audit.Event
	err := s.run(ctx, &job{change: func(tx *Tx) (err error) {
		event, err = change(tx)
		if err != nil {
			return err
		}
		if event == nil {
			return errors.New("a change without an event")
		}
		if err := tx.append(who, event); err != nil {
			return err
		}
		entry = audit.Entry{Index: tx.Index(), Leaf: tx.leaves[0]}
		return nil
	}})
	if err != nil {
		return audit.Entry{}, err
	}
	if s.see != nil {
		s.see(entry.Index, event)
	}
	return entry, nil
}

// job is one change on its way through the writer.
type job struct {
	change func(*Tx) error
	scrub  bool // empty the WAL afterwards: it still holds what this change or an earlier one deleted

	claimed atomic.Bool   // by the writer, which then runs it, or by its owner, who has given up
	done    chan struct{} // closed when err is final
	err     error
}

// run brings a job through the queue and waits for its outcome.
func (s *Store) run(ctx context.Context, j *job) error {
	j.done = make(chan struct{})
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		if j.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
	case <-s.stopped:
	}
	select {
	case <-j.done:
		return j.err
	case <-s.stopped:
	}
	// The writer answers what it has claimed before it stops.
	select {
	case <-j.done:
		return j.err
	default:
		return ErrClosed
	}
}

func (s *Store) writer() {
	defer close(s.stopped)
	for {
		select {
		case <-s.closing:
			return
		case first := <-s.queue:
			runtime.Gosched() // let those whom the last batch answered come along: it halves the commits
			s.serve(s.gather(first))
		}
	}
}

// gather takes what is queued already, without waiting for more.
func (s *Store) gather(first *job) []*job {
	var jobs []*job
	for next := first; ; {
		if next.claimed.CompareAndSwap(false, true) {
			jobs = append(jobs, next)
		}
		if len(jobs) == maxBatch {
			return jobs
		}
		select {
		case next = <-s.queue:
		default:
			return jobs
		}
	}
}

// serve runs one batch and answers all of it. Nobody is answered earlier: a change can have failed
// because of what another one of the batch did, which is true only if that one commits.
func (s *Store) serve(jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	err := s.batch(jobs)
	if err != nil {
		s.failures.Add(1)
	}
	for _, j := range jobs {
		if err != nil {
			j.err = err
		}
		if j.scrub && j.err == nil {
			j.err = s.engine.truncateWAL(scrubWait)
		}
		close(j.done)
	}
}

// batch commits the jobs that succeed, in one transaction. Its error is everybody's.
func (s *Store) batch(jobs []*job) error {
	e := s.engine // only the writer and, after it, Close replace it
	if e == nil {
		return s.gone
	}
	if err := e.begin(); err != nil {
		// Nothing is begun, so nothing is lost with the connection if it is the connection's fault.
		return errors.Join(fmt.Errorf("beginning a transaction: %w", err), s.reopen())
	}
	b := &batch{engine: e, tree: s.tree.Clone(), start: s.tree.Size()}
	err := s.fillBatch(b, jobs)
	if err != nil || !b.wrote {
		if undo := e.rollback(); undo != nil {
			// SQLite has undone the transaction itself, or the connection is of no use. Either way
			// nothing is committed, and what is left of it goes with the connection.
			err = errors.Join(err, s.reopen())
		}
		return err
	}
	crashpoint.Before("store.commit")
	if err := e.commit(); err != nil {
		if err := s.reconcile(b, err); err != nil {
			return err
		}
	}
	crashpoint.After("store.commit")
	s.commits.Add(1)
	s.setTree(b.tree)
	s.debts.tell(b.owed, b.paid)
	return nil
}

// batch is one transaction in the making.
type batch struct {
	engine *engine
	tree   *audit.Tree // of the log before it, then with its leaves
	start  int64       // size of the log before it
	leaves [][]byte
	owed   []Topic
	paid   []Debt
	wrote  bool
}

// fillBatch runs the changes and inserts their leaves. Its error is that of the whole transaction.
func (s *Store) fillBatch(b *batch, jobs []*job) error {
	if err := s.catchUp(b); err != nil {
		return err
	}
	if len(jobs) == 1 {
		s.perform(b, jobs[0]) // if it fails, nothing is kept of the transaction
	} else {
		for _, j := range jobs {
			if err := s.attempt(b, j); err != nil {
				return err
			}
		}
	}
	for rest := b.leaves; len(rest) > 0; {
		n := min(len(rest), maxBatch)
		if err := b.engine.insertLeaves(b.tree, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// catchUp takes up the log where another process left it: only under the write lock is its size known.
func (s *Store) catchUp(b *batch) error {
	size, err := logSize(context.Background(), b.engine.write)
	if err != nil {
		return err
	}
	if size == b.start {
		return nil
	}
	if b.tree, err = loadTree(context.Background(), b.engine.write); err != nil {
		return err
	}
	b.start = size
	return nil
}

// attempt runs one change inside a savepoint. It returns an error only if the transaction is lost.
func (s *Store) attempt(b *batch, j *job) error {
	if err := b.engine.do("SAVEPOINT change"); err != nil {
		return fmt.Errorf("setting a savepoint: %w", err)
	}
	s.perform(b, j)
	if j.err != nil {
		// If an error inside change made SQLite undo the whole transaction, this fails, and so does
		// the batch: what ran before it is gone as well.
		if err := b.engine.do("ROLLBACK TO change"); err != nil {
			return fmt.Errorf("undoing a change that failed (%w): %w", j.err, err)
		}
	}
	if err := b.engine.do("RELEASE change"); err != nil {
		return fmt.Errorf("releasing a savepoint: %w", err)
	}
	return nil
}

// perform runs one change and takes up what it did, or leaves its error in j. What a failing one wrote is still there.
func (s *Store) perform(b *batch, j *job) {
	tx := &Tx{write: b.engine.write, now: s.Now(), index: b.start + int64(len(b.leaves))}
	j.err = guard(tx, j.change)
	if j.err == nil {
		j.err = tx.err
	}
	tx.err = errTxOver
	if j.err == nil {
		b.leaves = append(b.leaves, tx.leaves...)
		b.owed = append(b.owed, tx.owed...)
		b.paid = append(b.paid, tx.paid...)
		b.wrote = b.wrote || tx.wrote || len(tx.leaves) > 0
	}
}

// guard turns a panic of a change into its error.
func guard(tx *Tx, change func(*Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a change panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return change(tx)
}

// setTree publishes the committed log's head.
func (s *Store) setTree(tree *audit.Tree) {
	s.tree = tree
	s.head.Store(&head{tree.Size(), tree.Root()})
}

// reopen exchanges the connections for new ones, or leaves the store broken. The last connection of
// the process to close gives up what is in the WAL without being committed.
func (s *Store) reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	closing := s.engine.close()
	s.engine, s.gone = nil, ErrBroken
	e, err := openEngine(context.Background(), s.path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, errors.Join(closing, err))
	}
	s.engine = e
	return nil
}

// reconcile finds out what became of a commit that failed: an error of the disk can come after the
// transaction has reached it. It returns nil if the batch is there, and durable.
//
// All connections are closed before the log is read again, so that SQLite recovers from the WAL what a
// crash would leave. What it finds there is then written to the database and synced, since the page
// cache may show what a failed sync did not keep. What it does not find is not complete in the WAL,
// and the next transaction overwrites it.
func (s *Store) reconcile(b *batch, failure error) error {
	failure = fmt.Errorf("committing: %w", failure)
	if err := s.reopen(); err != nil {
		return fmt.Errorf("%w: %w", failure, err)
	}
	kept := s.engine.truncateWAL(busyWait)
	tree, err := loadTree(context.Background(), s.engine.write)
	switch {
	case err == nil && tree.Size() == b.start:
		return failure
	case err == nil && kept == nil && tree.Size() == b.tree.Size() && tree.Root() == b.tree.Root():
		return nil
	case err == nil:
		err = fmt.Errorf("the log has %d leaves; %d before the commit, %d with it", tree.Size(), b.start, b.tree.Size())
	}
	s.breakUp()
	return fmt.Errorf("%w: %w: %w", ErrBroken, failure, errors.Join(err, kept))
}

// breakUp leaves the store without a database until the process starts again.
func (s *Store) breakUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		_ = s.engine.close() // it is given up
		s.engine = nil
	}
	s.gone = ErrBroken
}
