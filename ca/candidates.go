package ca

import (
	"context"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

// finder reads the books: on the store's writer, or beside it.
type finder func(store.Query) ([]store.Certificate, error)

func (a *Authority) finder(ctx context.Context) finder {
	return func(q store.Query) ([]store.Certificate, error) { return a.store.Find(ctx, q) }
}

// maxCandidates is how many certificates of a name are looked at, which is more than one call can hit.
const maxCandidates = 2048

// candidates gives the certificates with a serial, or with one of the names. Of a name with very many it gives the
// newest, and of those only what has not expired; all tells whether that leaves out no other.
func candidates(find finder, now time.Time, serial cert.Serial, names map[cert.Purpose]name.Name, states []store.State) (some []store.Certificate, all bool, err error) {
	if serial != "" {
		some, err = find(store.Query{Serial: serial, States: states})
		return some, true, err
	}
	all = true
	for _, p := range cert.Purposes() {
		n, ok := names[p]
		if !ok {
			continue
		}
		q := store.Query{Purpose: p, Key: n.Key, States: states, Limit: maxCandidates, Newest: true}
		found, err := find(q)
		if err == nil && len(found) == maxCandidates {
			q.ValidAt = now
			found, err = find(q)
		}
		if err != nil {
			return nil, false, err
		}
		some, all = append(some, found...), all && len(found) < maxCandidates
	}
	return some, all, nil
}
