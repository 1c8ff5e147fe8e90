package rpc

import (
	"slices"
	"strings"
	"testing"
)

// TestIntrospection: what Python is told of the methods is enough to call them.
func TestIntrospection(t *testing.T) {
	w := newWorld(t)
	out := w.python(w.caller("nothing"),
		[]any{"system.listMethods"}, []any{"system.methodSignature", "ca.issue"}, []any{"system.methodSignature", "system.methodHelp"},
		[]any{"system.methodHelp", "ca.issue"}, []any{"system.getCapabilities"}, []any{"ca.issue"}, []any{"ca.status", object{"cn": 7}})
	want := "ca.chain ca.expiring ca.find ca.hold ca.issue ca.release ca.renew ca.retire ca.revoke ca.status ca.whoami system.getCapabilities system.listMethods system.methodHelp system.methodSignature system.multicall"
	var names []string
	for _, m := range out[0].Result.([]any) {
		names = append(names, m.(string))
	}
	if strings.Join(names, " ") != want {
		t.Errorf("%v", names)
	}
	if got := asJSON(t, out[1].Result); got != `[["array","struct"]]` {
		t.Errorf("%s", got)
	}
	if got := asJSON(t, out[2].Result); got != `[["string","string"]]` {
		t.Errorf("%s", got)
	}
	help := out[3].Result.(string)
	for _, line := range []string{
		"\n  purpose (a string): what it is for: user, server, caller", "\n  sans (a struct, optional): further names",
		"\n    dns (an array of strings, optional)", "\n  csr (a CSR as PEM or base64, optional): ", "\n  plan (a boolean, optional): ",
		"\n  serial (a string, optional): serial number", "\n    state (a string): removed after",
	} {
		if !strings.Contains(help, line) {
			t.Errorf("the help does not say %q:\n%s", line, help)
		}
	}
	if c := out[4].Result.(map[string]any)["faults_interop"].(map[string]any); c["specVersion"] != float64(20010516) {
		t.Errorf("%v", c)
	}
	if f := out[5].Fault; len(f) != 2 || f[0] != float64(-32602) {
		t.Errorf("%+v", out[5])
	}
	if f := out[6].Fault; len(f) != 2 || f[1] != "params[0].cn: want a string" {
		t.Errorf("%+v", out[6])
	}
}

// TestEveryMethodIsGuarded: a method that is added gets grants and a help, or this says so.
func TestEveryMethodIsGuarded(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("nothing"))
	for name, r := range w.server.methods {
		if r.help == "" || len(r.signature) == 0 {
			t.Errorf("%s has no help or no signature", name)
		}
		if strings.HasPrefix(name, "system.") || name == whoamiMethod {
			continue
		}
		if !slices.Contains(grantedIn(w.server.methods), name) {
			t.Errorf("no grant can allow %s", name)
		}
		params := map[string]object{
			"ca.issue": {"purpose": "user", "cn": "alice"}, "ca.revoke": {"cn": "alice"}, "ca.status": {"cn": "alice"}, "ca.chain": {}, "ca.expiring": {}, "ca.find": {},
			"ca.renew": {"cn": "alice"}, "ca.hold": {"cn": "alice"}, "ca.release": {"cn": "alice"}, "ca.retire": {"cn": "alice"},
		}[name]
		if params == nil {
			t.Fatalf("%s is new: say here how it is called", name)
		}
		var a struct {
			OK     bool           `json:"ok"`
			Detail map[string]any `json:"detail"`
		}
		w.must(c.Call(t.Context(), name, params, &a))
		if a.OK || a.Detail["code"] != "policy.denied" {
			t.Errorf("%s without a grant: %+v", name, a)
		}
	}
}
