package rpc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/store"
)

// TestFolding: a minute is entered once it is over, and while the log cannot be written nothing is lost
// and nothing grows.
func TestFolding(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	clock := func() time.Time { return now }
	open := func(name string) *store.Store {
		st, err := store.Create(t.Context(), filepath.Join(t.TempDir(), name), clock, operator, []audit.Event{&audit.ServiceStopped{}})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	broken := open("broken.db")
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	c := newCrowd(broken, zap.NewNop(), clock)
	first := c.minute()
	for range 100 {
		c.stranger("tls.hello")
		c.stranger("tls.hello")
		c.tooFast("slow")
		now = now.Add(time.Minute)
		if err := c.flush(t.Context(), c.minute()); !errors.Is(err, store.ErrClosed) {
			t.Fatal(err)
		}
	}
	if len(c.counts) != 2 {
		t.Errorf("%d counts are kept", len(c.counts))
	}
	c.stranger("tls.hello") // in a minute that is not over

	c.store = open("books.db")
	defer func() {
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.flush(t.Context(), c.minute()); err != nil {
		t.Fatal(err)
	}
	leaves, err := c.store.Leaves(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if size, _ := c.store.Head(); size != 3 || len(c.counts) != 1 {
		t.Errorf("%d leaves, and %d counts kept", size, len(c.counts))
	}
	folded, err := audit.Decode(leaves[1])
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := folded.Event.(*audit.StrangersTurnedAway); !ok || e.Count != 200 || !e.Minute.Equal(first) || e.Cause != "tls.hello" {
		t.Errorf("%+v", folded.Event)
	}
	fast, err := audit.Decode(leaves[0])
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := fast.Event.(*audit.RequestRefused); !ok || fast.Actor.Name != "slow" || e.Code != "rate.limited" ||
		e.Reason != "100 calls beyond the caller's rate in the minute from 2026-03-01T12:00:00Z" {
		t.Errorf("%+v", fast.Event)
	}
}

// TestRefusalsFold: a caller that repeats a mistake is told so each time, and the log does not grow with it.
func TestRefusalsFold(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	from := w.head()
	const calls = 3 * refusalsAtOnce
	for n := range calls {
		var a client.Answer
		w.must(c.Call(t.Context(), "ca.issue", object{"purpose": "caller", "cn": "mallory", "request_id": fmt.Sprint("r", n)}, &a))
		d := detail(t, a)
		if a.OK || d["code"] != "policy.denied" || n < refusalsAtOnce && d["log_index"] == nil {
			t.Fatalf("call %d: %s %s", n, a.Msg, a.Detail)
		}
	}
	if grown := w.head() - from; grown < refusalsAtOnce || grown > refusalsAtOnce+20 {
		t.Errorf("%d leaves for %d refusals", grown, calls)
	}
	one := w.head() - from
	w.must(w.server.crowd.flush(context.Background(), w.now().Add(time.Hour)))
	var folded int64
	for _, l := range w.since(from)[one:] {
		r := l.Event.(*audit.RequestRefused)
		if r.Code != "policy.denied" || l.Actor.Name != "provisioning" || l.Actor.Kind != audit.ByCaller {
			t.Errorf("%+v by %+v", r, l.Actor)
		}
		folded += r.Count
	}
	if one+folded != calls {
		t.Errorf("%d entered and %d counted of %d refusals", one, folded, calls)
	}
	// Nobody else's refusals are folded with them.
	var a client.Answer
	w.must(w.client(w.caller("nothing")).Call(t.Context(), "ca.status", object{"cn": "alice"}, &a))
	if detail(t, a)["log_index"] == nil {
		t.Errorf("%s %s", a.Msg, a.Detail)
	}
}
