package site

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Backup copies an installation, which may run meanwhile, into one encrypted file.
type Backup struct {
	Config     Config
	Build      string
	Recipients []age.Recipient
	// Progress is told how many octets are written so far. Optional.
	Progress func(octets int64)
}

// ToFile writes the backup to a new file of mode 0600, which appears under its name when it is whole and
// durable.
func (b Backup) ToFile(ctx context.Context, path string) (m Manifest, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%w: %s exists; a backup is never overwritten: choose another name", ErrConfig, path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".chancery-backup-*")
	if err != nil {
		return m, fmt.Errorf("making the backup: %w", err)
	}
	defer os.Remove(f.Name())
	m, err = b.Write(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return m, fmt.Errorf("making the backup: %w", err)
	}
	if err := nameNew(f.Name(), path); err != nil {
		return m, fmt.Errorf("naming the backup: %w", err)
	}
	return m, nil
}

// nameNew gives a file its name, durably. Unlike a rename, a link does not replace what somebody else
// made meanwhile; a file system without links gets the rename.
func nameNew(draft, path string) error {
	err := os.Link(draft, path)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported) {
		err = os.Rename(draft, path)
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Write writes the backup: the store first, the key room second, so that the room in it has never read
// less than the store has seen of it. What of the room is newer than the store, Recover brings up.
func (b Backup) Write(ctx context.Context, w io.Writer) (Manifest, error) {
	sources, err := b.sources()
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Format: manifestFormat, Build: b.Build, Made: time.Now().UTC().Truncate(time.Second), Elsewhere: sources.elsewhere, LeftOut: sources.leftOut}
	dir, err := lockedDraft(b.Config.State)
	if err != nil {
		return m, err
	}
	defer dir.remove()
	draft := filepath.Join(dir.path, "store.db")
	size, root, err := store.Snapshot(ctx, b.Config.StorePath(), draft)
	if err != nil {
		return m, err
	}
	m.Log = Position{size, hex.EncodeToString(root[:])}
	if err := checkCopy(ctx, draft, m.Log); err != nil {
		return m, fmt.Errorf("the store is damaged, and a copy could not be restored; run chancery fsck: %w", err)
	}
	if m.Room, err = b.roomPosition(ctx); err != nil {
		return m, err
	}
	sources.replace(b.Config.StorePath(), draft)
	sealed, err := age.Encrypt(&meter{ctx: ctx, to: w, tell: b.Progress}, b.Recipients...)
	if err != nil {
		return m, fmt.Errorf("encrypting: %w", err)
	}
	a := &archive{tar: tar.NewWriter(sealed)}
	for _, s := range sources.list {
		if err := a.add(s); err != nil {
			return m, err
		}
	}
	m.Files = a.files
	if err := a.finish(m); err != nil {
		return m, err
	}
	if err := sealed.Close(); err != nil {
		return m, fmt.Errorf("encrypting: %w", err)
	}
	return m, nil
}

// roomPosition asks the key room how far it is; nil if it does not run, and then its journal stands still.
func (b Backup) roomPosition(ctx context.Context) (*RoomPosition, error) {
	room, err := signer.DialReader(ctx, b.Config.KeyRoom)
	if errors.Is(err, signer.ErrUnreachable) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer room.Close()
	hello := room.Hello()
	if err := b.Config.knows(hello); err != nil {
		return nil, err
	}
	return &RoomPosition{
		Room: hello.Room, Sequence: hello.State.Sequence, Journal: hello.State.Journal,
		Position: Position{hello.State.Size, hello.State.Root},
	}, nil
}

// source is a file or a folder that goes into a backup.
type source struct {
	name     string // in the backup, with slashes
	path     string // on this machine
	content  string // where the octets are, if not at path, whose owner and mode count
	optional bool
}

type sources struct {
	base      string // folder of chancery.yaml
	list      []source
	elsewhere []Place
	leftOut   []string
}

// sources lists what a backup holds, by name and not by what happens to lie in the folders: never the
// delivery keys, the key room's passphrase or an offline key.
func (b Backup) sources() (*sources, error) {
	c := b.Config
	roomConfig, room, err := loadRoomFiles(filepath.Dir(c.Path))
	if err != nil {
		return nil, err
	}
	s := &sources{base: filepath.Dir(c.Path)}
	s.list = append(s.list, source{name: ".", path: s.base}, source{name: ConfigName, path: c.Path}, source{name: RoomConfigName, path: roomConfig})
	s.folder("trust", c.Trust, []string{"log.pub"}, "root.pem", "chain.pem", "allowed_signers")
	s.folder("secrets", c.Secrets, []string{serverCertFile, serverKeyFile, gitKeyFile})
	s.folder("state", c.State, []string{"store.db"}, lockFile, renewedFile)
	if ldif, ok := c.Directory.file(); ok {
		if _, inside := s.name(ldif); inside {
			s.file(ldif)
		} else {
			s.elsewhere = append(s.elsewhere, Place{Name: directoryFile, Path: ldif})
			s.add(source{name: directoryFile, path: ldif, optional: true})
		}
	}
	for _, path := range c.namedFiles() {
		s.file(path)
	}
	needed := []string{"log.key", "root.pem", "root.crl.pem"}
	for _, i := range room.Issuers {
		if filepath.Base(string(i.ID)) != string(i.ID) {
			return nil, fmt.Errorf("%w: %s: issuer id %q is not a plain name", ErrConfig, roomConfig, i.ID)
		}
		needed = append(needed, string(i.ID)+".pem", string(i.ID)+".key")
	}
	s.folder("keyroom", room.State, append(needed, "journal"))
	s.leftOut = append(s.leftOut, filepath.Join(room.Delivery, "delivery.keys"), room.PassphraseFile)
	for _, path := range []string{room.PassphraseFile, c.KeyRoom} { // their folders have owners of their own
		if name, inside := s.name(path); inside {
			s.foldersOf(name)
		}
	}
	if path, local := c.Git.local(); local {
		s.leftOut = append(s.leftOut, path)
	}
	return s, nil
}

// name is what a path is called in a backup, if it is inside the folder of chancery.yaml.
func (s *sources) name(path string) (string, bool) {
	rel, err := filepath.Rel(s.base, path)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	return filepath.ToSlash(rel), true
}

// folder adds files of a folder: those that have to be there, and those that may.
func (s *sources) folder(role, path string, needed []string, optional ...string) {
	name, inside := s.name(path)
	if !inside {
		name = role
		s.elsewhere = append(s.elsewhere, Place{Name: role, Path: path})
	}
	if inside {
		s.foldersOf(name)
	}
	s.add(source{name: name, path: path})
	for _, file := range append(slices.Clone(needed), optional...) {
		s.add(source{name: name + "/" + file, path: filepath.Join(path, file), optional: !slices.Contains(needed, file)})
	}
}

// file adds one file that chancery.yaml names, if it is the installation's own.
func (s *sources) file(path string) {
	name, inside := s.name(path)
	if !inside {
		s.leftOut = append(s.leftOut, path)
		return
	}
	s.foldersOf(name)
	s.add(source{name: name, path: path, optional: true})
}

// foldersOf adds the folders that a name is in.
func (s *sources) foldersOf(name string) {
	for i, r := range name {
		if r == '/' {
			s.add(source{name: name[:i], path: filepath.Join(s.base, name[:i])})
		}
	}
}

func (s *sources) add(one source) {
	if !slices.ContainsFunc(s.list, func(have source) bool { return have.name == one.name }) {
		s.list = append(s.list, one)
	}
}

func (s *sources) replace(path, content string) {
	for i := range s.list {
		if s.list[i].path == path {
			s.list[i].content = content
		}
	}
}
