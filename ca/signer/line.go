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
