package keyroom

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/ca/signer"
)

// maxConns bounds how many daemons and tools are connected at once.
const maxConns = 16

// patience is how long the rest of a frame that has begun, or the taking of a reply, may last. Between
// frames a connection may rest as long as it likes.
const patience = 30 * time.Second

// Listen makes the room's socket, mode 0600 or, if other users are allowed, 0660. A socket left behind
// by a room that was killed is replaced: the journal's lock keeps two rooms apart, not the socket.
func (r *Room) Listen() (net.Listener, error) {
	if err := os.Remove(r.config.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("making the socket: %w", err)
	}
	l, err := net.Listen("unix", r.config.Socket)
	if err != nil {
		return nil, fmt.Errorf("making the socket: %w", err)
	}
	mode := os.FileMode(0o600)
	if len(r.config.AllowedUIDs) > 0 {
		mode = 0o660
	}
	if err := os.Chmod(r.config.Socket, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("making the socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers connections until ctx ends, and then returns nil, or until the journal cannot be
// written: then nothing more leaves the room and the process must end.
func (r *Room) Serve(ctx context.Context, l net.Listener) error {
	var keeper sync.WaitGroup
	defer keeper.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.delivery.begin(r.now())
	keeper.Go(func() { r.delivery.keepUp(ctx, r.now) })
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // the accept loop sees it
	defer stop()
	slots := make(chan struct{}, maxConns)
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			r.log.Warn("turned a connection away", "reason", "too many are open")
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			if err := r.converse(ctx, conn.(*net.UnixConn)); err != nil {
				cancel(err)
			}
		})
	}
}

// converse serves one connection. It returns only errors that are fatal to the room.
func (r *Room) converse(ctx context.Context, conn *net.UnixConn) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read below
	defer stop()
	if err := r.checkPeer(conn); err != nil {
		r.log.Warn("turned a connection away", "reason", err.Error())
		return nil
	}
	if err := r.send(conn, r.Hello()); err != nil {
		return nil
	}
	in := bufio.NewReader(conn)
	for {
		batch, err := r.receive(conn, in)
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return nil
		case err != nil:
			r.log.Warn("dropped a connection", "reason", err.Error())
			_ = r.send(conn, r.notUnderstood(err)) // if somebody still listens
			return nil
		}
		reply, err := r.Handle(batch)
		if err != nil {
			return fmt.Errorf("the key room stops: %w", err)
		}
		if err := r.send(conn, reply); err != nil {
			r.log.Warn("a reply was not taken", "reason", err.Error())
			return nil
		}
	}
}

// receive waits for a frame to begin, and then not long for the rest of it.
func (r *Room) receive(conn net.Conn, in *bufio.Reader) (signer.Batch, error) {
	var batch signer.Batch
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return batch, err
	}
	if _, err := in.Peek(1); err != nil {
		return batch, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
		return batch, err
	}
	return batch, signer.ReadFrame(in, &batch, signer.MaxRequest)
}

func (r *Room) send(conn net.Conn, v any) error {
	if err := conn.SetWriteDeadline(time.Now().Add(r.patience)); err != nil {
		return err
	}
	return signer.WriteFrame(conn, v, signer.MaxReply)
}

// notUnderstood refuses what is not a batch.
func (r *Room) notUnderstood(err error) signer.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused(refuse("batch.frame", "%v", err))
}

// checkPeer asks the kernel who is at the other end.
func (r *Room) checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("asking who connects: %w", failed)
	}
	uid := int(peer.Uid)
	if uid == 0 || len(r.config.AllowedUIDs) == 0 && uid == os.Getuid() || slices.Contains(r.config.AllowedUIDs, uid) {
		return nil // root can read the keys anyway, and runs fsck
	}
	return fmt.Errorf("uid %d may not connect; allowed_uids in keyroom.json names who may", uid)
}
