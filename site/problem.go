package site

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/printer"
	"github.com/goccy/go-yaml/token"

	"github.com/chancery-ca/chancery/rpc"
)

// Problem is one thing that is wrong with a configuration, and where.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`   // from 1; 0: what is wrong has no place, as a key that is missing
	Column  int    `json:"column,omitempty"` // from 1
	Key     string `json:"key,omitempty"`    // as in callers[0].name
	Reason  string `json:"reason"`
	Excerpt string `json:"excerpt,omitempty"` // the lines around it, with a caret below it
}

// String gives the reason and, where there is one, the place with an excerpt.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Reason
	}
	return fmt.Sprintf("%s:\n[%d:%d] %s\n%s", p.File, p.Line, p.Column, p.Reason, p.Excerpt)
}

// Problems are why a configuration cannot be used, at least one. They are an ErrConfig.
type Problems []Problem

func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, one := range p {
		texts[i] = one.String()
	}
	return ErrConfig.Error() + ": " + strings.Join(texts, "\n")
}

// Unwrap gives ErrConfig.
func (p Problems) Unwrap() error { return ErrConfig }

// wrong is what is wrong at a key.
func wrong(key, format string, args ...any) error {
	return &rpc.ConfigError{Key: key, Err: fmt.Errorf(format, args...)}
}

// document is a file of configuration: its text, and where its keys are.
type document struct {
	file   string // as it was named
	text   []byte
	places map[string]*token.Token // of each key its value, or the key itself if more is below it
}

// problem says where a key is. One that is missing is said of the key that it would be below.
func (d *document) problem(key, reason string) Problem {
	p := Problem{File: d.file, Key: key, Reason: reason}
	for at := key; at != ""; at = at[:max(0, strings.LastIndexAny(at, ".["))] {
		if t := d.places[at]; t != nil {
			return p.at(t)
		}
	}
	return p
}

func (p Problem) at(t *token.Token) Problem {
	var pp printer.Printer
	p.Line, p.Column = t.Position.Line, t.Position.Column
	p.Excerpt = urlPassword.ReplaceAllString(pp.PrintErrorToken(t, false), "$1:xxxxx@")
	return p
}

// urlPassword is a password where none belongs, which is not to be shown with the lines around a mistake.
var urlPassword = regexp.MustCompile(`(://[^:/@\s]*):\S*@`)

// problems turns an error, which may be several that are joined, into what to tell of it; nil for nil.
func (d *document) problems(err error) error {
	var all Problems
	var take func(error)
	take = func(err error) {
		var at *rpc.ConfigError
		var syntax yaml.Error
		several, joined := err.(interface{ Unwrap() []error }) //nolint:errorlint // only of this one
		switch {
		case joined:
			for _, one := range several.Unwrap() {
				take(one)
			}
		case errors.As(err, &at):
			all = append(all, d.problem(at.Key, at.Error()))
		case errors.As(err, &syntax) && syntax.GetToken() != nil:
			all = append(all, Problem{File: d.file, Reason: syntax.GetMessage()}.at(syntax.GetToken()))
		default:
			all = append(all, Problem{File: d.file, Reason: err.Error()})
		}
	}
	if err == nil {
		return nil
	}
	take(err)
	return all
}

// locator finds the places of all keys, and anchors and aliases, which let a small file mean a huge one.
type locator struct {
	places map[string]*token.Token
	alias  *token.Token
}

func (s *locator) Visit(n ast.Node) ast.Visitor {
	t := n.GetToken()
	switch n := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		if s.alias == nil {
			s.alias = t
		}
	case *ast.MappingValueNode:
		t = n.Key.GetToken()
		if _, scalar := n.Value.(ast.ScalarNode); scalar && n.Value.Type() != ast.NullType {
			t = n.Value.GetToken()
		}
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			t = n.Values[0].Key.GetToken()
		}
	}
	key := strings.TrimPrefix(strings.TrimPrefix(n.GetPath(), "$"), ".")
	if key != "" && t != nil && s.places[key] == nil {
		s.places[key] = t
	}
	return s
}
