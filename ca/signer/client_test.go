package signer

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

func (c *Client) settled(ctx context.Context, t *testing.T, index int64) {
	t.Helper()
	if der, err := c.Settle(ctx, index); err != nil || !bytes.Equal(der, answerOf(index)) {
		t.Errorf("leaf %d: %q, %v", index, der, err)
	}
}

// TestBatching has many callers wait behind one batch: they share the next ones, and each gets its own
// answer.
func TestBatching(t *testing.T) {
	r, log := newRoom(t), logOf(200)
	c := r.client(log)
	gate := make(chan struct{})
	r.set(func(Batch) *Reply { <-gate; return nil })
	var all sync.WaitGroup
	const callers = 150
	for i := range callers {
		all.Go(func() { c.settled(t.Context(), t, int64(i)) })
	}
	for len(c.queue) < MaxCalls { // one batch is under way, and the next is full
		time.Sleep(time.Millisecond)
	}
	close(gate)
	all.Wait()
	calls, largest := 0, 0
	for _, b := range r.served() {
		calls, largest = calls+len(b.Calls), max(largest, len(b.Calls))
	}
	if n := len(r.served()); calls != callers || largest > MaxCalls || largest < MaxCalls/2 || n > 10 {
		t.Errorf("%d batches for %d callers, %d calls, %d in the largest", n, callers, calls, largest)
	}
}

// TestLongWay brings a room that has read nothing to the end of a log that does not fit one frame, and
// then asks more than fits one frame.
func TestLongWay(t *testing.T) {
	r, log := newRoom(t), logOf(0)
	log.add(3000, 1000)
	log.add(3, audit.MaxLeaf)
	c := r.client(log)
	c.settled(t.Context(), t, 3002)
	batches := r.served()
	if n := len(batches); n < 10 || n > 20 {
		t.Errorf("%d batches", n)
	}
	for i, b := range batches {
		if len(b.Leaves) == 0 || (len(b.Calls) > 0) != (i == len(batches)-1) {
			t.Errorf("batch %d of %d: %d leaves, %d calls", i, len(batches), len(b.Leaves), len(b.Calls))
		}
	}
	gate, asked := make(chan struct{}), make(chan struct{}, MaxCalls+1)
	r.set(func(Batch) *Reply {
		asked <- struct{}{}
		<-gate
		return nil
	})
	var all sync.WaitGroup
	all.Go(func() { c.settled(t.Context(), t, 0) })
	<-asked // the others wait behind it
	for i := range int64(MaxCalls) {
		all.Go(func() {
			if der, err := c.SignCert(t.Context(), audit.Entry{Index: i}, make([]byte, 100<<10)); err != nil || !bytes.Equal(der, answerOf(i)) {
				t.Errorf("leaf %d: %q, %v", i, der, err)
			}
		})
	}
	for len(c.queue) < MaxCalls {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	all.Wait()
	for _, b := range r.served() {
		if len(b.Calls) > 3 {
			t.Errorf("%d calls of 100 KiB in one frame", len(b.Calls))
		}
	}
	// What fits no frame is the caller's own trouble.
	if _, err := c.SignCert(t.Context(), audit.Entry{}, make([]byte, chunk+1)); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("a call of %d octets: %v", chunk+1, err)
	}
	if _, err := c.SignCert(t.Context(), audit.Entry{}, make([]byte, chunk)); err != nil {
		t.Errorf("a call of %d octets: %v", chunk, err)
	}
}

// TestOwnAnswer has each kind of call arrive as what it is.
func TestOwnAnswer(t *testing.T) {
	r, log := newRoom(t), logOf(3)
	c := r.client(log)
	r.set(func(b Batch) *Reply {
		return &Reply{State: State{Sequence: 7, Journal: "ab"}, Results: []Result{{DER: []byte("d"), Entries: 4, Note: []byte("n"), Secrets: []byte("s")}}}
	})
	ctx, e := t.Context(), audit.Entry{Index: 2}
	der, err := c.SignCert(ctx, e, nil)
	check := func(got []byte, want string) {
		t.Helper()
		if string(got) != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	check(der, "d")
	var n int
	if der, n, err = c.SignCRL(ctx, e); n != 4 {
		t.Errorf("%d entries", n)
	}
	check(der, "d")
	der, err = c.Settle(ctx, 2)
	check(der, "d")
	der, err = c.Checkpoint(ctx)
	check(der, "n")
	der, err = c.Open(ctx, e, nil)
	check(der, "s")
	if got := c.RoomState(); got != (audit.RoomState{Room: "room-1", Sequence: 7, Journal: "ab"}) {
		t.Errorf("room state %+v", got)
	}
}

// TestRestart has the room end between two batches: the client finds the new one, and no caller hears of
// it. While there is none, nothing was asked.
func TestRestart(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	c := r.client(log)
	c.settled(t.Context(), t, 1)
	for range 3 {
		r.stop()
		r.start()
		c.settled(t.Context(), t, 4)
	}
	r.stop()
	for range 2 {
		if _, err := c.Settle(t.Context(), 1); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknown) {
			t.Errorf("without a room: %v", err)
		}
	}
	if c, err := Dial(t.Context(), r.path, log); !errors.Is(err, ErrUnreachable) {
		t.Errorf("dialling without a room: %v, %v", c, err)
	}
	if c, err := DialReader(t.Context(), r.path); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a reader without a room: %v, %v", c, err)
	}
	r.start()
	c.settled(t.Context(), t, 1)
}

// TestUnknown has the room end, or talk nonsense, after it has read a batch: nobody knows what it did.
func TestUnknown(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	c := r.client(log)
	for name, reply := range map[string]*Reply{
		"hangs up":       hangUp,
		"no results":     {},
		"a result more":  {Results: make([]Result, 2)},
		"stale too late": {Stale: true, State: State{Size: 99}},
	} {
		r.set(func(Batch) *Reply { return reply })
		_, err := c.Settle(t.Context(), 1)
		if want := ErrUnknown; reply.Stale && !errors.Is(err, ErrStoreBehind) || !reply.Stale && !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		r.set(nil)
		c.settled(t.Context(), t, 1)
	}
	// In the middle of a batch of several frames: what was answered stays answered.
	r.set(func(b Batch) *Reply {
		if len(b.Calls) > 0 && b.Calls[0].Index == 3 {
			return hangUp
		}
		return nil
	})
	batch := []*pending{
		{call: Call{Kind: Settle, Index: 2, CSR: make([]byte, chunk-1)}}, {call: Call{Kind: Settle, Index: 3, CSR: make([]byte, chunk-1)}},
	}
	l, err := c.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := c.serve(l, batch); left != nil {
		t.Error("a broken connection is kept")
	}
	if batch[0].err != nil || !bytes.Equal(batch[0].result.DER, answerOf(2)) || !errors.Is(batch[1].err, ErrUnknown) {
		t.Errorf("first %q, %v; second %v", batch[0].result.DER, batch[0].err, batch[1].err)
	}
}

// TestHalfAReply ends the connection within the reply's frame.
func TestHalfAReply(t *testing.T) {
	r, log := newRoom(t), logOf(2)
	c := r.client(log)
	r.set(func(Batch) *Reply {
		r.mu.Lock()
		defer r.mu.Unlock()
		for conn := range r.conns {
			_, _ = conn.Write([]byte("\x00\x00\x01\x00{\"state\":"))
		}
		return hangUp
	})
	if _, err := c.Settle(t.Context(), 1); !errors.Is(err, ErrUnknown) {
		t.Errorf("half a reply: %v", err)
	}
}

// TestRefusals keeps apart a call that is refused and a batch that is.
func TestRefusals(t *testing.T) {
	r, log := newRoom(t), logOf(3)
	c := r.client(log)
	no := &Refusal{Code: "serial.voided", Reason: "never"}
	for name, reply := range map[string]*Reply{"call": {Results: []Result{{Refused: no, DER: []byte("x")}}}, "batch": {Refused: no}} {
		r.set(func(Batch) *Reply { return reply })
		der, err := c.Settle(t.Context(), 1)
		var got *Refusal
		if !errors.As(err, &got) || *got != *no || der != nil || errors.Is(err, ErrUnknown) {
			t.Errorf("a refused %s: %q, %v", name, der, err)
		}
	}
	r.set(nil)
	c.settled(t.Context(), t, 1)
}

// TestStale moves the room under the client: it starts again from where the room is, but not for ever.
func TestStale(t *testing.T) {
	r, log := newRoom(t), logOf(20)
	c := r.client(log)
	moved := 0
	r.set(func(Batch) *Reply {
		r.mu.Lock()
		defer r.mu.Unlock()
		if moved++; moved > 3 {
			return nil
		}
		r.tree.Append(log.leaves[r.tree.Size()])
		reply := Reply{State: r.state(), Stale: true}
		if moved == 2 { // as the room answers one that brings too little
			reply.Refused = &Refusal{Code: "log.smaller"}
		}
		return &reply
	})
	c.settled(t.Context(), t, 1)
	times := 0
	r.set(func(Batch) *Reply {
		times++
		r.mu.Lock()
		defer r.mu.Unlock()
		return &Reply{State: r.state(), Stale: true}
	})
	soon(t, "a room that is always stale", func() {
		if _, err := c.Settle(t.Context(), 1); err == nil || errors.Is(err, ErrUnknown) || times != maxStale+1 {
			t.Errorf("after %d times: %v", times, err)
		}
	})
	r.set(nil)
	c.settled(t.Context(), t, 1)
}

// TestOtherRooms meets rooms with which nothing can be done.
func TestOtherRooms(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	c := r.client(log)
	c.settled(t.Context(), t, 4)
	again := func(edit func(*Hello), want string, is error) {
		t.Helper()
		r.mu.Lock()
		hello := r.hello
		edit(&r.hello)
		r.mu.Unlock()
		r.hangUpAll()
		_, err := c.Settle(t.Context(), 1)
		if err == nil || !strings.Contains(err.Error(), want) || is != nil && !errors.Is(err, is) || errors.Is(err, ErrUnknown) {
			t.Errorf("want %q: %v", want, err)
		}
		r.mu.Lock()
		r.hello = hello
		r.mu.Unlock()
		c.settled(t.Context(), t, 1)
	}
	again(func(h *Hello) { h.Version = 2 }, "speaks version 2", nil)
	again(func(h *Hello) { h.Room = "room-2" }, "is room-2, no longer room-1", nil)
	again(func(h *Hello) { h.State.Sequence = -2 }, "the key room is an old copy", nil)
	whole := log.leaves
	for is, leaves := range map[error][][]byte{
		ErrStoreBehind: whole[:2],
		ErrFork:        {[]byte("a"), []byte("b"), []byte("c"), []byte("d"), []byte("e")},
	} {
		log.mu.Lock()
		log.leaves = leaves
		log.mu.Unlock()
		r.hangUpAll()
		if _, err := c.Settle(t.Context(), 1); !errors.Is(err, is) || errors.Is(err, ErrUnknown) {
			t.Errorf("want %v: %v", is, err)
		}
		if _, err := Dial(t.Context(), r.path, log); !errors.Is(err, is) {
			t.Errorf("dialling, want %v: %v", is, err)
		}
	}
	log.mu.Lock()
	log.leaves = whole
	log.mu.Unlock()
	c.settled(t.Context(), t, 1)
}

// TestLeafThatIsNotThere asks about a leaf beyond the log.
func TestLeafThatIsNotThere(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	c := r.client(log)
	soon(t, "a leaf beyond the log", func() {
		if _, err := c.Settle(t.Context(), 7); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("%v", err)
		}
	})
	c.settled(t.Context(), t, 4)
}

// TestCancel ends the wait of one caller. Once the question is on its way, its outcome is unknown.
func TestCancel(t *testing.T) {
	r, log := newRoom(t), logOf(300)
	c := r.client(log)
	gate, asked := make(chan struct{}), make(chan struct{}, 1)
	r.set(func(Batch) *Reply {
		asked <- struct{}{}
		<-gate
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { _, err := c.Settle(ctx, 1); result <- err }()
	<-asked
	cancel()
	if err := <-result; !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("while the room works: %v", err)
	}
	var all sync.WaitGroup
	for i := range int64(MaxCalls) {
		all.Go(func() { c.settled(t.Context(), t, i) })
	}
	for len(c.queue) < MaxCalls {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Settle(ctx, 1); errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("while the queue is full: %v", err)
	}
	close(gate)
	r.set(nil)
	all.Wait()
	if _, err := Dial(ctx, r.path, log); err == nil {
		t.Error("dialled with a context that had ended")
	}
}

// TestClose ends a client while the room thinks: its callers learn that nothing is known, and nothing of
// it stays behind.
func TestClose(t *testing.T) {
	r, log := newRoom(t), logOf(5)
	c := r.client(log)
	gate, asked := make(chan struct{}), make(chan struct{}, 1)
	r.set(func(Batch) *Reply {
		asked <- struct{}{}
		<-gate
		return hangUp
	})
	result := make(chan error)
	go func() { _, err := c.Settle(t.Context(), 1); result <- err }()
	<-asked
	soon(t, "closing", c.Close)
	soon(t, "the answer", func() {
		if err := <-result; !errors.Is(err, ErrUnknown) {
			t.Errorf("closed while the room works: %v", err)
		}
	})
	close(gate)
	for range 20 {
		if _, err := c.Settle(t.Context(), 1); !errors.Is(err, ErrUnreachable) {
			t.Errorf("after Close: %v", err)
		}
	}
	soon(t, "closing twice", c.Close)
}

// TestSilentRoom connects to a socket at which nobody says hello: the context ends the wait.
func TestSilentRoom(t *testing.T) {
	r, log := newRoom(t), logOf(1)
	r.mu.Lock() // the hello waits for it
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	soon(t, "dialling", func() {
		if _, err := Dial(ctx, r.path, log); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
	r.mu.Unlock()
}
