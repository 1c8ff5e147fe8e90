package signer

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// TestCheck asks how the room is: it tells what a call would meet, and moves nothing.
func TestCheck(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	c := r.client(log)
	c.settled(t.Context(), t, 3)
	before := len(r.served())
	if hello, err := c.Check(t.Context()); err != nil || hello.State.Size != 4 {
		t.Errorf("%+v, %v", hello, err)
	}
	// While a call is under way, and the room moves on under it.
	gate, asked := make(chan struct{}), make(chan struct{})
	r.set(func(Batch) *Reply {
		close(asked)
		<-gate
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.settled(t.Context(), t, 4)
	}()
	<-asked
	soon(t, "a check beside a call", func() {
		if _, err := c.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
	close(gate)
	<-done
	r.set(nil)
	if n := len(r.served()); n != before+1 {
		t.Errorf("%d batches, and then %d with one call", before, n)
	}
	wrong := func(what string, edit func(*Hello), is error) {
		t.Helper()
		r.mu.Lock()
		hello := r.hello
		edit(&r.hello)
		r.mu.Unlock()
		if _, err := c.Check(t.Context()); err == nil || is != nil && !errors.Is(err, is) {
			t.Errorf("%s: %v", what, err)
		}
		r.mu.Lock()
		r.hello = hello
		r.mu.Unlock()
	}
	wrong("an old copy", func(h *Hello) { h.State.Sequence = -3 }, ErrRoomBehind)
	wrong("another room", func(h *Hello) { h.Room = "room-2" }, nil)
	wrong("another version", func(h *Hello) { h.Version = 2 }, nil)
	log.mu.Lock()
	whole := log.leaves
	log.leaves = whole[:2]
	log.mu.Unlock()
	if _, err := c.Check(t.Context()); !errors.Is(err, ErrStoreBehind) {
		t.Errorf("a shorter log: %v", err)
	}
	log.mu.Lock()
	log.leaves = whole
	log.mu.Unlock()
	// What the checks met is not held against the room.
	c.settled(t.Context(), t, 4)
	r.stop()
	if _, err := c.Check(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no room: %v", err)
	}
	r.start()
	if _, err := c.Check(t.Context()); err != nil {
		t.Errorf("a room again: %v", err)
	}
}

// TestCheckEnds: a room that takes the connection and says nothing is not waited for longer than ctx.
func TestCheckEnds(t *testing.T) {
	r, log := newRoom(t), logOf(1)
	c := r.client(log)
	c.settled(t.Context(), t, 0)
	r.mu.Lock() // it cannot say hello
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	soon(t, "a check of a silent room", func() {
		if _, err := c.Check(ctx); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
	if s := c.RoomState(); s == (audit.RoomState{}) {
		t.Error("what the room said before is forgotten")
	}
}
