package ldapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// maxFile bounds what is read into memory, and what the file may grow to.
const maxFile = 64 << 20

// record is where an entry stands in the file, and what it is found by.
type record struct {
	from, to int64        // the lines of the entry, without the empty line behind them
	name     string       // the DN as it stands there
	unit     cert.Purpose // set if the entry is the place that entries of a purpose are below
	purpose  cert.Purpose // set if the entry is below that place
	keys     []string     // of its common names
	uuid     string       // its entryUUID in lower case, or empty
}

// image is one state of the file: it is open, so that its inode number cannot be given to another
// file, and indexed. It does not hold the file's content.
type image struct {
	file    *os.File
	info    os.FileInfo
	records []record
	users   int // guarded by LDIF.mu; the file is closed when nobody uses it
}

// acquire gives the current state of the file. It reads the file only if it is another one than the
// last time. The caller releases it.
func (d *LDIF) acquire() (*image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Lstat(d.path)
	if err != nil {
		return nil, fmt.Errorf("directory file: %w", err)
	}
	if d.last == nil || !sameState(d.last.info, info) {
		next, err := d.open()
		if err != nil {
			return nil, err
		}
		d.keep(next)
	}
	d.last.users++
	return d.last, nil
}

// keep makes next the state that acquire hands out. The caller holds d.mu.
func (d *LDIF) keep(next *image) {
	if d.last != nil {
		d.drop(d.last)
	}
	next.users++
	d.last = next
}

func (d *LDIF) release(m *image) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(m)
}

func (d *LDIF) drop(m *image) {
	m.users--
	if m.users == 0 {
		m.file.Close() // it was only read from
	}
}

// sameState tells whether a file is the one that was indexed and has not been written to since.
func sameState(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// open reads and indexes the file.
func (d *LDIF) open() (*image, error) {
	// O_NONBLOCK, lest a named pipe put here holds us for ever.
	f, err := os.OpenFile(d.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("directory file: %w", err)
	}
	m, err := d.index(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("directory file %s: %w", d.path, err)
	}
	return m, nil
}

func (d *LDIF) index(f *os.File) (*image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("longer than %d MiB", maxFile>>20)
	}
	m := &image{file: f, info: info}
	m.records, err = d.indexText(data)
	return m, err
}

func (d *LDIF) indexText(data []byte) ([]record, error) {
	var records []record
	lineNo := 1
	for at := 0; at < len(data); {
		end := blockEnd(data, at)
		if end == at {
			at = lineEnd(data, at) // an empty line
			lineNo++
			continue
		}
		b, err := parseBlock(data[at:end])
		var r record
		if err == nil && b.entry {
			r, err = d.describe(b)
		}
		if err != nil {
			return nil, fmt.Errorf("the entry at line %d: %w", lineNo, err)
		}
		if r.unit != "" || r.purpose != "" {
			r.from, r.to = int64(at), int64(end)
			records = append(records, r)
		}
		lineNo += bytes.Count(data[at:end], []byte("\n"))
		at = end
	}
	return records, nil
}

// blockEnd gives the offset of the empty line, or the end, that ends the lines which start at from.
func blockEnd(data []byte, from int) int {
	for from < len(data) && data[from] != '\n' && !bytes.HasPrefix(data[from:], []byte("\r\n")) {
		from = lineEnd(data, from)
	}
	return from
}

// describe finds out what an entry is found by.
func (d *LDIF) describe(b *block) (record, error) {
	r := record{name: b.name}
	where, err := parseDN(b.name)
	if err != nil {
		return r, err
	}
	for purpose, parent := range d.parents {
		if where.below(parent) {
			r.purpose = purpose
		}
		if where.equal(parent) {
			r.unit = purpose
		}
	}
	if r.purpose == "" {
		return r, nil
	}
	names, err := b.values("cn", "commonname", "2.5.4.3")
	if err != nil {
		return r, err
	}
	for _, cn := range where.values("cn") {
		names = append(names, []byte(cn))
	}
	for _, cn := range names {
		// A directory compares cn without runs of spaces. What is no canonical name even so is the
		// name of nobody that we have a certificate for.
		n, err := name.Canonical(r.purpose, strings.Join(strings.Fields(string(cn)), " "))
		if err == nil {
			r.keys = append(r.keys, n.Key)
		}
	}
	ids, err := b.values("entryuuid")
	if err != nil {
		return r, err
	}
	if len(ids) > 1 {
		return r, errors.New("more than one entryUUID")
	}
	if len(ids) == 1 {
		r.uuid = strings.ToLower(string(ids[0]))
	}
	return r, nil
}

// block reads one entry of the image.
func (m *image) block(r record) (*block, error) {
	raw := make([]byte, r.to-r.from)
	if _, err := m.file.ReadAt(raw, r.from); err != nil {
		return nil, fmt.Errorf("reading the entry %.80q: %w", r.name, err)
	}
	b, err := parseBlock(raw)
	if err != nil {
		return nil, fmt.Errorf("the entry %.80q: %w", r.name, err)
	}
	return b, nil
}

// lock takes the lock that every writer of the file takes, in this process and in others. The lock
// file stays: removing it would let two writers hold locks on two files of the same name.
func (d *LDIF) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(d.path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("directory lock: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			f.Close()
			return nil, fmt.Errorf("directory lock: %w", err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("directory lock: %w", ctx.Err())
		}
	}
}

// replace puts the draft in the place of the file. The caller holds the lock.
func (d *LDIF) replace(dr *draft) error {
	temp := d.path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) { // a crash left it
		return err
	}
	out, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	next := &image{file: out}
	err = d.fill(next, dr)
	if err == nil {
		err = d.install(next, dr.base, temp)
	}
	if err != nil {
		out.Close()
		os.Remove(temp)
		return err
	}
	d.mu.Lock()
	d.keep(next)
	d.mu.Unlock()
	return nil
}

// fill writes the draft and makes it durable.
func (d *LDIF) fill(next *image, dr *draft) error {
	records, err := dr.write(next.file, d.describe)
	if err != nil {
		return err
	}
	if err := next.file.Chmod(dr.base.info.Mode().Perm()); err != nil {
		return err
	}
	if err := next.file.Sync(); err != nil {
		return err
	}
	if next.info, err = next.file.Stat(); err != nil {
		return err
	}
	if next.info.Size() > maxFile {
		return fmt.Errorf("%w: the file would be longer than %d MiB", ErrRefused, maxFile>>20)
	}
	next.records = records
	return nil
}

// install renames. An editor that does not know our lock may have saved the file meanwhile; then its
// version stays and the caller tries again on it.
func (d *LDIF) install(next, base *image, temp string) error {
	now, err := os.Lstat(d.path)
	if err != nil {
		return err
	}
	if !sameState(base.info, now) {
		return errors.New("the file was changed by somebody who does not take its lock")
	}
	return os.Rename(temp, d.path)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
