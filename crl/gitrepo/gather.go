package gitrepo

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// kept is what is kept of a repository.
type kept struct {
	storer.EncodedObjectStorer // what is not overridden is never called

	objects map[plumbing.Hash]plumbing.EncodedObject
	large   map[plumbing.Hash]int64 // the size of what is too large to be kept
}

// EncodedObjectSize is of storer.EncodedObjectStorer.
func (k *kept) EncodedObjectSize(hash plumbing.Hash) (int64, error) {
	if size, ok := k.large[hash]; ok {
		return size, nil
	}
	if o := k.objects[hash]; o != nil {
		return o.Size(), nil
	}
	return 0, plumbing.ErrObjectNotFound
}

// EncodedObject is of storer.EncodedObjectStorer.
func (k *kept) EncodedObject(_ plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	if o := k.objects[hash]; o != nil {
		return o, nil
	}
	return nil, plumbing.ErrObjectNotFound
}

// gathering reads out of several storages and keeps what was read.
type gathering struct {
	storer.EncodedObjectStorer // what is not overridden is never called

	from    []storer.EncodedObjectStorer
	kept    *kept
	missing plumbing.Hash // what was looked for in vain
}

// EncodedObjectSize is of storer.EncodedObjectStorer.
func (g *gathering) EncodedObjectSize(hash plumbing.Hash) (int64, error) {
	for _, f := range g.from {
		if size, err := f.EncodedObjectSize(hash); err == nil {
			if size > maxFile {
				g.kept.large[hash] = size
			}
			return size, nil
		}
	}
	g.missing = hash
	return 0, plumbing.ErrObjectNotFound
}

// EncodedObject is of storer.EncodedObjectStorer.
func (g *gathering) EncodedObject(kind plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	for _, f := range g.from {
		o, err := f.EncodedObject(kind, hash)
		if err == nil {
			g.kept.objects[hash] = o
			return o, nil
		}
		if !errors.Is(err, plumbing.ErrObjectNotFound) {
			return nil, err
		}
	}
	g.missing = hash
	return nil, plumbing.ErrObjectNotFound
}

// gather reads once what will be read of the tip, and of the last commit that
// was pushed here, and keeps just that.
func (h *Hosted) gather(ctx context.Context, tip Tip, p *pack, old storer.EncodedObjectStorer) (*known, error) {
	g := &gathering{
		from: []storer.EncodedObjectStorer{p},
		kept: &kept{objects: map[plumbing.Hash]plumbing.EncodedObject{}, large: map[plumbing.Hash]int64{}},
	}
	if old != nil {
		g.from = append(g.from, old)
	}
	reader := NewObjects(func() (storer.EncodedObjectStorer, error) { return g, nil })
	for hash, e := range p.byHash {
		if e.kind == plumbing.CommitObject { // the way back to what was the tip before
			if _, err := reader.commit(ctx, hash); err != nil && !errors.Is(err, ErrHostile) {
				return nil, err
			}
		}
	}
	for _, commit := range []plumbing.Hash{plumbing.NewHash(tip.Commit), h.pushed} {
		if e := p.byHash[commit]; e == nil && commit == h.pushed {
			continue
		}
		if err := h.readAll(ctx, reader, commit); err != nil && !errors.Is(err, ErrHostile) {
			return nil, err
		}
		if g.missing != plumbing.ZeroHash {
			return nil, fmt.Errorf("%w: the server sent no object %s", ErrHostile, g.missing)
		}
	}
	k := &known{tip: tip, from: g.kept}
	k.objects = NewObjects(func() (storer.EncodedObjectStorer, error) { return g.kept, nil })
	return k, nil
}

// readAll reads what Read would. ErrHostile is not for us to judge: Read will
// come upon it again.
func (h *Hosted) readAll(ctx context.Context, o *Objects, commit plumbing.Hash) error {
	c, err := o.commit(ctx, commit)
	if err != nil {
		return err
	}
	r, err := walk(ctx, o, c.tree, h.folder)
	if err != nil {
		return err
	}
	_, err = readFolder(ctx, o, r.end.hash)
	return err
}
