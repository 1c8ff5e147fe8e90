package xmlrpc

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

type kind uint8

const (
	eof kind = iota
	startTag
	endTag
	charData
)

// A token is one piece of a document. A self-closing tag is two: a start tag
// and an end tag.
type token struct {
	kind kind
	at   int    // byte offset in the document
	name []byte // of a tag
	text []byte // of character data, ready for use; valid until the next token
}

// A scanner splits a document, already passed by checkText, into tokens and
// holds it to the well-formedness rules which span them: tags match, one root.
type scanner struct {
	body     []byte
	pos      int
	open     [][]byte // names of the elements which are open
	rooted   bool     // the root was opened
	selfEnd  bool     // the end tag of a self-closing tag is due
	elements int      // seen so far
	budget   int      // elements allowed
	buf      []byte   // of the last character data which had to be rewritten
}

func (s *scanner) next() (token, error) {
	if s.selfEnd {
		s.selfEnd = false
		return s.pop(s.pos), nil
	}
	rest := s.body[s.pos:]
	switch {
	case len(rest) == 0:
		return s.end()
	case rest[0] != '<':
		return s.characters()
	case bytes.HasPrefix(rest, []byte("</")):
		return s.readEnd()
	case bytes.HasPrefix(rest, []byte("<!")), bytes.HasPrefix(rest, []byte("<?")):
		return token{}, s.refused()
	}
	return s.readStart()
}

func (s *scanner) end() (token, error) {
	if len(s.open) > 0 {
		return token{}, notWellFormed(s.pos, "document ends inside %s", quote(s.open[len(s.open)-1]))
	}
	if !s.rooted {
		return token{}, notWellFormed(s.pos, "document has no element")
	}
	return token{kind: eof, at: s.pos}, nil
}

func (s *scanner) pop(at int) token {
	last := len(s.open) - 1
	name := s.open[last]
	s.open = s.open[:last]
	return token{kind: endTag, at: at, name: name}
}

// refused names the markup which XML has and this codec does not.
func (s *scanner) refused() error {
	rest := s.body[s.pos:]
	switch {
	case bytes.HasPrefix(rest, []byte("<!DOCTYPE")):
		return invalid(s.pos, "a document type (DTD) is not allowed")
	case bytes.HasPrefix(rest, []byte("<!--")):
		return invalid(s.pos, "a comment is not allowed")
	case bytes.HasPrefix(rest, []byte("<![CDATA[")):
		return invalid(s.pos, "a CDATA section is not allowed; escape & and <")
	case bytes.HasPrefix(rest, []byte("<!")):
		return notWellFormed(s.pos, "unknown markup")
	}
	at := s.pos
	s.pos += len("<?")
	switch target := s.name(); {
	case len(target) == 0:
		return notWellFormed(at, "unknown markup")
	case bytes.EqualFold(target, []byte("xml")):
		return notWellFormed(at, "XML declaration broken, or not at the very start")
	}
	return invalid(at, "a processing instruction is not allowed")
}

func (s *scanner) readStart() (token, error) {
	at := s.pos
	s.pos++
	name := s.name()
	switch {
	case len(name) == 0:
		return token{}, notWellFormed(at, "'<' does not begin a tag; write &lt; in text")
	case len(s.open) == 0 && s.rooted:
		return token{}, notWellFormed(at, "a second root element %s", quote(name))
	case bytes.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }):
		// Which characters a Name may begin with and hold is not worth a table.
		return token{}, invalid(at, "element %s, where names are of ASCII", quote(name))
	case bytes.IndexByte(name, ':') >= 0:
		return token{}, invalid(at, "namespaces are not allowed: element %s", quote(name))
	}
	spaced := s.skipSpace()
	rest := s.body[s.pos:]
	switch {
	case len(rest) == 0:
		return token{}, notWellFormed(s.pos, "document ends inside a tag")
	case rest[0] == '>':
		s.pos++
	case bytes.HasPrefix(rest, []byte("/>")):
		s.pos += 2
		s.selfEnd = true
	case spaced && isNameStart(rest[0]):
		return token{}, invalid(s.pos, "attributes are not allowed: element %s", quote(name))
	default:
		return token{}, notWellFormed(s.pos, "%s inside a tag", quote(rest[:1]))
	}
	if s.elements++; s.elements > s.budget {
		return token{}, invalid(at, "more than %d elements", s.budget)
	}
	s.rooted = true
	s.open = append(s.open, name)
	return token{kind: startTag, at: at, name: name}, nil
}

func (s *scanner) readEnd() (token, error) {
	at := s.pos
	s.pos += len("</")
	name := s.name()
	s.skipSpace()
	switch {
	case s.pos == len(s.body):
		return token{}, notWellFormed(s.pos, "document ends inside a tag")
	case s.body[s.pos] != '>':
		return token{}, notWellFormed(s.pos, "%s inside an end tag", quote(s.body[s.pos:s.pos+1]))
	case len(s.open) == 0:
		return token{}, notWellFormed(at, "end tag of %s, which is not open", quote(name))
	case !bytes.Equal(name, s.open[len(s.open)-1]):
		return token{}, notWellFormed(at, "end tag of %s inside %s", quote(name), quote(s.open[len(s.open)-1]))
	}
	s.pos++
	return s.pop(at), nil
}

// characters reads text up to the next '<' (XML 1.0 section 2.4).
func (s *scanner) characters() (token, error) {
	at := s.pos
	raw := s.body[at:]
	if i := bytes.IndexByte(raw, '<'); i >= 0 {
		raw = raw[:i]
	}
	s.pos += len(raw)
	if len(s.open) == 0 {
		if i := indexNonSpace(raw); i >= 0 {
			return token{}, notWellFormed(at+i, "text outside the root element")
		}
	}
	if i := bytes.Index(raw, []byte("]]>")); i >= 0 {
		return token{}, notWellFormed(at+i, "]]> in text; write ]]&gt;")
	}
	if bytes.IndexByte(raw, '&') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return token{kind: charData, at: at, text: raw}, nil
	}
	err := s.rewrite(raw, at)
	return token{kind: charData, at: at, text: s.buf}, err
}

// rewrite fills s.buf with raw, its references resolved (XML 1.0 section 4.1)
// and its line ends made LF (section 2.11). A carriage return written as a
// reference stays one.
func (s *scanner) rewrite(raw []byte, at int) error {
	s.buf = slices.Grow(s.buf[:0], len(raw))
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '\r':
			if i+1 == len(raw) || raw[i+1] != '\n' {
				s.buf = append(s.buf, '\n')
			}
		case '&':
			end := bytes.IndexByte(raw[i:], ';')
			if end < 0 {
				return notWellFormed(at+i, "'&' does not begin a reference; write &amp;")
			}
			r, err := reference(raw[i+1:i+end], at+i)
			if err != nil {
				return err
			}
			s.buf = utf8.AppendRune(s.buf, r)
			i += end
		default:
			s.buf = append(s.buf, raw[i])
		}
	}
	return nil
}

// reference resolves what stands between '&' and ';': one of the entities of
// XML 1.0 section 4.6, or a character reference of production [66].
func reference(name []byte, at int) (rune, error) {
	switch string(name) {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	digits, isNumber := bytes.CutPrefix(name, []byte("#"))
	if !isNumber {
		return 0, notWellFormed(at, "entity %s is not one of amp lt gt quot apos", quote(name))
	}
	base := rune(10)
	if hex, ok := bytes.CutPrefix(digits, []byte("x")); ok {
		digits, base = hex, 16
	}
	var r rune
	for _, c := range digits {
		d := digit(c)
		if d >= base {
			return 0, notWellFormed(at, "character reference %s", quote(name))
		}
		// Beyond Unicode the value is of no interest, but must not overflow.
		r = min(r*base+d, 0x110000)
	}
	if len(digits) == 0 {
		return 0, notWellFormed(at, "character reference %s", quote(name))
	}
	if !isChar(r) {
		return 0, invalidCharacter(at, "reference %s is not a character of XML", quote(name))
	}
	return r, nil
}

// digit is the value of a hexadecimal digit, and 16 for anything else.
func digit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return 16
}

// name reads a Name (production [5] of XML 1.0), except that every character
// beyond ASCII passes; readStart refuses those.
func (s *scanner) name() []byte {
	start := s.pos
	for s.pos < len(s.body) {
		c := s.body[s.pos]
		inner := '0' <= c && c <= '9' || c == '-' || c == '.'
		if !isNameStart(c) && (!inner || s.pos == start) {
			break
		}
		s.pos++
	}
	return s.body[start:s.pos]
}

func isNameStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c == ':' || c >= utf8.RuneSelf
}

func (s *scanner) skipSpace() bool {
	start := s.pos
	for s.pos < len(s.body) && isSpace(s.body[s.pos]) {
		s.pos++
	}
	return s.pos > start
}

// indexNonSpace is the index of the first byte of text which is not white
// space, or -1.
func indexNonSpace(text []byte) int {
	for i, c := range text {
		if !isSpace(c) {
			return i
		}
	}
	return -1
}
