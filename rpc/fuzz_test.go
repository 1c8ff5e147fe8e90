package rpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// FuzzJSON: encoding/json reads the same in what is accepted, no name is in an object twice, no half of a character is
// repaired, and what it costs is bounded.
func FuzzJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > xmlrpc.MaxBody {
			return // never gets that far
		}
		tree, bad := parseJSON(body)
		c, fault := jsonWire{}.decode(body)
		want := theirs(body)
		if bad != nil {
			if fault == nil || fault.number != bad.number || bad.number == codeMalformed && json.Valid(body) || strings.Contains(bad.text, "twice") && !want.twice {
				t.Fatalf("%v, but as a call %v, and %+v", bad, fault, want)
			}
			return
		}
		if want.twice || want.values > xmlrpc.MaxElements || !reflect.DeepEqual(tree, want.tree) || strings.ContainsRune(fmt.Sprint(tree), utf8.RuneError) {
			t.Fatalf("%#v, and of encoding/json %+v", tree, want)
		}
		if fault == nil && (c.method == "" || !json.Valid(c.id) || len(c.id) > maxID) {
			t.Fatalf("%+v", c)
		}
		// A shorter one cannot cost that much; and others may allocate at the same time, but not every time.
		if len(body) > 4096 && min(costOf(body), costOf(body), costOf(body)) > 1<<19 {
			t.Fatalf("%d octets allocated", costOf(body))
		}
	})
}

// reading is what encoding/json makes of a text.
type reading struct {
	tree   any  // nil if it is no JSON
	twice  bool // an object has a member twice
	values int  // and names of members
}

func theirs(body []byte) (r reading) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if !json.Valid(body) || dec.Decode(&r.tree) != nil {
		return reading{}
	}
	r.tree = asOurs(r.tree, 0, false)
	dec = json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	r.tokens(dec)
	return r
}

// tokens reads one value of a text that is known to be whole.
func (r *reading) tokens(dec *json.Decoder) {
	token, _ := dec.Token()
	r.values++
	seen := make(map[any]bool)
	for (token == json.Delim('{') || token == json.Delim('[')) && dec.More() {
		if token == json.Delim('{') {
			name, _ := dec.Token()
			r.values++
			r.twice = r.twice || seen[name]
			seen[name] = true
		}
		r.tokens(dec)
	}
	if _, list := token.(json.Delim); list {
		_, _ = dec.Token()
	}
}

// asOurs has the numbers as we have them.
func asOurs(v any, depth int, id bool) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			v[name] = asOurs(inner, depth+1, depth == 0 && name == "id")
		}
	case []any:
		for i := range v {
			v[i] = asOurs(v[i], depth+1, false)
		}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 32); err == nil {
			return int(n)
		}
		if !id {
			return noInt{}
		}
	}
	return v
}

// parameters are the parameter structs of all methods.
func parameters() (all []reflect.Type) {
	for _, r := range (&Server{}).rows() {
		if r.params != nil {
			all = append(all, r.params)
		}
	}
	return all
}

// FuzzBind: what is bound of a JSON object is the same again when it is encoded, by either codec; nothing else than a
// fault or a refusal comes of the rest.
func FuzzBind(f *testing.F) {
	f.Fuzz(func(t *testing.T, method uint8, text string) {
		types := parameters()
		kind := types[int(method)%len(types)]
		tree, bad := parseJSON([]byte(text))
		if bad != nil {
			return
		}
		p := reflect.New(kind)
		err := bindStruct([]any{tree}, p.Interface())
		xml := reflect.New(kind)
		again, errXML := overXML(tree)
		if errXML == nil {
			if errXML = bindStruct(again, xml.Interface()); (err == nil) != (errXML == nil) {
				t.Fatalf("%s: %v, and over XML-RPC %v", kind, err, errXML)
			}
		}
		if err != nil {
			refused(t, err)
			return
		}
		if errXML == nil && !reflect.DeepEqual(xml.Interface(), p.Interface()) {
			t.Fatalf("%+v, and over XML-RPC %+v", p, xml)
		}
		encoded, err := json.Marshal(p.Interface())
		if err != nil {
			t.Fatal(err)
		}
		second, bad := parseJSON(encoded)
		if bad != nil {
			t.Fatalf("%s: %v", encoded, bad)
		}
		back := reflect.New(kind)
		if err := bindStruct([]any{second}, back.Interface()); err != nil || !reflect.DeepEqual(p.Interface(), back.Interface()) {
			t.Fatalf("%+v, and of %s %+v, %v", p, encoded, back, err)
		}
		if said, told := telling(tree), telling(second); !reflect.DeepEqual(said, told) {
			t.Fatalf("%v was bound as %v", said, told)
		}
	})
}

// telling is a tree without what is the same as nothing, and without a CSR, which is written in several ways. It
// matters whether planned is there, whatever it is.
func telling(tree any) any {
	members, ok := tree.(map[string]any)
	if !ok {
		return tree
	}
	left := make(map[string]any)
	for name, v := range members {
		v = telling(v)
		list, _ := v.([]any)
		object, isObject := v.(map[string]any)
		nothing := v == false || v == 0 && name != "planned" || list != nil && len(list) == 0 || isObject && len(object) == 0
		if !nothing && name != "csr" {
			left[name] = v
		}
	}
	return left
}

// refused wants an error that a caller is told.
func refused(t *testing.T, err error) {
	t.Helper()
	var bad *fault
	if errors.As(err, &bad) {
		if bad.text == "" || !ascii7(bad.text) {
			t.Fatalf("%q", bad.text)
		}
		return
	}
	if n := explain(err); n == nil || n.code != "csr.malformed" {
		t.Fatalf("%v", err)
	}
}

func ascii7(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= utf8.RuneSelf })
}

// overXML is what a tree is when an XML-RPC call has brought it; an error if none can.
func overXML(tree any) ([]any, error) {
	body, err := xmlrpc.EncodeCall(xmlrpc.Call{Method: "m", Params: []any{tree}})
	if err != nil {
		return nil, err
	}
	c, err := xmlrpc.DecodeCall(body)
	return c.Params, err
}

// FuzzCSR: a CSR is the same however it is written.
func FuzzCSR(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		var plain, coded csr
		err := bind(text, "csr", reflect.ValueOf(&plain).Elem())
		if err != nil {
			refused(t, err)
			return
		}
		err = bind(base64.StdEncoding.EncodeToString(plain), "csr", reflect.ValueOf(&coded).Elem())
		if err != nil || !bytes.Equal(plain, coded) || len(plain) == 0 {
			t.Fatalf("%x, and of base64 %x, %v", plain, coded, err)
		}
	})
}
