package site

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"filippo.io/age"

	"github.com/chancery-ca/chancery/store"
)

// ErrBackup marks a backup that is not whole, or not what chancery backup writes.
var ErrBackup = errors.New("the backup cannot be used")

// Restore unpacks a backup into a new folder.
type Restore struct {
	Identities []age.Identity
	Dir        string
	Progress   func(octets int64) // optional
}

// Check reads a backup to its end, compares every file in it with the manifest, and writes nothing.
func (r Restore) Check(ctx context.Context, from io.Reader) (Manifest, error) {
	return r.read(ctx, from, nil)
}

// Run unpacks everything in a new folder beside Dir, checks it against the manifest, and then gives it its
// name, so that Dir is what was backed up or is not there. Errors of the backup itself are ErrBackup.
func (r Restore) Run(ctx context.Context, from io.Reader) (Manifest, error) {
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return Manifest{}, err
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%w: %s exists; a backup is restored into a new folder only: choose another one", ErrConfig, r.Dir)
	}
	draft, err := os.MkdirTemp(filepath.Dir(dir), ".chancery-restore-")
	if err != nil {
		return Manifest{}, fmt.Errorf("making the folder: %w", err)
	}
	defer os.RemoveAll(draft)
	m, err := r.fill(ctx, from, draft)
	if err != nil {
		return m, err
	}
	if err := os.Rename(draft, dir); err != nil {
		return m, fmt.Errorf("naming the installation: %w", err)
	}
	return m, syncFolder(filepath.Dir(dir))
}

func (r Restore) fill(ctx context.Context, from io.Reader, draft string) (Manifest, error) {
	root, err := os.OpenRoot(draft)
	if err != nil {
		return Manifest{}, fmt.Errorf("making the folder: %w", err)
	}
	m, err := r.unpack(ctx, from, &unpacked{root: root, folders: make(map[string]*tar.Header)}, draft)
	return m, errors.Join(err, root.Close())
}

func (r Restore) unpack(ctx context.Context, from io.Reader, u *unpacked, draft string) (Manifest, error) {
	m, err := r.read(ctx, from, u)
	if err != nil {
		return m, err
	}
	state, err := u.checkStore(ctx, draft, m)
	if err != nil {
		return m, err
	}
	if err := u.mark(path.Join(state, restoredFile), m); err != nil {
		return m, err
	}
	return m, u.finish()
}

// read goes through a backup and gives each entry to u, which may be nil.
func (r Restore) read(ctx context.Context, from io.Reader, u *unpacked) (Manifest, error) {
	plain, err := age.Decrypt(&meterReader{ctx: ctx, from: from, tell: r.Progress}, r.Identities...)
	var nobody *age.NoIdentityMatchError
	if errors.As(err, &nobody) {
		return Manifest{}, fmt.Errorf("%w: it is encrypted to other recipients, or under another passphrase", ErrBackup)
	} else if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	in := &inspection{tar: tar.NewReader(plain), unpacked: u, found: make(map[string]FileInfo)}
	m, err := in.run()
	if err == nil {
		// age tells a stream that was cut or altered only to a reader who comes to its end.
		var behind int64
		if behind, err = io.Copy(io.Discard, plain); err == nil && behind > 0 {
			err = errors.New("something stands behind its end")
		}
	}
	if err == nil || ctx.Err() != nil {
		return m, err
	}
	var local *os.PathError
	if errors.As(err, &local) {
		return m, fmt.Errorf("unpacking: %w", err)
	}
	return m, fmt.Errorf("%w: %w", ErrBackup, err)
}

// inspection is the reading of one backup.
type inspection struct {
	tar      *tar.Reader
	unpacked *unpacked // nil: nothing is written
	found    map[string]FileInfo
	entries  int
}

func (in *inspection) run() (Manifest, error) {
	folders := make(map[string]bool)
	for {
		h, err := in.tar.Next()
		if errors.Is(err, io.EOF) {
			return Manifest{}, errors.New("it ends without a manifest, so it is not whole")
		} else if err != nil {
			return Manifest{}, err
		}
		name, err := checkEntry(h)
		if err != nil {
			return Manifest{}, err
		}
		if in.entries++; in.entries > maxEntries {
			return Manifest{}, fmt.Errorf("it has more than %d entries", maxEntries)
		}
		if _, twice := in.found[name]; twice || folders[name] {
			return Manifest{}, fmt.Errorf("%.100q is in it twice", name)
		}
		switch {
		case h.Typeflag == tar.TypeDir:
			folders[name] = true
			err = in.unpacked.folder(name, h)
		case name == manifestName:
			return in.manifest(h)
		default:
			err = in.file(name, h)
		}
		if err != nil {
			return Manifest{}, err
		}
	}
}

func (in *inspection) file(name string, h *tar.Header) error {
	sum := sha256.New()
	if err := in.unpacked.file(name, h, io.TeeReader(in.tar, sum)); err != nil {
		return err
	}
	in.found[name] = FileInfo{name, h.Size, hex.EncodeToString(sum.Sum(nil))}
	return nil
}

// manifest reads the last entry and compares it with those before.
func (in *inspection) manifest(h *tar.Header) (m Manifest, err error) {
	if h.Size > maxManifest {
		return m, fmt.Errorf("its manifest has %d octets; at most %d", h.Size, maxManifest)
	}
	text, err := io.ReadAll(in.tar)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if m.Format != manifestFormat {
		return m, fmt.Errorf("it has format %d, and this program reads format %d: use the version that made it, %.60q", m.Format, manifestFormat, m.Build)
	}
	if err := m.checkPlaces(); err != nil {
		return m, err
	}
	for _, f := range m.Files {
		have, there := in.found[f.Name]
		switch {
		case !there:
			return m, fmt.Errorf("%.100q is in its manifest and not in it", f.Name)
		case have != f:
			return m, fmt.Errorf("%.100q is not what its manifest says", f.Name)
		}
		delete(in.found, f.Name)
	}
	for name := range in.found {
		return m, fmt.Errorf("%.100q is in it and not in its manifest", name)
	}
	if h, err := in.tar.Next(); err == nil {
		return m, fmt.Errorf("%.100q stands behind its manifest", h.Name)
	} else if !errors.Is(err, io.EOF) {
		return m, err
	}
	return m, nil
}

// unpacked writes what is in a backup below a folder, which nothing leaves: os.Root follows no link out.
type unpacked struct {
	root    *os.Root
	folders map[string]*tar.Header
}

func (u *unpacked) folder(name string, h *tar.Header) error {
	if u == nil {
		return nil
	}
	u.folders[name] = h
	if name == "." {
		return nil
	}
	return u.root.Mkdir(name, 0o700)
}

func (u *unpacked) file(name string, h *tar.Header, content io.Reader) error {
	if u == nil {
		_, err := io.Copy(io.Discard, content)
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = u.own(name, h)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// own gives a file its mode, and its owner if this process may: by name if there is such a user here, by
// number otherwise.
func (u *unpacked) own(name string, h *tar.Header) error {
	if os.Geteuid() == 0 {
		uid, gid := h.Uid, h.Gid
		if found, err := user.Lookup(h.Uname); err == nil {
			uid, _ = strconv.Atoi(found.Uid) // on Linux it is a number
		}
		if found, err := user.LookupGroup(h.Gname); err == nil {
			gid, _ = strconv.Atoi(found.Gid)
		}
		if err := u.root.Chown(name, uid, gid); err != nil {
			return err
		}
	}
	mode := fs.FileMode(h.Mode).Perm()
	if h.Mode&setGroup != 0 {
		mode |= fs.ModeSetgid
	}
	return u.root.Chmod(name, mode)
}

// finish gives the folders their owners, which could not be written to before, and makes all names durable.
func (u *unpacked) finish() error {
	for _, name := range slices.Sorted(maps.Keys(u.folders)) {
		if err := syncFolder(filepath.Join(u.root.Name(), name)); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
		if err := u.own(name, u.folders[name]); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
	}
	return nil
}

// checkStore looks whether the store and the configuration can be used, and tells where the state is.
func (u *unpacked) checkStore(ctx context.Context, draft string, m Manifest) (state string, err error) {
	state = "state"
	c, err := readOutline(filepath.Join(draft, ConfigName))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBackup, err)
	}
	if rel, err := filepath.Rel(draft, c.State); err == nil && filepath.IsLocal(rel) {
		state = filepath.ToSlash(rel)
	}
	if err := checkCopy(ctx, filepath.Join(draft, state, "store.db"), m.Log); err != nil {
		return "", fmt.Errorf("%w: the store in it: %w", ErrBackup, err)
	}
	return state, nil
}

// checkCopy checks a copy of the store from its first leaf, and that its log ends where it should.
func checkCopy(ctx context.Context, path string, want Position) error {
	s, err := store.OpenReader(ctx, path, time.Now)
	if err != nil {
		return err
	}
	const shown = 5
	found, err := s.Check(ctx)
	if more := len(found) - shown; more > 0 {
		found = append(found[:shown:shown], fmt.Errorf("and %d more", more))
	}
	if size, root := s.Head(); err == nil && (want != Position{size, hex.EncodeToString(root[:])}) {
		found = append(found, fmt.Errorf("its log has %d leaves and root %x, and the manifest says %d and %s", size, root, want.Size, want.Root))
	}
	return errors.Join(append(found, err, s.Close())...)
}
