package rpc

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/signer"
)

// room is a key room in this process, whose settings, clock and wire can be changed.
type room struct {
	asking
	*keyroom.Room
	drift  time.Duration
	on     func(*signer.Batch) // called with each batch that asks for a certificate
	cut    atomic.Bool         // the reply to a certificate is lost
	closed func()
}

// newRoom puts the key room of a new world into this process.
func newRoom(t *testing.T, seen *sync.Map) *room {
	t.Helper()
	r := &room{asking: newWorld(t).asking(seen), closed: func() {}}
	r.must(r.room.Process.Signal(syscall.SIGTERM))
	_ = r.room.Wait()
	r.open(nil)
	t.Cleanup(func() { r.closed() })
	return r
}

// open starts the key room anew, with other settings.
func (r *room) open(edit func(*keyroom.Config)) {
	r.Helper()
	r.closed()
	config, err := keyroom.LoadConfig(filepath.Join(r.dir, "keyroom.json"))
	r.must(err)
	if edit != nil {
		edit(&config)
	}
	drift := r.drift
	r.Room, err = keyroom.Open(keyroom.Options{
		Config: config, Build: "test", Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(drift) },
	})
	r.must(err)
	l, err := net.Listen("unix", r.socket())
	r.must(err)
	var conns sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	opened, on := r.Room, r.on
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			conns.Go(func() {
				defer stop()
				defer conn.Close()
				r.carry(opened, on, conn)
			})
		}
	})
	r.closed = sync.OnceFunc(func() {
		cancel()
		_ = l.Close()
		conns.Wait()
		if err := opened.Close(); err != nil {
			r.Error(err)
		}
	})
}

func (r *room) carry(opened *keyroom.Room, on func(*signer.Batch), conn net.Conn) {
	if err := signer.WriteFrame(conn, opened.Hello(), signer.MaxReply); err != nil {
		return
	}
	in := bufio.NewReader(conn)
	for {
		var b signer.Batch
		if err := signer.ReadFrame(in, &b, signer.MaxRequest); err != nil {
			return
		}
		signs := len(b.Calls) > 0 && b.Calls[0].Kind == signer.SignCert
		if signs && on != nil {
			on(&b)
		}
		reply, err := opened.Handle(b)
		if err != nil || signs && r.cut.Load() || signer.WriteFrame(conn, reply, signer.MaxReply) != nil {
			return
		}
	}
}

// flip changes the last bit of a file, and changes it back.
func (r *room) flip(path string) {
	text, err := os.ReadFile(path)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, err = f.WriteAt([]byte{text[len(text)-1] ^ 1}, int64(len(text)-1))
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		r.Error(err)
	}
}
