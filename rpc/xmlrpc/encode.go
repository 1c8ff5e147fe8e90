package xmlrpc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const header = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// maxFaultMessage is where EncodeFault cuts a message, in bytes.
const maxFaultMessage = 4096

// EncodeCall writes a request. It fails for a method name, a value or a size
// which DecodeCall refuses; the error names the path of the value.
func EncodeCall(call Call) ([]byte, error) {
	if !validMethod(call.Method) {
		return nil, fmt.Errorf("method name %s is not allowed", quote(call.Method))
	}
	e := encoder{budget: MaxElements}
	e.raw(header + "<methodCall><methodName>" + call.Method + "</methodName><params>")
	e.elements += 3
	for i, p := range call.Params {
		e.raw("<param>")
		e.elements++
		if err := e.value(p, 1); err != nil {
			return nil, fmt.Errorf("encoding %w", inside("params["+strconv.Itoa(i)+"]", err))
		}
		e.raw("</param>")
	}
	e.raw("</params></methodCall>\n")
	return e.finish("request", MaxBody)
}

// EncodeResponse writes the answer with one value. It fails for a value which
// is outside the tree of this package, or which DecodeResponse would refuse;
// the error names the path of the value. Fractions of a second are dropped.
func EncodeResponse(value any) ([]byte, error) {
	e := encoder{budget: MaxResponseElements}
	e.raw(header + "<methodResponse><params><param>")
	e.elements += 3
	if err := e.value(value, 1); err != nil {
		return nil, fmt.Errorf("encoding %w", inside("result", err))
	}
	e.raw("</param></params></methodResponse>\n")
	return e.finish("response", MaxResponse)
}

// Size gives what a value takes of the bytes and elements of a response, wherever in it the value stands. It
// fails as EncodeResponse does, but for the bytes.
func Size(value any) (bytes, elements int, err error) {
	e := encoder{budget: MaxResponseElements}
	if err := e.value(value, 1); err != nil {
		return 0, 0, fmt.Errorf("encoding %w", inside("value", err))
	}
	return len(e.buf), e.elements, nil
}

// EncodeFault writes the answer that is a fault. It cannot fail: characters
// which XML cannot carry become U+FFFD, a message beyond 4096 bytes is cut, and
// a code beyond 32 bits becomes CodeInternal.
func EncodeFault(f Fault) []byte {
	if f.Code != int(int32(f.Code)) {
		f.Code = CodeInternal
	}
	message := strings.Map(func(r rune) rune {
		if !isChar(r) {
			return utf8.RuneError
		}
		return r
	}, f.Message)
	if len(message) > maxFaultMessage {
		message = strings.ToValidUTF8(message[:maxFaultMessage], "")
	}
	var e encoder
	e.raw(header + "<methodResponse><fault><value><struct>" +
		"<member><name>faultCode</name><value><int>" + strconv.Itoa(f.Code) + "</int></value></member>" +
		"<member><name>faultString</name><value><string>")
	e.escape(message)
	e.raw("</string></value></member></struct></value></fault></methodResponse>\n")
	return e.buf
}

type encoder struct {
	buf      []byte
	elements int
	budget   int
}

func (e *encoder) finish(what string, limit int) ([]byte, error) {
	if len(e.buf) > limit || e.elements > e.budget {
		return nil, fmt.Errorf("%s larger than %d bytes or %d elements", what, limit, e.budget)
	}
	return e.buf, nil
}

func (e *encoder) raw(s string) {
	e.buf = append(e.buf, s...)
}

// value writes one <value>. Depth and budget are checked first, so that a tree
// which shares or contains itself ends.
func (e *encoder) value(v any, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("values nested deeper than %d", MaxDepth)
	}
	if e.elements += 2; e.elements > e.budget {
		return fmt.Errorf("more than %d elements", e.budget)
	}
	e.raw("<value>")
	if err := e.typed(v, depth); err != nil {
		return err
	}
	e.raw("</value>")
	return nil
}

func (e *encoder) typed(v any, depth int) error {
	switch v := v.(type) {
	case bool:
		digit := "0"
		if v {
			digit = "1"
		}
		e.raw("<boolean>" + digit + "</boolean>")
	case int:
		if v < math.MinInt32 || v > math.MaxInt32 {
			return fmt.Errorf("int %d is beyond 32 bits", v)
		}
		e.raw("<int>" + strconv.Itoa(v) + "</int>")
	case string:
		if err := checkString(v); err != nil {
			return err
		}
		e.raw("<string>")
		e.escape(v)
		e.raw("</string>")
	case []byte:
		e.raw("<base64>")
		e.buf = base64.StdEncoding.AppendEncode(e.buf, v)
		e.raw("</base64>")
	case time.Time:
		v = v.UTC()
		if v.Year() < 1 || v.Year() > 9999 {
			return fmt.Errorf("year %d is not 1 to 9999", v.Year())
		}
		e.raw("<dateTime.iso8601>" + v.Format(layout) + "</dateTime.iso8601>")
	case []any:
		return e.array(v, depth)
	case map[string]any:
		return e.structure(v, depth)
	default:
		return fmt.Errorf("type %T has no XML-RPC form", v)
	}
	return nil
}

func (e *encoder) array(items []any, depth int) error {
	e.elements++ // <data>
	e.raw("<array><data>")
	for i, item := range items {
		if err := e.value(item, depth+1); err != nil {
			return inside("["+strconv.Itoa(i)+"]", err)
		}
	}
	e.raw("</data></array>")
	return nil
}

// structure writes members sorted by name, so that equal trees are equal bytes.
func (e *encoder) structure(members map[string]any, depth int) error {
	if len(members) > MaxMembers {
		return fmt.Errorf("more than %d members in one struct", MaxMembers)
	}
	e.raw("<struct>")
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := checkString(name); err != nil {
			return fmt.Errorf("member name: %w", err)
		}
		e.elements += 2 // <member> and <name>
		e.raw("<member><name>")
		e.escape(name)
		e.raw("</name>")
		if err := e.value(members[name], depth+1); err != nil {
			return inside("["+quote(name)+"]", err)
		}
		e.raw("</member>")
	}
	e.raw("</struct>")
	return nil
}

// checkString refuses what XML 1.0 cannot carry, not even as a reference.
func checkString(s string) error {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			return fmt.Errorf("string is not UTF-8 at byte %d", i)
		}
		if !isChar(r) {
			return fmt.Errorf("string has %U at byte %d, which XML cannot carry", r, i)
		}
	}
	return nil
}

// escape writes text. A carriage return goes as a reference, since a reader
// makes a raw one a line feed (XML 1.0 section 2.11).
func (e *encoder) escape(s string) {
	for i := range len(s) {
		switch s[i] {
		case '&':
			e.raw("&amp;")
		case '<':
			e.raw("&lt;")
		case '>':
			e.raw("&gt;")
		case '\r':
			e.raw("&#13;")
		default:
			e.buf = append(e.buf, s[i])
		}
	}
}

// A pathError says where in a tree the value is that cannot be encoded.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }

// inside puts one more step before the path of an error.
func inside(step string, err error) error {
	var inner *pathError
	if errors.As(err, &inner) {
		return &pathError{step + inner.path, inner.err}
	}
	return &pathError{step, err}
}
