package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// Observe has see called with each event that is entered from now on and the index of its leaf, after the
// commit and before Update returns, by the caller of Update. It is set once, before the first change.
func (s *Store) Observe(see func(index int64, e audit.Event)) { s.see = see }

// Failures tells how often the engine has failed since the store was opened: transactions that were lost,
// and reads. A change that was refused is none.
func (s *Store) Failures() int64 { return s.failures.Load() }

// Ping takes a turn on the writer and changes nothing. It returns nil if a change would get as far as its
// commit, and ErrBroken, ErrClosed, the engine's error, or ctx.Err() if it has to wait too long.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.run(ctx, &job{change: func(*Tx) error { return nil }}); err != nil {
		return fmt.Errorf("asking the store: %w", err)
	}
	return nil
}

// Backlog is what is owed of one topic.
type Backlog struct {
	Debts   int64
	Failing int64     // of Debts: visited without success, and to be visited again
	Parked  int64     // of Debts: not visited until somebody owes them again
	Oldest  time.Time // when the oldest unpaid change was made; zero if nothing is owed
}

// Backlogs sums up what is owed. Its time grows with the number of debts, not of certificates.
func (s *Store) Backlogs(ctx context.Context) (map[Topic]Backlog, error) {
	all := map[Topic]Backlog{Directory: {}, CRL: {}}
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			var topic Topic
			var b Backlog
			var oldest int64
			err := rows.Scan(&topic, &b.Debts, &b.Failing, &b.Parked, &oldest)
			b.Oldest = fromMicros(oldest)
			all[topic] = b
			return err
		}, "SELECT topic, count(*), sum(attempts > 0 AND parked = 0), sum(parked), min(since) FROM debt GROUP BY topic")
	})
	if err != nil {
		return nil, fmt.Errorf("summing up what is owed: %w", err)
	}
	return all, nil
}
