package gitrepo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
)

// Git's protocol of version 0 (gitprotocol-pack), as much of it as one branch needs.

// ErrRefused says that the server did not take the commit though the branch
// did not move, as a hook does that declines it. The text is the server's.
// Pushing the same again does not help.
var ErrRefused = errors.New("the git server refused the commit")

// ErrNotStored says that the server could not store the commit though the branch
// did not move: its disk is full, a lock stays, or a repack was in the way. The
// text is the server's.
var ErrNotStored = errors.New("the git server could not store the commit")

const (
	maxAdvert = 64 << 20 // octets of a list of references
	maxTold   = 1000     // octets that are kept of what a server says to people
	agent     = "agent=chancery"
)

// readPkt reads one pkt-line; nil is a flush.
func readPkt(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil || size > 0 && size < 4 {
		return nil, fmt.Errorf("%w: the server does not speak git's protocol (%q)", ErrHostile, head)
	}
	if size == 0 {
		return nil, nil
	}
	line := make([]byte, size-4)
	if _, err := io.ReadFull(r, line); err != nil {
		return nil, noEOF(err)
	}
	if text, ok := bytes.CutPrefix(line, []byte("ERR ")); ok {
		return nil, fmt.Errorf("the git server says %s", told(text))
	}
	return line, nil
}

// noEOF makes the end of a stream an error where more has to come.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writePkt(to *bytes.Buffer, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintf(to, "%04x%s", len(line)+4, line)
}

const flush = "0000"

// told makes a server's words fit for a log: one line, printable, quoted, short.
func told(text []byte) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text), " "))
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > maxTold {
		clean = strings.ToValidUTF8(clean[:maxTold], "") + " ..."
	}
	return strconv.Quote(clean)
}

// advert is what a server says first: what it can do, and where the branch is.
type advert struct {
	can []string
	tip Tip
}

func readAdvert(from io.Reader, ref plumbing.ReferenceName) (advert, error) {
	var a advert
	limited := &io.LimitedReader{R: from, N: maxAdvert}
	for first := true; ; first = false {
		line, err := readPkt(limited)
		if err != nil {
			if limited.N <= 0 {
				err = fmt.Errorf("%w: more than %d octets of references", ErrHostile, maxAdvert)
			}
			return a, fmt.Errorf("reading the references: %w", noEOF(err))
		}
		if line == nil {
			return a, a.check()
		}
		text := strings.TrimSuffix(string(line), "\n")
		if first {
			var caps string
			text, caps, _ = strings.Cut(text, "\x00")
			a.can = strings.Fields(caps)
		}
		id, name, _ := strings.Cut(text, " ")
		if name != ref.String() {
			continue
		}
		if !isHash(id) {
			return a, fmt.Errorf("%w: branch %s is at %q", ErrHostile, ref, told([]byte(id)))
		}
		a.tip.Commit = id
	}
}

func (a advert) check() error {
	for _, c := range a.can {
		if format, ok := strings.CutPrefix(c, "object-format="); ok && format != "sha1" {
			return fmt.Errorf("the repository has objects named by %s; only sha1 is spoken", format)
		}
	}
	return nil
}

func (a advert) offers(capability string) bool { return slices.Contains(a.can, capability) }

// bands takes the first of a side band's streams and keeps some of the second,
// which is for people. The third is an error.
type bands struct {
	from io.Reader
	rest []byte
	said []byte
	done bool
}

func (b *bands) Read(to []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.done {
			return 0, io.EOF
		}
		line, err := readPkt(b.from)
		if err != nil {
			return 0, noEOF(err)
		}
		if line == nil {
			b.done = true
			continue
		}
		if len(line) == 0 {
			continue
		}
		switch line[0] {
		case 1:
			b.rest = line[1:]
		case 2:
			b.said = append(b.said, line[1:min(len(line), 1+4*maxTold-min(len(b.said), 4*maxTold))]...)
		case 3:
			return 0, fmt.Errorf("the git server says %s", told(line[1:]))
		default:
			return 0, fmt.Errorf("%w: side band %d", ErrHostile, line[0])
		}
	}
	n := copy(to, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// wanted is what a fetch asks for.
type wanted struct {
	tip   string
	have  string // a commit whose tree is here, but not its parents; "" for none
	depth bool   // only the tip, not its parents
}

func (w wanted) encode(a advert) []byte {
	var out bytes.Buffer
	caps := "side-band-64k no-progress ofs-delta " + agent
	writePkt(&out, "want %s %s\n", w.tip, caps)
	if w.have != "" {
		writePkt(&out, "shallow %s\n", w.have)
	}
	if w.depth && a.offers("shallow") {
		writePkt(&out, "deepen 1\n")
	}
	out.WriteString(flush)
	if w.have != "" {
		writePkt(&out, "have %s\n", w.have)
	}
	writePkt(&out, "done\n")
	return out.Bytes()
}

// errNotCommon says that the server does not have the commit that we have.
var errNotCommon = errors.New("the server does not know our last commit")

// answer reads what comes before the pack, and returns the pack.
func (w wanted) answer(from io.Reader, a advert) (io.Reader, error) {
	for w.depth && a.offers("shallow") {
		line, err := readPkt(from)
		if err != nil {
			return nil, noEOF(err)
		}
		if line == nil {
			break
		}
	}
	line, err := readPkt(from)
	if err != nil {
		return nil, noEOF(err)
	}
	switch text := strings.TrimSuffix(string(line), "\n"); {
	case w.have != "" && text == "ACK "+w.have, w.have == "" && text == "NAK":
		return &bands{from: from}, nil
	case text == "NAK":
		return nil, errNotCommon
	default:
		return nil, fmt.Errorf("%w: the server answers %s", ErrHostile, told(line))
	}
}

// update is the command that moves a branch, with the objects that it needs.
func update(ref plumbing.ReferenceName, old, new plumbing.Hash, objects []Object) ([]byte, error) {
	var out bytes.Buffer
	writePkt(&out, "%s %s %s\x00report-status side-band-64k quiet %s\n", old, new, ref, agent)
	out.WriteString(flush)
	pack, err := encodePack(objects)
	if err != nil {
		return nil, fmt.Errorf("packing the commit: %w", err)
	}
	out.Write(pack)
	return out.Bytes(), nil
}

// report is how the server says that a push ended.
type report struct {
	unpacked string // "ok", or why not
	refused  string // why the branch did not move; "" if it did
	said     []byte // by hooks, to people
}

func readReport(from io.Reader, ref plumbing.ReferenceName) (report, error) {
	r := report{refused: "no word about the branch"}
	b := &bands{from: from}
	inner := &io.LimitedReader{R: b, N: 1 << 20}
	for {
		line, err := readPkt(inner)
		if err != nil {
			return r, fmt.Errorf("reading how the push ended: %w", noEOF(err))
		}
		if line == nil {
			break
		}
		text := strings.TrimSuffix(string(line), "\n")
		if result, ok := strings.CutPrefix(text, "unpack "); ok {
			r.unpacked = result
		}
		if text == "ok "+ref.String() {
			r.refused = ""
		}
		if reason, ok := strings.CutPrefix(text, "ng "+ref.String()+" "); ok {
			r.refused = reason
		}
	}
	// What hooks say may come before or after; the stream's end is not waited for.
	r.said = b.said
	if r.unpacked == "" {
		return r, fmt.Errorf("%w: a report without a word about the objects", ErrHostile)
	}
	return r, nil
}

// verdict is nil if the branch moved. ErrNotStored may still turn out to be a
// lost race: where the branch is tells.
func (r report) verdict() error {
	switch {
	case r.unpacked != "ok", slices.Contains(notMoved(), r.refused):
		why := ""
		if len(r.said) == 0 { // git does not say it of a quarantine that it cannot make or empty
			why = " and does not say why: look for a full disk, missing rights or a lock there"
		}
		return fmt.Errorf("%w: it says %s%s", ErrNotStored, r.text(), why)
	case r.refused == "":
		return nil
	case slices.Contains(otherWasFaster(), r.refused):
		return fmt.Errorf("%w: %s", ErrMoved, r.text())
	}
	return fmt.Errorf("%w: %s", ErrRefused, r.text())
}

// otherWasFaster gives what receive-pack says when the branch is not where our
// command wants it.
func otherWasFaster() []string {
	return []string{"fetch first", "non-fast-forward", "incorrect old value provided", "reference already exists"}
}

// notMoved gives what receive-pack says when the branch moved or was locked
// between its list of references and our command, or when a repack removed the
// folder that our objects were to go to; and just so when its disk is full.
func notMoved() []string {
	return []string{"failed to update ref", "failed to lock", "failed to write", "unable to migrate objects to permanent storage"}
}

func (r report) text() string {
	text := []byte(r.refused)
	if r.unpacked != "ok" {
		text = append([]byte(r.unpacked+": "), text...)
	}
	if len(r.said) > 0 {
		text = append(append(text, ": "...), r.said...)
	}
	return told(text)
}
