package ldapsync

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/ca/cert"
)

// unit is a place in the tree that certificates of one purpose are published below.
type unit struct {
	purpose cert.Purpose
	ou      string
	classes []string // of the entries that are made there
}

func units() []unit {
	return []unit{
		{cert.User, "people", []string{"inetOrgPerson"}},
		{cert.Server, "hosts", []string{"device", "pkiUser"}},
	}
}

// draft is the next state of the file: the base with some entries changed and some made.
type draft struct {
	base    *image
	changed map[int]*block // by position in base.records
	made    []made
}

type made struct {
	uuid  string
	block *block
}

// write writes the draft and gives its index, so that the new file need not be read again. What no
// change is made to is copied by the kernel.
func (dr *draft) write(out *os.File, describe func(*block) (record, error)) ([]record, error) {
	from := int64(0)
	for _, i := range slices.Sorted(maps.Keys(dr.changed)) {
		r := dr.base.records[i]
		if err := dr.copy(out, from, r.from); err != nil {
			return nil, err
		}
		if _, err := out.Write(dr.changed[i].bytes()); err != nil {
			return nil, err
		}
		from = r.to
	}
	if err := dr.copy(out, from, dr.base.info.Size()); err != nil {
		return nil, err
	}
	records := slices.Clone(dr.base.records)
	moved := int64(0)
	for i := range records {
		r := &records[i]
		r.from += moved
		if b := dr.changed[i]; b != nil {
			moved += int64(len(b.bytes())) - (r.to + moved - r.from)
		}
		r.to += moved
	}
	return dr.append(out, records, describe)
}

func (dr *draft) copy(out io.Writer, from, to int64) error {
	if _, err := dr.base.file.Seek(from, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(out, dr.base.file, to-from)
	return err
}

// append writes the entries that are made behind all others.
func (dr *draft) append(out *os.File, records []record, describe func(*block) (record, error)) ([]record, error) {
	for _, m := range dr.made {
		gap, at, err := endOf(out)
		if err != nil {
			return nil, err
		}
		text := m.block.bytes()
		if _, err := out.WriteString(gap + string(text)); err != nil {
			return nil, err
		}
		r, err := describe(m.block)
		if err != nil {
			return nil, err
		}
		r.from = at + int64(len(gap))
		r.to = r.from + int64(len(text))
		records = append(records, r)
	}
	return records, nil
}

// endOf gives the length of what is written so far, and the line ends that are still missing before
// another entry can start.
func endOf(out *os.File) (gap string, size int64, err error) {
	info, err := out.Stat()
	if err != nil {
		return "", 0, err
	}
	size = info.Size()
	tail := make([]byte, min(size, 3))
	if _, err := out.ReadAt(tail, size-int64(len(tail))); err != nil {
		return "", 0, err
	}
	switch end := strings.ReplaceAll(string(tail), "\r", ""); {
	case end == "" || end == "\n" || strings.HasSuffix(end, "\n\n"):
		return "", size, nil
	case strings.HasSuffix(end, "\n"):
		return "\n", size, nil
	}
	return "\n\n", size, nil
}

// newEntry makes the entry that Find promised for a target.
func newEntry(t Target, parent string) (*block, error) {
	cn := t.Name.Text
	text := "cn=" + escapeValue(cn) + "," + parent
	// Whatever a name is made of, it may only ever be one value one level below the parent.
	where, err := parseDN(text)
	above, errAbove := parseDN(parent)
	if err = errors.Join(err, errAbove); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if cn == "" || len(where) != len(above)+1 || !where.below(above) || !slices.Equal(where.values("cn"), []string{cn}) {
		return nil, fmt.Errorf("%w: %.80q cannot stand in a distinguished name", ErrRefused, cn)
	}
	var attrs []string
	for _, u := range units() {
		if u.purpose == t.Purpose {
			for _, class := range u.classes {
				attrs = append(attrs, "objectClass", class)
			}
		}
	}
	attrs = append(attrs, "cn", cn)
	if t.Purpose == cert.User {
		attrs = append(attrs, "sn", cn) // inetOrgPerson requires one
	}
	return parseBlock(writeEntry(text, append(attrs, "entryUUID", t.Entry)...))
}

// writeEntry writes an entry from its DN and attributes with their values in turn.
func writeEntry(name string, attrs ...string) []byte {
	out := writeLine("dn", []byte(name), "\n")
	for i := 0; i < len(attrs); i += 2 {
		out = append(out, writeLine(attrs[i], []byte(attrs[i+1]), "\n")...)
	}
	return out
}

// WriteEmpty makes a directory file that holds the base and the places below it, and nobody yet. The
// base is named by dc, o, ou or c. A file that is there already is an error.
func WriteEmpty(path, base string) error {
	text, err := emptyDirectory(base)
	if err != nil {
		return fmt.Errorf("directory base %q: %w", base, err)
	}
	// Certificates are public, and so is the file.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("making a directory file: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("making a directory file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func emptyDirectory(base string) ([]byte, error) {
	where, err := parseDN(base)
	if err != nil {
		return nil, err
	}
	if len(where) == 0 || len(where[0]) != 1 {
		return nil, errors.New("want a distinguished name such as dc=example,dc=org")
	}
	first := where[0][0]
	var attrs []string
	switch first.kind {
	case "dc": // RFC 4524 section 3.3: dcObject is auxiliary
		attrs = []string{"objectClass", "organization", "objectClass", "dcObject", "o", first.value}
	case "o":
		attrs = []string{"objectClass", "organization"}
	case "ou":
		attrs = []string{"objectClass", "organizationalUnit"}
	case "c":
		attrs = []string{"objectClass", "country"}
	default:
		return nil, fmt.Errorf("it begins with %s; want dc, o, ou or c", first.kind)
	}
	out := append([]byte("version: 1\n\n"), writeEntry(base, append(attrs, first.kind, first.value)...)...)
	for _, u := range units() {
		out = append(out, '\n')
		out = append(out, writeEntry("ou="+u.ou+","+base, "objectClass", "organizationalUnit", "ou", u.ou)...)
	}
	return out, nil
}
