package signer

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/audit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// memLog is a log in memory, with leaves that nobody looks into.
type memLog struct {
	mu     sync.Mutex
	leaves [][]byte
}

func (l *memLog) add(n, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.leaves = append(l.leaves, fmt.Appendf(nil, "%*d", size, len(l.leaves)))
	}
}

func treeOf(leaves [][]byte) *audit.Tree {
	tree := new(audit.Tree)
	for _, leaf := range leaves {
		tree.Append(leaf)
	}
	return tree
}

func (l *memLog) Head() (int64, audit.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.leaves)), treeOf(l.leaves).Root()
}

func (l *memLog) Tree(_ context.Context, size int64) (*audit.Tree, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return treeOf(l.leaves[:size]), nil
}

func (l *memLog) Leaves(_ context.Context, from, to int64) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := int64(len(l.leaves))
	return append([][]byte{}, l.leaves[min(from, head):min(to, head)]...), nil
}

// room is the other end of the wire, as small as it can be: it follows the tree, answers a call with its
// index, and does what a test says in between. The real one is tested in its own package; this one can
// be made to fail where a real one cannot.
type room struct {
	t    *testing.T
	path string
	l    net.Listener
	wg   sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	hello   Hello
	tree    *audit.Tree
	batches []Batch
	// before is called with every batch. What it returns is the reply, unless that is nil; hangUp ends
	// the connection instead.
	before func(Batch) *Reply
}

// hangUp as a reply is none.
var hangUp = &Reply{}

func newRoom(t *testing.T) *room {
	dir, err := os.MkdirTemp("", "sg") // t.TempDir is too long for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &room{
		t: t, path: filepath.Join(dir, "socket"), tree: new(audit.Tree), conns: make(map[net.Conn]bool),
		hello: Hello{Version: Version, Room: "room-1"},
	}
	r.start()
	t.Cleanup(func() {
		r.stop()
		_ = os.RemoveAll(dir)
	})
	return r
}

func (r *room) start() {
	r.t.Helper()
	var err error
	if r.l, err = net.Listen("unix", r.path); err != nil {
		r.t.Fatal(err)
	}
	r.wg.Go(func() {
		for {
			conn, err := r.l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[conn] = true
			r.mu.Unlock()
			r.wg.Go(func() { r.converse(conn) })
		}
	})
}

// stop ends the room as a kill would, and waits until nothing of it is left.
func (r *room) stop() {
	_ = r.l.Close()
	r.hangUpAll()
	r.wg.Wait()
}

func (r *room) hangUpAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	clear(r.conns)
}

func (r *room) state() State {
	root := r.tree.Root()
	s := r.hello.State
	s.Size, s.Root, s.Sequence = r.tree.Size(), hex.EncodeToString(root[:]), s.Sequence+int64(len(r.batches))
	return s
}

func (r *room) converse(conn net.Conn) {
	defer conn.Close()
	r.mu.Lock()
	hello := r.hello
	hello.State = r.state()
	r.mu.Unlock()
	if WriteFrame(conn, hello, MaxReply) != nil {
		return
	}
	in := bufio.NewReader(conn)
	for {
		var b Batch
		if ReadFrame(in, &b, MaxRequest) != nil {
			return
		}
		r.mu.Lock()
		before := r.before
		r.mu.Unlock()
		if before != nil {
			switch reply := before(b); {
			case reply == hangUp:
				return
			case reply != nil:
				_ = WriteFrame(conn, reply, MaxReply)
				continue
			}
		}
		_ = WriteFrame(conn, r.answer(b), MaxReply)
	}
}

func (r *room) answer(b Batch) Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.From != r.tree.Size() {
		return Reply{State: r.state(), Stale: true}
	}
	for _, leaf := range b.Leaves {
		r.tree.Append(leaf)
	}
	if root := r.tree.Root(); b.Root != hex.EncodeToString(root[:]) {
		r.t.Errorf("a batch with another root than its leaves give: %d leaves from %d", len(b.Leaves), b.From)
	}
	r.batches = append(r.batches, b)
	reply := Reply{State: r.state()}
	for _, call := range b.Calls {
		if call.Index >= r.tree.Size() {
			r.t.Errorf("leaf %d was asked about and not brought", call.Index)
		}
		reply.Results = append(reply.Results, Result{DER: answerOf(call.Index)})
	}
	return reply
}

func answerOf(index int64) []byte { return fmt.Append(nil, index) }

func (r *room) set(before func(Batch) *Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = before
}

func (r *room) served() []Batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Batch(nil), r.batches...)
}

// client dials the room; it is closed with the test.
func (r *room) client(log *memLog) *Client {
	r.t.Helper()
	c, err := Dial(r.t.Context(), r.path, log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

func logOf(n int) *memLog {
	log := new(memLog)
	log.add(n, 20)
	return log
}

// soon fails the test if f lasts.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s takes for ever", what)
	}
}
