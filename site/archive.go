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
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A backup is a tar stream under age. Its last entry is the manifest, so a stream that was cut has none.
const (
	manifestName   = "MANIFEST.json"
	manifestFormat = 1
	maxManifest    = 1 << 20
	maxEntries     = 1000
)

// setGroup is the mode bit that gives what is made in a folder, such as the key room's socket, to the
// folder's group.
const setGroup = 0o2000

// Manifest says what a backup holds.
type Manifest struct {
	Format int       `json:"format"` // 1
	Build  string    `json:"build"`  // of the program that made it
	Made   time.Time `json:"made"`   // before the store was copied
	// Log is where the copy of the store ends.
	Log Position `json:"log"`
	// Room is what the key room had done after the store was copied: its journal in the backup holds at
	// least that. Nil if the room did not run.
	Room *RoomPosition `json:"room,omitempty"`
	// Elsewhere are folders, and the directory file, that the configuration has outside of its own folder.
	Elsewhere []Place `json:"elsewhere,omitempty"`
	// LeftOut are paths that the configuration names and the backup does not hold.
	LeftOut []string   `json:"left_out"`
	Files   []FileInfo `json:"files"`
}

// Position is a place in the log.
type Position struct {
	Size int64  `json:"size"` // leaves
	Root string `json:"root"` // of the tree over them, lower-case hex
}

// RoomPosition is how far a key room is.
type RoomPosition struct {
	Room     string `json:"room"`
	Sequence int64  `json:"sequence"` // records of its journal
	Journal  string `json:"journal"`  // hash of the last one, lower-case hex
	Position
}

// Place tells where a folder or file of the backup was.
type Place struct {
	Name string `json:"name"` // in the backup
	Path string `json:"path"` // absolute
}

// checkPlaces refuses places that Backup would not have named: Steps makes commands of them.
func (m Manifest) checkPlaces() error {
	known := []string{"trust", "secrets", "state", "keyroom", directoryFile}
	for _, p := range m.Elsewhere {
		if !slices.Contains(known, p.Name) || !filepath.IsAbs(p.Path) {
			return fmt.Errorf("its manifest puts %.100q at %.100q, which is no place for a part of an installation", p.Name, p.Path)
		}
	}
	return nil
}

// FileInfo is one file of a backup.
type FileInfo struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // lower-case hex
}

// archive writes the entries of a backup.
type archive struct {
	tar   *tar.Writer
	files []FileInfo
}

// add copies a file as long as it is now: what grows, like a journal, goes in up to here.
func (a *archive) add(s source) error {
	info, err := os.Stat(s.path)
	if s.optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("reading %s: %w", s.name, err)
	}
	if info.IsDir() {
		return a.header(s.name, info, 0)
	}
	if s.content == "" {
		s.content = s.path
	}
	f, err := openOwn(s.content)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.name, err)
	}
	return errors.Join(a.addFile(s.name, f, info), f.Close())
}

// openOwn opens a file without waiting, whatever it is. A link counts if root or this user made it: behind
// one of the daemon's there may be what only root can read, and no backup is to hold.
func openOwn(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	follow := syscall.O_NOFOLLOW
	if info.Mode()&fs.ModeSymlink != 0 {
		if uid := ownerOf(info); uid != 0 && uid != uint32(os.Geteuid()) {
			return nil, fmt.Errorf("%s is a link that uid %d made: put the file there instead", path, uid)
		}
		follow = 0
	}
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|follow, 0)
}

// addFile copies f, with the owner and the mode that owner has.
func (a *archive) addFile(name string, f *os.File, owner fs.FileInfo) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file (%s)", f.Name(), info.Mode().Type())
	}
	if err := a.header(name, owner, info.Size()); err != nil {
		return err
	}
	sum := sha256.New()
	if n, err := io.CopyN(io.MultiWriter(a.tar, sum), f, info.Size()); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s had %d octets and now has %d: run the backup again", f.Name(), info.Size(), n)
	} else if err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	a.files = append(a.files, FileInfo{name, info.Size(), hex.EncodeToString(sum.Sum(nil))})
	return nil
}

func (a *archive) header(name string, info fs.FileInfo, size int64) error {
	h, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return fmt.Errorf("describing %s: %w", name, err)
	}
	h.Name, h.Size, h.Format = name, size, tar.FormatPAX
	h.ModTime = h.ModTime.Truncate(time.Second)
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Mode &= 0o777
	if info.IsDir() {
		if info.Mode()&fs.ModeSetgid != 0 {
			h.Mode |= setGroup
		}
		h.Name = path.Clean(name) + "/"
	}
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	return nil
}

// finish writes the manifest and the end of the tar stream.
func (a *archive) finish(m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	h := &tar.Header{Name: manifestName, Size: int64(len(text)), Mode: 0o600, ModTime: m.Made, Format: tar.FormatPAX}
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	if _, err := a.tar.Write(text); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	return a.tar.Close()
}

// checkEntry refuses an entry that Backup would not have written. Names are slash-separated and stay
// below the folder that they are unpacked in.
func checkEntry(h *tar.Header) (name string, err error) {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return "", fmt.Errorf("%.100q is neither a file nor a folder (type %q)", h.Name, h.Typeflag)
	}
	name = h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") || name == "." && h.Typeflag != tar.TypeDir {
		return "", fmt.Errorf("%.100q is not a name inside the backup", h.Name)
	}
	allowed := int64(0o775)
	if h.Typeflag == tar.TypeDir {
		allowed |= setGroup
	}
	if h.Mode&^allowed != 0 {
		return "", fmt.Errorf("%.100q has mode %04o", h.Name, h.Mode)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return "", fmt.Errorf("%.100q is a sparse file", h.Name)
		}
	}
	return name, nil
}

// meter passes on what is written, tells how much that was, and stops when ctx ends.
type meter struct {
	ctx     context.Context
	to      io.Writer
	tell    func(int64)
	written int64
}

func (m *meter) Write(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.to.Write(p)
	m.written += int64(n)
	if m.tell != nil {
		m.tell(m.written)
	}
	return n, err
}

// meterReader is the same for what is read.
type meterReader struct {
	ctx  context.Context
	from io.Reader
	tell func(int64)
	read int64
}

func (m *meterReader) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.from.Read(p)
	m.read += int64(n)
	if m.tell != nil {
		m.tell(m.read)
	}
	return n, err
}
