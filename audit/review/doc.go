// Package review is what a reviewer of the log uses: Verify proves or disproves it against what every
// clone of the configuration repository has seen, and Show tells what it says.
//
// It imports audit, ca/cert, store, crl/list, crl/gitrepo and x/mod's tlog. It reads and never writes.
// The log key comes from the reviewer; the store, the repository and everything in them are untrusted
// input.
package review

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/store"
)

// Log is a log in a store, which may be anybody's.
type Log interface {
	// Head is the number of leaves and the root over them.
	Head() (int64, audit.Hash)
	// Leaves gives the leaves at [from, to), all of them or an error. One that is not there is store.ErrHole.
	Leaves(ctx context.Context, from, to int64) ([][]byte, error)
	// Root is the root that the store keeps for the log when it was size leaves long, or store.ErrHole.
	Root(ctx context.Context, size int64) (audit.Hash, error)
}

// pageSize is how many leaves are in memory at once.
const pageSize = 256

// LeafMissing is the code of the contradiction that a leaf is gone and later ones are there.
const LeafMissing = "leaf.missing"

// pages calls each with the leaves before size, some at a time. A leaf that is missing is a
// contradiction, once the leaves before it have been given.
func pages(ctx context.Context, log Log, size int64, each func(from int64, leaves [][]byte) error) error {
	for from := int64(0); from < size; {
		to := min(size, from+pageSize)
		leaves, err := log.Leaves(ctx, from, to)
		for errors.Is(err, store.ErrHole) && to > from+1 {
			to = (from + to) / 2
			leaves, err = log.Leaves(ctx, from, to)
		}
		if errors.Is(err, store.ErrHole) {
			return contradiction(from, LeafMissing, "there are %d leaves, and this one is not among them", size)
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		if err := each(from, leaves); err != nil {
			return err
		}
		from = to
	}
	return nil
}
