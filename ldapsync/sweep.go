package ldapsync

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// pageSize bounds how many certificates a walk over the books holds in memory.
const pageSize = 500

// Drift is an entry that does not hold what the books say, or a name that could not be compared.
type Drift struct {
	Purpose cert.Purpose
	Key     string        // the name's
	Entry   string        // empty if Err is set
	Missing []cert.Serial // live, and not in the entry
	Extra   []cert.Serial // revoked or expired, and still in the entry
	Err     error
}

// Sweep visits every name in the books, owed or not, and so repairs what drifted: certificates that
// have expired, and changes made by others. It tells how many entries it changed, and only these get
// an event. A name that fails is logged and does not stop it; a directory that is down does.
func (l *Loop) Sweep(ctx context.Context) (changed int, err error) {
	failed := 0
	err = l.walk(ctx, func(p place) error {
		visiting, cancel := context.WithTimeout(ctx, visitTime)
		defer cancel()
		events, err := l.visit(visiting, p)
		if err == nil && len(events[0].Added)+len(events[0].Removed) == 0 {
			return nil
		}
		err = errors.Join(err, l.record(ctx, events, nil))
		changed += len(events)
		if err == nil {
			return nil
		}
		failed++
		code := failureCode(err)
		if code == codeDown || code == codeBooks {
			return fmt.Errorf("%s: %w", p, err)
		}
		l.Log.Error("the directory does not say what the books say",
			zap.String("code", code), zap.Stringer("name", p), zap.Error(err))
		return nil
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d names could not be published", failed)
	}
	if err != nil {
		return changed, fmt.Errorf("sweeping the directory: %w", err)
	}
	return changed, nil
}

// Compare tells report about every drift and changes nothing. What is owed just now counts as drift
// too: the caller knows the debts.
func (l *Loop) Compare(ctx context.Context, report func(Drift)) error {
	return l.walk(ctx, func(p place) error {
		tasks, err := l.tasks(ctx, p)
		if err != nil {
			report(Drift{Purpose: p.purpose, Key: p.key, Err: err})
		}
		for _, t := range tasks {
			missing, extra, err := l.compare(ctx, t)
			if err != nil {
				report(Drift{Purpose: p.purpose, Key: p.key, Err: err})
			} else if len(missing)+len(extra) > 0 {
				report(Drift{p.purpose, p.key, t.target.Entry, serials(missing), serials(extra), nil})
			}
		}
		return ctx.Err()
	})
}

// walk calls visit once for each published name of which something was ever signed.
func (l *Loop) walk(ctx context.Context, visit func(place) error) error {
	seen := map[place]bool{}
	q := store.Query{States: []store.State{store.StateLive, store.StateRevoked}, Limit: pageSize}
	for {
		page, err := l.Store.Find(ctx, q)
		if err != nil {
			return fmt.Errorf("%w: %w", errBooks, err)
		}
		for _, c := range page {
			p := place{c.Purpose, c.Key}
			if seen[p] || !isPublished(c.Purpose) {
				continue
			}
			seen[p] = true
			if err := visit(p); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		q.After = page[len(page)-1].Serial
	}
}

// isPublished tells whether certificates of a purpose have a place in a directory.
func isPublished(purpose cert.Purpose) bool { return purpose == cert.User || purpose == cert.Server }
