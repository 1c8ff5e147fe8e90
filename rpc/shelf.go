package rpc

import (
	"context"
	"sync"
	"time"
)

// What calls with large answers may take of the memory, from before they are carried out until their answers are
// written, which is when the caller reads them. What others take is bounded by the connections.
const (
	maxHeld    = 48 << 20 // octets of all callers
	maxHeldOne = 16 << 20 // of any one of them; the heaviest call takes less
	smallHeld  = 64 << 10 // is not counted
)

// A call for which there is no place waits a while. Those who wait hold what they ask for.
const (
	placeTime  = 10 * time.Second
	maxWait    = 64 // of all callers
	maxWaitOne = 32
)

// shelf counts what is held.
type shelf struct {
	patience time.Duration

	mu      sync.Mutex
	held    map[string]int // octets, by caller
	total   int
	waiting map[string]int // calls, by caller
	waits   int
	freed   chan struct{} // closed when something is given back
}

func newShelf() *shelf {
	return &shelf{patience: placeTime, held: make(map[string]int), waiting: make(map[string]int), freed: make(chan struct{})}
}

// place is what one call holds.
type place struct {
	shelf  *shelf
	caller string
	octets int
}

// take takes a place, and tells whether there was one.
func (s *shelf) take(ctx context.Context, caller string, octets int) (*place, bool) {
	p := &place{shelf: s, caller: caller}
	if octets <= smallHeld {
		return p, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fits(caller, octets) {
		if s.waits == maxWait || s.waiting[caller] == maxWaitOne {
			return nil, false
		}
		s.waits++
		s.waiting[caller]++
		defer func() { s.waits--; s.waiting[caller]-- }()
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for !s.fits(caller, octets) {
		if ctx.Err() != nil {
			return nil, false
		}
		s.wait(ctx)
	}
	p.add(octets)
	return p, true
}

func (s *shelf) fits(caller string, octets int) bool {
	return s.total+octets <= maxHeld && s.held[caller]+octets <= maxHeldOne
}

// wait waits for something to be given back.
func (s *shelf) wait(ctx context.Context) {
	freed := s.freed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-freed:
	case <-ctx.Done():
	}
}

func (p *place) add(octets int) {
	p.octets += octets
	p.shelf.held[p.caller] += octets
	p.shelf.total += octets
}

// shrink gives back what an answer of so many octets does not need.
func (p *place) shrink(octets int) {
	if octets <= smallHeld {
		octets = 0
	}
	if octets >= p.octets {
		return
	}
	s := p.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	p.add(octets - p.octets)
	close(s.freed)
	s.freed = make(chan struct{})
}

func (p *place) leave() { p.shrink(0) }
