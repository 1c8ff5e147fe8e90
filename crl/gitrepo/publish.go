package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/crypto/ssh"
)

const (
	tries       = 10 // how often a change is built anew when others win the race
	storedTries = 3  // how often one is sent that the server could not store
)

// Publisher writes one folder. All fields are required.
type Publisher struct {
	Remote      Remote
	Folder      string // relative to the repository's root, "pki" or "site/pki"
	Signer      ssh.Signer
	AuthorName  string
	AuthorEmail string
	Now         func() time.Time
}

// Publish commits what content makes of the folder's files, pushes the commit
// and reads it back from the remote. content is called again, with the files of
// the new tip, each time another committer was faster.
//
// It returns the commit that holds the files: a new one, or the tip with
// changed == false if nothing had to change ("" if there is no branch either).
// An error of content is returned as it is. ErrMoved comes out only after ten
// lost races, ErrNotStored after three such answers. After any other error the
// commit may have reached the branch; the next call finds it there.
func (p *Publisher) Publish(ctx context.Context, content func(current Files) (Change, error)) (commit string, changed bool, err error) {
	if p.Remote == nil || p.Signer == nil || p.Now == nil {
		return "", false, errors.New("publisher without remote, signer or clock")
	}
	folder, err := splitPath(p.Folder)
	if err != nil {
		return "", false, fmt.Errorf("folder: %w", err)
	}
	if err := (person{p.AuthorName, p.AuthorEmail}).check(); err != nil {
		return "", false, err
	}
	notStored := 0
	for try := 1; ; try++ {
		commit, changed, err = p.attempt(ctx, folder, content)
		if errors.Is(err, ErrNotStored) {
			notStored++
		} else if !errors.Is(err, ErrMoved) {
			return commit, changed, err
		}
		if try == tries || notStored == storedTries {
			return "", false, fmt.Errorf("after %d tries: %w", try, err)
		}
		if waited := pause(ctx, try); waited != nil {
			return "", false, fmt.Errorf("%w; waiting to try again: %w", err, waited)
		}
	}
}

// pause lets the faster committer, or a repack, finish: 10 ms doubling up to 320 ms,
// by a random half to one and a half, so that two of us do not stay in step.
func pause(ctx context.Context, try int) error {
	d := 5 * time.Millisecond << min(try, 6)
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (p *Publisher) attempt(ctx context.Context, folder []string, content func(Files) (Change, error)) (string, bool, error) {
	tip, objects, err := p.Remote.Fetch(ctx)
	if err != nil {
		return "", false, fmt.Errorf("reading the branch: %w", err)
	}
	next := commit{time: p.Now()}
	root := plumbing.ZeroHash
	if tip.Commit != "" {
		parent := plumbing.NewHash(tip.Commit)
		c, err := objects.commit(ctx, parent)
		if err != nil {
			return "", false, fmt.Errorf("reading the branch: %w", err)
		}
		root, next.parents = c.tree, []plumbing.Hash{parent}
	}
	way, err := walk(ctx, objects, root, folder)
	if err != nil {
		return "", false, fmt.Errorf("reading the folder: %w", err)
	}
	current, err := readFolder(ctx, objects, way.end.hash)
	if err != nil {
		return "", false, fmt.Errorf("reading the folder: %w", err)
	}
	change, err := content(current)
	if err != nil {
		return "", false, err
	}
	todo, err := newPlan(change)
	if err != nil {
		return "", false, err
	}
	b := &builder{objects: objects}
	hash, err := b.apply(ctx, way.end.hash, todo)
	if err != nil {
		return "", false, fmt.Errorf("building the commit: %w", err)
	}
	if hash == way.end.hash {
		return tip.Commit, false, nil
	}
	next.tree, next.message = b.replace(way, hash), change.Message
	raw, err := signedCommit(next, person{p.AuthorName, p.AuthorEmail}, p.Signer)
	if err != nil {
		return "", false, err
	}
	made := b.add(plumbing.CommitObject, raw)
	if err := p.Remote.Push(ctx, tip, made, b.made); err != nil {
		return "", false, fmt.Errorf("pushing: %w", err)
	}
	if err := p.prove(ctx, made, folder, change); err != nil {
		return "", false, fmt.Errorf("reading back commit %s: %w", made, err)
	}
	return made.String(), true, nil
}

// prove fetches again and compares: the branch holds the commit, as its tip or
// below the commits of others who came after, and the commit holds the bytes.
func (p *Publisher) prove(ctx context.Context, made plumbing.Hash, folder []string, change Change) error {
	tip, objects, err := p.Remote.Fetch(ctx)
	if err != nil {
		return err
	}
	if err := holds(ctx, objects, tip, made); err != nil {
		return err
	}
	c, err := objects.commit(ctx, made)
	if err != nil {
		return err
	}
	check := func(path string, want []byte, exists bool) error {
		below, err := splitPath(path)
		if err != nil {
			return err
		}
		got, ok, err := readFile(ctx, objects, c.tree, append(folder[:len(folder):len(folder)], below...))
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		if ok != exists || !bytes.Equal(got, want) {
			return fmt.Errorf("%q is not what was written", path)
		}
		return nil
	}
	for path, want := range change.Files {
		if err := check(path, want, true); err != nil {
			return err
		}
	}
	for _, path := range change.Remove {
		if err := check(path, nil, false); err != nil {
			return err
		}
	}
	return nil
}

// holds walks from the tip back to the commit. Others can have added only what
// fits between a push and the fetch that follows it.
func holds(ctx context.Context, o *Objects, tip Tip, want plumbing.Hash) error {
	const others = 10_000
	if tip.Commit == "" {
		return errors.New("the branch is gone")
	}
	queue := []plumbing.Hash{plumbing.NewHash(tip.Commit)}
	seen := map[plumbing.Hash]bool{}
	for len(queue) > 0 && len(seen) < others {
		at := queue[0]
		queue = queue[1:]
		if at == want {
			return nil
		}
		if seen[at] {
			continue
		}
		seen[at] = true
		c, err := o.commit(ctx, at)
		if err != nil {
			return err
		}
		queue = append(queue, c.parents...)
	}
	return fmt.Errorf("the branch, now at %s, does not hold it", tip.Commit)
}

// Read returns the files below a folder at the branch's tip, and the tip. No
// branch, or no folder in it, is no files.
func Read(ctx context.Context, from Remote, folder string) (Files, Tip, error) {
	names, err := splitPath(folder)
	if err != nil {
		return nil, Tip{}, fmt.Errorf("folder: %w", err)
	}
	tip, objects, err := from.Fetch(ctx)
	if err != nil {
		return nil, Tip{}, fmt.Errorf("reading the branch: %w", err)
	}
	if tip.Commit == "" {
		return Files{}, tip, nil
	}
	c, err := objects.commit(ctx, plumbing.NewHash(tip.Commit))
	if err != nil {
		return nil, Tip{}, fmt.Errorf("reading the branch: %w", err)
	}
	way, err := walk(ctx, objects, c.tree, names)
	if err != nil {
		return nil, Tip{}, fmt.Errorf("reading the folder: %w", err)
	}
	files, err := readFolder(ctx, objects, way.end.hash)
	if err != nil {
		return nil, Tip{}, fmt.Errorf("reading the folder: %w", err)
	}
	return files, tip, nil
}
