package gitrepo

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Commit is a commit that changed the folder. Anybody may have made it.
type Commit struct {
	Hash    string // 40 lower-case hex digits
	Parents []string
	Time    time.Time // the committer's, UTC, as claimed
	Message string

	objects *Objects
	root    plumbing.Hash
	folder  []string
}

// Trailer returns the value of a trailer "key: value" in the message's last
// paragraph, "" if there is none.
func (c *Commit) Trailer(key string) string {
	text := strings.TrimRight(c.Message, "\n")
	last := strings.LastIndex(text, "\n\n")
	if last < 0 {
		return "" // the subject is no trailer
	}
	for line := range strings.SplitSeq(text[last:], "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && name == key {
			return value
		}
	}
	return ""
}

// File returns a file of the folder as of this commit; false if there is none.
func (c *Commit) File(ctx context.Context, path string) ([]byte, bool, error) {
	below, err := splitPath(path)
	if err != nil {
		return nil, false, err
	}
	return readFile(ctx, c.objects, c.root, append(c.folder[:len(c.folder):len(c.folder)], below...))
}

// past is a commit on the walk.
type past struct {
	hash     plumbing.Hash
	parents  []plumbing.Hash
	time     time.Time
	folder   entry // what the folder's path leads to
	children int   // not visited yet
}

// History calls each for every commit that changed the folder, newest first
// and never a commit before its descendants, until each returns an error, which
// is returned as it is. All parents of merges are followed. A merge is shown
// only if its folder is that of none of its parents; one that takes an older
// side whole is therefore not shown: compare the tip with the newest commit.
func History(ctx context.Context, from Remote, folder string, each func(*Commit) error) error {
	names, err := splitPath(folder)
	if err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	tip, objects, err := from.FetchAll(ctx)
	if err != nil {
		return fmt.Errorf("reading the branch: %w", err)
	}
	if tip.Commit == "" {
		return nil
	}
	start := plumbing.NewHash(tip.Commit)
	all, err := collect(ctx, objects, start, names)
	if err != nil {
		return fmt.Errorf("reading the history: %w", err)
	}
	ready := &newest{all[start]}
	for ready.Len() > 0 {
		p := heap.Pop(ready).(*past)
		if changedFolder(all, p) {
			c, err := objects.commit(ctx, p.hash)
			if err != nil {
				return fmt.Errorf("reading the history: %w", err)
			}
			shown := &Commit{
				Hash: p.hash.String(), Time: c.time, Message: c.message,
				objects: objects, root: c.tree, folder: names,
			}
			for _, parent := range c.parents {
				shown.Parents = append(shown.Parents, parent.String())
			}
			if err := each(shown); err != nil {
				return err
			}
		}
		for _, parent := range p.parents {
			if all[parent].children--; all[parent].children == 0 {
				heap.Push(ready, all[parent])
			}
		}
	}
	return nil
}

// collect reads every commit once, and what it has at the folder's path.
func collect(ctx context.Context, o *Objects, start plumbing.Hash, names []string) (map[plumbing.Hash]*past, error) {
	all := map[plumbing.Hash]*past{}
	todo := []plumbing.Hash{start}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if all[at] != nil {
			continue
		}
		if len(all) == maxHistory {
			return nil, fmt.Errorf("%w: more than %d commits", ErrHostile, maxHistory)
		}
		c, err := o.commit(ctx, at)
		if err != nil {
			return nil, err
		}
		// A folder that was hostile once is a change like any other here.
		way, err := walk(ctx, o, c.tree, names)
		if err != nil && !errors.Is(err, ErrHostile) {
			return nil, err
		}
		all[at] = &past{hash: at, parents: c.parents, time: c.time, folder: way.end}
		todo = append(todo, c.parents...)
	}
	for _, p := range all {
		for _, parent := range p.parents {
			all[parent].children++
		}
	}
	return all, nil
}

func changedFolder(all map[plumbing.Hash]*past, p *past) bool {
	if len(p.parents) == 0 {
		return p.folder != entry{}
	}
	for _, parent := range p.parents {
		if all[parent].folder == p.folder {
			return false
		}
	}
	return true
}

// newest is a heap by time; equal times go by hash, so that a walk is the same
// each time.
type newest []*past

func (h newest) Len() int { return len(h) }
func (h newest) Less(i, j int) bool {
	if !h[i].time.Equal(h[j].time) {
		return h[i].time.After(h[j].time)
	}
	return h[i].hash.String() < h[j].hash.String()
}
func (h newest) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *newest) Push(x any)   { *h = append(*h, x.(*past)) }
func (h *newest) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
