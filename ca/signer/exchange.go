package signer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
)

// chunk is how many octets of leaves, and of calls, go into one batch: in base64 both fit MaxRequest.
const chunk = 320 << 10

// maxStale bounds how often a batch is sent again because another daemon moved the room.
const maxStale = 10

// run is the one goroutine that speaks to the room.
func (c *Client) run(l *line) {
	defer close(c.stopped)
	defer func() { l.close() }()
	for {
		select {
		case <-c.ctx.Done():
			return
		case first := <-c.queue:
			batch := c.gather(first)
			l = c.serve(l, batch)
			for _, p := range batch {
				close(p.ready)
			}
		}
	}
}

func (c *Client) gather(first *pending) []*pending {
	batch := []*pending{first}
	for len(batch) < MaxCalls {
		select {
		case p := <-c.queue:
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// serve answers every call of batch over l, or over a new connection if l is nil, and returns the
// connection if it can be used again.
func (c *Client) serve(l *line, batch []*pending) *line {
	reused := l != nil
	var err error
	if !reused {
		l, err = c.connect(c.ctx)
	}
	if err == nil {
		err = c.exchange(c.ctx, l, batch)
	}
	if err == nil {
		return l
	}
	l.close()
	if reused && errors.Is(err, ErrUnreachable) {
		// The room was restarted since the last batch: it has read nothing of what is not answered.
		return c.serve(nil, unanswered(batch))
	}
	for _, p := range unanswered(batch) {
		p.err = err
	}
	return nil
}

func unanswered(batch []*pending) []*pending {
	var rest []*pending
	for _, p := range batch {
		if !p.answered {
			rest = append(rest, p)
		}
	}
	return rest
}

// exchange brings the room the leaves that the calls need and asks. On an error the connection is of no
// more use, and the calls not marked answered share the error.
func (c *Client) exchange(ctx context.Context, l *line, calls []*pending) error {
	need := int64(0)
	for _, p := range calls {
		need = max(need, p.call.Index+1)
	}
	for stale := 0; len(calls) > 0; {
		batch, asked, err := c.next(ctx, l, calls, need)
		if err != nil {
			return err
		}
		reply, err := l.roundTrip(ctx, batch)
		if err != nil {
			return err
		}
		c.noteState(reply.State)
		switch {
		case reply.Stale:
			if stale++; stale > maxStale {
				return fmt.Errorf("the key room moved %d times under one batch", stale)
			}
			if err := c.follow(ctx, l, reply.State); err != nil {
				return err
			}
		case reply.Refused != nil:
			// The room took nothing of the batch, so our idea of its position is off.
			return reply.Refused
		case len(reply.Results) != len(asked):
			return fmt.Errorf("%w: %d results for %d calls", ErrUnknown, len(reply.Results), len(asked))
		default:
			for i, p := range asked {
				p.take(reply.Results[i])
			}
			calls = calls[len(asked):]
		}
	}
	return nil
}

func (p *pending) take(r Result) {
	p.answered = true
	if r.Refused != nil {
		p.err = r.Refused
		return
	}
	p.result = r
}

// next builds a batch of leaves up to need and, if all of those fit, of calls.
func (c *Client) next(ctx context.Context, l *line, calls []*pending, need int64) (Batch, []*pending, error) {
	from := l.tree.Size()
	root := l.tree.Root()
	b := Batch{From: from, FromRoot: hex.EncodeToString(root[:]), Leaves: [][]byte{}, Calls: []Call{}}
	if need > from {
		leaves, err := c.log.Leaves(ctx, from, min(need, from+1024))
		if err == nil && len(leaves) == 0 {
			err = fmt.Errorf("the log has no leaf %d", from)
		}
		if err != nil {
			return b, nil, fmt.Errorf("reading the leaves for the key room: %w", err)
		}
		tree := l.tree.Clone()
		for size := 0; len(leaves) > 0 && (size == 0 || size+len(leaves[0]) <= chunk); leaves = leaves[1:] {
			size += len(leaves[0])
			b.Leaves = append(b.Leaves, leaves[0])
			tree.Append(leaves[0])
		}
		l.tree = tree
	}
	root = l.tree.Root()
	b.Root = hex.EncodeToString(root[:])
	if l.tree.Size() < need {
		return b, nil, nil
	}
	n := 0
	for size := 0; n < len(calls); n++ {
		size += len(calls[n].call.CSR) + len(calls[n].call.Sealed)
		if n > 0 && size > chunk {
			break
		}
		b.Calls = append(b.Calls, calls[n].call)
	}
	return b, calls[:n], nil
}

func (c *Client) noteState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hello.State = s
}
