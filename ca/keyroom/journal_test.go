package keyroom

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

func (h *hall) journalText() []byte {
	h.Helper()
	text, err := os.ReadFile(filepath.Join(h.config.State, "journal"))
	if err != nil {
		h.Fatal(err)
	}
	return text
}

// reopen opens a room with the keys of h on another journal: the keys are slow to decrypt.
func (h *hall) reopen(path string) (*Room, error) {
	from := h.room
	r := &Room{
		config: from.config, now: from.now, rand: from.rand, log: from.log, patience: from.patience,
		logKey: from.logKey, logVKey: from.logVKey, delivery: from.delivery, root: from.root, rootCRL: from.rootCRL,
		issuers: make(map[cert.Issuer]*issuer),
	}
	for id, i := range from.issuers {
		r.issuers[id] = &issuer{config: i.config, cert: i.cert, key: i.key, builder: i.builder, number: new(big.Int)}
	}
	return r, r.follow(path)
}

// withJournal writes text as a journal and opens a room on it.
func (h *hall) withJournal(text []byte) (*Room, error) {
	h.Helper()
	path := filepath.Join(h.dir, "copy")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		h.Fatal(err)
	}
	return h.reopen(path)
}

// records makes a journal with everything that a record can hold, and gives the state before the last
// record, that after it, and the octet at which the last record begins.
func records(h *hall) (before, after signer.State, last int) {
	w, _ := h.signed("alice", nil)
	h.revoke(w.Serial, cert.KeyCompromise)
	h.list("1")
	bob := h.want("bob", nil, nil)
	h.ask(signer.Call{Kind: signer.Settle, Index: h.add(alice, bob.IssueIntent)})
	before = h.room.Hello().State
	last = len(h.journalText())
	h.signed("carol", nil)
	return before, h.room.Hello().State, last
}

// TestTornRecord cuts the journal at every octet of its last record, in every way that a power cut
// leaves it. The room comes up as it was before that record, and goes on.
func TestTornRecord(t *testing.T) {
	h := newHall(t)
	before, after, last := records(h)
	text := h.journalText()
	for cut := last + 1; cut < len(text); cut++ {
		torn := map[string][]byte{"cut": text[:cut]}
		if cut >= last+recordHead && cut%8 == 0 {
			zeros := bytes.Clone(text)
			clear(zeros[cut:])
			torn["filled with zeros"] = zeros
		}
		if cut%8 == 1 {
			torn["nothing but zeros"] = append(bytes.Clone(text[:last]), make([]byte, cut-last)...)
		}
		for how, text := range torn {
			if bytes.Equal(text, h.journalText()) {
				continue // the record ends in a zero
			}
			r, err := h.withJournal(text)
			if err != nil {
				t.Fatalf("%s at octet %d: %v", how, cut, err)
			}
			if got := r.Hello().State; fmt.Sprint(got) != fmt.Sprint(before) {
				t.Fatalf("%s at octet %d:\n got  %+v\n want %+v", how, cut, got, before)
			}
			if cut%50 == 0 {
				goesOn(h, r)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := h.withJournal(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Hello().State; fmt.Sprint(got) != fmt.Sprint(after) {
		t.Errorf("the whole journal gives %+v, want %+v", got, after)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// goesOn has a room sign once more behind a record that was cut off, and reads its journal again.
func goesOn(h *hall, r *Room) {
	h.Helper()
	w := h.want("dave", nil, nil)
	log := h.log
	h.log = log.fork()
	index := h.add(alice, w.IssueIntent)
	reply, err := r.Handle(h.batch(r.Hello().State, signer.Call{Kind: signer.SignCert, Index: index, CSR: w.csr}))
	h.log = log
	if err != nil || codeOf(reply) != "" {
		h.Fatalf("signing behind a torn record: %v, %+v", err, reply)
	}
	if err := r.Close(); err != nil {
		h.Fatal(err)
	}
	again, err := h.reopen(filepath.Join(h.dir, "copy"))
	if err != nil {
		h.Fatal(err)
	}
	if got := again.Hello().State; fmt.Sprint(got) != fmt.Sprint(reply.State) {
		h.Fatalf("after a torn record:\n got  %+v\n want %+v", got, reply.State)
	}
	r.journal = again.journal // for the caller to close
}

// TestDamagedJournal flips a bit in every third octet in front of the last record: no room opens on that.
func TestDamagedJournal(t *testing.T) {
	h := newHall(t)
	_, _, last := records(h)
	text := h.journalText()
	refused := func(what string, text []byte) {
		t.Helper()
		r, err := h.withJournal(text)
		if err == nil {
			t.Fatalf("%s: a room opened: %+v", what, r.Hello().State)
		}
		if !strings.Contains(err.Error(), "restore the key room from its backup") {
			t.Fatalf("%s: the error does not say what to do: %v", what, err)
		}
		if left, err := os.ReadFile(filepath.Join(h.dir, "copy")); err != nil || !bytes.Equal(left, text) {
			t.Fatalf("%s: the damaged journal was changed (%v)", what, err)
		}
	}
	for i := 0; i < last; i += 3 {
		damaged := bytes.Clone(text)
		damaged[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("octet %d", i), damaged)
	}
	h.stop()
	first := recordHead + len(mustEncode(t, record{root: treeOf(nil).Root()}))
	refused("a record left out", append(bytes.Clone(text[:first]), text[last:]...))
	refused("a record twice", append(bytes.Clone(text[:first]), text...))
	refused("an empty file", nil)
	refused("garbage behind", append(bytes.Clone(text), bytes.Repeat([]byte{1}, recordHead)...))
}

func mustEncode(t *testing.T, r record) []byte {
	t.Helper()
	body, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestForeignJournal opens journals of another room, of another log, under another configuration, none
// at all, and one that is in use.
func TestForeignJournal(t *testing.T) {
	h := newHall(t)
	h.signed("alice", nil)
	fails := func(what, want string, edit func(*Options)) {
		t.Helper()
		o := h.options()
		edit(&o)
		r, err := Open(o)
		if err == nil {
			t.Fatalf("%s: opened with %+v", what, r.Hello().State)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error does not say %q: %v", what, want, err)
		}
	}
	fails("a room that runs", "another key room runs on this journal", func(*Options) {})
	h.stop()
	fails("another room", "belongs to another room", func(o *Options) { o.Config.Room += "x" })
	fails("another log", "belongs to another room", func(o *Options) { o.Config.Origin += "x" })
	fails("an issuer left out", "issuer users has signed in this room", func(o *Options) { o.Config.Issuers = o.Config.Issuers[1:] })
	journal := filepath.Join(h.config.State, "journal")
	if err := os.Rename(journal, journal+".away"); err != nil {
		t.Fatal(err)
	}
	fails("no journal", "a missing journal is never made anew: restore the key room from its backup", func(*Options) {})
	if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a journal was made: %v", err)
	}
}

// TestJournalChangesUnderTheRoom damages a record on the disk while the room runs: what it reads back is
// not believed.
func TestJournalChangesUnderTheRoom(t *testing.T) {
	h := newHall(t)
	w, der := h.signed("alice", nil)
	text := h.journalText()
	at := bytes.Index(text, der)
	f, err := os.OpenFile(filepath.Join(h.config.State, "journal"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{der[len(der)-1] ^ 1}, int64(at+len(der)-1)); err != nil {
		t.Fatal(err)
	}
	r := h.ask(signer.Call{Kind: signer.SignCert, Index: 1, CSR: w.csr})
	if r.Refused == nil || r.Refused.Code != "room.failed" || !strings.Contains(r.Refused.Reason, "changed since it was written") {
		t.Errorf("got %+v", r)
	}
}
