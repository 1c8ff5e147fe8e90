package rpc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// parseJSON reads one JSON text (RFC 8259) into the same kind of tree that XML-RPC gives: bool, string,
// int, []any and map[string]any. A number that is no int of 32 bits is noInt{}, and fits nowhere; but in an id
// it is a json.Number. null is nil, and fits there too.
func parseJSON(body []byte) (any, *fault) {
	if !utf8.Valid(body) {
		return nil, &fault{xmlrpc.CodeCharacter, "malformed", "the body is not UTF-8"}
	}
	// Whether the text as a whole is JSON is decided before any of it is used.
	if !json.Valid(body) {
		return nil, &fault{codeMalformed, "malformed", "the body is not one JSON text"}
	}
	if countJSON(body) > xmlrpc.MaxElements {
		return nil, malformed("more than %d values", xmlrpc.MaxElements)
	}
	return (&jsonReader{text: body}).value(0, false)
}

// countJSON counts the values and the names of members of a text that is known to be JSON.
func countJSON(text []byte) (n int) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			i = endOfString(text, i)
			n++
		case c == '{' || c == '[':
			n++
		case strings.IndexByte(",:]} \t\r\n", c) < 0:
			i = endOfWord(text, i) - 1
			n++
		}
	}
	return n
}

// endOfString gives the place of the quotation mark that ends the string that one at i begins.
func endOfString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}

// endOfWord gives the place after the number, true, false or null that begins at i.
func endOfWord(text []byte, i int) int {
	for i < len(text) && strings.IndexByte(",]} \t\r\n", text[i]) < 0 {
		i++
	}
	return i
}

type noInt struct{}

// jsonReader reads a text that is known to be JSON. The decoder of encoding/json would cost some 300 octets for each
// number, and as much for each string with an escape.
type jsonReader struct {
	text []byte
	at   int
}

// next gives the first octet of what follows, which there is.
func (r *jsonReader) next() byte {
	for strings.IndexByte(" \t\r\n", r.text[r.at]) >= 0 {
		r.at++
	}
	return r.text[r.at]
}

func (r *jsonReader) value(depth int, id bool) (any, *fault) {
	switch c := r.next(); c {
	case '{', '[':
		// The object around a call and its array of parameters are not yet depth.
		if depth == xmlrpc.MaxDepth+2 {
			return nil, malformed("nested deeper than %d", xmlrpc.MaxDepth)
		}
		r.at++
		if c == '{' {
			return r.object(depth + 1)
		}
		return r.array(depth + 1)
	case '"':
		return r.string()
	case 't':
		r.at += len("true")
		return true, nil
	case 'f':
		r.at += len("false")
		return false, nil
	case 'n':
		r.at += len("null")
		return nil, nil
	}
	return r.number(id), nil
}

func (r *jsonReader) object(depth int) (any, *fault) {
	object := make(map[string]any)
	for more := r.next() != '}'; more; more = r.comma() {
		r.next()
		name, f := r.string()
		if f != nil {
			return nil, f
		}
		if _, twice := object[name]; twice {
			return nil, malformed("the member %s is there twice", memberName(name))
		}
		if len(object) == xmlrpc.MaxMembers {
			return nil, malformed("an object with more than %d members", xmlrpc.MaxMembers)
		}
		r.next()
		r.at++ // the colon
		if object[name], f = r.value(depth, depth == 1 && name == "id"); f != nil {
			return nil, f
		}
	}
	r.at++ // the brace
	return object, nil
}

func (r *jsonReader) array(depth int) (any, *fault) {
	list := []any{}
	for more := r.next() != ']'; more; more = r.comma() {
		v, f := r.value(depth, false)
		if f != nil {
			return nil, f
		}
		list = append(list, v)
	}
	r.at++ // the bracket
	return list, nil
}

// comma tells whether another one follows.
func (r *jsonReader) comma() bool {
	if r.next() != ',' {
		return false
	}
	r.at++
	r.next()
	return true
}

func (r *jsonReader) number(id bool) any {
	begin := r.at
	r.at = endOfWord(r.text, begin)
	digits := r.text[begin:r.at]
	if n, ok := int32Of(digits); ok {
		return n
	}
	if id {
		return json.Number(digits)
	}
	return noInt{}
}

// int32Of reads a number without a fraction and an exponent, if it fits.
func int32Of(text []byte) (n int, ok bool) {
	digits := strings.TrimPrefix(string(text[:min(len(text), len("-2147483648"))]), "-")
	if len(text) > len("-2147483648") || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	for _, d := range digits {
		n = 10*n + int(d-'0')
	}
	if text[0] == '-' {
		n = -n
	}
	return n, -1<<31 <= n && n < 1<<31
}

// string reads one. Half a surrogate pair is refused: whoever repairs it, as many decoders do, takes two different
// texts for one; and what they make of it is refused too.
func (r *jsonReader) string() (string, *fault) {
	begin := r.at + len(`"`)
	end := endOfString(r.text, r.at)
	r.at = end + len(`"`)
	var s string
	if text := r.text[begin:end]; bytes.IndexByte(text, '\\') < 0 {
		s = string(text)
	} else {
		s = unquoteJSON(text)
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		return "", &fault{xmlrpc.CodeCharacter, "malformed", "a string with half a character in it"}
	}
	return s, nil
}

// unquoteJSON gives what a JSON string stands for, with U+FFFD for half a surrogate pair (RFC 8259 section 7).
func unquoteJSON(text []byte) string {
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		i++
		if short := strings.IndexByte("bfnrt", text[i]); short >= 0 {
			b.WriteByte("\b\f\n\r\t"[short])
			continue
		}
		if text[i] != 'u' {
			b.WriteByte(text[i])
			continue
		}
		c := unit(text[i+1:])
		i += 4
		if utf16.IsSurrogate(c) {
			var low rune
			if i+6 < len(text) && text[i+1] == '\\' && text[i+2] == 'u' {
				low = unit(text[i+3:])
			}
			if c = utf16.DecodeRune(c, low); c != utf8.RuneError {
				i += 6
			}
		}
		b.WriteRune(c)
	}
	return b.String()
}

// unit reads a UTF-16 code unit of four hexadecimal digits.
func unit(text []byte) rune {
	var b [2]byte
	_, _ = hex.Decode(b[:], text[:4]) // it is JSON
	return rune(b[0])<<8 | rune(b[1])
}
