package gitrepo

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// stuckConn is a connection that opens no session, whatever becomes of it: what the library does when one is asked for
// in the moment in which the connection ends.
type stuckConn struct {
	ssh.Conn
	end chan struct{}
}

func (c stuckConn) OpenChannel(string, []byte) (ssh.Channel, <-chan *ssh.Request, error) { select {} }
func (c stuckConn) Wait() error                                                          { <-c.end; return errors.New("over") }
func (c stuckConn) Close() error                                                         { return nil }

// TestSessionThatNeverOpens: the end of the connection, or of the caller's patience, ends the wait for a session.
func TestSessionThatNeverOpens(t *testing.T) {
	for _, what := range []string{"connection", "patience"} {
		t.Run(what, func(t *testing.T) {
			refused := errors.New("nobody is there")
			c := stuckConn{end: make(chan struct{})}
			s := &overSSH{address: "127.0.0.1:0", config: &ssh.ClientConfig{}}
			s.take(ssh.NewClient(c, nil, nil))
			ctx, cancel := context.WithCancelCause(t.Context())
			end := func() { cancel(refused) }
			if what == "connection" {
				defer end()
				end = func() { close(c.end) }
			}
			time.AfterFunc(10*time.Millisecond, end)
			_, _, err := s.session(ctx)
			if err == nil || errors.Is(err, refused) != (what == "patience") || s.client != nil {
				t.Errorf("%v, and the connection is kept: %v", err, s.client != nil)
			}
		})
	}
}
