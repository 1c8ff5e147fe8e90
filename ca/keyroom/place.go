package keyroom

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Problem is what is wrong with keyroom.json, and where. It is an ErrConfig.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`   // from 1; 0: it has no place
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Key     string `json:"key,omitempty"`    // as in issuers[0].id
	Reason  string `json:"reason"`
	Excerpt string `json:"excerpt,omitempty"` // the line, with a caret below the place
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", ErrConfig, p.File, p.Reason)
	}
	return fmt.Sprintf("%s: %s:\n[%d:%d] %s\n%s", ErrConfig, p.File, p.Line, p.Column, p.Reason, p.Excerpt)
}

// Unwrap gives ErrConfig.
func (p *Problem) Unwrap() error { return ErrConfig }

// wrongKey is what is wrong at a key.
type wrongKey struct {
	key, reason string
}

func (w *wrongKey) Error() string { return w.reason }

func wrong(key, format string, args ...any) error {
	return &wrongKey{key, fmt.Sprintf(format, args...)}
}

// locate says where in the text of a file an error is.
func locate(file string, text []byte, err error) *Problem {
	p := &Problem{File: file, Reason: err.Error()}
	var at *wrongKey
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	offset := -1
	switch {
	case errors.As(err, &at):
		p.Key = at.key
		offset = placeOf(text, at.key)
	case errors.As(err, &syntax):
		offset = int(syntax.Offset) - 1
	case errors.As(err, &kind):
		p.Reason = fmt.Sprintf("it is a JSON %s; want %s", kind.Value, kind.Type)
		if kind.Field == "" {
			p.Reason = fmt.Sprintf("it is a JSON %s; want an object", kind.Value)
		}
		p.Key, offset = lastBefore(text, int(kind.Offset))
	case errors.Is(err, io.ErrUnexpectedEOF):
		offset = len(text)
	}
	if offset < 0 || offset > len(text) {
		return p
	}
	start := bytes.LastIndexByte(text[:offset], '\n') + 1
	line, _, _ := bytes.Cut(text[start:], []byte("\n"))
	p.Line, p.Column = bytes.Count(text[:offset], []byte("\n"))+1, utf8.RuneCount(text[start:offset])+1
	if len(line) > maxExcerpt {
		return p
	}
	head := fmt.Sprintf("> %d | ", p.Line)
	p.Excerpt = head + strings.ReplaceAll(string(line), "\t", " ") + "\n" + strings.Repeat(" ", len(head)+p.Column-1) + "^"
	return p
}

const maxExcerpt = 400 // octets of a line

// lastBefore gives the last key whose value begins before an offset, and where that is.
func lastBefore(text []byte, end int) (last string, at int) {
	at = -1
	_ = walk(text, func(key string, offset int) error { // what is there is enough
		if offset < end {
			last, at = key, offset
		}
		return nil
	})
	return last, at
}

// placeOf gives the offset of a key's value, or of what it would be in; -1 if that is the whole file.
func placeOf(text []byte, key string) int {
	at := map[string]int{}
	_ = walk(text, func(key string, offset int) error { at[key] = offset; return nil }) // what is there is enough
	for ; key != ""; key = key[:max(0, strings.LastIndexAny(key, ".["))] {
		if offset, ok := at[key]; ok {
			return offset
		}
	}
	return -1
}

// checkKeys refuses members that there are not, and members that are there twice: the last one would count.
func checkKeys(text []byte) error {
	known := map[string]bool{}
	for _, t := range []struct {
		prefix string
		of     reflect.Type
	}{{"", reflect.TypeFor[Config]()}, {"issuers[].", reflect.TypeFor[IssuerConfig]()}, {"callers[].", reflect.TypeFor[SigningCaller]()}} {
		for i := range t.of.NumField() {
			name, _, _ := strings.Cut(t.of.Field(i).Tag.Get("json"), ",")
			known[t.prefix+name] = true
		}
	}
	seen := map[string]bool{}
	return walk(text, func(key string, _ int) error {
		plain := withoutIndexes(key)
		switch {
		case strings.HasSuffix(plain, "[]"): // an element
		case !known[plain]:
			return wrong(key, "there is no member %q", key)
		case seen[key]:
			return wrong(key, "%s is there twice", key)
		}
		seen[key] = true
		return nil
	})
}

func withoutIndexes(key string) string {
	var b strings.Builder
	inside := false
	for _, r := range key {
		inside = inside && r != ']'
		if !inside {
			b.WriteRune(r)
		}
		inside = inside || r == '['
	}
	return b.String()
}

// walk visits the value of each key of a JSON text with its offset.
func walk(text []byte, visit func(key string, offset int) error) error {
	w := &walker{dec: json.NewDecoder(bytes.NewReader(text)), text: text, visit: visit}
	return w.value("")
}

type walker struct {
	dec   *json.Decoder
	text  []byte
	visit func(key string, offset int) error
}

func (w *walker) value(key string) error {
	from := int(w.dec.InputOffset())
	from += len(w.text[from:]) - len(bytes.TrimLeft(w.text[from:], " \t\r\n,:"))
	if key != "" {
		if err := w.visit(key, from); err != nil {
			return err
		}
	}
	open, err := w.dec.Token()
	if err != nil {
		return err
	}
	for n := 0; (open == json.Delim('{') || open == json.Delim('[')) && w.dec.More(); n++ {
		below := fmt.Sprintf("%s[%d]", key, n)
		if open == json.Delim('{') {
			name, err := w.dec.Token()
			if err != nil {
				return err
			}
			below = strings.TrimPrefix(fmt.Sprintf("%s.%s", key, name), ".")
		}
		if err := w.value(below); err != nil {
			return err
		}
	}
	if open == json.Delim('{') || open == json.Delim('[') {
		_, err = w.dec.Token()
	}
	return err
}
