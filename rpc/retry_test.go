package rpc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// TestRetryTellsWhatBecame: a retry says what its first call did and does nothing; and it does not say of a
// certificate what is no longer so.
func TestRetryTellsWhatBecame(t *testing.T) {
	a := newWorld(t).asking(nil)
	a.ask("ca.issue", user("alice", "request_id", "one"), "issued")
	steps := map[string]struct {
		method, code, certificates string
		params                     object
	}{
		"hold":    {"ca.hold", "held", "held", object{"cn": "alice", "request_id": "hold"}},
		"release": {"ca.release", "released", "released", object{"cn": "alice", "request_id": "release"}},
		"retire":  {"ca.retire", "retired", "retired", object{"cn": "alice", "request_id": "retire"}},
		"revoke":  {"ca.revoke", "revoked", "revoked", object{"cn": "alice", "request_id": "revoke", "reason": "keyCompromise"}},
	}
	again := func(step, state, reason, says string) {
		t.Helper()
		s := steps[step]
		from := a.head()
		d := a.ask(s.method, s.params, s.code)
		now := d[s.certificates].([]any)[0].(map[string]any)["now"]
		if state == "" {
			if now != nil {
				t.Errorf("%s again: now is %v", step, now)
			}
		} else if got, ok := now.(map[string]any); !ok || got["state"] != state || fmt.Sprint(got["reason"]) != reason {
			t.Errorf("%s again: now is %v, want %s (%s)", step, now, state, reason)
		}
		status := a.ask("ca.status", object{"cn": "alice"}, "status")["certificates"].([]any)[0].(map[string]any)
		if state != "" && status["state"] != state {
			t.Errorf("ca.status says %v", status["state"])
		}
		want := fmt.Sprintf("certificate %s of user \"alice\" %s; the list that says so is ", status["serial"], says)
		if msg := d["msg"].(string); !strings.HasPrefix(msg, want) {
			t.Errorf("%s again: %s\nwant %s", step, d["msg"], want)
		}
		for _, leaf := range a.since(from) {
			t.Errorf("%s again is on the log: %s", step, leaf.Event.Type())
		}
	}
	do := func(step string) { a.ask(steps[step].method, steps[step].params, steps[step].code) }
	do("hold")
	again("hold", "", "", "held")
	do("release")
	again("hold", "live", "<nil>", "was held by this request, and is live now")
	again("release", "", "", "released")
	a.ask("ca.hold", object{"cn": "alice", "request_id": "hold2"}, "held")
	again("hold", "", "", "held")
	again("release", "revoked", "certificateHold", "was released by this request, and is on hold now")
	do("retire")
	again("retire", "", "", "retired")
	again("hold", "revoked", "cessationOfOperation", "was held by this request, and is revoked (cessationOfOperation) now")
	do("revoke")
	again("revoke", "", "", "revoked")
	again("retire", "revoked", "keyCompromise", "was retired by this request, and is revoked (keyCompromise) now")
	again("release", "revoked", "keyCompromise", "was released by this request, and is revoked (keyCompromise) now")
}

// TestRetryThatIsDenied: a no to a retry does not let anybody think that nothing was done.
func TestRetryThatIsDenied(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	ask := func(method string, params object) client.Answer {
		t.Helper()
		var a client.Answer
		w.must(c.Call(t.Context(), method, params, &a))
		return a
	}
	issue := object{"purpose": "user", "cn": "alice", "request_id": "one"}
	index := detail(t, ask("ca.issue", issue))["log_index"]
	config := testConfig()
	config.Callers[0].Grants = []Grant{{Methods: []string{"ca.chain"}, Purposes: []cert.Purpose{cert.User}}}
	w.apply(config, false)
	for id, want := range map[string]bool{"one": true, "two": false} {
		issue["request_id"] = id
		a := ask("ca.issue", issue)
		said := strings.Contains(a.Msg, fmt.Sprintf("an earlier call with this request_id is at %v of the log", index))
		if a.OK || detail(t, a)["code"] != "policy.denied" || said != want {
			t.Errorf("%s: %s", id, a.Msg)
		}
	}
}
