package ca

import (
	"context"
	"slices"
	"sync"
)

// turns are places for work that takes long. The callers that wait get them in turn, however many calls of each wait:
// one that asks for much keeps no other waiting.
type turns struct {
	mu      sync.Mutex
	free    int
	order   []string                   // callers that wait, the next one first
	waiting map[string][]chan struct{} // their calls, the oldest first
}

func newTurns(places int) *turns {
	return &turns{free: places, waiting: make(map[string][]chan struct{})}
}

// take waits for a place until ctx ends.
func (t *turns) take(ctx context.Context, caller string) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	if len(t.waiting[caller]) == 0 {
		t.order = append(t.order, caller)
	}
	t.waiting[caller] = append(t.waiting[caller], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	if !t.leave(caller, mine) {
		t.give() // it was given just now
	}
	return ctx.Err()
}

// give gives a place back, to the call that is next.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.free++
		return
	}
	caller := t.order[0]
	next := t.waiting[caller][0]
	t.remove(caller, 0)
	if len(t.waiting[caller]) > 0 {
		t.order = append(t.order[1:], caller)
	}
	close(next)
}

// leave ends the wait of a call, and tells whether it still waited.
func (t *turns) leave(caller string, call chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting[caller], call)
	if i >= 0 {
		t.remove(caller, i)
	}
	return i >= 0
}

func (t *turns) remove(caller string, i int) {
	t.waiting[caller] = slices.Delete(t.waiting[caller], i, i+1)
	if len(t.waiting[caller]) == 0 {
		delete(t.waiting, caller)
		t.order = slices.DeleteFunc(t.order, func(other string) bool { return other == caller })
	}
}
