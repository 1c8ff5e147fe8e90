package rpc

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A parameter struct is bound by its fields' tags: `json:"name"` is a member that must be there, and
// with ",omitempty" or ",omitzero" one that may be. Nothing is converted: a member of another type, an
// unknown one, and an optional string that is there and empty are refused with their path. A pointer is for
// what is not left out where it is zero. What else the tags say, Method tells.

// field is one member of a parameter struct, or of the detail of an answer.
type field struct {
	name     string
	optional bool
	index    []int // as reflect.Value.FieldByIndex takes it
	kind     reflect.Type
	tag      reflect.StructTag
}

// fieldsByType are the members of each struct that was asked for: every call needs those of several.
var fieldsByType sync.Map // reflect.Type to []field

// fieldsOf gives the members; those of an embedded struct, which several have in common, stand in its place.
func fieldsOf(t reflect.Type) []field {
	if all, ok := fieldsByType.Load(t); ok {
		return all.([]field)
	}
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append(f.Index, inner.index...)
				all = append(all, inner)
			}
			continue
		}
		name, options, optional := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, field{name, optional && strings.HasPrefix(options, "omit"), f.Index, f.Type, f.Tag})
	}
	fieldsByType.Store(t, all)
	return all
}

// bindStruct fills a parameter struct from the parameters of a call, which must be one struct.
func bindStruct(params []any, into any) error {
	if len(params) != 1 {
		return invalid("params", "%d parameters; want one struct", len(params))
	}
	return bind(params[0], "params[0]", reflect.ValueOf(into).Elem())
}

func bind(tree any, path string, into reflect.Value) error {
	if _, ok := into.Interface().(csr); ok {
		return bindCSR(tree, path, into)
	}
	if into.Kind() == reflect.Pointer {
		one := reflect.New(into.Type().Elem())
		if err := bind(tree, path, one.Elem()); err != nil {
			return err
		}
		into.Set(one)
		return nil
	}
	switch v := tree.(type) {
	case map[string]any:
		if into.Kind() == reflect.Struct {
			return bindMembers(v, path, into)
		}
	case []any:
		if into.Kind() == reflect.Slice {
			return bindItems(v, path, into)
		}
	case string, bool, int:
		if value := reflect.ValueOf(v); value.Type() == into.Type() {
			into.Set(value)
			return nil
		}
	}
	return invalid(path, "want %s", wanted(into.Type()))
}

func bindMembers(members map[string]any, path string, into reflect.Value) error {
	fields := fieldsOf(into.Type())
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
			return invalid(path+"."+memberName(name), "there is no such member; the members are %s", memberNames(fields))
		}
	}
	for _, f := range fields {
		v, there := members[f.name]
		switch {
		case !there && f.optional:
			continue
		case !there:
			return invalid(path+"."+f.name, "is missing")
		case v == "" && f.optional:
			return invalid(path+"."+f.name, "is empty; leave it out instead")
		}
		if err := bind(v, path+"."+f.name, into.FieldByIndex(f.index)); err != nil {
			return err
		}
	}
	return nil
}

func bindItems(items []any, path string, into reflect.Value) error {
	if len(items) == 0 {
		return nil // the same as leaving it out
	}
	list := reflect.MakeSlice(into.Type(), len(items), len(items))
	for i, v := range items {
		if err := bind(v, fmt.Sprintf("%s[%d]", path, i), list.Index(i)); err != nil {
			return err
		}
	}
	into.Set(list)
	return nil
}

// csr is a PKCS #10 request in DER. On the wire it is PEM or DER, as bytes, or as a string that holds
// PEM or base64 of DER.
type csr []byte

func bindCSR(tree any, path string, into reflect.Value) error {
	var text []byte
	isString := false
	switch v := tree.(type) {
	case []byte:
		text = v
	case string:
		text, isString = []byte(v), true
	default:
		return invalid(path, "want %s", wanted(into.Type()))
	}
	der := text
	switch {
	case strings.HasPrefix(strings.TrimSpace(string(text)), "-----BEGIN"):
		block, rest := pem.Decode(text)
		if block == nil || strings.TrimSpace(string(rest)) != "" ||
			block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
			return refuse("csr.malformed", "csr: want exactly one PEM block CERTIFICATE REQUEST")
		}
		der = block.Bytes
	case isString:
		var err error
		if der, err = base64.StdEncoding.Strict().DecodeString(string(text)); err != nil {
			return refuse("csr.malformed", "csr: want PEM, or base64 of DER")
		}
	}
	if len(der) == 0 {
		return refuse("csr.malformed", "csr: it is empty; leave it out to have the CA make the key")
	}
	into.SetBytes(der)
	return nil
}

// wanted names a type as people write it.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[csr]():
		return "a CSR as PEM or base64"
	case t == reflect.TypeFor[time.Time]():
		return "a time"
	case t == reflect.TypeFor[[]byte]():
		return "bytes"
	case t.Kind() == reflect.Pointer:
		return wanted(t.Elem())
	case t.Kind() == reflect.Struct:
		return "a struct"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "an array of structs"
	case t.Kind() == reflect.Slice:
		return "an array of strings"
	case t.Kind() == reflect.Bool:
		return "a boolean"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "an int"
	}
	return "a string"
}

// memberName quotes what a stranger calls a member, if it is not a plain name.
func memberName(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == "" && s != "" {
		return s
	}
	return strconv.QuoteToASCII(s)
}

func memberNames(fields []field) string {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}
