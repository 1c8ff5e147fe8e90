package gitrepo

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/config"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Local is a branch of a bare repository on this machine's disk. It follows
// git's own protocol for objects and references, so that native git may push
// to, fetch from and repack the repository at any time. Hooks do not run.
type Local struct {
	path    string
	ref     plumbing.ReferenceName
	objects *Objects
	guard   string        // held with flock while a process of ours moves the branch
	draft   string        // the new value of the branch before it has the lock's name
	wait    time.Duration // for a lock that somebody else holds
}

// OpenLocal opens a branch, which need not exist yet, of a bare repository,
// which must. A lock that a killed process of ours left there is taken away.
func OpenLocal(path, branch string) (*Local, error) {
	ref, err := branchRef(branch)
	if err != nil {
		return nil, err
	}
	if err := checkBare(path); err != nil {
		return nil, fmt.Errorf("opening repository %s: %w", path, err)
	}
	own := filepath.Join(path, "chancery-"+strings.ReplaceAll(branch, "/", "%"))
	l := &Local{path: path, ref: ref, guard: own + ".guard", draft: own + ".ref", wait: 10 * time.Second}
	l.objects = NewObjects(l.open)
	if err := l.recover(); err != nil {
		return nil, fmt.Errorf("opening repository %s: %w", path, err)
	}
	return l, nil
}

func branchRef(branch string) (plumbing.ReferenceName, error) {
	ref := plumbing.NewBranchReferenceName(branch)
	if err := ref.Validate(); err != nil || strings.Contains(branch, "%") {
		return "", fmt.Errorf("branch %q: not a branch name", branch)
	}
	return ref, nil
}

// checkBare refuses what this package would break: a repository with a
// worktree, which a push would leave behind its branch, and formats it does
// not write (SHA-256, reftable).
func checkBare(path string) error {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(path, name)); err != nil {
			return fmt.Errorf("not a git repository: %w", err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(path, "config"))
	if err != nil {
		return err
	}
	c := config.New()
	if err := config.NewDecoder(bytes.NewReader(raw)).Decode(c); err != nil {
		return fmt.Errorf("its config: %w", err)
	}
	if !strings.EqualFold(c.Section("core").Option("bare"), "true") {
		return errors.New("not a bare repository")
	}
	for _, o := range c.Section("extensions").Options {
		if !o.IsKey("objectformat") || !strings.EqualFold(o.Value, "sha1") {
			return fmt.Errorf("it uses the extension %s = %s", o.Key, o.Value)
		}
	}
	return nil
}

// open is given to Objects. The cache serves delta bases, and the files of a
// folder that is read before and after each push; it is small because a CA's
// memory is.
func (l *Local) open() (storer.EncodedObjectStorer, error) {
	files := wholePacks{osfs.New(l.path, osfs.WithBoundOS())}
	return storage{filesystem.NewStorage(files, cache.NewObjectLRU(3*cache.MiByte)), files}, nil
}

// storage closes each loose object of which it has read the size. go-git leaves that to the collector, which may
// come after a long history has taken all descriptors.
type storage struct {
	*filesystem.Storage
	files billy.Filesystem
}

// EncodedObjectSize is of storer.EncodedObjectStorer.
func (s storage) EncodedObjectSize(hash plumbing.Hash) (size int64, err error) {
	id := hash.String()
	f, err := s.files.Open(s.files.Join("objects", id[:2], id[2:]))
	if errors.Is(err, fs.ErrNotExist) {
		return s.Storage.EncodedObjectSize(hash)
	} else if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := objfile.NewReader(f)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, size, err = r.Header()
	return size, err
}

// wholePacks hides packs that have no index. git leaves such a file for a
// moment when it adds or removes a pack, and for good when it is killed there,
// and passes over it; go-git would read nothing at all any more.
type wholePacks struct{ billy.Filesystem }

func (w wholePacks) ReadDir(path string) ([]fs.FileInfo, error) {
	files, err := w.Filesystem.ReadDir(path)
	indexed := map[string]bool{}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".idx"); ok {
			indexed[name] = true
		}
	}
	return slices.DeleteFunc(files, func(f fs.FileInfo) bool {
		name, ok := strings.CutSuffix(f.Name(), ".pack")
		return ok && !indexed[name]
	}), err
}

// Fetch reads the branch.
func (l *Local) Fetch(ctx context.Context) (Tip, *Objects, error) {
	if err := ctx.Err(); err != nil {
		return Tip{}, nil, err
	}
	// Without its repository, as when a disk is not mounted, the branch is not empty but unknown.
	if _, err := os.Stat(filepath.Join(l.path, "HEAD")); err != nil {
		return Tip{}, nil, fmt.Errorf("the repository is gone: %w", err)
	}
	id, err := l.readRef()
	if err != nil {
		return Tip{}, nil, err
	}
	return Tip{Commit: id}, l.objects, nil
}

// FetchAll is Fetch: all is here.
func (l *Local) FetchAll(ctx context.Context) (Tip, *Objects, error) { return l.Fetch(ctx) }

// Push stores the objects, then moves the branch. A crash in between leaves
// objects that nothing refers to, which git prunes in time.
func (l *Local) Push(ctx context.Context, old Tip, commit plumbing.Hash, objects []Object) error {
	now, err := l.readRef()
	if err != nil {
		return err
	}
	if now != old.Commit {
		return ErrMoved
	}
	if err := l.store(ctx, objects); err != nil {
		return fmt.Errorf("storing objects: %w", err)
	}
	return l.moveRef(ctx, old.Commit, commit.String())
}

// store writes the objects, and again if a folder went away in the meantime:
// a repacking git removes each folder of loose objects that it has emptied.
func (l *Local) store(ctx context.Context, objects []Object) error {
	for try := 1; ; try++ {
		err := l.storeOnce(ctx, objects)
		if !errors.Is(err, fs.ErrNotExist) || try == 20 {
			return err
		}
	}
}

// storeOnce writes every object as a loose file, also one that is there
// already: the file there may be a torn one from before a power cut, or so old
// that a pruning git is about to delete it.
func (l *Local) storeOnce(ctx context.Context, objects []Object) error {
	root := filepath.Join(l.path, "objects")
	dirs := map[string]bool{}
	for _, o := range objects {
		if err := ctx.Err(); err != nil {
			return err
		}
		id := o.Hash.String()
		dir := filepath.Join(root, id[:2])
		if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := writeLoose(dir, id[2:], o); err != nil {
			return err
		}
		dirs[dir] = true
	}
	if err := syncDirs(slices.Collect(maps.Keys(dirs))...); err != nil {
		return err
	}
	return syncDirs(root)
}

func writeLoose(dir, name string, o Object) error {
	var packed bytes.Buffer
	// A list is serial numbers, which do not compress: trying harder makes it a tenth smaller in two and
	// a half times the time, and git packs it anew anyway.
	z, err := zlib.NewWriterLevel(&packed, zlib.BestSpeed)
	if err != nil {
		return err
	}
	fmt.Fprintf(z, "%s %d\x00", o.Type, len(o.Content)) // a buffer does not fail
	if _, err := z.Write(o.Content); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	// git prunes left-over files of this name, and fsck passes over them.
	draft := filepath.Join(dir, "tmp_obj_"+rand.Text())
	if err := writeSynced(draft, 0o444, packed.Bytes()); err != nil {
		os.Remove(draft)
		return err
	}
	if err := os.Rename(draft, filepath.Join(dir, name)); err != nil {
		os.Remove(draft)
		return err
	}
	return nil
}
