package ldapsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

const (
	atOnce = 8 // names visited at the same time

	// A visit ends well before its lease does, so that nobody else starts on the name meanwhile, even if
	// it had to wait until another one ended.
	visitTime = 30 * time.Second
	leaseTime = 90 * time.Second

	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	pollEvery  = time.Second // for debts whose next attempt is due, which nothing announces
)

// The codes under which failures are logged. An operator's alarm is bound to one of them, so they
// never change.
const (
	codeDown        = "directory.down"
	codeNoEntry     = "directory.no_entry"
	codeManyEntries = "directory.many_entries"
	codeRefused     = "directory.refused"
	codeReadBack    = "directory.read_back"
	codeBooks       = "directory.books"
	codeDebt        = "directory.debt"
)

// errDebt says that a debt does not name a place of the directory. Trying again would not help.
var errDebt = errors.New("want purpose/name of a published purpose")

// Loop pays what is owed to the directory.
type Loop struct {
	Store     *store.Store
	Directory Directory
	Log       *zap.Logger
	Now       func() time.Time
}

// Run pays until ctx ends, which is no error, or the store is lost. When it returns, no visit is under
// way.
func (l *Loop) Run(ctx context.Context) error {
	var visits sync.WaitGroup
	defer visits.Wait()
	free := make(chan struct{}, atOnce) // one for each visit that may start
	for range atOnce {
		free <- struct{}{}
	}
	ended := make(chan struct{}, 1)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var leased []store.Debt // several with one commit, and no visit of them has started
	for {
		if len(leased) == 0 {
			var err error
			leased, err = l.lease(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrBroken) {
				return err
			}
			if err != nil {
				l.Log.Error("cannot read what is owed to the directory", zap.String("code", codeBooks), zap.Error(err))
			}
		}
		for len(leased) > 0 && len(free) > 0 {
			d := leased[0]
			leased = leased[1:]
			<-free
			visits.Go(func() {
				_ = l.pay(ctx, d) // logged and postponed there
				free <- struct{}{}
				select {
				case ended <- struct{}{}:
				default:
				}
			})
		}
		select {
		case <-ended:
		case <-l.Store.Wake(store.Directory):
		case <-poll.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Loop) lease(ctx context.Context) ([]store.Debt, error) {
	return l.Store.Lease(ctx, store.Directory, atOnce, l.Now().Add(leaseTime))
}

// PayOnce pays everything that is due, until a visit fails, and tells how many debts it paid.
func (l *Loop) PayOnce(ctx context.Context) (paid int, err error) {
	for {
		debts, err := l.lease(ctx)
		if err != nil || len(debts) == 0 {
			return paid, err
		}
		results := make([]error, len(debts))
		var visits sync.WaitGroup
		for i, d := range debts {
			visits.Go(func() { results[i] = l.pay(ctx, d) })
		}
		visits.Wait()
		for _, err := range results {
			if err == nil {
				paid++
			}
		}
		if err := errors.Join(results...); err != nil {
			return paid, err
		}
	}
}

// pay visits the place of a debt. A failure is logged and the debt postponed; the debt itself goes
// only with the event that says that it was paid.
func (l *Loop) pay(ctx context.Context, d store.Debt) error {
	err := l.tryPay(ctx, d)
	if err == nil || ctx.Err() != nil { // the next process takes the lease over
		return err
	}
	next := l.Now().Add(backoff(d.Attempts, rand.N))
	if errors.Is(err, errDebt) {
		next = time.Time{}
	}
	l.Log.Error("the directory does not say what the books say",
		zap.String("code", failureCode(err)), zap.String("debt", d.Key), zap.Int("attempts", d.Attempts+1),
		zap.Time("since", d.Since), zap.Time("next", next), zap.Error(err))
	err = fmt.Errorf("paying the directory for %s: %w", d.Key, err)
	return errors.Join(err, l.Store.Postpone(ctx, d, next, failureCode(err)+": "+err.Error()))
}

func (l *Loop) tryPay(ctx context.Context, d store.Debt) error {
	p, err := parsePlace(d.Key)
	if err != nil {
		return err
	}
	visiting, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	events, err := l.visit(visiting, p)
	if err != nil {
		return errors.Join(err, l.record(ctx, events, nil))
	}
	return l.record(ctx, events, &d)
}

// record enters what was done on the log; the debt is paid together with the last event. It is done
// even if ctx has ended: the directory has changed already.
func (l *Loop) record(ctx context.Context, events []*audit.DirectoryPublished, d *store.Debt) error {
	for i, event := range events {
		_, err := l.Store.Update(context.WithoutCancel(ctx), audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
			if d != nil && i == len(events)-1 {
				return event, tx.Paid(*d)
			}
			return event, nil
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errBooks, err)
		}
	}
	return nil
}

func parsePlace(key string) (place, error) {
	word, rest, _ := strings.Cut(key, "/")
	purpose, err := cert.ParsePurpose(word)
	if err != nil || !isPublished(purpose) || rest == "" {
		return place{}, fmt.Errorf("debt %.80q: %w", key, errDebt)
	}
	return place{purpose, rest}, nil
}

// backoff spreads the attempts of many debts: a random time up to a bound that doubles with each
// failure, but never less than a second nor more than five minutes.
func backoff(attempts int, random func(time.Duration) time.Duration) time.Duration {
	bound := lastRetry
	if attempts < 8 {
		bound = firstRetry << (attempts + 1)
	}
	return firstRetry + random(bound-firstRetry)
}

func failureCode(err error) string {
	for _, c := range []struct {
		is   error
		code string
	}{
		{errDebt, codeDebt}, {errBooks, codeBooks}, {errUnstable, codeBooks}, {errReadBack, codeReadBack},
		{ErrRefused, codeRefused}, {ErrManyEntries, codeManyEntries}, {ErrNoEntry, codeNoEntry},
	} {
		if errors.Is(err, c.is) {
			return c.code
		}
	}
	return codeDown
}
