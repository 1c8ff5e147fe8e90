package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// Objects reads objects out of a go-git storage that somebody else may have
// filled: bounded, checked against the hash, and with go-git's panics turned
// into errors. Safe for concurrent use.
type Objects struct {
	mu   sync.Mutex
	open func() (storer.EncodedObjectStorer, error)
	from storer.EncodedObjectStorer
}

// NewObjects reads from what open returns. It is opened again when an object
// cannot be read, because a storage remembers its packs and another process
// may have added some, or repacked, in the meantime.
func NewObjects(open func() (storer.EncodedObjectStorer, error)) *Objects {
	return &Objects{open: open}
}

// maxOpens is more than one: a repack can also come between the moment when a
// storage lists its packs and the one when it opens them, for each object anew.
const maxOpens = 5

// errTooLarge ends a read at once: opening the storage again does not help.
var errTooLarge = fmt.Errorf("%w: object too large", ErrHostile)

// read returns the content of an object of that kind and of at most limit bytes.
func (o *Objects) read(ctx context.Context, kind plumbing.ObjectType, hash plumbing.Hash, limit int64) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for opened := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if o.from == nil {
			from, err := o.open()
			if err != nil {
				return nil, fmt.Errorf("opening the objects: %w", err)
			}
			o.from = from
			opened++
		}
		content, err := load(o.from, kind, hash, limit)
		if err == nil {
			return content, nil
		}
		if opened == maxOpens || errors.Is(err, errTooLarge) {
			return nil, fmt.Errorf("reading %s %s: %w", kind, hash, err)
		}
		o.from = nil
		time.Sleep(time.Duration(opened) * 5 * time.Millisecond)
	}
}

func load(from storer.EncodedObjectStorer, kind plumbing.ObjectType, hash plumbing.Hash, limit int64) (content []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			content, err = nil, fmt.Errorf("%w: object storage: %v", ErrHostile, p)
		}
	}()
	size, err := from.EncodedObjectSize(hash)
	if err != nil {
		return nil, err
	}
	if size < 0 || size > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", errTooLarge, size, limit)
	}
	object, err := from.EncodedObject(plumbing.AnyObject, hash)
	if err != nil {
		return nil, err
	}
	if object.Type() != kind {
		return nil, fmt.Errorf("%w: it is a %s", ErrHostile, object.Type())
	}
	r, err := object.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) != size {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrHostile, len(content), size)
	}
	if got := plumbing.ComputeHash(kind, content); got != hash {
		return nil, fmt.Errorf("%w: the content has hash %s", ErrHostile, got)
	}
	return content, nil
}

func (o *Objects) tree(ctx context.Context, hash plumbing.Hash) (tree, error) {
	raw, err := o.read(ctx, plumbing.TreeObject, hash, maxTree)
	if err != nil {
		return nil, err
	}
	t, err := parseTree(raw)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", hash, err)
	}
	return t, nil
}

func (o *Objects) commit(ctx context.Context, hash plumbing.Hash) (commit, error) {
	raw, err := o.read(ctx, plumbing.CommitObject, hash, maxCommit)
	if err != nil {
		return commit{}, err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return commit{}, fmt.Errorf("commit %s: %w", hash, err)
	}
	return c, nil
}
