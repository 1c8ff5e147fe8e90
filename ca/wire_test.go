package ca

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/ca/signer"
)

// wire is a socket before the key room's. before is called with each batch on its way; what it returns
// is done.
type wire struct {
	path     string
	room     string
	listener net.Listener
	ended    chan struct{}
	conns    sync.WaitGroup

	mu     sync.Mutex
	before func(signer.Batch) action
}

type action int

const (
	pass      action = iota
	cutBefore        // the room never gets the batch
	cutAfter         // the room's reply is lost
)

func newWire(t *testing.T, path, room string) *wire {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{path: path, room: room, listener: l, ended: make(chan struct{})}
	w.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.conns.Go(func() { w.carry(conn) })
		}
	})
	return w
}

func (w *wire) close() {
	_ = w.listener.Close()
	close(w.ended)
	w.conns.Wait()
}

// on sets what happens to batches that ask for a kind of thing; once tells that only the first is meant.
func (w *wire) on(kind signer.Kind, do func() action) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = func(b signer.Batch) action {
		for _, c := range b.Calls {
			if c.Kind == kind {
				return do()
			}
		}
		return pass
	}
}

func (w *wire) once(kind signer.Kind, a action) {
	var done bool
	w.on(kind, func() action {
		if done {
			return pass
		}
		done = true
		return a
	})
}

func (w *wire) carry(conn net.Conn) {
	defer conn.Close()
	room, err := net.Dial("unix", w.room)
	if err != nil {
		return
	}
	defer room.Close()
	over := make(chan struct{})
	defer close(over)
	w.conns.Go(func() {
		select {
		case <-w.ended:
			_ = conn.Close()
			_ = room.Close()
		case <-over:
		}
	})
	up, down := bufio.NewReader(conn), bufio.NewReader(room)
	hello, err := frame(down)
	for err == nil {
		if _, err = conn.Write(hello); err != nil {
			return
		}
		var request []byte
		if request, err = frame(up); err != nil {
			return
		}
		var b signer.Batch
		if err = json.Unmarshal(request[4:], &b); err != nil {
			return
		}
		do := pass
		w.mu.Lock()
		before := w.before
		w.mu.Unlock()
		if before != nil {
			do = before(b)
		}
		if do == cutBefore {
			return
		}
		if _, err = room.Write(request); err != nil {
			return
		}
		if hello, err = frame(down); do == cutAfter {
			return
		}
	}
}

// frame reads a frame with its head.
func frame(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	n := 4 + int(head[0])<<24 + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
	whole := make([]byte, n)
	_, err = io.ReadFull(r, whole)
	return whole, err
}
