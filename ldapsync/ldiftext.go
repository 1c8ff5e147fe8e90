package ldapsync

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// foldAt is the longest line that is written. A reader may not mind longer ones, but a person does.
const foldAt = 76

// line is one logical line of LDIF (RFC 2849): a comment, or an attribute with its value.
type line struct {
	raw  []byte // as it stands in the file, folds and line ends included
	attr string // attribute description in lower case; empty for a comment
	form byte   // ' ' plain, ':' base64, '<' the URL of a value
	text []byte // what stands after the separator, unfolded
}

// block is a run of lines without an empty one: an entry, or comments only.
type block struct {
	lines []line
	name  string // the DN as text; empty also for the root DSE
	entry bool   // there is a dn line
}

// parseBlock reads a run of lines. Nothing that it keeps differs from raw: the raw parts of the lines
// concatenated are raw again.
func parseBlock(raw []byte) (*block, error) {
	b := &block{}
	for at := 0; at < len(raw); {
		next := at
		for {
			next = lineEnd(raw, next)
			if next == len(raw) || raw[next] != ' ' {
				break
			}
		}
		l, err := parseLine(raw[at:next])
		if err == nil {
			err = b.accept(l)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of it: %w", 1+bytes.Count(raw[:at], []byte("\n")), err)
		}
		at = next
	}
	return b, nil
}

// lineEnd gives the offset behind the line end that follows from.
func lineEnd(raw []byte, from int) int {
	if i := bytes.IndexByte(raw[from:], '\n'); i >= 0 {
		return from + i + 1
	}
	return len(raw)
}

// accept adds a line and checks that it may stand there.
func (b *block) accept(l line) error {
	switch {
	case l.attr == "": // a comment may stand anywhere
	case l.attr == "dn":
		if b.entry {
			return errors.New("a second dn; an empty line ends an entry")
		}
		name, err := l.value()
		if err != nil {
			return fmt.Errorf("dn: %w", err)
		}
		b.entry, b.name = true, string(name)
	case l.attr == "version" && !b.entry:
		if string(l.text) != "1" {
			return fmt.Errorf("LDIF of version %.10q; want 1", l.text)
		}
	case !b.entry:
		return fmt.Errorf("%.40q where an entry should start with its dn", l.attr)
	case l.attr == "changetype" || l.attr == "control":
		return errors.New("a change record; want a file of entries")
	}
	b.lines = append(b.lines, l)
	return nil
}

func parseLine(raw []byte) (line, error) {
	text := unfold(raw)
	if len(text) == 0 || bytes.ContainsAny(text, "\x00\r") {
		return line{}, errors.New("a NUL or a bare carriage return")
	}
	switch text[0] {
	case '#':
		return line{raw: raw}, nil
	case ' ':
		return line{}, errors.New("a continuation of nothing")
	}
	attr, rest, found := bytes.Cut(text, []byte(":"))
	l := line{raw: raw, attr: strings.ToLower(string(attr)), form: ' '}
	if !found || !isDescription(l.attr) {
		return line{}, fmt.Errorf("%.40q is not an attribute and a value", text)
	}
	if len(rest) > 0 && (rest[0] == ':' || rest[0] == '<') {
		l.form, rest = rest[0], rest[1:]
	}
	l.text = bytes.TrimLeft(rest, " ")
	return l, nil
}

// unfold joins the physical lines of one logical line, without their line ends.
func unfold(raw []byte) []byte {
	var out []byte
	for i, part := range bytes.SplitAfter(raw, []byte("\n")) {
		part = bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r"))
		if i > 0 && len(part) > 0 {
			part = part[1:]
		}
		out = append(out, part...)
	}
	return out
}

// isDescription tells whether s is an attribute description (RFC 4512 section 2.5).
func isDescription(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == ';':
		default:
			return false
		}
	}
	return s != "" && s[0] != '-' && s[0] != ';' && s[0] != '.'
}

// value decodes what the line says of its attribute.
func (l line) value() ([]byte, error) {
	switch l.form {
	case ':':
		v, err := base64.StdEncoding.Strict().DecodeString(strings.TrimRight(string(l.text), " "))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.attr, err)
		}
		return v, nil
	case '<':
		return nil, fmt.Errorf("%s stands at a URL, and URLs are not followed", l.attr)
	}
	return l.text, nil
}

// values decodes all values of the attributes that have one of the descriptions.
func (b *block) values(attrs ...string) ([][]byte, error) {
	var out [][]byte
	for _, l := range b.lines {
		if l.is(attrs) {
			v, err := l.value()
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func (l line) is(attrs []string) bool { return slices.Contains(attrs, l.attr) }

// bytes gives the block as it stands or will stand in the file.
func (b *block) bytes() []byte {
	var out []byte
	for _, l := range b.lines {
		out = append(out, l.raw...)
	}
	return out
}

// eol is the line end that the block uses.
func (b *block) eol() string {
	if len(b.lines) > 0 && bytes.HasSuffix(b.lines[0].raw, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// insert puts a value behind the last line that has one of the descriptions, or at the end.
func (b *block) insert(attrs []string, attr string, value []byte) error {
	eol := b.eol()
	last := len(b.lines) - 1
	if last >= 0 && !bytes.HasSuffix(b.lines[last].raw, []byte("\n")) {
		b.lines[last].raw = append(bytes.Clone(b.lines[last].raw), eol...) // the file ends without a line end
	}
	for i, l := range b.lines {
		if l.is(attrs) {
			last = i
		}
	}
	l, err := parseLine(writeLine(attr, value, eol))
	if err != nil {
		return fmt.Errorf("writing %s: %w", attr, err)
	}
	b.lines = slices.Insert(b.lines, last+1, l)
	return nil
}

// writeLine writes an attribute and its value, in base64 where RFC 2849 asks for it, and always for
// attributes that are transferred in binary.
func writeLine(attr string, value []byte, eol string) []byte {
	text := attr + ": " + string(value)
	if strings.HasSuffix(attr, ";binary") || !isSafe(value) {
		text = attr + ":: " + base64.StdEncoding.EncodeToString(value)
	}
	var out strings.Builder
	for room := foldAt; len(text) > room; room = foldAt - 1 {
		out.WriteString(text[:room] + eol + " ")
		text = text[room:]
	}
	out.WriteString(text + eol)
	return []byte(out.String())
}

// isSafe tells whether a value can stand as it is: SAFE-STRING of RFC 2849, and its note 8 on values
// that end in a space.
func isSafe(v []byte) bool {
	if len(v) == 0 {
		return true
	}
	if v[0] == ' ' || v[0] == ':' || v[0] == '<' || v[len(v)-1] == ' ' {
		return false
	}
	for _, c := range v {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
