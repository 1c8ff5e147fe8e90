package xmlrpc

import (
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestAcceptsValues(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]any{
		"<value/>":                                                                                  "",
		"<value></value>":                                                                           "",
		"<value>  </value>":                                                                         "  ",
		"<value>plain &lt;text&gt;</value>":                                                         "plain <text>",
		"<value><string/></value>":                                                                  "",
		"<value><string> a\tb </string></value>":                                                    " a\tb ",
		"<value><string>a\r\nb\rc\n\r</string></value>":                                             "a\nb\nc\n\n",
		"<value><string>a&#13;&#xD;\n&#x1F600;</string></value>":                                    "a\r\r\n😀",
		"<value><string>&amp;&apos;&quot;&#0065;]]&gt;</string></value>":                            "&'\"A]]>",
		"<value><string>\u0085\u2028\uFFFD</string></value>":                                        "\u0085\u2028\uFFFD",
		"<value><int>-2147483648</int></value>":                                                     -2147483648,
		"<value><i4>+2147483647</i4></value>":                                                       2147483647,
		"<value><int>007</int></value>":                                                             7,
		"<value><int>&#49;</int></value>":                                                           1,
		"<value><boolean>1</boolean></value>":                                                       true,
		"<value><boolean>0</boolean></value>":                                                       false,
		"<value><base64/></value>":                                                                  []byte{},
		"<value><base64>\n AA\r\nA=&#10;\t</base64></value>":                                        []byte{0, 0},
		"<value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value>":                     when,
		"<value><dateTime.iso8601>20260102T03:04:05Z</dateTime.iso8601></value>":                    when,
		"<value><dateTime.iso8601>2026-01-02T03:04:05Z</dateTime.iso8601></value>":                  when,
		"<value><array><data/></array></value>":                                                     []any{},
		"<value><struct/></value>":                                                                  map[string]any{},
		"<value>\n <array>\n <data>\n <value>\n <int>1</int>\n </value> </data> </array> </value>":  []any{1},
		"<value\n><struct ><member\t><name >a</name\r\n><value>b</value></member></struct></value>": map[string]any{"a": "b"},
		"<value><struct><member><name/><value/></member></struct></value>":                          map[string]any{"": ""},
	} {
		call, err := DecodeCall([]byte(param(value)))
		if err != nil {
			t.Errorf("%s: %v", value, err)
		} else if !reflect.DeepEqual(call, Call{"m", []any{want}}) {
			t.Errorf("%s: got %#v, want %#v", value, call.Params, want)
		}
	}
}

func TestAcceptsCalls(t *testing.T) {
	for _, body := range []string{
		"<methodCall><methodName>a.b:c/d_9</methodName></methodCall>",
		"\n<methodCall><methodName>a.b:c/d_9</methodName><params/></methodCall>\r\n\t ",
		"<?xml version='1.0'?> <methodCall> <methodName>a.b:c/d_9</methodName> <params> </params> </methodCall>",
		`<?xml version = "1.0" encoding = 'utf-8' standalone = "yes" ?><methodCall><methodName>a.b:c/d_9</methodName></methodCall>`,
		`<?xml version="1.0" standalone="no"?><methodCall><methodName>a.b:c/d_9</methodName></methodCall>`,
		`<?xml version="1.0" encoding="US-ASCII"?><methodCall><methodName>a.b:c/d_9</methodName></methodCall>`,
		`<?xml version="1.0" encoding="iso-8859-1"?><methodCall><methodName>a.b:c/d&#95;9</methodName></methodCall>`,
	} {
		call, err := DecodeCall([]byte(body))
		if err != nil || !reflect.DeepEqual(call, Call{"a.b:c/d_9", []any{}}) {
			t.Errorf("%s: got %#v, %v", body, call, err)
		}
	}
}

// TestLimitsAreExact takes the largest document of each kind; the refusal of
// the next larger one is in the tables of hostile documents.
func TestLimitsAreExact(t *testing.T) {
	head, tail, _ := strings.Cut(str("|"), "|")
	for name, body := range map[string]string{
		"bytes":    head + strings.Repeat("a", MaxBody-len(head)-len(tail)) + tail,
		"depth":    nested(MaxDepth),
		"members":  members(MaxMembers),
		"method":   "<methodCall><methodName>" + strings.Repeat("m", MaxMethod) + "</methodName></methodCall>",
		"elements": elements(MaxElements),
	} {
		if _, err := DecodeCall([]byte(body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeResponse(t *testing.T) {
	value, err := DecodeResponse([]byte("<methodResponse><params><param><value><i4>1</i4></value></param></params></methodResponse>"))
	if err != nil || value != 1 {
		t.Errorf("got %v, %v", value, err)
	}
	const faultDoc = "<methodResponse><fault><value><struct><member><name>faultString</name><value>no</value></member>" +
		"<member><name>faultCode</name><value><int>4030</int></value></member></struct></value></fault></methodResponse>"
	var fault *Fault
	if _, err := DecodeResponse([]byte(faultDoc)); !errors.As(err, &fault) || *fault != (Fault{4030, "no"}) {
		t.Errorf("got %v", err)
	}
	for _, body := range []string{
		"",
		"\xff",
		"<methodCall><methodName>m</methodName></methodCall>",
		"<methodResponse/>",
		"<methodResponse>x</methodResponse>",
		"<methodResponse><params/></methodResponse>",
		"<methodResponse><params><param><value/></param><param><value/></param></params></methodResponse>",
		"<methodResponse><params><param><value/></param></params><fault/></methodResponse>",
		"<methodResponse><fault><value><int>1</int></value></fault></methodResponse>",
		"<methodResponse><fault><value><struct><member><name>faultCode</name><value>1</value></member></struct></value></fault></methodResponse>",
		strings.Replace(faultDoc, "</struct>", "<member><name>x</name><value/></member></struct>", 1),
		strings.Replace(faultDoc, "faultCode", "FaultCode", 1),
		faultDoc + "x",
		strings.Repeat(" ", MaxResponse) + faultDoc,
	} {
		value, err := DecodeResponse([]byte(body))
		if value != nil || !errors.Is(err, ErrMalformed) || errors.As(err, &fault) {
			t.Errorf("%.100s: got %v, %v; want ErrMalformed and no *Fault", body, value, err)
		}
	}
}

// TestRefusesEveryPrefix cuts documents at every byte.
func TestRefusesEveryPrefix(t *testing.T) {
	for _, c := range clientRequests {
		whole := strings.TrimRight(c.body, "\r\n")
		for i := range len(whole) {
			if call, err := DecodeCall([]byte(whole[:i])); err == nil {
				t.Fatalf("%s: the first %d bytes make %#v", c.name, i, call)
			}
		}
	}
	response, err := EncodeResponse([]any{true, "issued", map[string]any{"code": "issued"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{response, EncodeFault(Fault{1, "no"})} {
		whole := strings.TrimRight(string(body), "\n")
		for i := range len(whole) {
			if _, err := DecodeResponse([]byte(whole[:i])); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: %v", whole[:i], err)
			}
		}
	}
}

// TestOffsets holds the whole text of one message of each kind.
func TestOffsets(t *testing.T) {
	for body, want := range map[string]string{
		"<methodCall></methodCall>":             `fault -32600: invalid XML-RPC at byte 12: element "methodCall" ends without its <methodName>`,
		"<methodCall/>":                         `fault -32600: invalid XML-RPC at byte 13: element "methodCall" ends without its <methodName>`,
		"<methodCall><methodName>é":             `fault -32700: not well formed at byte 26: document ends inside "methodName"`,
		"<methodCall><methodName>a&b;":          `fault -32700: not well formed at byte 25: entity "b" is not one of amp lt gt quot apos`,
		"<methodCall><methodName>é\x01":         `fault -32702: invalid character at byte 26: U+0001 is not allowed in XML`,
		`<?xml version="1.0" encoding="KOI8"?>`: `fault -32701: unsupported encoding: "KOI8" is declared; send UTF-8`,
	} {
		if _, err := DecodeCall([]byte(body)); err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", body, err, want)
		}
	}
}

// worst are bodies near MaxBody, each the dearest of its kind.
func worst() map[string][]byte {
	fill := func(head, unit, tail string) []byte {
		n := (MaxBody - len(param(head+tail))) / len(unit)
		return []byte(param(head + strings.Repeat(unit, n) + tail))
	}
	const list, listEnd = "<value><array><data>", "</data></array></value>"
	deep := strings.Repeat(list, 14) + strings.Repeat(listEnd, 14)
	return map[string][]byte{
		"text":       fill("<value>", "a", "</value>"),
		"references": fill("<value>", "&lt;", "</value>"),
		"returns":    fill("<value>", "\r", "</value>"),
		"base64":     fill("<value><base64>", "AAAA", "</base64></value>"),
		"integer":    fill("<value><int>", "9", "</int></value>"),
		"strings":    fill(list, "<value>aaaaaaaa</value>", listEnd),
		"integers":   fill(list, "<value><int>256</int></value>", listEnd),
		"times":      fill(list, "<value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value>", listEnd),
		"empty":      fill(list, "<value/>", listEnd),
		"arrays":     fill(list, "<value><array><data/></array></value>", listEnd),
		"structs":    fill(list, "<value><struct/></value>", listEnd),
		"members":    fill(list, "<value><struct><member><name/><value/></member></struct></value>", listEnd),
		"two":        fill(list, "<value><struct><member><name/><value/></member><member><name>a</name><value/></member></struct></value>", listEnd),
		"deep":       fill(list, deep, listEnd),
		"full":       []byte(members(MaxMembers)),
		"nine":       fill(list, "<value>"+nine()+"</value>", listEnd),
		"ampersands": fill("<value>", "&", "</value>"),
		"long name":  fill("<value>", "<"+strings.Repeat("n", MaxBody/2), "</value>"),
		"spaces":     fill("", " ", "<value/>"),
	}
}

// nine is the smallest struct which makes a Go map grow beyond one group.
func nine() string {
	var b strings.Builder
	for _, c := range "abcdefghi" {
		b.WriteString("<member><name>" + string(c) + "</name><value/></member>")
	}
	return "<struct>" + b.String() + "</struct>"
}

func TestMemoryIsBounded(t *testing.T) {
	for name, body := range worst() {
		if len(body) > MaxBody {
			t.Fatalf("%s: body of %d bytes", name, len(body))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeCall(body)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%-10s %6d bytes, %7d allocated, error %v", name, len(body), used, err)
		if used > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}

func BenchmarkDecodeCall(b *testing.B) {
	for name, body := range worst() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = DecodeCall(body) // refused or not, the cost is what counts
			}
		})
	}
}
