package keyroom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

func (h *hall) client() *signer.Client {
	h.Helper()
	c, err := signer.Dial(h.Context(), h.config.Socket, h.log)
	if err != nil {
		h.Fatal(err)
	}
	return c
}

// sign enters an intent and has a client ask for it.
func (h *hall) sign(c *signer.Client, w wanted) ([]byte, error) {
	return c.SignCert(context.Background(), audit.Entry{Index: h.add(alice, w.IssueIntent)}, w.csr)
}

// TestClient goes through everything that a daemon asks a room, over restarts of the room.
func TestClient(t *testing.T) {
	h := newHall(t)
	c := h.client()
	defer c.Close()
	w := h.want("alice", nil, nil)
	der, err := h.sign(c, w)
	if err != nil {
		t.Fatal(err)
	}
	if got := parseCert(t, der); cert.SerialOf(got.SerialNumber) != w.Serial || cert.SHA256(got.RawTBSCertificate) != w.TBSSHA256 {
		t.Error("the certificate is not the one of the intent")
	}
	h.restart()
	if settled, err := c.Settle(t.Context(), 1); err != nil || !bytes.Equal(settled, der) {
		t.Errorf("after a restart: %d octets, %v", len(settled), err)
	}
	bob := h.want("bob", nil, nil)
	open := h.add(alice, bob.IssueIntent)
	if settled, err := c.Settle(t.Context(), open); err != nil || settled != nil {
		t.Errorf("settling an open intent: %d octets, %v", len(settled), err)
	}
	_, err = c.SignCert(t.Context(), audit.Entry{Index: open}, bob.csr)
	var refusal *signer.Refusal
	if !errors.As(err, &refusal) || refusal.Code != "serial.voided" || !strings.Contains(err.Error(), "serial.voided") {
		t.Errorf("signing a voided serial: %v", err)
	}
	h.revoke(w.Serial, cert.KeyCompromise)
	list, entries, err := c.SignCRL(t.Context(), audit.Entry{Index: h.add(daemon, h.crlIntent("1"))})
	if err != nil || entries != 1 || len(h.revocations(list)) != 1 {
		t.Errorf("a list with %d entries: %v", entries, err)
	}
	h.add(daemon, &audit.ServiceStopped{})
	note, err := c.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, err := audit.OpenCheckpoint(note, c.Hello().LogKey)
	if size, root := h.log.Head(); err != nil || head.Size != size || head.Root != root || head.Origin != h.config.Origin {
		t.Errorf("checkpoint %+v, %v; the log has %d leaves", head, err, size)
	}
	// What the room says of itself can stand in the next leaf.
	h.add(daemon, &audit.ServiceStarted{Room: c.RoomState()})
	if _, err := h.sign(c, h.want("carol", nil, nil)); err != nil {
		t.Error(err)
	}
	if got, want := c.RoomState().Sequence, h.room.Hello().State.Sequence; got != want {
		t.Errorf("the client thinks the room is at %d, it is at %d", got, want)
	}
}

// TestClientsShareBatches has many callers at once: they make far fewer records than calls.
func TestClientsShareBatches(t *testing.T) {
	h := newHall(t)
	c := h.client()
	defer c.Close()
	const callers, each = 32, 8
	before := h.room.Hello().State
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range each {
				w := h.want("alice", nil, nil)
				der, err := h.sign(c, w)
				if err != nil {
					t.Error(err)
				} else if got := parseCert(t, der); cert.SerialOf(got.SerialNumber) != w.Serial {
					t.Error("a caller got another caller's certificate")
				}
			}
		})
	}
	all.Wait()
	after := h.room.Hello().State
	if n := after.Certificates - before.Certificates; n != callers*each {
		t.Errorf("%d certificates, want %d", n, callers*each)
	}
	if n := after.Sequence - before.Sequence; n > callers*each/2 {
		t.Errorf("%d records for %d calls of %d callers", n, callers*each, callers)
	}
	h.restart()
	h.equal(after)
}

// TestTwoClients has two daemons on one log move one room: what the room calls stale never reaches a
// caller, and neither takes its old position for an old store.
func TestTwoClients(t *testing.T) {
	h := newHall(t)
	clients := []*signer.Client{h.client(), h.client()}
	w := h.want("alice", nil, nil)
	if _, err := h.sign(clients[0], w); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the other one is far ahead now
		if _, err := h.sign(clients[1], h.want("bob", nil, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := clients[0].Settle(t.Context(), 1); err != nil {
		t.Errorf("an old leaf, asked about from an old position: %v", err)
	}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			if _, err := h.sign(clients[i%2], h.want(fmt.Sprint("user", i), nil, nil)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, c := range clients {
		c.Close()
	}
	if got := h.room.Hello().State.Certificates; got != 44 {
		t.Errorf("%d certificates, want 44", got)
	}
}

// TestStoreBehind and a fork: the client finds out before it asks, and while it runs.
func TestStoreBehindAndFork(t *testing.T) {
	h := newHall(t)
	c := h.client()
	if _, err := h.sign(c, h.want("alice", nil, nil)); err != nil {
		t.Fatal(err)
	}
	whole := h.log.fork()
	defer c.Close()
	for name, spoil := range map[string]struct {
		want error
		log  func() [][]byte
	}{
		"an old copy": {signer.ErrStoreBehind, func() [][]byte { return whole.leaves[:1] }},
		"a fork":      {signer.ErrFork, func() [][]byte { return [][]byte{whole.leaves[0], encode(h, &audit.ServiceStopped{})} }},
	} {
		before := h.room.Hello().State
		h.log.mu.Lock()
		h.log.leaves = spoil.log()
		h.log.mu.Unlock()
		if c, err := signer.Dial(t.Context(), h.config.Socket, h.log); !errors.Is(err, spoil.want) {
			t.Errorf("%s: dialling: %v, %v", name, c, err)
		}
		h.restart() // so that the client compares again
		if _, err := c.Settle(t.Context(), 0); !errors.Is(err, spoil.want) {
			t.Errorf("%s: asking: %v", name, err)
		}
		h.equal(before)
	}
	h.log.mu.Lock()
	h.log.leaves = whole.leaves
	h.log.mu.Unlock()
	if _, err := h.sign(c, h.want("bob", nil, nil)); err != nil {
		t.Errorf("with the right store again: %v", err)
	}
}

// TestReader reads what a room holds as recovery does: every leaf, whatever the store says.
func TestReader(t *testing.T) {
	h := newHall(t)
	c := h.client()
	w := h.want("alice", nil, nil)
	der, err := h.sign(c, w)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		h.add(daemon, &audit.RequestRefused{Code: "test", Reason: strings.Repeat("x", 300)})
	}
	if _, err := h.sign(c, h.want("bob", nil, nil)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	before := h.room.Hello().State
	r, err := signer.DialReader(t.Context(), h.config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var leaves [][]byte
	for int64(len(leaves)) < r.Hello().State.Size {
		more, err := r.Leaves(int64(len(leaves)))
		if err != nil || len(more) == 0 {
			t.Fatalf("%d leaves after %d: %v", len(more), len(leaves), err)
		}
		leaves = append(leaves, more...)
	}
	size, root := h.log.Head()
	if tree := treeOf(leaves); tree.Size() != size || tree.Root() != root {
		t.Errorf("the room gave %d leaves of %d, or others", tree.Size(), size)
	}
	if more, err := r.Leaves(size); err != nil || len(more) != 0 {
		t.Errorf("%d leaves after the last: %v", len(more), err)
	}
	if _, err := r.Leaves(size + 1); err == nil {
		t.Error("leaves beyond the end")
	}
	if got, err := r.Lookup(1); err != nil || !bytes.Equal(got, der) {
		t.Errorf("looked up %d octets: %v", len(got), err)
	}
	var refusal *signer.Refusal
	if _, err := r.Lookup(0); !errors.As(err, &refusal) || refusal.Code != "index.kind" {
		t.Errorf("looking up what is no intent: %v", err)
	}
	h.equal(before)
}
