package signer

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// replyTimeout bounds the wait for one batch: at most MaxCalls signatures and one sync.
const replyTimeout = 60 * time.Second

// line is one connection and, for a Client, the tree over what the room has read, as our log has it.
type line struct {
	conn net.Conn
	r    *bufio.Reader
	tree *audit.Tree
}

// dial connects and reads the room's hello.
func dial(ctx context.Context, path string) (*line, Hello, error) {
	var hello Hello
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, hello, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	l := &line{conn: conn, r: bufio.NewReader(conn)}
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	err = conn.SetDeadline(time.Now().Add(replyTimeout))
	if err == nil {
		err = ReadFrame(l.r, &hello, MaxReply)
	}
	if err != nil {
		l.close()
		return nil, hello, fmt.Errorf("%w: reading its hello: %w", ErrUnreachable, err)
	}
	if hello.Version != Version {
		l.close()
		return nil, hello, fmt.Errorf("the key room speaks version %d of the wire, this program version %d: install both from one release", hello.Version, Version)
	}
	return l, hello, nil
}

// roundTrip asks and waits. It fails with ErrUnreachable if the room cannot have read the whole batch,
// and with ErrUnknown after that. When ctx ends the line is of no more use.
func (l *line) roundTrip(ctx context.Context, b Batch) (Reply, error) {
	var reply Reply
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	err := l.conn.SetDeadline(time.Now().Add(replyTimeout))
	if err == nil {
		err = WriteFrame(l.conn, b, MaxRequest)
	}
	if err != nil {
		return reply, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := ReadFrame(l.r, &reply, MaxReply); err != nil {
		return reply, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return reply, nil
}

func (l *line) close() {
	if l != nil {
		_ = l.conn.Close() // its error would repeat the one that the callers got
	}
}

// Reader reads what the room holds and moves nothing: recovery and fsck use it, because they must work
// when the store and the room disagree. It is for one goroutine.
type Reader struct {
	line  *line
	hello Hello
}

// DialReader connects to the room at a Unix socket. It fails with ErrUnreachable.
func DialReader(ctx context.Context, path string) (*Reader, error) {
	l, hello, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return &Reader{l, hello}, nil
}

// Close ends the connection.
func (r *Reader) Close() { r.line.close() }

// Hello is what the room said of itself.
func (r *Reader) Hello() Hello { return r.hello }

// Leaves gives leaves that the room holds from index from on, at least one if there is one.
func (r *Reader) Leaves(from int64) ([][]byte, error) {
	result, err := r.ask(Call{Kind: Leaves, Index: from})
	return result.Leaves, err
}

// Lookup gives the certificate of the issue.intent at index, DER: nil if it was not signed so far.
func (r *Reader) Lookup(index int64) ([]byte, error) {
	result, err := r.ask(Call{Kind: Lookup, Index: index})
	return result.DER, err
}

func (r *Reader) ask(call Call) (Result, error) {
	reply, err := r.line.roundTrip(context.Background(), Batch{From: ReadOnly, Calls: []Call{call}})
	switch {
	case err != nil:
		return Result{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case reply.Refused != nil:
		return Result{}, reply.Refused
	case len(reply.Results) != 1:
		return Result{}, fmt.Errorf("the key room gave %d results for one call", len(reply.Results))
	case reply.Results[0].Refused != nil:
		return Result{}, reply.Results[0].Refused
	}
	return reply.Results[0], nil
}
