package signer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/chancery-ca/chancery/audit"
)

// Log is the committed log that the client brings to the room.
type Log interface {
	// Head is the size and root of the tree.
	Head() (int64, audit.Hash)
	// Tree is the right edge of the tree when it had size leaves.
	Tree(ctx context.Context, size int64) (*audit.Tree, error)
	// Leaves are those from index from up to, not including, to.
	Leaves(ctx context.Context, from, to int64) ([][]byte, error)
}

// Client asks the room. Calls of concurrent callers share batches: while one batch is under way, the
// next gathers. It reconnects by itself.
type Client struct {
	path    string
	log     Log
	queue   chan *pending
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	stopped chan struct{}
	renewal renewal

	mu    sync.Mutex
	hello Hello // of the current connection; its state, and the delivery key in it, as last told
}

type pending struct {
	call     Call
	answered bool
	result   Result
	err      error
	ready    chan struct{}
}

// Dial connects to the room at a Unix socket and compares its place in the log with ours. It fails with
// ErrUnreachable, ErrStoreBehind or ErrFork.
func Dial(ctx context.Context, path string, log Log) (*Client, error) {
	c := &Client{
		path: path, log: log, queue: make(chan *pending, MaxCalls), stopped: make(chan struct{}),
		renewal: renewal{turn: make(chan struct{}, 1)},
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	go c.run(conn)
	return c, nil
}

// Close ends the client and waits until it has let go of the connection. Calls under way end with
// ErrUnknown.
func (c *Client) Close() {
	c.cancel()
	<-c.stopped
}

// Hello is what the room said when the client last connected.
func (c *Client) Hello() Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hello
}

// FreshHello is what the room says of itself now, over a connection of its own.
func (c *Client) FreshHello(ctx context.Context) (Hello, error) {
	l, hello, err := c.look(ctx)
	if err != nil {
		return Hello{}, err
	}
	l.close()
	return hello, nil
}

// look greets the room on a second line, and fails if it is another one or an old copy.
func (c *Client) look(ctx context.Context) (*line, Hello, error) {
	known := c.Hello() // before the room speaks: calls move it meanwhile
	l, hello, err := dial(ctx, c.path)
	if err != nil {
		return nil, Hello{}, err
	}
	if err := hello.continues(known); err != nil {
		l.close()
		return nil, Hello{}, fmt.Errorf("the key room at %s: %w", c.path, err)
	}
	c.noteDelivery(hello.State.Delivery)
	return l, hello, nil
}

// RoomState is the room's last word on itself, in the form in which it enters the log.
func (c *Client) RoomState() audit.RoomState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return audit.RoomState{Room: c.hello.Room, Sequence: c.hello.State.Sequence, Journal: c.hello.State.Journal}
}

// SignCert asks for the certificate that the issue.intent leaf e announces, DER.
func (c *Client) SignCert(ctx context.Context, e audit.Entry, csr []byte) ([]byte, error) {
	r, err := c.ask(ctx, Call{Kind: SignCert, Index: e.Index, CSR: csr})
	return r.DER, err
}

// SignCRL asks for the list that the crl.intent leaf e announces: its DER and the number of entries.
func (c *Client) SignCRL(ctx context.Context, e audit.Entry) ([]byte, int, error) {
	r, err := c.ask(ctx, Call{Kind: SignCRL, Index: e.Index})
	return r.DER, r.Entries, err
}

// Settle asks how the issue.intent at index ended: the certificate if it was signed; nil if it was not,
// and then the room never will sign it.
func (c *Client) Settle(ctx context.Context, index int64) ([]byte, error) {
	r, err := c.ask(ctx, Call{Kind: Settle, Index: index})
	return r.DER, err
}

// Checkpoint asks for a signed note of the room's head, once it has read the whole of our log.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	size, _ := c.log.Head()
	r, err := c.ask(ctx, Call{Kind: Checkpoint, Index: size - 1})
	return r.Note, err
}

// Open asks for the secrets of a request that is answered again: e is its issue.redelivered leaf.
func (c *Client) Open(ctx context.Context, e audit.Entry, sealed []byte) ([]byte, error) {
	r, err := c.ask(ctx, Call{Kind: Open, Index: e.Index, Sealed: sealed})
	return r.Secrets, err
}

func (c *Client) ask(ctx context.Context, call Call) (Result, error) {
	if n := len(call.CSR) + len(call.Sealed); n > chunk {
		return Result{}, fmt.Errorf("a call of %d octets; at most %d", n, chunk)
	}
	if c.ctx.Err() != nil {
		return Result{}, ErrUnreachable
	}
	p := &pending{call: call, ready: make(chan struct{})}
	select {
	case c.queue <- p:
	case <-c.ctx.Done():
		return Result{}, ErrUnreachable
	case <-ctx.Done():
		return Result{}, fmt.Errorf("waiting for the key room: %w", ctx.Err())
	}
	select {
	case <-p.ready:
		return p.result, p.err
	case <-c.ctx.Done():
		return Result{}, ErrUnknown
	case <-ctx.Done():
		return Result{}, fmt.Errorf("%w (%w)", ErrUnknown, ctx.Err())
	}
}

func (c *Client) connect(ctx context.Context) (*line, error) {
	l, hello, err := dial(ctx, c.path)
	if err != nil {
		return nil, err
	}
	if err := c.greet(ctx, l, hello); err != nil {
		return nil, errors.Join(err, l.conn.Close())
	}
	return l, nil
}

func (c *Client) greet(ctx context.Context, l *line, hello Hello) error {
	if err := c.recognise(hello); err != nil {
		return err
	}
	return c.follow(ctx, l, hello.State)
}

// recognise takes up the hello of a room unless it is another than the one that the client knows, or an
// older copy of it: what it said once was durable.
func (c *Client) recognise(hello Hello) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := hello.continues(c.hello); err != nil {
		return fmt.Errorf("the key room at %s: %w", c.path, err)
	}
	c.hello = hello
	return nil
}

// continues checks that a hello is of the room that said known before, if there is one, and not older.
func (h Hello) continues(known Hello) error {
	switch {
	case known.Room == "":
	case known.Room != h.Room:
		return fmt.Errorf("it is %s, no longer %s", h.Room, known.Room)
	case known.State.Sequence > h.State.Sequence:
		return fmt.Errorf("%w (its journal has %d records and had %d before)", ErrRoomBehind, h.State.Sequence, known.State.Sequence)
	}
	return nil
}

// Check asks the room how far it is, over a connection of its own, and compares its place in the log with
// ours: it tells whether a call now would be heard, without waiting behind those under way, and moves
// nothing. It gives what the room said now, and fails as Dial does, and with ErrRoomBehind.
func (c *Client) Check(ctx context.Context) (Hello, error) {
	l, hello, err := c.look(ctx)
	if err != nil {
		return Hello{}, err
	}
	defer l.close()
	return hello, c.follow(ctx, l, hello.State)
}

// follow takes up our tree at the room's position and compares the roots.
func (c *Client) follow(ctx context.Context, l *line, s State) error {
	size, _ := c.log.Head()
	if s.Size > size {
		return fmt.Errorf("%w (the key room has read %d leaves, the store holds %d)", ErrStoreBehind, s.Size, size)
	}
	tree, err := c.log.Tree(ctx, s.Size)
	if err != nil {
		return fmt.Errorf("reading our tree at %d leaves: %w", s.Size, err)
	}
	if root := tree.Root(); hex.EncodeToString(root[:]) != s.Root {
		return fmt.Errorf("%w (the roots at %d leaves differ)", ErrFork, s.Size)
	}
	l.tree = tree
	return nil
}
