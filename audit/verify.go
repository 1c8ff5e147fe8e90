package audit

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Contradiction says that the log is not what it claims to be. Index is the first record that
// contradicts what stands before it, or what was seen elsewhere; -1 if no record of the log does. Code
// is one of the constants of this package and stable. Source is where the other side was seen, if that
// is not the log itself.
type Contradiction struct {
	Index  int64  `json:"index"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Source string `json:"source,omitempty"`
}

// Error gives all of it in one line.
func (c *Contradiction) Error() string {
	text := c.Code + ": " + c.Reason
	if c.Index >= 0 {
		text = fmt.Sprintf("leaf %d contradicts (%s): %s", c.Index, c.Code, c.Reason)
	}
	if c.Source != "" {
		text += " [" + c.Source + "]"
	}
	return text
}

func contradict(code, format string, args ...any) *Contradiction {
	return &Contradiction{Index: -1, Code: code, Reason: fmt.Sprintf(format, args...)}
}

// The codes of a Contradiction about the log as such.
const (
	LeafNotCanonical    = "leaf.not_canonical"   // bytes that Encode would not have written
	LeafHash            = "leaf.hash"            // the leaf is not the one whose hash the store keeps
	LogFirst            = "log.first"            // no log.opened at the beginning, or one later
	LogKey              = "log.key"              // the log names another log key than the reviewer pinned
	LogShort            = "log.short"            // a checkpoint covers more leaves than there are
	CheckpointRoot      = "checkpoint.root"      // a checkpoint of the same size has another root
	CheckpointSignature = "checkpoint.signature" // a note that the log key did not sign; it proves nothing
)

// backStep is how far one leaf's time may lie before the last one's without a remark.
const backStep = 5 * time.Minute

// maxRemarks bounds what a hostile log can make of the books.
const maxRemarks = 100

// Remark is something that a reviewer should know and that contradicts nothing.
type Remark struct {
	Index  int64  `json:"index"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// TimeBackwards is the code of the remark that the clock went back. It is no contradiction: a clock
// that is set right does it, and indexes, not times, give the order.
const TimeBackwards = "time.backwards"

// Verifier reads a log from its first leaf and believes nothing but the log key. It keeps a few hundred
// octets for each certificate. After the first contradiction every call gives that one again.
type Verifier struct {
	pinned string
	logKey string // "" while it is not known
	tree   Tree
	good   int64                 // size of the last checkpoint that agreed
	agreed int                   // checkpoints that did
	ahead  map[int64][]witnessed // checkpoints not reached yet, by size
	last   time.Time
	books  *Books
	failed *Contradiction
}

type witnessed struct {
	root   Hash
	source string
}

// NewVerifier takes the verifier key of the log, as the reviewer got it from somewhere else than the
// log. If it is empty, the key that the first leaf names is believed.
func NewVerifier(pinnedLogKey string) (*Verifier, error) {
	if pinnedLogKey != "" {
		if _, err := note.NewVerifier(pinnedLogKey); err != nil {
			return nil, fmt.Errorf("reading the pinned log key: %w", err)
		}
	}
	return &Verifier{pinned: pinnedLogKey, logKey: pinnedLogKey, ahead: make(map[int64][]witnessed), books: newBooks()}, nil
}

// Expect takes a checkpoint that was seen somewhere, as a signed note, to be compared when the log has
// its size. A note that the log key did not sign is a Contradiction with the code CheckpointSignature
// and changes nothing: anybody can write one. Expect needs the log key, so a pinned one or the first
// leaf, and refuses a checkpoint of a size that has passed.
func (v *Verifier) Expect(signed []byte, source string) error {
	if v.failed != nil {
		return v.failed
	}
	if v.logKey == "" {
		return errors.New("a checkpoint before the log key is known: pin one, or add the first leaf")
	}
	c, err := OpenCheckpoint(signed, v.logKey)
	if err != nil {
		bad := contradict(CheckpointSignature, "%v", err)
		bad.Source = source
		return bad
	}
	if c.Size < v.tree.Size() {
		return fmt.Errorf("a checkpoint of %d leaves when %d have been read", c.Size, v.tree.Size())
	}
	for _, w := range v.ahead[c.Size] {
		if w.root == c.Root {
			return nil
		}
	}
	v.ahead[c.Size] = append(v.ahead[c.Size], witnessed{c.Root, source})
	if c.Size == v.tree.Size() {
		return v.result(v.compare())
	}
	return nil
}

// Add reads the next leaf.
func (v *Verifier) Add(leaf []byte) error {
	if v.failed != nil {
		return v.failed
	}
	return v.result(v.add(leaf))
}

// AddWithRoot reads the next leaf and checks that the log up to and with it has this root, which the
// store kept when it was written. It tells which leaf was altered afterwards.
func (v *Verifier) AddWithRoot(leaf []byte, stored Hash) error {
	if v.failed != nil {
		return v.failed
	}
	tree := v.tree.Clone()
	tree.Append(leaf)
	if tree.Root() != stored {
		c := contradict(LeafHash, "the leaf is not the one that was hashed into the tree when it was written: it, or its hash, was altered in the store")
		c.Index = v.tree.Size()
		return v.result(c)
	}
	return v.result(v.add(leaf))
}

// result keeps the first contradiction.
func (v *Verifier) result(c *Contradiction) error {
	if c == nil {
		return nil
	}
	v.failed = c
	return c
}

func (v *Verifier) add(encoded []byte) *Contradiction {
	index := v.tree.Size()
	leaf, err := Decode(encoded)
	if err != nil {
		return &Contradiction{Index: index, Code: LeafNotCanonical, Reason: err.Error()}
	}
	if c := v.take(index, leaf); c != nil {
		c.Index = index
		return c
	}
	v.tree.Append(encoded)
	return v.compare()
}

func (v *Verifier) take(index int64, leaf Leaf) *Contradiction {
	opened, first := leaf.Event.(*LogOpened)
	switch {
	case index == 0 && !first:
		return contradict(LogFirst, "the log begins with a %s, not with log.opened", leaf.Event.Type())
	case index > 0 && first:
		return contradict(LogFirst, "the log is opened again")
	case first:
		if c := v.open(opened); c != nil {
			return c
		}
	}
	if leaf.Time.Before(v.last.Add(-backStep)) && len(v.books.Remarks) < maxRemarks {
		v.books.Remarks = append(v.books.Remarks, Remark{index, TimeBackwards, fmt.Sprintf("the clock went back from %s to %s", stamp(v.last), stamp(leaf.Time))})
	}
	v.last = leaf.Time
	return v.books.take(index, leaf)
}

func (v *Verifier) open(e *LogOpened) *Contradiction {
	key, err := note.NewVerifier(e.LogKey)
	if err != nil {
		return contradict(LogFirst, "the log key cannot be read: %v", err)
	}
	if key.Name() != e.Origin {
		return contradict(LogFirst, "the log is called %.80q and its key %.80q", e.Origin, key.Name())
	}
	if v.pinned != "" && v.pinned != e.LogKey {
		return contradict(LogKey, "the log names the log key %.120q, pinned is %.120q", e.LogKey, v.pinned)
	}
	v.logKey = e.LogKey
	return nil
}

// compare holds the tree against the checkpoints of its size.
func (v *Verifier) compare() *Contradiction {
	size := v.tree.Size()
	expected := v.ahead[size]
	if expected == nil {
		return nil
	}
	delete(v.ahead, size)
	root := v.tree.Root()
	for _, w := range expected {
		if w.root != root {
			return &Contradiction{Index: min(v.good, max(size-1, 0)), Code: CheckpointRoot, Source: w.source, Reason: fmt.Sprintf(
				"the leaves up to %d do not give the root of a checkpoint of %d leaves: one or more from %d to %d were altered", size-1, size, v.good, size-1)}
		}
		v.agreed++
	}
	v.good = size
	return nil
}

// Finish says that there are no more leaves. A checkpoint that was not reached means that there were.
func (v *Verifier) Finish() error {
	if v.failed != nil {
		return v.failed
	}
	size := v.tree.Size()
	if size == 0 {
		return v.result(&Contradiction{Index: 0, Code: LogFirst, Reason: "the log is empty"})
	}
	longest := size
	for s := range v.ahead {
		longest = max(longest, s)
	}
	if longest > size {
		return v.result(&Contradiction{Index: size, Code: LogShort, Source: v.ahead[longest][0].source, Reason: fmt.Sprintf(
			"the log has %d leaves and is shorter than a checkpoint of %d that was seen: it was cut", size, longest)})
	}
	return nil
}

// Tree is a copy of the tree over the leaves read so far.
func (v *Verifier) Tree() *Tree { return v.tree.Clone() }

// Checkpoints tells how many different checkpoints agreed, and how many leaves the largest covers.
func (v *Verifier) Checkpoints() (agreed int, covered int64) { return v.agreed, v.good }

// Books is what the leaves read so far imply. It belongs to the verifier until Finish.
func (v *Verifier) Books() *Books { return v.books }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
