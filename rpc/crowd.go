package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/store"
)

// crowd folds what anybody could do any number of times into one record per cause and minute. Causes are
// a small fixed set, and callers are configured, so it is bounded whatever comes.
type crowd struct {
	store *store.Store
	log   *zap.Logger
	now   func() time.Time

	mu     sync.Mutex
	counts map[tally]int64
}

type tally struct {
	cause  string
	caller string // who made too many calls, or was refused too often; "" for a stranger
	minute time.Time
}

func newCrowd(st *store.Store, log *zap.Logger, now func() time.Time) *crowd {
	return &crowd{store: st, log: log, now: now, counts: make(map[tally]int64)}
}

func (c *crowd) stranger(cause string) { c.add(tally{cause: cause, minute: c.minute()}, 1) }

// Causes that are no codes of answers.
const (
	rateLimited = "rate.limited"
	answersHeld = "answers.held"
)

func (c *crowd) tooFast(caller string) { c.repeated(caller, rateLimited) }

// repeated counts a refusal that is not entered by itself. Codes are a closed set.
func (c *crowd) repeated(caller, code string) {
	c.add(tally{cause: code, caller: caller, minute: c.minute()}, 1)
}

func (c *crowd) minute() time.Time { return c.now().UTC().Truncate(time.Minute) }

func (c *crowd) add(t tally, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[t] += n
}

const foldTime = 5 * time.Second // how often full minutes are looked for

// run enters every minute that is over, until ctx ends.
func (c *crowd) run(ctx context.Context) {
	tick := time.NewTicker(foldTime)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.flush(ctx, c.minute())
		if err != nil && !failing && ctx.Err() == nil {
			c.log.Error("counts of those turned away are not on the log yet", zap.Error(err))
		}
		failing = err != nil
	}
}

// flush enters the counts of the minutes before a time.
func (c *crowd) flush(ctx context.Context, before time.Time) error {
	var failed error
	for _, t := range c.due(before) {
		n := c.take(t)
		if _, err := c.store.Update(ctx, t.actor(), func(*store.Tx) (audit.Event, error) { return t.event(n), nil }); err != nil {
			c.putBack(t, n)
			failed = fmt.Errorf("entering those turned away: %w", err)
		}
	}
	return failed
}

func (c *crowd) due(before time.Time) []tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := slices.DeleteFunc(slices.Collect(maps.Keys(c.counts)), func(t tally) bool { return !t.minute.Before(before) })
	slices.SortFunc(due, func(a, b tally) int {
		return strings.Compare(a.minute.Format(time.RFC3339)+a.cause+a.caller, b.minute.Format(time.RFC3339)+b.cause+b.caller)
	})
	return due
}

func (c *crowd) take(t tally) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[t]
	delete(c.counts, t)
	return n
}

// putBack keeps a count that could not be entered. While nothing can be, what has the same cause is
// counted under its oldest minute, or a long outage would fill the memory.
func (c *crowd) putBack(t tally, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.counts {
		if other.cause == t.cause && other.caller == t.caller && other.minute.Before(t.minute) {
			t = other
		}
	}
	c.counts[t] += n
}

func (t tally) actor() audit.Actor {
	if t.caller != "" {
		return audit.Actor{Kind: audit.ByCaller, Name: t.caller}
	}
	return audit.Actor{Kind: audit.ByStranger}
}

func (t tally) event(n int64) audit.Event {
	minute := t.minute.Format(time.RFC3339)
	switch {
	case t.caller == "":
	case t.cause == rateLimited:
		return &audit.RequestRefused{Code: t.cause, Count: n, Reason: fmt.Sprintf("%d calls beyond the caller's rate in the minute from %s", n, minute)}
	case t.cause == answersHeld:
		return &audit.RequestRefused{Code: t.cause, Count: n, Reason: fmt.Sprintf("%d calls in the minute from %s without a place beside the large answers that are made or not read", n, minute)}
	default:
		return &audit.RequestRefused{Code: t.cause, Count: n, Reason: fmt.Sprintf("%d more in the minute from %s, of a caller that was refused too often to enter each", n, minute)}
	}
	return &audit.StrangersTurnedAway{Cause: t.cause, Minute: t.minute, Count: n}
}
