package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/store"
)

func TestExplain(t *testing.T) {
	room := &signer.Refusal{Code: "limit.hour", Reason: "enough"}
	for _, c := range []struct {
		err  error
		code string // "" for an internal error
	}{
		{&ca.Refusal{Code: "request.repeated", Prior: "call-1"}, "request.repeated"},
		{fmt.Errorf("wrapped: %w", &name.Refusal{Code: "name.empty", Field: "cn"}), "name.empty"},
		{&profile.Refusal{Code: "key.weak"}, "key.weak"},
		{room, "keyroom.limit.hour"},
		{refuse("policy.denied", "no"), "policy.denied"},
		{fmt.Errorf("%w: %w", room, signer.ErrUnknown), "outcome.unknown"},
		{fmt.Errorf("%w: entering: %w", signer.ErrUnknown, store.ErrBroken), "outcome.unknown"},
		{context.DeadlineExceeded, "outcome.unknown"},
		{fmt.Errorf("signing: %w", signer.ErrUnreachable), "keyroom.unreachable"},
		{signer.ErrStoreBehind, "store.behind"},
		{signer.ErrFork, "store.fork"},
		{signer.ErrRoomBehind, "keyroom.behind"},
		{&signer.Refusal{Code: "log.smaller"}, "store.behind"},
		{&signer.Refusal{Code: "log.fork"}, "store.fork"},
		{&signer.Refusal{Code: "log.root"}, "store.fork"},
		{fmt.Errorf("wrapped: %w", &signer.Refusal{Code: "log.other"}), "store.fork"},
		{&signer.Refusal{Code: "room.behind"}, "keyroom.behind"},
		{&signer.Refusal{Code: "room.diverged"}, "keyroom.behind"},
		{fmt.Errorf("%w: %w", &signer.Refusal{Code: "room.behind"}, signer.ErrUnknown), "outcome.unknown"},
		{store.ErrBroken, ""},
		{errors.New("password is hunter2"), ""},
	} {
		n := explain(c.err)
		if got := n; got == nil && c.code != "" || got != nil && got.code != c.code {
			t.Errorf("%v: %+v, want %q", c.err, got, c.code)
		}
	}
}

// TestOwnWords: what another package says of a failure stays in the journals, and what to do reaches the caller.
func TestOwnWords(t *testing.T) {
	for code, foreign := range map[string]string{
		"room.failed":        "write /var/lib/chancery-keyroom/journal: no space left on device",
		"leaf.not_canonical": "leaf 7: not canonical: json: unknown field \"future\"",
	} {
		n := explain(fmt.Errorf("signing: %w", &signer.Refusal{Code: code, Reason: foreign}))
		if n.code != "keyroom."+code || strings.Contains(n.reason, foreign) || !strings.Contains(n.reason, "ask") {
			t.Errorf("%s: %s", n.code, n.reason)
		}
	}
}

// TestWhatARefusalShows: where a grant stops decides whether its caller learns of a certificate, and a new step decides
// nothing by its place among the others.
func TestWhatARefusalShows(t *testing.T) {
	others, bound := []string{"owner"}, []string{"key_type", "days", "reason", "max"}
	hidden := []string{"method", "purpose", "name", "sans"}
	if len(steps) != len(others)+len(bound)+len(hidden) {
		t.Error("say of the new step whether its caller learns of the certificate")
	}
	for at, step := range steps {
		err := fmt.Errorf("denied: %w", &refusal{code: "policy.denied", stops: at})
		if errors.Is(err, ca.ErrOthers) != slices.Contains(others, step) || errors.Is(err, ca.ErrBound) != slices.Contains(bound, step) {
			t.Errorf("%s: another's %v, bound %v", step, errors.Is(err, ca.ErrOthers), errors.Is(err, ca.ErrBound))
		}
	}
}

// TestRequestID: one id is one request, whoever comes first and over whichever codec.
func TestRequestID(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	c := w.client(own)
	signed := w.signatures()
	alice := object{"purpose": "user", "cn": "alice", "request_id": "one"}
	answers := make([]client.Answer, 8)
	var calls sync.WaitGroup
	for i := range answers {
		calls.Go(func() {
			if err := c.Call(t.Context(), "ca.issue", alice, &answers[i]); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	for _, a := range answers {
		if !a.OK || string(a.Detail) != string(answers[0].Detail) {
			t.Errorf("%s %s, want %s", a.Msg, a.Detail, answers[0].Detail)
		}
	}
	if n := w.signatures() - signed; n != 1 {
		t.Errorf("%d certificates for one request", n)
	}
	var a client.Answer
	for _, other := range []object{
		{"purpose": "user", "cn": "bob", "request_id": "one"},
		{"purpose": "user", "cn": "alice", "valid_days": 3, "request_id": "one"},
	} {
		w.must(c.Call(t.Context(), "ca.issue", other, &a))
		if d := detail(t, a); a.OK || d["code"] != "request_id.other_request" || d["request_id"] != "one" {
			t.Errorf("%v: %s %s", other, a.Msg, a.Detail)
		}
	}
	w.must(c.Call(t.Context(), "ca.revoke", object{"cn": "alice", "request_id": "one"}, &a))
	if d := detail(t, a); a.OK || d["code"] != "request_id.other_request" {
		t.Errorf("a revoke under the id of an issue: %s %s", a.Msg, a.Detail)
	}
	carol := object{"purpose": "user", "cn": "carol"}
	w.must(c.Call(t.Context(), "ca.issue", carol, &a))
	first := detail(t, a)["request_id"]
	w.must(c.Call(t.Context(), "ca.issue", carol, &a))
	if d := detail(t, a); a.OK || d["code"] != "request.repeated" || d["prior_request_id"] != first {
		t.Errorf("the same without an id: %s %s, want %v", a.Msg, a.Detail, first)
	}
	carol["request_id"] = first
	w.must(c.Call(t.Context(), "ca.issue", carol, &a))
	if d := detail(t, a); !a.OK || d["request_id"] != first {
		t.Errorf("under the id that was told: %s %s", a.Msg, a.Detail)
	}
}

// TestMadeID: who gave no id and does not hear how it ended is told one that finds it out, and everything
// that was done stands under it.
func TestMadeID(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	c := w.client(w.caller("provisioning"))
	signed := w.signatures()
	w.must(w.room.Process.Kill())
	_ = w.room.Wait()
	var a client.Answer
	w.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": "alice"}, &a))
	id, _ := detail(t, a)["request_id"].(string)
	if a.OK || !strings.HasPrefix(id, "call-") || !strings.Contains(a.Msg, "the request_id of this answer") {
		t.Fatalf("%s %s", a.Msg, a.Detail)
	}
	w.startRoom()
	var answers [2]client.Answer
	for i := range answers {
		w.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": "alice", "request_id": id}, &answers[i]))
	}
	if !answers[0].OK || string(answers[0].Detail) != string(answers[1].Detail) || w.signatures()-signed != 1 {
		t.Errorf("%s, then %s; %d certificates", answers[0].Msg, answers[1].Msg, w.signatures()-signed)
	}
	found, err := w.store.Find(t.Context(), store.Query{Purpose: cert.User, Key: "alice"})
	w.must(err)
	for _, one := range found {
		if one.RequestID != id || one.State == store.StateOpen {
			t.Errorf("%s stands under %s, %s", one.Serial, one.RequestID, one.State)
		}
	}
	w.must(c.Call(t.Context(), "ca.revoke", object{"cn": "alice"}, &a))
	id = detail(t, a)["request_id"].(string)
	w.must(c.Call(t.Context(), "ca.revoke", object{"cn": "alice", "request_id": id}, &answers[0]))
	if d := detail(t, answers[0]); !a.OK || !answers[0].OK || d["log_index"] != detail(t, a)["log_index"] || d["request_id"] != id {
		t.Errorf("%s %s, then %s %s", a.Msg, a.Detail, answers[0].Msg, answers[0].Detail)
	}
}

// TestPlan: what would happen is said and recorded, and does not happen.
func TestPlan(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	var a client.Answer
	w.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "one"}, &a))
	signed := w.signatures()
	for _, p := range []struct {
		method string
		params object
		code   string
	}{
		{"ca.issue", object{"purpose": "user", "cn": "bob", "plan": true, "request_id": "two"}, "plan.issue"},
		{"ca.revoke", object{"cn": "alice", "plan": true}, "plan.revoke"},
	} {
		from := w.head()
		w.must(c.Call(t.Context(), p.method, p.params, &a))
		d := detail(t, a)
		leaves := w.since(from)
		e, ok := leaves[0].Event.(*audit.RequestPlanned)
		if !a.OK || d["code"] != p.code || d["log_index"] != float64(from) || len(leaves) != 1 || !ok {
			t.Fatalf("%s: %s %s, %d leaves", p.method, a.Msg, a.Detail, len(leaves))
		}
		if e.Method != p.method || e.Code != p.code || e.Effect != a.Msg || e.RequestID != d["request_id"] || len(e.BodySHA256) != 64 {
			t.Errorf("%+v", e)
		}
	}
	w.must(c.Call(t.Context(), "ca.status", object{"cn": "alice"}, &a))
	if !strings.Contains(string(a.Detail), `"state":"live"`) || w.signatures() != signed {
		t.Errorf("a plan changed something: %s", a.Detail)
	}
	// The id of a plan is not spent.
	w.must(c.Call(t.Context(), "ca.issue", object{"purpose": "user", "cn": "carol", "request_id": "two"}, &a))
	if !a.OK {
		t.Error(a.Msg)
	}
}

// TestKeyRoomGone: a signature that may have been made is never reported as not made, and when the room
// is back the same request id ends in one certificate.
func TestKeyRoomGone(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	signed := w.signatures()
	w.must(w.room.Process.Kill())
	_ = w.room.Wait()
	var a client.Answer
	alice := object{"purpose": "user", "cn": "alice", "request_id": "one"}
	w.must(c.Call(t.Context(), "ca.issue", alice, &a))
	d := detail(t, a)
	if a.OK || d["code"] != "keyroom.unreachable" && d["code"] != "outcome.unknown" || d["request_id"] != "one" || !strings.Contains(a.Msg, "request_id") {
		t.Fatalf("%s %s", a.Msg, a.Detail)
	}
	if n := w.logged.FilterMessage("a call failed").Len(); n != 1 {
		t.Errorf("the journal tells of it %d times", n)
	}
	w.must(c.Call(t.Context(), "ca.status", object{"cn": "alice"}, &a))
	if !a.OK {
		t.Errorf("reading needs the key room: %s", a.Msg)
	}
	w.startRoom()
	w.must(c.Call(t.Context(), "ca.issue", alice, &a))
	if !a.OK {
		t.Fatalf("%s %s", a.Msg, a.Detail)
	}
	w.must(c.Call(t.Context(), "ca.issue", alice, &a))
	if n := w.signatures() - signed; !a.OK || n != 1 {
		t.Errorf("%d certificates: %s", n, a.Msg)
	}
}

// TestInternal: an error that was not written for callers stays inside, under a reference, and so does a
// panic; neither ends the connection of anybody else.
func TestInternal(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	for name, do := range map[string]func() error{
		"system.error": func() error { return errors.New("the secret is hunter2") },
		"system.panic": func() error { panic("the secret is hunter2") },
	} {
		w.server.methods[name] = row{name: name, call: func(context.Context, *request, []any) (any, error) { return nil, do() }}
		var f *client.Fault
		err := c.Call(t.Context(), name, nil, new(any))
		if !errors.As(err, &f) || f.Code != -32603 || strings.Contains(f.Message, "hunter2") {
			t.Fatalf("%s: %v", name, err)
		}
		reference := f.Message[strings.LastIndex(f.Message, " ")+1:]
		found := false
		for _, e := range w.logged.FilterMessage("internal error").All() {
			m := e.ContextMap()
			if m["reference"] == reference && strings.Contains(fmt.Sprint(m["error"]), "hunter2") && m["caller"] == "provisioning" {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: %s is not in the journal", name, reference)
		}
	}
	if err := c.Call(t.Context(), "system.listMethods", nil, new([]string)); err != nil {
		t.Error(err)
	}
}

// TestUnrecorded: a refusal that cannot be entered on the log is not given as one.
func TestUnrecorded(t *testing.T) {
	w := newWorld(t)
	rq := &request{caller: w.server.rules.Load().callers["nothing"], who: audit.Actor{Kind: audit.ByCaller, Name: "nothing"}, method: "ca.chain", id: "call-1"}
	st, err := store.Create(t.Context(), w.dir+"/closed.db", w.now, operator, []audit.Event{&audit.ServiceStopped{}})
	w.must(err)
	w.must(st.Close())
	o := w.options()
	o.Store = st
	s, err := New(o)
	w.must(err)
	value, f := s.perform(t.Context(), rq, []any{object{}})
	if value != nil || f == nil || f.number != codeInternal || !strings.HasSuffix(f.text, "call-1") {
		t.Errorf("%v %v", value, f)
	}
}
