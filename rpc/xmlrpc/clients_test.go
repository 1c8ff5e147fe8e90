package xmlrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

var csr = bytes.Repeat([]byte{0x30, 0x82, 0x01, 0xFF, 0x00}, 20)

// clientRequests are one request as each client writes it: declaration, white
// space, integer element and base64 line breaks follow what was measured
// (Python 3.11, ruby-xmlrpc 0.3.2, RPC::XML 0.82, php-xmlrpc 1.0.0rc3, npm
// xmlrpc, curl by hand).
var clientRequests = []struct{ name, body string }{
	{"python", "<?xml version='1.0'?>\n<methodCall>\n<methodName>ca.issue</methodName>\n<params>\n<param>\n" +
		"<value><struct>\n<member>\n<name>purpose</name>\n<value><string>user</string></value>\n</member>\n" +
		"<member>\n<name>days</name>\n<value><int>30</int></value>\n</member>\n" +
		"<member>\n<name>plan</name>\n<value><boolean>1</boolean></value>\n</member>\n" +
		"<member>\n<name>csr</name>\n<value><base64>\n" + lines(76, "\n") + "</base64></value>\n</member>\n" +
		"<member>\n<name>after</name>\n<value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value>\n</member>\n" +
		"</struct></value>\n</param>\n</params>\n</methodCall>\n"},
	{"ruby", `<?xml version="1.0" ?><methodCall><methodName>ca.issue</methodName><params><param><value><struct>` +
		`<member><name>purpose</name><value><string>user</string></value></member>` +
		`<member><name>days</name><value><i4>30</i4></value></member>` +
		`<member><name>plan</name><value><boolean>1</boolean></value></member>` +
		"<member><name>csr</name><value><base64>" + lines(60, "\n") + "</base64></value></member>" +
		`<member><name>after</name><value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value></member>` +
		"</struct></value></param></params></methodCall>\n"},
	{"perl", `<?xml version="1.0" encoding="us-ascii"?><methodCall><methodName>ca.issue</methodName><params><param><value><struct>` +
		`<member><name>csr</name><value><base64>` + lines(1000, "") + `</base64></value></member>` +
		`<member><name>plan</name><value><boolean>1</boolean></value></member>` +
		`<member><name>after</name><value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value></member>` +
		`<member><name>purpose</name><value><string>user</string></value></member>` +
		`<member><name>days</name><value><int>30</int></value></member>` +
		`</struct></value></param></params></methodCall>`},
	{"php", "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<methodCall>\n<methodName>ca.issue</methodName>\n<params>\n <param>\n  <value>\n   <struct>\n" +
		"    <member>\n     <name>purpose</name>\n     <value>\n      <string>user</string>\n     </value>\n    </member>\n" +
		"    <member>\n     <name>days</name>\n     <value>\n      <int>30</int>\n     </value>\n    </member>\n" +
		"    <member>\n     <name>plan</name>\n     <value>\n      <boolean>1</boolean>\n     </value>\n    </member>\n" +
		"    <member>\n     <name>csr</name>\n     <value>\n      <base64>" + lines(80, "&#10;") + "</base64>\n     </value>\n    </member>\n" +
		"    <member>\n     <name>after</name>\n     <value>\n      <dateTime.iso8601>20260102T03:04:05</dateTime.iso8601>\n     </value>\n    </member>\n" +
		"   </struct>\n  </value>\n </param>\n</params>\n</methodCall>\n"},
	{"npm", `<?xml version="1.0"?><methodCall><methodName>ca.issue</methodName><params><param><value><struct>` +
		`<member><name>purpose</name><value><string>user</string></value></member>` +
		`<member><name>days</name><value><int>30</int></value></member>` +
		`<member><name>plan</name><value><boolean>1</boolean></value></member>` +
		`<member><name>csr</name><value><base64>` + lines(1000, "") + `</base64></value></member>` +
		`<member><name>after</name><value><dateTime.iso8601>20260102T03:04:05</dateTime.iso8601></value></member>` +
		`</struct></value></param></params></methodCall>`},
	{"by hand", "<methodCall>\r\n  <methodName>ca.issue</methodName>\r\n  <params><param><value><struct>\r\n" +
		"    <member><name>purpose</name><value>user</value></member>\r\n" +
		"    <member><name>days</name><value><i4>30</i4></value></member>\r\n" +
		"    <member><name>plan</name><value><boolean>1</boolean></value></member>\r\n" +
		"    <member><name>csr</name><value><base64>\r\n      " + lines(64, "\r\n      ") + "</base64></value></member>\r\n" +
		"    <member><name>after</name><value><dateTime.iso8601>2026-01-02T03:04:05Z</dateTime.iso8601></value></member>\r\n" +
		"  </struct></value></param></params>\r\n</methodCall>\r\n"},
}

// lines is csr in base64, broken at a width, each line ended.
func lines(width int, end string) string {
	rest := base64.StdEncoding.EncodeToString(csr)
	var b strings.Builder
	for len(rest) > width {
		b.WriteString(rest[:width] + end)
		rest = rest[width:]
	}
	return b.String() + rest + end
}

func TestClientRequests(t *testing.T) {
	want := Call{"ca.issue", []any{map[string]any{
		"purpose": "user", "days": 30, "plan": true, "csr": csr, "after": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}}}
	for _, c := range clientRequests {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeCall([]byte(c.body))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %#v, %v", got, err)
			}
		})
	}
}

// TestPHPText records a known loss: php-xmlrpc writes each byte of UTF-8 as a
// character of its own, and nothing in the document tells.
func TestPHPText(t *testing.T) {
	call, err := DecodeCall([]byte(str("caf&#195;&#169;")))
	if err != nil || call.Params[0] != "cafÃ©" {
		t.Errorf("got %#v, %v", call, err)
	}
}

// peer is what testdata/peer.py reads and writes.
type peer struct {
	Load   []string `json:"load,omitempty"`
	Dump   []any    `json:"dump,omitempty"`
	Loaded []any    `json:"loaded"`
	Dumped []string `json:"dumped"`
}

// packed is a tree in the form of testdata/peer.py.
func packed(v any) any {
	switch v := v.(type) {
	case bool:
		return []any{"bool", v}
	case int:
		return []any{"int", float64(v)}
	case string:
		return []any{"string", v}
	case []byte:
		return []any{"bytes", base64.StdEncoding.EncodeToString(v)}
	case time.Time:
		return []any{"time", v.Format("2006-01-02T15:04:05Z")}
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = packed(item)
		}
		return []any{"array", items}
	case map[string]any:
		members := map[string]any{}
		for name, member := range v {
			members[name] = packed(member)
		}
		return []any{"struct", members}
	}
	panic("not a tree")
}

func python(t *testing.T, work peer) peer {
	t.Helper()
	in, err := json.Marshal(work)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "testdata/peer.py")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, stderr.String())
	}
	var done peer
	if err := json.Unmarshal(out, &done); err != nil {
		t.Fatal(err)
	}
	return done
}

func someTrees() []any {
	trees := []any{
		[]any{true, "issued", map[string]any{"code": "issued", "serial": "00ff", "log_index": 17, "chain": []byte{0, 1, 0xFF}, "empty": ""}},
		"", "  ", "\r\n", "<&>]]>", "😀\u0085\u2028", math.MaxInt32, math.MinInt32, []any{}, map[string]any{}, []byte{}, csr,
	}
	for seed := range 200 {
		trees = append(trees, tree(4).Example(seed))
	}
	return trees
}

func TestPythonReadsUs(t *testing.T) {
	var work peer
	var want []any
	for _, v := range someTrees() {
		body, err := EncodeResponse(v)
		if err != nil {
			t.Fatal(err)
		}
		work.Load = append(work.Load, string(body))
		want = append(want, packed(v))
	}
	work.Load = append(work.Load, string(EncodeFault(Fault{CodeNotWellFormed, "a <b> & é\r\n"})))
	want = append(want, []any{"fault", []any{float64(CodeNotWellFormed), "a <b> & é\r\n"}})
	got := python(t, work).Loaded
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("%s\npython reads %#v\nwe wrote %#v", work.Load[i], got[i], want[i])
		}
	}
}

func TestWeReadPython(t *testing.T) {
	var work peer
	var want []any
	for _, v := range someTrees() {
		// xmlrpc.client writes a carriage return raw, which XML makes a line
		// feed: its loss, not ours.
		v = withoutReturns(v)
		work.Dump = append(work.Dump, packed(v))
		want = append(want, v)
	}
	for i, body := range python(t, work).Dumped {
		got, err := DecodeCall([]byte(body))
		if err != nil || !reflect.DeepEqual(got, Call{"ca.issue", []any{want[i]}}) {
			t.Errorf("%s\nwe read %#v, %v\npython wrote %#v", body, got, err, want[i])
		}
	}
}

// withoutReturns is v with every carriage return made a line feed.
func withoutReturns(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "\r", "\n")
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = withoutReturns(item)
		}
		return items
	case map[string]any:
		members := map[string]any{}
		for name, member := range v {
			members[strings.ReplaceAll(name, "\r", "\n")] = withoutReturns(member)
		}
		return members
	}
	return v
}
