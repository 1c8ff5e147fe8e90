// Package xmlrpc is the XML-RPC codec of Chancery: bytes to a tree of plain
// values and back. It knows no method, no HTTP and no policy, and it imports
// nothing but the standard library.
//
// A tree holds bool, string, int (within 32 bits signed), []byte, time.Time
// (UTC, whole seconds), []any and map[string]any, and nothing else.
//
// Promises:
//
//   - A document is read by our own tokenizer, which accepts a small subset of
//     XML 1.0: UTF-8, elements, character data, the five predefined entities
//     and numeric character references. No document type, attribute, namespace,
//     comment, CDATA section or processing instruction. Whatever is accepted is
//     well-formed XML; encoding/xml is the oracle for that in the tests only,
//     since it accepts hundreds of documents which are not well-formed.
//   - Nothing is repaired or guessed: a duplicate member, a second method name
//     or an unknown element is refused, so that no two readers of one document
//     can disagree about what it asks for.
//   - Time is linear in the body; a request of MaxBody bytes costs less than
//     1 MiB of memory, whatever it holds.
//   - The encoder never writes what the decoder of this package refuses.
//   - A message never carries bytes of the document raw: they are quoted in
//     ASCII and cut.
//
// Sources: the specification at http://xmlrpc.com/spec.md, W3C XML 1.0 (Fifth
// Edition), and "Specification for Fault Code Interoperability" (version
// 20010516) for the fault numbers.
package xmlrpc

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Limits. Those of a request hold for what a stranger may make the service
// read; those of a response for what the service may make a client read.
const (
	MaxBody             = 64 << 10 // bytes of a request
	MaxElements         = 4096     // elements of a request
	MaxResponse         = 2 << 20  // bytes of a response
	MaxResponseElements = 64 << 10 // elements of a response
	MaxDepth            = 16       // values inside values; a parameter has depth 1
	MaxMembers          = 256      // members of one struct
	MaxMethod           = 128      // characters of a method name
)

// Fault numbers of the interoperability specification, as far as a codec can
// know them.
const (
	CodeNotWellFormed = -32700 // not XML
	CodeEncoding      = -32701 // unsupported encoding
	CodeCharacter     = -32702 // invalid character for the encoding
	CodeInvalid       = -32600 // XML, but not XML-RPC as served here
	CodeInternal      = -32603 // internal error
)

// ErrMalformed marks a response which could not be decoded. It says nothing
// about whether the call was carried out.
var ErrMalformed = errors.New("malformed XML-RPC response")

// A Call is a method name and its parameters. Params is empty, not nil, in a
// decoded call without parameters.
type Call struct {
	Method string
	Params []any
}

// A Fault is the error answer of XML-RPC: a number and a text for people.
type Fault struct {
	Code    int
	Message string
}

func (f *Fault) Error() string {
	return "fault " + strconv.Itoa(f.Code) + ": " + f.Message
}

func notWellFormed(at int, format string, args ...any) error {
	return &Fault{CodeNotWellFormed, fmt.Sprintf("not well formed at byte %d: ", at) + fmt.Sprintf(format, args...)}
}

func invalidCharacter(at int, format string, args ...any) error {
	return &Fault{CodeCharacter, fmt.Sprintf("invalid character at byte %d: ", at) + fmt.Sprintf(format, args...)}
}

func unsupportedEncoding(format string, args ...any) error {
	return &Fault{CodeEncoding, "unsupported encoding: " + fmt.Sprintf(format, args...)}
}

func invalid(at int, format string, args ...any) error {
	return &Fault{CodeInvalid, fmt.Sprintf("invalid XML-RPC at byte %d: ", at) + fmt.Sprintf(format, args...)}
}

// quote makes bytes of a document fit for a message: at most 40 characters of
// them, in ASCII, escaped.
func quote[T string | []byte](hostile T) string {
	shown := 0
	for i := range string(hostile[:min(len(hostile), 41*utf8.UTFMax)]) {
		if shown == 40 {
			return strconv.QuoteToASCII(string(hostile[:i])) + "..."
		}
		shown++
	}
	return strconv.QuoteToASCII(string(hostile))
}

// validMethod reports whether a method name keeps to the alphabet of the
// specification ("identifier characters, upper and lower-case A-Z, the numeric
// characters, 0-9, underscore, dot, colon and slash") and to MaxMethod.
func validMethod(name string) bool {
	if len(name) == 0 || len(name) > MaxMethod {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '.', c == ':', c == '/':
		default:
			return false
		}
	}
	return true
}

// isChar is production [2] of XML 1.0: the characters a document may hold,
// written raw or as a reference.
func isChar(r rune) bool {
	switch {
	case r == '\t', r == '\n', r == '\r':
		return true
	case r < 0x20, 0xD800 <= r && r <= 0xDFFF, r == 0xFFFE, r == 0xFFFF:
		return false
	}
	return r <= 0x10FFFF
}

// isSpace is production [3] of XML 1.0.
func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r'
}
