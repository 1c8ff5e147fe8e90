package ldapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"sync"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// published is the attribute that certificates are written to, and publishedAs the spellings that are
// read.
const published = cert.DirectoryAttribute

var publishedAs = []string{"usercertificate;binary", "2.5.4.36;binary"}

// mayHoldCertificates are the object classes that allow userCertificate (RFC 2798 and RFC 4523).
var mayHoldCertificates = []string{"inetorgperson", "pkiuser", "strongauthenticationuser"}

// LDIF is a directory in a file of entries (RFC 2849). People are below ou=people and servers below
// ou=hosts of its base. What it does not write itself stays in the file byte for byte.
type LDIF struct {
	path    string
	create  bool
	parents map[cert.Purpose]dn
	texts   map[cert.Purpose]string // the parents as text, to build names with

	writing sync.Mutex // held by whoever writes the file; before mu
	mu      sync.Mutex // guards the rest, and is never held over a write
	last    *image
	pending []*edit
}

// OpenLDIF takes a URL of the form ldif:///path and the DN below which the entries are. With create,
// an entry that is missing is made. The file is not touched yet, and has to exist when it is needed.
func OpenLDIF(address string, create bool, base string) (*LDIF, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, badSetting("urls[0]", "directory address: %w", err)
	}
	if u.Scheme != "ldif" || u.Host != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !filepath.IsAbs(u.Path) {
		return nil, badSetting("urls[0]", "directory address %q: want ldif:///path", address)
	}
	d := &LDIF{path: filepath.Clean(u.Path), create: create, parents: map[cert.Purpose]dn{}, texts: map[cert.Purpose]string{}}
	for _, unit := range units() {
		d.texts[unit.purpose] = "ou=" + unit.ou + "," + base
		if d.parents[unit.purpose], err = parseDN(d.texts[unit.purpose]); err != nil {
			return nil, badSetting("base", "directory base %q: %w", base, err)
		}
	}
	return d, nil
}

// Close lets go of the file.
func (d *LDIF) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last != nil {
		d.drop(d.last)
		d.last = nil
	}
	return nil
}

// Check tells whether the file is there and can be read as what it should be.
func (d *LDIF) Check(context.Context) error {
	m, err := d.acquire()
	if err == nil {
		d.release(m)
	}
	return err
}

// Find implements Directory. An entry without an entryUUID of its own is known by the one that it
// would have if it had been made here.
func (d *LDIF) Find(_ context.Context, purpose cert.Purpose, n name.Name) (string, error) {
	if err := d.publishes(purpose); err != nil {
		return "", err
	}
	m, err := d.acquire()
	if err != nil {
		return "", err
	}
	defer d.release(m)
	i, err := named(m.records, purpose, n)
	switch {
	case err == nil && m.records[i].uuid != "":
		return m.records[i].uuid, nil
	case err == nil, errors.Is(err, ErrNoEntry) && d.create:
		return madeEntry(purpose, n), nil
	}
	return "", err
}

// publishes tells whether certificates of a purpose have a place in this directory.
func (d *LDIF) publishes(purpose cert.Purpose) error {
	if d.parents[purpose] == nil {
		return fmt.Errorf("%w: certificates of the purpose %q are not published", ErrNoEntry, purpose)
	}
	return nil
}

// Read implements Directory.
func (d *LDIF) Read(_ context.Context, t Target) ([][]byte, error) {
	m, err := d.acquire()
	if err != nil {
		return nil, err
	}
	defer d.release(m)
	i, err := targeted(m.records, t)
	if err != nil {
		return nil, err
	}
	b, err := m.block(m.records[i])
	if err != nil {
		return nil, err
	}
	return b.values(publishedAs...)
}

// Apply implements Directory. All that callers ask for while the file is being written is done in the
// next writing together, under the context of the one that does it.
func (d *LDIF) Apply(ctx context.Context, t Target, add, remove [][]byte) error {
	if err := d.publishes(t.Purpose); err != nil {
		return err
	}
	e := &edit{target: t, add: add, remove: remove}
	d.mu.Lock()
	d.pending = append(d.pending, e)
	d.mu.Unlock()

	d.writing.Lock()
	defer d.writing.Unlock()
	if !e.done {
		d.mu.Lock()
		batch := d.pending
		d.pending = nil
		d.mu.Unlock()
		d.write(ctx, batch)
	}
	return e.err
}

// edit is what one call of Apply asks for. done and err are guarded by LDIF.writing.
type edit struct {
	target      Target
	add, remove [][]byte
	done        bool
	err         error
}

// write does a batch: those edits that cannot be done fail alone, the others share one new file.
func (d *LDIF) write(ctx context.Context, batch []*edit) {
	err := d.tryWrite(ctx, batch)
	for _, e := range batch {
		e.done = true
		if e.err == nil && err != nil {
			e.err = fmt.Errorf("writing the directory file: %w", err)
		}
	}
}

func (d *LDIF) tryWrite(ctx context.Context, batch []*edit) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	base, err := d.acquire()
	if err != nil {
		return err
	}
	defer d.release(base)
	dr := &draft{base: base, changed: map[int]*block{}}
	for _, e := range batch {
		e.err = d.edit(dr, e)
	}
	if len(dr.changed) > 0 || len(dr.made) > 0 {
		if err := d.replace(dr); err != nil {
			return err
		}
	}
	// Also when nothing had to be done: an earlier renaming may have failed just here.
	return syncDir(filepath.Dir(d.path))
}

// edit changes the draft.
func (d *LDIF) edit(dr *draft, e *edit) error {
	b, index, err := d.take(dr, e)
	if b == nil || err != nil {
		return err
	}
	changed, err := change(b, e.add, e.remove)
	if changed && err == nil && index >= 0 {
		dr.changed[index] = b
	}
	return err
}

// take finds the entry of an edit, or makes it. index is -1 for an entry that this draft makes; the
// block is nil if nothing is to be done.
func (d *LDIF) take(dr *draft, e *edit) (b *block, index int, err error) {
	t := e.target
	for _, m := range dr.made {
		if m.uuid == t.Entry {
			return m.block, -1, nil
		}
	}
	i, err := targeted(dr.base.records, t)
	if err == nil {
		if b = dr.changed[i]; b == nil {
			b, err = dr.base.block(dr.base.records[i])
		}
		return b, i, err
	}
	if !errors.Is(err, ErrNoEntry) || !d.create || t.Entry != madeEntry(t.Purpose, t.Name) {
		return nil, 0, err
	}
	if _, taken := named(dr.base.records, t.Purpose, t.Name); !errors.Is(taken, ErrNoEntry) {
		return nil, 0, fmt.Errorf("%w: another entry has its name now", ErrNoEntry)
	}
	if len(e.add) == 0 {
		return nil, 0, nil
	}
	if _, err := only(dr.base.records, func(r record) bool { return r.unit == t.Purpose }); err != nil {
		return nil, 0, fmt.Errorf("%w: %s, where the entry would be made: %w", ErrRefused, d.texts[t.Purpose], err)
	}
	b, err = newEntry(t, d.texts[t.Purpose])
	if err != nil {
		return nil, 0, err
	}
	dr.made = append(dr.made, made{t.Entry, b})
	return b, -1, nil
}

// named finds the only entry with a name.
func named(records []record, purpose cert.Purpose, n name.Name) (int, error) {
	return only(records, func(r record) bool {
		return r.purpose == purpose && slices.Contains(r.keys, n.Key)
	})
}

// targeted finds the entry with an identifier: its own, or, for an entry that has none, the one that
// Find gave it.
func targeted(records []record, t Target) (int, error) {
	i, err := only(records, func(r record) bool { return r.purpose == t.Purpose && r.uuid == t.Entry })
	if !errors.Is(err, ErrNoEntry) || t.Entry != madeEntry(t.Purpose, t.Name) {
		return i, err
	}
	i, err = named(records, t.Purpose, t.Name)
	if err == nil && records[i].uuid != "" {
		return 0, fmt.Errorf("%w: another entry has its name now", ErrNoEntry)
	}
	return i, err
}

func only(records []record, want func(record) bool) (int, error) {
	found := -1
	for i, r := range records {
		if !want(r) {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("%w: %.80q and %.80q", ErrManyEntries, records[found].name, r.name)
		}
		found = i
	}
	if found < 0 {
		return 0, ErrNoEntry
	}
	return found, nil
}

// change adds and removes values of one entry.
func change(b *block, add, remove [][]byte) (changed bool, err error) {
	have, err := b.values(publishedAs...)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	has := func(values [][]byte, der []byte) bool {
		return slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, der) })
	}
	var missing [][]byte
	for _, der := range add {
		if !has(have, der) && !has(missing, der) {
			missing = append(missing, der)
		}
	}
	if len(missing) > 0 {
		if err := allowCertificates(b); err != nil {
			return false, err
		}
	}
	before := len(b.lines)
	b.lines = slices.DeleteFunc(b.lines, func(l line) bool {
		if !l.is(publishedAs) {
			return false
		}
		v, err := l.value()
		return err == nil && has(remove, v)
	})
	changed = len(b.lines) != before || len(missing) > 0
	for _, der := range missing {
		if err := b.insert(publishedAs, published, der); err != nil {
			return false, err
		}
	}
	return changed, nil
}

// allowCertificates gives the entry the auxiliary class of RFC 4523 section 3.1 if none of its classes
// allows userCertificate.
func allowCertificates(b *block) error {
	classes, err := b.values("objectclass")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	for _, c := range classes {
		if slices.Contains(mayHoldCertificates, string(bytes.ToLower(c))) {
			return nil
		}
	}
	return b.insert([]string{"objectclass"}, "objectClass", []byte("pkiUser"))
}
