package xmlrpc

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// text draws strings XML can carry, with the characters which matter in it.
func text() *rapid.Generator[string] {
	hard := rapid.SampledFrom([]rune("<>&'\"]\r\n\t  =\u007F\u0085\u00A0\u2028\uFFFD\U0010FFFF"))
	return rapid.StringOf(rapid.OneOf(hard, rapid.Rune().Filter(isChar)))
}

// tree draws values of every type, nested up to depth.
func tree(depth int) *rapid.Generator[any] {
	first := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	kinds := []*rapid.Generator[any]{
		rapid.Bool().AsAny(),
		rapid.IntRange(math.MinInt32, math.MaxInt32).AsAny(),
		text().AsAny(),
		rapid.SliceOfN(rapid.Byte(), 0, 100).AsAny(),
		rapid.Custom(func(t *rapid.T) any {
			return time.Unix(rapid.Int64Range(first, last).Draw(t, "time"), 0).UTC()
		}),
	}
	if depth > 1 {
		kinds = append(kinds,
			rapid.SliceOfN(tree(depth-1), 0, 4).AsAny(),
			rapid.MapOfN(text(), tree(depth-1), 0, 4).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tree(4).Draw(t, "value")
		response, err := EncodeResponse(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeResponse(response); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("response: got %#v, %v\nwant %#v\n%s", got, err, want, response)
		}
		call := Call{"ca.issue", []any{want, want}}
		body, err := EncodeCall(call)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeCall(body); err != nil || !reflect.DeepEqual(got, call) {
			t.Fatalf("call: got %#v, %v\nwant %#v\n%s", got, err, call, body)
		}
	})
}

// TestEncodesOnlyWhatDecodes draws strings of any bytes: each is refused by the
// encoder or comes back whole.
func TestEncodesOnlyWhatDecodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "string")
		want := map[string]any{s: s}
		carried := utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !isChar(r) }) < 0
		body, err := EncodeResponse(want)
		if (err == nil) != carried {
			t.Fatalf("encoding %q: %v", s, err)
		}
		if err == nil {
			if got, err := DecodeResponse(body); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %#v, %v", got, err)
			}
		}
		code := rapid.Int().Draw(t, "code")
		var fault *Fault
		if _, err := DecodeResponse(EncodeFault(Fault{code, s})); !errors.As(err, &fault) {
			t.Fatalf("fault %q became %v", s, err)
		}
		if inRange := code == int(int32(code)); inRange && fault.Code != code || !inRange && fault.Code != CodeInternal {
			t.Fatalf("fault code %d became %d", code, fault.Code)
		}
		if carried && fault.Message != s {
			t.Fatalf("fault %q became %q", s, fault.Message)
		}
	})
}

func TestEncodedForm(t *testing.T) {
	value := []any{true, "a<b>&\r\n\"é", -1, []byte("ABCDE"), time.Date(2026, 1, 2, 4, 4, 5, 999, time.FixedZone("", 3600)),
		map[string]any{"b": false, "a": []any{}}, map[string]any(nil), []any(nil), []byte(nil)}
	const want = `<?xml version="1.0" encoding="UTF-8"?>
<methodResponse><params><param><value><array><data>` +
		`<value><boolean>1</boolean></value>` +
		"<value><string>a&lt;b&gt;&amp;&#13;\n\"é</string></value>" +
		`<value><int>-1</int></value>` +
		`<value><base64>QUJDREU=</base64></value>` +
		`<value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value>` +
		`<value><struct><member><name>a</name><value><array><data></data></array></value></member>` +
		`<member><name>b</name><value><boolean>0</boolean></value></member></struct></value>` +
		`<value><struct></struct></value><value><array><data></data></array></value><value><base64></base64></value>` +
		`</data></array></value></param></params></methodResponse>` + "\n"
	got, err := EncodeResponse(value)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestEncoderRefuses(t *testing.T) {
	deep := any("x")
	for range MaxDepth {
		deep = []any{deep}
	}
	cycle := []any{nil}
	cycle[0] = cycle
	wide := any("x")
	for range MaxDepth - 1 {
		wide = []any{wide, wide, wide, wide}
	}
	many := map[string]any{}
	for i := range MaxMembers + 1 {
		many[strings.Repeat("m", i)] = i
	}
	flat := make([]any, MaxResponseElements/2-2)
	for i := range flat {
		flat[i] = 1
	}
	for _, c := range []struct {
		says  string
		value any
	}{
		{"result: type <nil> has no XML-RPC form", nil},
		{"result[1]: type []string has no XML-RPC form", []any{1, []string{}}},
		{`result["a"][0]["b"]: type float64`, map[string]any{"a": []any{map[string]any{"b": 1.5}}}},
		{"result: int 2147483648 is beyond 32 bits", math.MaxInt32 + 1},
		{"result: int -2147483649 is beyond 32 bits", math.MinInt32 - 1},
		{"type int64", int64(1)},
		{"U+0000 at byte 1", "a\x00"},
		{"U+FFFF", "\uFFFF"},
		{"not UTF-8 at byte 1", "a\xff"},
		{"member name: string has U+001B", map[string]any{"a\x1b": 1}},
		{"member name: string is not UTF-8", map[string]any{"\xff": 1}},
		{"year 10000", time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600))},
		{"year 0", time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"deeper than 16", deep},
		{"deeper than 16", cycle},
		{"elements", wide},
		{"elements", flat},
		{"256 members", many},
		{"larger than 2097152 bytes", strings.Repeat("a", MaxResponse)},
	} {
		body, err := EncodeResponse(c.value)
		if err == nil || body != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got %d bytes, error %v", c.says, len(body), err)
		}
	}
}

func TestCallEncoderRefuses(t *testing.T) {
	// 3 elements, 4 for an empty array, 3 for an integer: 4097, and the last
	// <data> is the one too many.
	last := []any{[]any{}}
	for range 1362 {
		last = append(last, 1)
	}
	last = append(last, []any{})
	ones := []any{}
	for range MaxElements {
		ones = append(ones, 1)
	}
	for says, call := range map[string]Call{
		`method name "" is`:          {},
		`method name "a b" is`:       {Method: "a b"},
		"params[1]: type <nil> has":  {Method: "m", Params: []any{1, nil}},
		"params[0][2044]: more than": {Method: "m", Params: []any{ones}},
		"larger than 65536 bytes":    {Method: "m", Params: []any{strings.Repeat("a", MaxBody)}},
		"bytes or 4096 elements":     {Method: "m", Params: last},
	} {
		body, err := EncodeCall(call)
		if err == nil || body != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %d bytes, error %v", says, len(body), err)
		}
	}
}

func TestFaultIsCut(t *testing.T) {
	var fault *Fault
	_, err := DecodeResponse(EncodeFault(Fault{1, strings.Repeat("é", maxFaultMessage)}))
	if !errors.As(err, &fault) || fault.Message != strings.Repeat("é", maxFaultMessage/2) {
		t.Errorf("got %v", err)
	}
	_, err = DecodeResponse(EncodeFault(Fault{1, "x" + strings.Repeat("é", maxFaultMessage)}))
	if !errors.As(err, &fault) || fault.Message != "x"+strings.Repeat("é", maxFaultMessage/2-1) {
		t.Errorf("got %v", err)
	}
}
