package keyroom

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/signer"
)

// memLog is a log in memory.
type memLog struct {
	mu     sync.Mutex
	leaves [][]byte
}

func (l *memLog) add(leaf []byte) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaves = append(l.leaves, leaf)
	return int64(len(l.leaves)) - 1
}

func (l *memLog) from(from, to int64) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([][]byte{}, l.leaves[from:to]...)
}

func treeOf(leaves [][]byte) *audit.Tree {
	tree := new(audit.Tree)
	for _, leaf := range leaves {
		tree.Append(leaf)
	}
	return tree
}

// root is the tree's at size leaves, as the wire spells it.
func (l *memLog) root(size int64) string {
	root := treeOf(l.from(0, size)).Root()
	return hex.EncodeToString(root[:])
}

// fork copies the log.
func (l *memLog) fork() *memLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &memLog{leaves: append([][]byte(nil), l.leaves...)}
}

func (l *memLog) Head() (int64, audit.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.leaves)), treeOf(l.leaves).Root()
}

func (l *memLog) Tree(_ context.Context, size int64) (*audit.Tree, error) {
	if head, _ := l.Head(); size > head {
		return nil, fmt.Errorf("the log has %d leaves, not %d", head, size)
	}
	return treeOf(l.from(0, size)), nil
}

func (l *memLog) Leaves(_ context.Context, from, to int64) ([][]byte, error) {
	head, _ := l.Head()
	return l.from(min(from, head), min(to, head)), nil
}

// raw is a client that says whatever the test wants.
type raw struct {
	t     testing.TB
	conn  net.Conn
	in    *bufio.Reader
	hello signer.Hello
	state signer.State // the last one that the room told
}

// dial connects and reads the hello.
func (h *hall) dial() *raw { return dialRaw(h.T, h.config.Socket) }

func dialRaw(t testing.TB, socket string) *raw {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := &raw{t: t, conn: conn, in: bufio.NewReader(conn)}
	if err := signer.ReadFrame(c.in, &c.hello, signer.MaxReply); err != nil {
		t.Fatalf("reading the hello: %v", err)
	}
	c.state = c.hello.State
	return c
}

func (c *raw) close() { _ = c.conn.Close() }

func (c *raw) ask(b signer.Batch) signer.Reply {
	c.t.Helper()
	if err := signer.WriteFrame(c.conn, b, signer.MaxRequest); err != nil {
		c.t.Fatal(err)
	}
	return c.reply()
}

func (c *raw) reply() signer.Reply {
	c.t.Helper()
	var reply signer.Reply
	if err := signer.ReadFrame(c.in, &reply, signer.MaxReply); err != nil {
		c.t.Fatalf("reading a reply: %v", err)
	}
	c.state = reply.State
	return reply
}
