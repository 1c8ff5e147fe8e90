package rpc

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

type object = map[string]any

func TestBind(t *testing.T) {
	good := func() object { return object{"purpose": "user", "cn": "alice"} }
	with := func(name string, v any) []any {
		o := good()
		o[name] = v
		return []any{o}
	}
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		params []any
		says   string
	}{
		{nil, "params: 0 parameters; want one struct"},
		{[]any{good(), good()}, "params: 2 parameters; want one struct"},
		{[]any{"user"}, "params[0]: want a struct"},
		{[]any{[]any{good()}}, "params[0]: want a struct"},
		{[]any{nil}, "params[0]: want a struct"},
		{[]any{object{"cn": "alice"}}, "params[0].purpose: is missing"},
		{[]any{object{"purpose": "user"}}, "params[0].cn: is missing"},
		{with("Purpose", "user"), `params[0]."Purpose": there is no such member; the members are purpose, cn, sans, csr, key_type, valid_days, request_id, plan`},
		{with("", "user"), `params[0]."": there is no such member`},
		{with("\u202e", "user"), `params[0]."\u202e": there is no such member`},
		{with(long, "user"), `params[0].` + `"` + long[:40] + `..."`},
		{with("purpose", 3), "params[0].purpose: want a string"},
		{with("purpose", true), "params[0].purpose: want a string"},
		{with("purpose", []byte("user")), "params[0].purpose: want a string"},
		{with("purpose", nil), "params[0].purpose: want a string"},
		{with("cn", noInt{}), "params[0].cn: want a string"},
		{with("cn", time.Now()), "params[0].cn: want a string"},
		{with("request_id", ""), "params[0].request_id: is empty; leave it out instead"},
		{with("valid_days", "30"), "params[0].valid_days: want an int"},
		{with("valid_days", noInt{}), "params[0].valid_days: want an int"},
		{with("planned", nil), "params[0].planned: want an int"},
		{with("planned", "1"), "params[0].planned: want an int"},
		{with("plan", 1), "params[0].plan: want a boolean"},
		{with("plan", "true"), "params[0].plan: want a boolean"},
		{with("sans", []any{}), "params[0].sans: want a struct"},
		{with("sans", object{"dns": "www.example.org"}), "params[0].sans.dns: want an array of strings"},
		{with("sans", object{"dns": []any{"www.example.org", 7}}), "params[0].sans.dns[1]: want a string"},
		{with("sans", object{"dns": []any{[]any{}}}), "params[0].sans.dns[0]: want a string"},
		{with("sans", object{"uid": []any{"alice"}}), "params[0].sans.uid: there is no such member; the members are dns, ip, email, uri"},
		{with("csr", 3), "params[0].csr: want a CSR as PEM or base64"},
		{with("csr", "{}"), "csr.malformed"},
		{with("csr", []byte{}), "csr.malformed"},
		{with("csr", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "csr.malformed"},
		{with("csr", strings.Repeat("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", 2)), "csr.malformed"},
	} {
		var p issueParams
		err := bindStruct(c.params, &p)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.200v: %v, want %q", c.params, err, c.says)
		}
	}
}

// TestOneBody: however a CSR is spelled, and whatever is left out or empty, it is the same request.
func TestOneBody(t *testing.T) {
	der := []byte{0x30, 0x03, 0x02, 0x01, 0x05}
	text := base64.StdEncoding.EncodeToString(der)
	armoured := "-----BEGIN CERTIFICATE REQUEST-----\n" + text + "\n-----END CERTIFICATE REQUEST-----\n"
	hashes := make(map[string]bool)
	for _, o := range []object{
		{"csr": der}, {"csr": text}, {"csr": armoured}, {"csr": []byte(armoured)}, {"csr": der, "request_id": "a"},
		{"csr": der, "plan": true}, {"csr": der, "sans": object{}}, {"csr": der, "sans": object{"dns": []any{}}},
		{"csr": der, "valid_days": 0, "plan": false},
	} {
		hashes[hashOf(t, o)] = true
	}
	if len(hashes) != 1 {
		t.Errorf("%d hashes of one request", len(hashes))
	}
	for _, o := range []object{{}, {"csr": der[:4]}, {"csr": der, "valid_days": 1}, {"csr": der, "key_type": "P-256"}, {"csr": der, "sans": object{"dns": []any{"a"}}},
		{"csr": der, "sans": object{"ip": []any{"a"}}}} {
		h := hashOf(t, o)
		if hashes[h] {
			t.Errorf("%v has the hash of another request", o)
		}
		hashes[h] = true
	}
	// What an auditor computes with another tool.
	if got, want := hashOf(t, object{}), cert.SHA256([]byte(`{"method":"ca.issue","params":{"cn":"alice","purpose":"user"}}`)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func hashOf(t *testing.T, more object) string {
	t.Helper()
	o := object{"purpose": "user", "cn": "alice"}
	for k, v := range more {
		o[k] = v
	}
	var p issueParams
	if err := bindStruct([]any{o}, &p); err != nil {
		t.Fatal(err)
	}
	rq := &request{method: "ca.issue", about: p.about()}
	if err := rq.hashBody(p); err != nil {
		t.Fatal(err)
	}
	return rq.body
}

func TestParseJSON(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		text string
		want any // nil: the number of the fault
		code int
	}{
		{`{"a":[1,-2147483648,2147483647,true,"\u00e9"],"b":{}}`, object{"a": []any{1, -2147483648, 2147483647, true, "\u00e9"}, "b": object{}}, 0},
		{`[2147483648,1.5,1e3,null]`, []any{noInt{}, noInt{}, noInt{}, nil}, 0},
		{`{"id":2147483648,"a":{"id":2147483648}}`, object{"id": json.Number("2147483648"), "a": object{"id": noInt{}}}, 0},
		{`[-2147483649,2147483648,-0,0,12345678901,-12345678901]`, []any{noInt{}, noInt{}, 0, 0, noInt{}, noInt{}}, 0},
		{` { "a" : [ ] , "\ud83d\ude00\/\"\\\b\f\n\r\t\u0000" : [ 1 , "" ] } `, object{"a": []any{}, "\U0001f600/\"\\\b\f\n\r\t\x00": []any{1, ""}}, 0},
		{`{"a":"\ud83d\u0041"}`, nil, -32702},
		{`{"a":"\ude00\ud83d"}`, nil, -32702},
		{"[" + strings.Repeat("1,", 4094) + "1]", nil, 0},
		{"[" + strings.Repeat("1,", 4095) + "1]", nil, -32600},
		{deep(18), nil, 0},
		{deep(19), nil, -32600},
		{deep(30000), nil, -32700},
		{"", nil, -32700},
		{"{", nil, -32700},
		{"{} {}", nil, -32700},
		{"{}x", nil, -32700},
		{`{"a":1,}`, nil, -32700},
		{`{"a":01}`, nil, -32700},
		{`{'a':1}`, nil, -32700},
		{"{\"a\":\"\n\"}", nil, -32700},
		{"\ufeff{}", nil, -32700},
		{`{"a":NaN}`, nil, -32700},
		{`{"a":1} // x`, nil, -32700},
		{`{"a":1,"a":1}`, nil, -32600},
		{`{"a":1,"\u0061":1}`, nil, -32600},
		{`[{"a":{"b":1,"b":2}}]`, nil, -32600},
		{`{"a":"\ud800"}`, nil, -32702},
		{`{"\udc00":1}`, nil, -32702},
		{"{\"a\":\"\xff\"}", nil, -32702},
		{"\xff\xfe{\x00}\x00", nil, -32702},
		{"{" + strings.TrimSuffix(strings.Repeat(`"a":1,`, 1), ",") + many(300) + "}", nil, -32600},
	} {
		got, f := parseJSON([]byte(c.text))
		switch {
		case c.code == 0 && f != nil || c.code != 0 && (f == nil || f.number != c.code):
			t.Errorf("%.60q: %v, want fault %d", c.text, f, c.code)
		case c.want != nil && !reflect.DeepEqual(got, c.want):
			t.Errorf("%.60q: %#v", c.text, got)
		}
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"m` + strings.Repeat("i", i) + `":1`)
	}
	return b.String()
}

func TestJSONCalls(t *testing.T) {
	for _, c := range []struct{ text, says, id string }{
		{`{"jsonrpc":"2.0","id":1,"method":"m","params":[{}]}`, "", "1"},
		{`{"jsonrpc":"2.0","id":"x","method":"m","params":{}}`, "", `"x"`},
		{`{"jsonrpc":"2.0","id":null,"method":"m"}`, "", "null"},
		{`{"jsonrpc":"2.0","id":1.5,"method":"m"}`, "", "1.5"},
		{`[{"jsonrpc":"2.0","id":1,"method":"m"}]`, "batches", ""},
		{`"m"`, "want one object", ""},
		{`{"jsonrpc":"2.0","method":"m"}`, "notifications", ""},
		{`{"jsonrpc":"1.0","id":1,"method":"m"}`, `jsonrpc: want "2.0"`, "1"},
		{`{"jsonrpc":2.0,"id":1,"method":"m"}`, `jsonrpc: want "2.0"`, "1"},
		{`{"id":1,"method":"m"}`, "jsonrpc is missing", "1"},
		{`{"jsonrpc":"2.0","id":1}`, "method is missing", "1"},
		{`{"jsonrpc":"2.0","id":1,"method":""}`, "method: want", "1"},
		{`{"jsonrpc":"2.0","id":1,"method":["m"]}`, "method: want", "1"},
		{`{"jsonrpc":"2.0","id":1,"method":"m","params":"x"}`, "params: want", "1"},
		{`{"jsonrpc":"2.0","id":1,"method":"m","params":null}`, "params: want", "1"},
		{`{"jsonrpc":"2.0","id":1,"method":"m","extra":1}`, "no member extra", "1"},
		{`{"jsonrpc":"2.0","id":1,"method":"m","Params":[{}]}`, `no member "Params"`, "1"},
		{`{"jsonrpc":"2.0","id":[1],"method":"m"}`, "id: want", ""},
		{`{"jsonrpc":"2.0","id":true,"method":"m"}`, "id: want", ""},
		{`{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 300) + `","method":"m"}`, "id: want at most", ""},
	} {
		got, f := jsonWire{}.decode([]byte(c.text))
		if f == nil && c.says != "" || f != nil && (c.says == "" || !strings.Contains(f.text, c.says)) || string(got.id) != c.id {
			t.Errorf("%s: %v, id %s", c.text, f, got.id)
		}
	}
}
