package gitrepo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// The modes that are written. Others are kept as they stand.
const (
	modeFile = "100644"
	modeTree = "40000"
)

// entry is one line of a tree object. The mode stays as it is spelled: old
// tools wrote 040000 and 100664, and another spelling is another hash.
type entry struct {
	mode string
	name string
	hash plumbing.Hash
}

// kind is the file type in the mode's upper bits.
func (e entry) kind() uint64 {
	m, err := strconv.ParseUint(e.mode, 8, 32)
	if err != nil {
		return 0
	}
	return m & 0o170000
}

func (e entry) isTree() bool { return e.kind() == 0o040000 }
func (e entry) isFile() bool { return e.kind() == 0o100000 }

func (e entry) describe() string {
	switch e.kind() {
	case 0o040000:
		return "a folder"
	case 0o100000:
		return "a file"
	case 0o120000:
		return "a symbolic link"
	case 0o160000:
		return "a submodule"
	}
	return "an entry of mode " + strconv.Quote(e.mode)
}

// tree is a tree object in its own order.
type tree []entry

func parseTree(raw []byte) (tree, error) {
	rest := string(raw)
	t := make(tree, 0, len(rest)/36)
	for rest != "" {
		mode, after, ok := strings.Cut(rest, " ")
		name, hash, ok2 := strings.Cut(after, "\x00")
		if !ok || !ok2 || len(hash) < 20 || mode == "" || len(mode) > 7 ||
			strings.Trim(mode, "01234567") != "" || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%w: malformed tree entry %d", ErrHostile, len(t))
		}
		e := entry{mode: mode, name: name}
		copy(e.hash[:], hash)
		t = append(t, e)
		rest = hash[20:]
	}
	return t, nil
}

func (t tree) encode() []byte {
	size := 0
	for _, e := range t {
		size += len(e.mode) + len(e.name) + 22
	}
	raw := make([]byte, 0, size)
	for _, e := range t {
		raw = append(raw, e.mode...)
		raw = append(raw, ' ')
		raw = append(raw, e.name...)
		raw = append(raw, 0)
		raw = append(raw, e.hash[:]...)
	}
	return raw
}

// find returns the entry of that name and how many there are. More than one
// is a malformed tree whose meaning depends on who reads it.
func (t tree) find(name string) (found entry, n int) {
	for _, e := range t {
		if e.name == name {
			found = e
			n++
		}
	}
	return found, n
}

// set returns the tree with exactly one entry of that name. All others keep
// their place and their bytes; the new one goes where git's order wants it, in
// which a folder sorts as if its name ended in "/".
func (t tree) set(e entry) tree {
	t = t.remove(e.name)
	at := slices.IndexFunc(t, func(other entry) bool { return other.key() > e.key() })
	if at < 0 {
		at = len(t)
	}
	return slices.Insert(t, at, e)
}

func (t tree) remove(name string) tree {
	return slices.DeleteFunc(slices.Clone(t), func(e entry) bool { return e.name == name })
}

func (e entry) key() string {
	if e.isTree() {
		return e.name + "/"
	}
	return e.name
}
