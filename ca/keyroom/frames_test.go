package keyroom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/signer"
)

// TestHostileFrames sends what is no batch. The room says so, closes that connection, and goes on.
func TestHostileFrames(t *testing.T) {
	h := newHall(t)
	h.signed("alice", nil)
	before := h.room.Hello().State
	frame := func(body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	good := `{"from":2,"from_root":"","leaves":[],"root":"","calls":[]}`
	for name, bytes := range map[string][]byte{
		"oversized":              binary.BigEndian.AppendUint32(nil, signer.MaxRequest+1),
		"oversized by far":       []byte("\xff\xff\xff\xff{}"),
		"a client of something":  []byte("GET / HTTP/1.1\r\n\r\n"),
		"garbage":                frame("\x00\xff garbage"),
		"empty":                  frame(""),
		"an unknown member":      frame(strings.Replace(good, `"calls"`, `"force":true,"calls"`, 1)),
		"an unknown call member": frame(strings.Replace(good, `[]}`, `[{"kind":"sign.cert","index":0,"tbs":"AA=="}]}`, 1)),
		"bytes behind":           frame(good + good),
		"a number as text":       frame(strings.Replace(good, `2`, `"2"`, 1)),
		"bad base64":             frame(strings.Replace(good, `"leaves":[]`, `"leaves":["*"]`, 1)),
		"deep nesting":           frame(strings.Repeat(`{"calls":[`, 50_000)),
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := dialRaw(t, h.config.Socket)
			defer c.close()
			if _, err := c.conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if got := codeOf(c.reply()); got != "batch.frame" {
				t.Errorf("code %q, want batch.frame", got)
			}
			if err := signer.ReadFrame(c.in, new(signer.Reply), signer.MaxReply); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
	h.equal(before)
	h.signed("bob", nil)
}

// TestHalfAFrame leaves frames unfinished: they disturb nobody, and do not keep their place for ever.
func TestHalfAFrame(t *testing.T) {
	h := newHall(t)
	h.signed("alice", nil)
	h.tune = func(r *Room) { r.patience = 200 * time.Millisecond }
	h.restart()
	var silent []*raw
	for range maxConns {
		c := h.dial()
		defer c.close()
		silent = append(silent, c)
	}
	conn, err := net.Dial("unix", h.config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("connection %d was served", maxConns+1)
	}
	for i, c := range silent[1:] {
		if _, err := c.conn.Write([]byte("\x00\x00\x10\x00{")[:1+i%5]); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * h.room.patience)
	h.signed("bob", nil) // the places are free again
	// The first one has only been quiet, which is no offence.
	if r := silent[0].ask(h.batch(h.room.Hello().State, signer.Call{Kind: signer.Checkpoint})); codeOf(r) != "" || len(r.Results) != 1 {
		t.Errorf("a quiet connection was dropped: %+v", r)
	}
}

// TestBatchLimits asks too much at once, and in the wrong kind of batch.
func TestBatchLimits(t *testing.T) {
	h := newHall(t)
	w, der := h.signed("alice", nil)
	before := h.room.Hello().State
	c := h.dial()
	defer c.close()
	if got := codeOf(c.ask(h.batch(c.state, make([]signer.Call, signer.MaxCalls+1)...))); got != "batch.size" {
		t.Errorf("too many calls: code %q", got)
	}
	if got := codeOf(c.ask(h.batch(c.state, signer.Call{Kind: "sign.tbs"}))); got != "call.kind" {
		t.Errorf("an unknown call: code %q", got)
	}
	for _, kind := range []signer.Kind{signer.SignCert, signer.SignCRL, signer.Settle, signer.Open, signer.Checkpoint, "sign.tbs"} {
		reply := c.ask(signer.Batch{From: signer.ReadOnly, Calls: []signer.Call{{Kind: kind, Index: 1, CSR: w.csr}}})
		if got := codeOf(reply); got != "batch.read_only" {
			t.Errorf("%s without the log: code %q", kind, got)
		}
	}
	reply := c.ask(signer.Batch{From: signer.ReadOnly, Calls: []signer.Call{{Kind: signer.Lookup, Index: 1}, {Kind: signer.Leaves, Index: 0}}})
	if string(reply.Results[0].DER) != string(der) || len(reply.Results[1].Leaves) != 2 {
		t.Errorf("reading: %+v", reply.Results)
	}
	h.equal(before)
}

// TestWrongPeer connects as a user who may not.
func TestWrongPeer(t *testing.T) {
	h := newHall(t)
	// Root is let in everywhere, so it connects as nobody.
	uid, credential := os.Getuid(), (*syscall.Credential)(nil)
	if uid == 0 {
		uid, credential = 65534, &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	for _, dir := range []string{h.dir, h.config.State} { // only the room itself is in the way
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	heard := func(allowed ...int) string {
		t.Helper()
		h.stop()
		h.config.AllowedUIDs = allowed
		h.start()
		if err := os.Chmod(h.config.Socket, 0o666); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/usr/bin/env", "python3", "-c",
			`import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(len(s.recv(9)))`, h.config.Socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := heard(uid + 1); got != "0" {
		t.Errorf("a room for somebody else said %s octets", got)
	}
	if !strings.Contains(h.logged.String(), fmt.Sprintf("uid %d may not connect", uid)) {
		t.Error("the room did not log who it turned away")
	}
	if got := heard(uid+1, uid); got != "9" {
		t.Errorf("a room for two users said %s octets", got)
	}
	if got, own := heard(), credential == nil; (got == "9") != own {
		t.Errorf("a room for its own user said %s octets", got)
	}
	h.signed("alice", nil)
}
