package gitrepo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// route is the way from a root tree to the folder: the tree at each name, the
// root first, and what is found under the last name.
type route struct {
	names []string
	trees []tree // trees[i] has the entry names[i]; absent ones are empty
	end   entry  // zero if the folder is not there
}

// walk follows names from the root. What stands in the way is never followed
// nor replaced: it is somebody else's. The route then ends at that entry.
func walk(ctx context.Context, o *Objects, root plumbing.Hash, names []string) (route, error) {
	r := route{names: names}
	at := root
	for i, name := range names {
		var t tree
		if at != plumbing.ZeroHash {
			var err error
			if t, err = o.tree(ctx, at); err != nil {
				return r, err
			}
		}
		r.trees = append(r.trees, t)
		e, n := t.find(name)
		r.end = e
		if n > 1 {
			return r, fmt.Errorf("%w: %d entries named %q", ErrHostile, n, strings.Join(names[:i+1], "/"))
		}
		if n == 1 && !e.isTree() {
			return r, fmt.Errorf("%w: %q is %s, not a folder", ErrHostile, strings.Join(names[:i+1], "/"), e.describe())
		}
		at = e.hash
	}
	return r, nil
}

// filesBelow reads the files below a folder.
type filesBelow struct {
	objects *Objects
	files   Files
	entries int
	bytes   int64
}

func (b *filesBelow) read(ctx context.Context, folder plumbing.Hash, prefix string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d folders deep at %q", ErrHostile, maxDepth, prefix)
	}
	t, err := b.objects.tree(ctx, folder)
	if err != nil {
		return err
	}
	if b.entries += len(t); b.entries > maxEntries {
		return fmt.Errorf("%w: more than %d entries", ErrHostile, maxEntries)
	}
	for _, e := range t {
		path := prefix + e.name
		if hostileName(e.name) {
			return fmt.Errorf("%w: the name %q", ErrHostile, path)
		}
		switch {
		case e.isTree():
			if err := b.read(ctx, e.hash, path+"/", depth+1); err != nil {
				return err
			}
		case e.isFile():
			content, err := b.objects.read(ctx, plumbing.BlobObject, e.hash, min(maxFile, maxFolder-b.bytes))
			if err != nil {
				return fmt.Errorf("%q: %w", path, err)
			}
			b.bytes += int64(len(content))
			b.files[path] = content
		}
	}
	return nil
}

func readFolder(ctx context.Context, o *Objects, folder plumbing.Hash) (Files, error) {
	b := &filesBelow{objects: o, files: Files{}}
	if folder == plumbing.ZeroHash {
		return b.files, nil
	}
	if err := b.read(ctx, folder, "", 1); err != nil {
		return nil, err
	}
	return b.files, nil
}

// readFile reads one file below a root tree; false if there is none.
func readFile(ctx context.Context, o *Objects, root plumbing.Hash, names []string) ([]byte, bool, error) {
	last := len(names) - 1
	r, err := walk(ctx, o, root, names[:last])
	if err != nil {
		return nil, false, err
	}
	folder := root
	if last > 0 {
		folder = r.end.hash
	}
	if folder == plumbing.ZeroHash {
		return nil, false, nil
	}
	t, err := o.tree(ctx, folder)
	if err != nil {
		return nil, false, err
	}
	e, n := t.find(names[last])
	if n != 1 || !e.isFile() {
		return nil, false, nil
	}
	content, err := o.read(ctx, plumbing.BlobObject, e.hash, maxFile)
	return content, err == nil, err
}

// plan is a Change by folders: each name is a file to write, a name to remove,
// or a folder with a plan of its own.
type plan struct {
	below   map[string]*plan // nil for a file
	content []byte
	remove  bool
}

func newPlan(c Change) (*plan, error) {
	root := &plan{below: map[string]*plan{}}
	total := int64(0)
	for path, content := range c.Files {
		if total += int64(len(content)); len(content) > maxFile || total > maxFolder {
			return nil, fmt.Errorf("file %q: above the limit of %d bytes, or of %d for all files", path, maxFile, maxFolder)
		}
		if err := root.add(path, &plan{content: content}); err != nil {
			return nil, err
		}
	}
	for _, path := range c.Remove {
		if err := root.add(path, &plan{remove: true}); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func (p *plan) add(path string, leaf *plan) error {
	names, err := splitPath(path)
	if err != nil {
		return err
	}
	last := len(names) - 1
	for _, name := range names[:last] {
		next := p.below[name]
		if next == nil {
			next = &plan{below: map[string]*plan{}}
			p.below[name] = next
		}
		if next.below == nil {
			return fmt.Errorf("path %q: %q is named as a file too", path, name)
		}
		p = next
	}
	if p.below[names[last]] != nil {
		return fmt.Errorf("path %q is named twice", path)
	}
	p.below[names[last]] = leaf
	return nil
}

// builder makes the objects of one commit.
type builder struct {
	objects *Objects
	made    []Object
}

func (b *builder) add(kind plumbing.ObjectType, content []byte) plumbing.Hash {
	hash := plumbing.ComputeHash(kind, content)
	same := func(o Object) bool { return o.Hash == hash }
	if !slices.ContainsFunc(b.made, same) { // files may be the same under two names
		b.made = append(b.made, Object{Type: kind, Hash: hash, Content: content})
	}
	return hash
}

// apply carries out a plan on a folder and returns the folder's new hash, zero
// when nothing is left in it. Below our folder every name in the plan is ours:
// a link or a submodule that has it is replaced.
func (b *builder) apply(ctx context.Context, folder plumbing.Hash, p *plan) (plumbing.Hash, error) {
	var t tree
	if folder != plumbing.ZeroHash {
		var err error
		if t, err = b.objects.tree(ctx, folder); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	changed := false
	for _, name := range slices.Sorted(maps.Keys(p.below)) {
		want, err := b.entry(ctx, t, name, p.below[name])
		if err != nil {
			return plumbing.ZeroHash, err
		}
		have, n := t.find(name)
		switch {
		case want == have && n <= 1:
			continue
		case want == entry{}:
			t = t.remove(name)
		default:
			t = t.set(want)
		}
		changed = true
	}
	if !changed {
		return folder, nil
	}
	if len(t) == 0 {
		return plumbing.ZeroHash, nil
	}
	return b.add(plumbing.TreeObject, t.encode()), nil
}

// entry returns what the plan wants under a name; a zero entry is nothing.
func (b *builder) entry(ctx context.Context, t tree, name string, p *plan) (entry, error) {
	have, _ := t.find(name)
	if p.remove {
		return entry{}, nil
	}
	if p.below == nil {
		want := entry{modeFile, name, plumbing.ComputeHash(plumbing.BlobObject, p.content)}
		if want != have {
			b.made = append(b.made, Object{Type: plumbing.BlobObject, Hash: want.hash, Content: p.content})
		}
		return want, nil
	}
	below := plumbing.ZeroHash
	if have.isTree() {
		below = have.hash
	}
	hash, err := b.apply(ctx, below, p)
	switch {
	case err != nil:
		return entry{}, err
	case hash == below && (hash != plumbing.ZeroHash || !have.isTree()):
		return have, nil
	case hash == plumbing.ZeroHash:
		return entry{}, nil
	}
	return entry{modeTree, name, hash}, nil
}

// replace puts a new folder at the end of the route and returns the new root.
func (b *builder) replace(r route, folder plumbing.Hash) plumbing.Hash {
	hash := folder
	for i := len(r.names) - 1; i >= 0; i-- {
		var t tree
		if hash == plumbing.ZeroHash {
			t = r.trees[i].remove(r.names[i])
		} else {
			t = r.trees[i].set(entry{modeTree, r.names[i], hash})
		}
		hash = plumbing.ZeroHash
		if len(t) > 0 || i == 0 {
			hash = b.add(plumbing.TreeObject, t.encode())
		}
	}
	return hash
}
