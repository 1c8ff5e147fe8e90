package rpc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// paged asks until there is no next, and gives what is to be called of each certificate, in their order.
func (w *world) paged(c *client.Client, method string, params object, called func(m map[string]any) string) (names []string, pages int) {
	w.Helper()
	for {
		var a client.Answer
		w.must(c.Call(w.Context(), method, params, &a))
		d := detail(w, a)
		if !a.OK || "ca."+fmt.Sprint(d["code"]) != method {
			w.Fatalf("%v: %s %s", params, a.Msg, a.Detail)
		}
		for _, one := range d["certificates"].([]any) {
			names = append(names, called(one.(map[string]any)))
		}
		pages++
		next, more := d["next"].(string)
		if !more {
			return names, pages
		}
		params["after"] = next
	}
}

// found are the request ids of what ca.find finds.
func (w *world) found(c *client.Client, params object) (ids []string, pages int) {
	w.Helper()
	return w.paged(c, "ca.find", params, func(m map[string]any) string { return m["request_id"].(string) })
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	boss, reader, nothing := w.client(w.caller("provisioning")), w.client(w.caller("reader")), w.client(w.caller("nothing"))
	for _, one := range []struct {
		id, purpose, cn string
		days            int
		sans            object
	}{
		{"f1", "user", "Alice", 10, object{"email": []string{"alice@example.org", "info@example.org"}}},
		{"f2", "user", "bob", 100, object{"email": []string{"bob@example.org", "info@example.org"}}},
		{"f3", "server", "www.example.org", 30, object{"dns": []string{"web.example.org"}, "ip": []string{"192.0.2.7"}}},
		{"f4", "user", "alice", 300, object{}},
		{"f5", "user", "anna", 5, object{}},
	} {
		var a client.Answer
		w.must(boss.Call(t.Context(), "ca.issue", object{"purpose": one.purpose, "cn": one.cn, "valid_days": one.days, "sans": one.sans, "request_id": one.id}, &a))
		if !a.OK {
			t.Fatal(a.Msg)
		}
	}
	var a client.Answer
	w.must(boss.Call(t.Context(), "ca.revoke", object{"cn": "bob"}, &a))
	day := func(days int) string { return w.now().AddDate(0, 0, days).UTC().Format("2006-01-02") }
	for _, c := range []struct {
		who    *client.Client
		params object
		want   string
	}{
		{boss, object{"cn": "ALICE"}, "f1 f4"},
		{boss, object{"cn": "alice", "limit": 1}, "f1 f4"},
		{boss, object{"san": "info@EXAMPLE.org"}, "f1 f2"},
		{boss, object{"san": "info@example.org", "limit": 1}, "f1 f2"},
		{boss, object{"san": "Web.Example.org"}, "f3"},
		{boss, object{"san": "www.example.org"}, "f3"},
		{boss, object{"san": "192.0.2.7"}, "f3"},
		{boss, object{"san": "192.0.2.8"}, ""},
		{boss, object{"san": "info@example.org", "cn": "bob"}, "f2"},
		{boss, object{"caller": "provisioning"}, "f1 f2 f3 f4 f5"},
		{boss, object{"caller": "provisioning", "limit": 2}, "f1 f2 f3 f4 f5"},
		{boss, object{"caller": "nobody"}, ""},
		{boss, object{"purpose": "server", "caller": "provisioning"}, "f3"},
		{boss, object{"state": "revoked"}, "f2"},
		{boss, object{"state": "expired", "caller": "provisioning"}, ""},
		{boss, object{"state": "live", "caller": "provisioning"}, "f1 f3 f4 f5"},
		{boss, object{"ends_from": day(30), "ends_to": day(100), "caller": "provisioning"}, "f2 f3"},
		{boss, object{"ends_to": day(10), "purpose": "user"}, "f1 f5"},
		{reader, object{"purpose": "user"}, "f1 f4 f5"}, // its grant: users, a*
		{reader, object{"purpose": "user", "limit": 1}, "f1 f4 f5"},
		{reader, object{"san": "info@example.org"}, "f1"},
	} {
		params := asJSON(t, c.params)
		got, _ := w.found(c.who, c.params)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", params, got, c.want)
		}
	}
	for _, c := range []struct {
		who    *client.Client
		params object
		code   string
	}{
		{nothing, object{}, "policy.denied"},
		{boss, object{"purpose": "smtp"}, "purpose.unknown"},
		{boss, object{"cn": "alice", "purpose": "server"}, "name.single_label"},
		{boss, object{"san": "bad name"}, "name.space"},
		{boss, object{"state": "dead"}, "find.state"},
		{boss, object{"ends_to": "tomorrow"}, "find.day"},
		{boss, object{"limit": -1}, "page.limit"},
		{boss, object{"after": "-7"}, "page.after"},
		{boss, object{"after": "x"}, "page.after"},
	} {
		from := w.head()
		w.must(c.who.Call(t.Context(), "ca.find", c.params, &a))
		if code := detail(t, a)["code"]; a.OK || code != c.code {
			t.Errorf("%v: %v, want %s", c.params, code, c.code)
		}
		if _, r := w.refusal(from); r.Code != c.code || r.Method != "ca.find" {
			t.Errorf("%v: the log says %+v", c.params, r)
		}
	}
}

func TestWhoami(t *testing.T) {
	w := newWorld(t)
	own := w.caller("reader")
	from := w.head()
	var a client.Answer
	w.must(w.client(own).Call(t.Context(), "ca.whoami", object{}, &a))
	d := detail(t, a)
	grants := d["grants"].([]any)
	if !a.OK || d["caller"] != "reader" || len(grants) != 1 || w.head() != from {
		t.Fatalf("%s %s", a.Msg, a.Detail)
	}
	g := grants[0].(map[string]any)
	if g["rule"] != "reader/1" || fmt.Sprint(g["names"]) != "[a*]" || fmt.Sprint(g["purposes"]) != "[user]" || fmt.Sprint(g["key_types"], g["max"], g["own"]) != "[] 0 false" {
		t.Errorf("%v", g)
	}
	bounded := testConfig()
	bounded.Callers[1].Grants = []Grant{
		{Methods: []string{"ca.renew", "ca.revoke"}, Purposes: []cert.Purpose{cert.User}, Names: []string{"{caller}"}, KeyTypes: []cert.KeyType{cert.P384}, MaxDays: 9, Reasons: []string{"superseded"}, Max: 8, PerHour: 7, Own: true},
	}
	w.apply(bounded, false)
	w.must(w.client(own).Call(t.Context(), "ca.whoami", object{}, &a))
	g = detail(t, a)["grants"].([]any)[0].(map[string]any)
	if got := fmt.Sprint(g["names"], g["key_types"], g["max_days"], g["reasons"], g["max"], g["per_hour"], g["own"]); got != "[reader] [P-384] 9 [superseded] 8 7 true" {
		t.Error(got)
	}
	w.must(w.client(w.caller("nothing")).Call(t.Context(), "ca.whoami", object{}, &a))
	if d := detail(t, a); !a.OK || len(d["grants"].([]any)) != 0 {
		t.Errorf("%s %s", a.Msg, a.Detail)
	}
}

// TestMulticall: each of several calls is one by itself, in both codecs.
func TestMulticall(t *testing.T) {
	w := newWorld(t)
	own := w.caller("reader")
	call := func(method string, params ...any) object {
		return object{"methodName": method, "params": append([]any{}, params...)}
	}
	calls := []any{
		call("ca.whoami", object{}), call("ca.issue", object{"purpose": "user", "cn": "alice"}), call("ca.nothing", object{}),
		call("system.multicall", []any{}), object{"methodName": "ca.whoami"}, "nonsense", call("system.listMethods"), call("ca.status", object{"cn": "anna"}),
	}
	from := w.head()
	out := w.python(own, []any{"system.multicall", calls})
	if out[0].Result == nil {
		t.Fatalf("%+v", out[0])
	}
	var got []string
	for _, one := range out[0].Result.([]any) {
		switch v := one.(type) {
		case []any:
			if answer, ok := v[0].([]any); ok && len(answer) == 3 {
				got = append(got, fmt.Sprint(answer[2].(map[string]any)["code"]))
				continue
			}
			got = append(got, "value")
		case map[string]any:
			got = append(got, fmt.Sprint(v["faultCode"]))
		}
	}
	want := "whoami policy.denied -32601 -32602 -32602 -32602 value status"
	if strings.Join(got, " ") != want {
		t.Errorf("%v, want %s\n%+v", got, want, out[0])
	}
	if n := w.head() - from; n != 5 {
		t.Errorf("%d leaves for five calls that were refused or not understood", n)
	}
	var results []struct {
		Result any `json:"result"`
		Error  *client.Fault
	}
	c := w.client(own)
	w.must(c.Call(t.Context(), "system.multicall", calls, &results))
	if len(results) != len(calls) || results[0].Result == nil || results[2].Error == nil || results[2].Error.Code != -32601 {
		t.Errorf("%+v", results)
	}
	for name, params := range map[string]any{
		"too many": slices.Repeat(calls[:1], 17), "none": []any{}, "no array": object{},
	} {
		if f, ok := c.Call(t.Context(), "system.multicall", params, &results).(*client.Fault); !ok || f.Code != -32602 {
			t.Errorf("%s: %v", name, f)
		}
	}
	// Each counts for the caller's rate, and so do those that are not understood.
	slow := w.client(w.caller("slow"))
	w.must(slow.Call(t.Context(), "system.multicall", slices.Repeat([]any{"nonsense"}, 5), &results))
	tooMany := 0
	for _, r := range results {
		if r.Error != nil && r.Error.Code == codeTooMany {
			tooMany++
		}
	}
	if tooMany < 3 {
		t.Errorf("%d of 5 calls were too many for a rate of 1 with 2 at once: %+v", tooMany, results)
	}
}
