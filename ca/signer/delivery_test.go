package signer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func (r *room) tell(public string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hello.State.Delivery = DeliveryKey{Public: public, Until: until}
}

func (r *room) accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// TestDeliveryKey: the client takes the newest key from whatever the room says, asks only when its hour is
// over, and then once for all who want it.
func TestDeliveryKey(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	at := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	r.tell("first", at.Add(time.Hour))
	c := r.client(log)
	expect := func(want string, conns int) {
		t.Helper()
		got, err := c.DeliveryKey(t.Context(), at)
		if err != nil || got != want || r.accepted() != conns {
			t.Errorf("%q after %d connections, %v; want %q after %d", got, r.accepted(), err, want, conns)
		}
	}
	expect("first", 1)
	r.tell("second", at.Add(2*time.Hour))
	expect("first", 1) // which is good until its hour is over
	c.settled(t.Context(), t, 3)
	expect("second", 1) // the reply named it
	r.tell("third", at.Add(3*time.Hour))
	if _, err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
	expect("third", 2) // and so does a look at the room's health
	at = at.Add(3 * time.Hour)
	r.tell("fourth", at.Add(time.Hour))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got, err := c.DeliveryKey(t.Context(), at); got != "fourth" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
	expect("fourth", 3)

	// The clocks differ: what the room gives is over by ours. It is used, and the room is not asked each time.
	at = at.Add(2 * time.Hour)
	for range 20 {
		expect("fourth", 4)
	}
	at = at.Add(askAgain)
	expect("fourth", 5)
	at = at.Add(-time.Hour / 2) // and our clock is put back
	expect("fourth", 6)

	r.tell("", time.Time{})
	at = at.Add(askAgain)
	expect("", 7)
	expect("", 7) // the room has no keys
}

// TestDeliveryKeyWithoutRoom: where a new key is needed and the room is not there, nothing was asked.
func TestDeliveryKeyWithoutRoom(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	at := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	r.tell("first", at)
	c := r.client(log)
	r.stop()
	if _, err := c.DeliveryKey(t.Context(), at); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v; want unreachable", err)
	}
	c.renewal.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.DeliveryKey(ctx, at); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the end of waiting", err)
	}
	<-c.renewal.turn
}
