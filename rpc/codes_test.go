package rpc

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// neverReached tells of codes that a source gives and no caller gets, and why.
func neverReached() map[string]string {
	const (
		checked   = "ca/name checks it before, and is stricter"
		window    = "profile.Window makes no other"
		own       = "the daemon asks with the leaf and the CSR that it entered itself, in batches that fit"
		redeliver = "the answer is then issued.secrets_gone"
	)
	return map[string]string{
		"name.purpose":     "the purpose is read before the names",
		"name.not_utf8":    "both codecs refuse it",
		"serial.invalid":   "the daemon draws the serial",
		"validity.order":   window,
		"validity.seconds": window,
		"name.cn":          checked,
		"san.count":        checked,
		"san.kind":         checked,
		"san.cn":           checked,
		"san.ip":           checked,
		"san.repeated":     checked,
		"san.*":            checked,

		"keyroom.batch.frame":       own,
		"keyroom.batch.size":        own,
		"keyroom.call.kind":         own,
		"keyroom.index.kind":        own,
		"keyroom.index.unknown":     own,
		"keyroom.intent.other_room": own,
		"keyroom.csr.other_key":     own,
		"keyroom.log.gap":           own,
		"keyroom.request.other":     "the daemon compares the same before",
		"keyroom.request.spent":     "the daemon knows the request_id too, and answers it again",
		"keyroom.serial.revoked":    "the daemon enters no revocation of what is not signed",
		"keyroom.serial.signed":     "no serial is announced twice",
		"keyroom.open.caller":       redeliver,
		"keyroom.open.gone":         redeliver,
		"keyroom.open.late":         redeliver,
		"keyroom.open.request":      redeliver,
		"keyroom.open.sealed":       redeliver,
		"keyroom.open.unsigned":     redeliver,
		"keyroom.batch.lists":       "no call asks for a list",
		"keyroom.batch.read_only":   "no call asks as a reader",
		"keyroom.crl.next_update":   "no call asks for a list",
		"keyroom.crl.number":        "no call asks for a list",
		"keyroom.crl.number_jump":   "no call asks for a list",
		"keyroom.crl.this_update":   "no call asks for a list",
	}
}

// TestCodesAreComplete: every code that the sources give is in the table once, and every one in the table is
// given.
func TestCodesAreComplete(t *testing.T) {
	given := codesOf(t)
	known := make(map[string]bool)
	for _, c := range codeKinds() {
		if known[c.code] {
			t.Errorf("%s is in codeKinds twice", c.code)
		}
		known[c.code] = true
		if given[c.code] == "" {
			t.Errorf("%s is in codeKinds, and no source gives it: take it out", c.code)
		}
		if c.meaning == "" || c.kind == "" {
			t.Errorf("%s has no meaning or no kind", c.code)
		}
	}
	never := neverReached()
	for code, where := range given {
		if _, not := never[code]; known[code] == not {
			t.Errorf("%s gives %s: add it to codeKinds, or say in neverReached why no caller gets it; not both", where, code)
		}
	}
	for code := range never {
		if given[code] == "" {
			t.Errorf("%s is in neverReached, and no source gives it: take it out", code)
		}
	}
}

// codesOf gives the codes in the sources that make answers and refusals, each with a place where it stands.
func codesOf(t *testing.T) map[string]string {
	t.Helper()
	given, room := make(map[string]string), make(map[string]string)
	for _, dir := range []string{".", "../ca", "../ca/name", "../ca/profile"} {
		readCodes(t, dir, given)
	}
	readCodes(t, "../ca/keyroom", room)
	translated := comparedIn(t, "fault.go", "room")
	if len(translated) == 0 {
		t.Error("fault.go compares no code of the key room")
	}
	for code, where := range room {
		if !slices.Contains(translated, code) {
			given["keyroom."+code] = where
		}
	}
	return given
}

// source is one package that codes are read from.
type source struct {
	*testing.T
	files  *token.FileSet
	consts map[string]string
	given  map[string]string
	names  bool // ca/name, whose refuse takes the field first
}

func readCodes(t *testing.T, dir string, given map[string]string) {
	t.Helper()
	s := &source{t, token.NewFileSet(), make(map[string]string), given, filepath.Base(dir) == "name"}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var parsed []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || path == "codes.go" {
			continue
		}
		f, err := parser.ParseFile(s.files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
		ast.Inspect(f, s.constant)
	}
	before := len(given)
	for _, f := range parsed {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				ast.Inspect(fn, func(n ast.Node) bool { s.look(fn, n); return true })
			}
		}
	}
	if len(given) == before {
		t.Errorf("%s gives no codes: this test does not know how", dir)
	}
}

func (s *source) constant(n ast.Node) bool {
	v, ok := n.(*ast.ValueSpec)
	if !ok {
		return true
	}
	for i, name := range v.Names {
		if i < len(v.Values) {
			if text, ok := literal(v.Values[i]); ok {
				s.consts[name.Name] = text
			}
		}
	}
	return true
}

// look takes up the code in a call of refuse, in the literal of a refusal, and in that of an answer.
func (s *source) look(fn *ast.FuncDecl, n ast.Node) {
	switch n := n.(type) {
	case *ast.CallExpr:
		switch called := nameOf(n.Fun); {
		case called == "refuse" && s.names, called == "refuseRune":
			s.take(fn, n.Args[1])
		case called == "refuse":
			s.take(fn, n.Args[0])
		case called == "answerIssue":
			s.take(fn, n.Args[len(n.Args)-1])
		}
	case *ast.AssignStmt:
		if nameOf(n.Lhs[0]) == "code" && len(n.Rhs) == 1 {
			if _, ok := literal(n.Rhs[0]); ok {
				s.take(fn, n.Rhs[0])
			}
		}
	case *ast.ReturnStmt:
		if fn.Name.Name == "suspect" {
			s.take(fn, n.Results[0])
		}
	case *ast.CompositeLit:
		s.lookInside(fn, n)
	}
}

func (s *source) lookInside(fn *ast.FuncDecl, n *ast.CompositeLit) {
	_, isMap := n.Type.(*ast.MapType)
	switch of := nameOf(n.Type); {
	case of == "verb":
		if would, ok := literal(n.Elts[1]); ok {
			s.given["plan."+would] = s.place(n)
		}
		s.take(fn, n.Elts[2])
	case isMap, slices.Contains([]string{"no", "refusal", "Refusal", "Issued", "head"}, of):
		for _, e := range n.Elts {
			pair, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			key, _ := literal(pair.Key)
			if name := nameOf(pair.Key); key == "code" || name == "code" || name == "Code" {
				s.take(fn, pair.Value)
			}
		}
	}
}

func (s *source) place(n ast.Node) string { return s.files.Position(n.Pos()).String() }

// take takes up an expression that is a code. What a function was given, or reads from an error, is taken up
// where it comes from.
func (s *source) take(fn *ast.FuncDecl, e ast.Expr) {
	s.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		code, ok := literal(e)
		if ok && code != "" {
			s.given[code] = s.place(e)
		}
		return
	case *ast.Ident:
		code, ok := s.consts[e.Name]
		if ok {
			s.given[code] = s.place(e)
		}
		if ok || e.Name == "code" {
			return
		}
	case *ast.SelectorExpr:
		if e.Sel.Name == "Code" || e.Sel.Name == "code" || e.Sel.Name == "done" || e.Sel.Name == "number" {
			return
		}
	case *ast.BinaryExpr:
		first, ok := literal(e.X)
		switch {
		case ok && (first == "keyroom." || first == "plan."):
			return
		case ok:
			s.given[first+"*"] = s.place(e)
			return
		}
	}
	s.Errorf("%s: in %s stands a code that this test cannot read", s.place(e), fn.Name.Name)
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// comparedIn gives the texts that a file compares a variable with.
func comparedIn(t *testing.T, path, variable string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	ast.Inspect(f, func(n ast.Node) bool {
		if b, ok := n.(*ast.BinaryExpr); ok && b.Op == token.EQL && nameOf(b.X) == variable {
			if text, ok := literal(b.Y); ok {
				texts = append(texts, text)
			}
		}
		return true
	})
	return texts
}
