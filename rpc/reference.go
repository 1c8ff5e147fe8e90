package rpc

import (
	"reflect"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Method is what is said of one method: from its row in the table, and nowhere else.
type Method struct {
	Name      string
	Help      string   // paragraphs
	Signature []string // XML-RPC types, that of the result first
	Params    []Member // of the one struct; nil for a system method
	Detail    []Member // of an answer with ok; nil for a system method
}

// Member is one member of a method's parameter, or of the detail of its answer.
type Member struct {
	Name     string
	Type     string // for people: "a string"
	Optional bool
	Help     string
	Values   []string // all that it can be; nil: not a closed set
	Flag     string   // of the command line, without dashes; empty: none
	Arg      string   // what the flag's value is called there, in capitals; empty: it takes none
	Members  []Member // of a struct, or of each struct in an array
	kind     reflect.Type
}

// Reference describes every method.
func Reference() []Method {
	var all []Method
	for _, r := range (&Server{}).rows() {
		all = append(all, r.describe())
	}
	return all
}

func (r row) describe() Method {
	m := Method{Name: r.name, Help: r.help, Signature: r.signature}
	if r.params != nil {
		m.Params = membersIn(r.params)
	}
	if r.detail != nil {
		m.Detail = membersIn(r.detail)
	}
	return m
}

func membersIn(t reflect.Type) []Member {
	all := []Member{}
	for _, f := range fieldsOf(t) {
		kind := f.kind
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		m := Member{
			Name: f.name, Type: wanted(f.kind), Optional: f.optional, Help: f.tag.Get("help"),
			Values: valuesOf(f.tag.Get("values")), Flag: f.tag.Get("flag"), Arg: f.tag.Get("arg"), kind: kind,
		}
		inner := kind
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
			m.Members = membersIn(inner)
		}
		all = append(all, m)
	}
	return all
}

// valuesOf gives a set that a tag names.
func valuesOf(set string) (values []string) {
	switch set {
	case "":
		return nil
	case "purposes":
		return texts(cert.Purposes())
	case "key types":
		return texts(cert.SubjectKeyTypes())
	case "reasons":
		for _, r := range cert.Reasons() {
			values = append(values, r.String())
		}
		return values
	}
	return strings.Fields(set)
}

func texts[S ~string](words []S) (all []string) {
	for _, w := range words {
		all = append(all, string(w))
	}
	return all
}

// text is what system.methodHelp answers.
func (m Method) text() string {
	var b strings.Builder
	b.WriteString(m.Help)
	if m.Params != nil {
		b.WriteString("\n\nIts one parameter, a struct:" + lines(m.Params, "  "))
		b.WriteString("\n\nThe detail of its answer, a struct:" + lines(m.Detail, "  "))
	}
	return b.String()
}

// lines writes a line for each member.
func lines(members []Member, indent string) string {
	var b strings.Builder
	for _, m := range members {
		b.WriteString("\n" + indent + m.Name + " (" + m.said() + ")")
		if what := m.Explained(); what != "" {
			b.WriteString(": " + what)
		}
		b.WriteString(lines(m.Members, indent+"  "))
	}
	return b.String()
}

// Zero is what a flag for it has that was not given: 0, false or "".
func (m Member) Zero() any {
	switch m.kind.Kind() {
	case reflect.Int:
		return 0
	case reflect.Bool:
		return false
	}
	return ""
}

// Explained is the help, and what the member can be.
func (m Member) Explained() string {
	switch {
	case m.Values == nil:
		return m.Help
	case m.Help == "":
		return strings.Join(m.Values, ", ")
	}
	return m.Help + ": " + strings.Join(m.Values, ", ")
}

// said is what kind of value it is, and whether it is there.
func (m Member) said() string {
	if m.Optional {
		return m.Type + ", optional"
	}
	return m.Type
}

// membersOf makes the tree of plain values that both codecs know of a detail.
func membersOf(detail reflect.Value) map[string]any {
	tree := make(map[string]any)
	for _, f := range fieldsOf(detail.Type()) {
		v := detail.FieldByIndex(f.index)
		if f.optional && (v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0) {
			continue
		}
		tree[f.name] = plain(v)
	}
	return tree
}

func plain(v reflect.Value) any {
	switch value := v.Interface().(type) {
	case time.Time, []byte:
		return value
	}
	switch v.Kind() {
	case reflect.Struct:
		return membersOf(v)
	case reflect.Pointer:
		return membersOf(v.Elem())
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	default:
		return int(v.Int())
	}
}
