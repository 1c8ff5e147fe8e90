package rpc

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/rpc/client"
)

// TestMessagesNameTheMember: a refusal names the member that the caller wrote, and what to do.
func TestMessagesNameTheMember(t *testing.T) {
	a := newWorld(t).asking(nil)
	a.ask("ca.issue", user("alice", "request_id", "one"), "issued")
	a.ask("ca.retire", object{"cn": "alice", "request_id": "two"}, "retired")
	for _, c := range []struct {
		method string
		params object
		code   string
		starts string
		says   string
	}{
		{"ca.find", object{"san": "x y"}, "name.space", "san: ", "U+0020"},
		{"ca.find", object{"san": "a..b@example.org"}, "name.san", "san: ", "joined by single dots"},
		{"ca.find", object{"san": "alice@exa mple.org"}, "name.space", "san: ", "U+0020"},
		{"ca.find", object{"san": "10.0.0.256"}, "name.san", "san: ", "is no IP address"},
		{"ca.find", object{"san": "alice@10.0.0.256"}, "name.san", "san: ", "is no"},
		{"ca.find", object{"cn": "al\nice"}, "name.control", "cn: ", ""},
		{"ca.status", object{"request_id": "two"}, "status", "no certificate", "make it again with the same request_id"},
		{"ca.status", object{"request_id": "a b"}, "request_id.malformed", "request_id: ", "want 1 to 128"},
	} {
		if d := a.ask(c.method, c.params, c.code); !strings.HasPrefix(d["msg"].(string), c.starts) || !strings.Contains(d["msg"].(string), c.says) {
			t.Errorf("%s %v: %s", c.method, c.params, d["msg"])
		}
	}
}

// TestFaultsSayWhatNext: so does a fault whose cause is not in the call.
func TestFaultsSayWhatNext(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	c := w.client(own)
	var f *client.Fault
	w.server.methods["system.trouble"] = row{name: "system.trouble", call: func(context.Context, *request, []any) (any, error) { return nil, errors.New("trouble") }}
	if err := c.Call(t.Context(), "system.trouble", nil, new(any)); !errors.As(err, &f) || !strings.Contains(f.Message, "ask again with request_id call-") {
		t.Error(err)
	}
	w.revokeNow(serialOf(own))
	if err := c.Call(t.Context(), "ca.whoami", object{}, new(any)); !errors.As(err, &f) || f.Code != codeUnknown || !strings.Contains(f.Message, "nothing was done: come with") {
		t.Error(err)
	}
}
