package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Topic is a kind of place that the world is told things at. A debt says that the place named by its
// key may not show what the books say; what to write there is read from the books when it is paid.
type Topic string

// The topics.
const (
	Directory Topic = "directory" // key: purpose/name key
	CRL       Topic = "crl"       // key: issuer
)

// Debt is one place that is owed a visit.
type Debt struct {
	Topic      Topic
	Key        string
	Generation int64     // index of the newest leaf that owed it
	Since      time.Time // when the oldest unpaid change was made
	Attempts   int       // visits that failed
	NextAt     time.Time // not before
	LastError  string
	Parked     bool // no further visit until somebody owes it again

	lease int64 // which lease this is, so that a late holder cannot end another one's
}

// Owe says that a place has to be visited. Owed again, the debt gets a new generation and is due at
// once, postponed or parked as it may be. A visit under way keeps its lease, because two visits of
// one place could overwrite each other in the wrong order: the debt is due as soon as that one ends.
func (tx *Tx) Owe(t Topic, key string) (Debt, error) {
	var owed []Debt
	err := tx.rows(collectDebts(&owed), `INSERT INTO debt (topic, name, generation, oldest, since, next_at)
		VALUES ($1, $2, $3, $3, $4, $4)
		ON CONFLICT (topic, name) DO UPDATE SET generation = $3, next_at = $4, parked = 0,
			attempts = CASE WHEN debt.parked = 1 THEN 0 ELSE debt.attempts END
		RETURNING `+debtColumns, t, key, tx.index, micros(tx.now))
	if err == nil && len(owed) != 1 {
		err = fmt.Errorf("%d rows", len(owed))
	}
	if err != nil {
		return Debt{}, fmt.Errorf("owing %s %s: %w", t, key, err)
	}
	tx.wrote = true
	tx.owed = append(tx.owed, t)
	owed[0].lease = 0
	return owed[0], nil
}

// Paid says that the place shows what the books said when d was leased. The debt is deleted only if
// it still has that generation; otherwise it stays for the changes that came later, and is due.
func (tx *Tx) Paid(d Debt) error {
	tx.paid = append(tx.paid, d)
	n, err := tx.exec("DELETE FROM debt WHERE topic = $1 AND name = $2 AND generation = $3", d.Topic, d.Key, d.Generation)
	if err == nil && n == 0 {
		n, err = tx.exec(`UPDATE debt SET oldest = $1 + 1, since = $2, attempts = 0, last_error = '',
			leased_until = CASE WHEN leased_until = $3 THEN 0 ELSE leased_until END
			WHERE topic = $4 AND name = $5 AND oldest <= $1 AND generation > $1`,
			d.Generation, micros(tx.now), d.lease, d.Topic, d.Key)
		if n > 0 {
			tx.owed = append(tx.owed, d.Topic)
		}
	}
	if err != nil {
		return fmt.Errorf("paying %s %s: %w", d.Topic, d.Key, err)
	}
	return nil
}

// Lease gives up to n debts that are due and nobody else visits before until, those due longest first.
func (s *Store) Lease(ctx context.Context, t Topic, n int, until time.Time) ([]Debt, error) {
	var leased []Debt
	err := s.run(ctx, &job{change: func(tx *Tx) error {
		err := tx.rows(collectDebts(&leased), `UPDATE debt SET leased_until = $1 WHERE topic = $2 AND name IN (
			SELECT name FROM debt WHERE topic = $2 AND parked = 0 AND next_at <= $3 AND leased_until <= $3
			ORDER BY next_at, name LIMIT `+strconv.Itoa(n)+`) RETURNING `+debtColumns, micros(until), t, micros(tx.now))
		tx.wrote = len(leased) > 0
		return err
	}})
	if err != nil {
		return nil, fmt.Errorf("leasing debts of %s: %w", t, err)
	}
	slices.SortFunc(leased, func(a, b Debt) int {
		return cmp.Or(a.NextAt.Compare(b.NextAt), cmp.Compare(a.Key, b.Key))
	})
	return leased, nil
}

// Postpone ends a lease after a visit that failed: the debt is due again at next, or, if next is
// zero, parked until somebody owes it anew. A debt that was owed again during the visit is due at
// once. A lease that has run out and was given to another holder is left alone.
func (s *Store) Postpone(ctx context.Context, d Debt, next time.Time, why string) error {
	err := s.run(ctx, &job{change: func(tx *Tx) error {
		var generation int64
		err := tx.rows(func(rows *sql.Rows) error {
			tx.wrote = true
			return rows.Scan(&generation)
		}, `UPDATE debt SET attempts = attempts + 1, last_error = $1, leased_until = 0,
			next_at = CASE WHEN generation = $2 AND $3 <> 0 THEN $3 ELSE next_at END,
			parked = CASE WHEN generation = $2 AND $3 = 0 THEN 1 ELSE 0 END
			WHERE topic = $4 AND name = $5 AND leased_until = $6 RETURNING generation`,
			why, d.Generation, micros(next), d.Topic, d.Key, d.lease)
		if generation > d.Generation {
			tx.owed = append(tx.owed, d.Topic)
		}
		return err
	}})
	if err != nil {
		return fmt.Errorf("postponing %s %s: %w", d.Topic, d.Key, err)
	}
	return nil
}

// FreeLeases ends every lease: for a process that starts and knows that it is the only one, so that
// what its predecessor was at when it died is due at once.
func (s *Store) FreeLeases(ctx context.Context) error {
	err := s.run(ctx, &job{change: func(tx *Tx) error {
		_, err := tx.exec("UPDATE debt SET leased_until = 0 WHERE leased_until <> 0")
		tx.owed = append(tx.owed, Directory, CRL)
		return err
	}})
	if err != nil {
		return fmt.Errorf("freeing leases: %w", err)
	}
	return nil
}

// Hurry makes everything that waits after a failed visit due at once, but not what is parked.
func (s *Store) Hurry(ctx context.Context) error {
	err := s.run(ctx, &job{change: func(tx *Tx) error {
		_, err := tx.exec("UPDATE debt SET next_at = $1 WHERE next_at > $1 AND parked = 0", micros(tx.now))
		tx.owed = append(tx.owed, Directory, CRL)
		return err
	}})
	if err != nil {
		return fmt.Errorf("hurrying debts: %w", err)
	}
	return nil
}

// Debts gives everything that is owed, by topic and key.
func (s *Store) Debts(ctx context.Context) ([]Debt, error) {
	var debts []Debt
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, collectDebts(&debts), "SELECT "+debtColumns+" FROM debt ORDER BY topic, name")
	})
	if err != nil {
		return nil, fmt.Errorf("reading what is owed: %w", err)
	}
	for i := range debts {
		debts[i].lease = 0 // to look at a debt is not to hold it
	}
	return debts, nil
}

// Owed gives the debt of one place; false if nothing is owed there.
func (s *Store) Owed(ctx context.Context, t Topic, key string) (Debt, bool, error) {
	var debts []Debt
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, collectDebts(&debts), "SELECT "+debtColumns+" FROM debt WHERE topic = $1 AND name = $2", t, key)
	})
	if err != nil || len(debts) == 0 {
		return Debt{}, false, err
	}
	return debts[0], true, nil
}

const debtColumns = "topic, name, generation, since, attempts, next_at, last_error, parked, leased_until"

func collectDebts(debts *[]Debt) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var d Debt
		var since, next int64
		err := rows.Scan(&d.Topic, &d.Key, &d.Generation, &since, &d.Attempts, &next, &d.LastError, &d.Parked, &d.lease)
		d.Since, d.NextAt = fromMicros(since), fromMicros(next)
		*debts = append(*debts, d)
		return err
	}
}

// debtors are those who wait for debts: the loops that pay them and the calls that want to see one
// paid. Nothing here outlives its waiter.
type debtors struct {
	mu    sync.Mutex
	wakes map[Topic]chan struct{}
	waits map[place]map[chan struct{}]int64 // to the generation waited for
}

type place struct {
	topic Topic
	key   string
}

// Wake gives the channel that receives after a commit that owes t. It holds one value: a loop that was
// busy learns once that there is more. One loop listens to a topic.
func (s *Store) Wake(t Topic) <-chan struct{} { return s.debts.wake(t) }

func (w *debtors) wake(t Topic) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wakes == nil {
		w.wakes = make(map[Topic]chan struct{})
	}
	if w.wakes[t] == nil {
		w.wakes[t] = make(chan struct{}, 1)
	}
	return w.wakes[t]
}

// tell passes on what a commit did.
func (w *debtors) tell(owed []Topic, paid []Debt) {
	for _, t := range owed {
		select {
		case w.wake(t) <- struct{}{}:
		default:
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range paid {
		for c, generation := range w.waits[place{d.Topic, d.Key}] {
			if generation <= d.Generation {
				close(c)
				w.forget(place{d.Topic, d.Key}, c)
			}
		}
	}
}

func (w *debtors) wait(p place, generation int64) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits == nil {
		w.waits = make(map[place]map[chan struct{}]int64)
	}
	if w.waits[p] == nil {
		w.waits[p] = make(map[chan struct{}]int64)
	}
	c := make(chan struct{})
	w.waits[p][c] = generation
	return c
}

// forget is called with mu held.
func (w *debtors) forget(p place, c chan struct{}) {
	delete(w.waits[p], c)
	if len(w.waits[p]) == 0 {
		delete(w.waits, p)
	}
}

// AwaitPaid returns nil when the debt is paid at d.Generation or a later one, ctx.Err() when ctx ends
// first, and ErrClosed when the store does.
func (s *Store) AwaitPaid(ctx context.Context, d Debt) error {
	p := place{d.Topic, d.Key}
	paid := s.debts.wait(p, d.Generation) // before looking, or a payment in between is missed
	defer func() {
		s.debts.mu.Lock()
		defer s.debts.mu.Unlock()
		s.debts.forget(p, paid)
	}()
	owed := false
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			var oldest int64
			err := rows.Scan(&oldest)
			owed = oldest <= d.Generation
			return err
		}, "SELECT oldest FROM debt WHERE topic = $1 AND name = $2", d.Topic, d.Key)
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("looking up the debt %s %s: %w", d.Topic, d.Key, err)
	}
	if !owed {
		return nil
	}
	select {
	case <-paid:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}
