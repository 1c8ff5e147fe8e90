package rpc

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
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
