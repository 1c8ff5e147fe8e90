package keyroom

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
)

// TestOpen has the room open sealed secrets, and then everything that is not the same request by the
// same caller with the same secrets.
func TestOpen(t *testing.T) {
	h := newHall(t)
	secrets := []byte("a key and a password")
	seal := func(who audit.Actor, w *audit.IssueIntent) []byte {
		t.Helper()
		binding := signer.Binding{Caller: who.Name, RequestID: w.RequestID, BodySHA256: w.BodySHA256}
		sealed, err := signer.Seal(h.room.Hello().State.Delivery.Public, binding, secrets)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	var sealed []byte
	spoil := func(w *audit.IssueIntent, change func([]byte) []byte) {
		sealed = change(sealed)
		w.SealedSHA256 = cert.SHA256(sealed)
	}
	intend := func(who audit.Actor, cn string, spoil func(*audit.IssueIntent)) (int64, *audit.IssueIntent) {
		w := h.want(cn, nil, func(w *wanted) {
			sealed = seal(who, w.IssueIntent)
			w.SealedSHA256 = cert.SHA256(sealed)
			if spoil != nil {
				spoil(w.IssueIntent)
			}
		})
		index := h.add(who, w.IssueIntent)
		if w.Room == h.config.Room && cn != "erin" {
			if r := h.ask(signer.Call{Kind: signer.SignCert, Index: index, CSR: w.csr}); r.Refused != nil {
				t.Fatal(r.Refused)
			}
		}
		return index, w.IssueIntent
	}
	other, otherIntent := intend(audit.Actor{Kind: audit.ByCaller, Name: "somebody"}, "bob", nil)
	otherSealed := sealed
	moved, movedIntent := intend(alice, "carol", func(w *audit.IssueIntent) { w.BodySHA256 = cert.SHA256([]byte("another body")) })
	movedSealed := sealed
	foreign, foreignIntent := intend(alice, "dave", func(w *audit.IssueIntent) { w.Room = "room-other" })
	foreignSealed := sealed
	strange, strangeIntent := intend(alice, "frank", func(w *audit.IssueIntent) { spoil(w, func(b []byte) []byte { b[0] ^= 1; return b }) })
	strangeSealed := sealed
	short, shortIntent := intend(alice, "grace", func(w *audit.IssueIntent) { spoil(w, func(b []byte) []byte { return b[:4] }) })
	shortSealed := sealed
	unsigned, unsignedIntent := intend(alice, "erin", nil)
	unsignedSealed := sealed
	index, intent := intend(alice, "alice", nil)
	again := func(i int64, w *audit.IssueIntent) audit.IssueRedelivered {
		return audit.IssueRedelivered{Serial: w.Serial, Intent: i, RequestID: w.RequestID, SealedSHA256: w.SealedSHA256, Room: h.config.Room}
	}
	open := func(who audit.Actor, e audit.IssueRedelivered, sealed []byte) signer.Result {
		t.Helper()
		return h.ask(signer.Call{Kind: signer.Open, Index: h.add(who, &e), Sealed: sealed})
	}
	newKey := alice
	newKey.Key, newKey.Peer = strings.Repeat("ab", 32), "192.0.2.1:4711" // keys are a caller's credentials, not the caller
	for _, who := range []audit.Actor{alice, newKey} {
		before := h.room.Hello().State
		if r := open(who, again(index, intent), sealed); !bytes.Equal(r.Secrets, secrets) {
			t.Errorf("the secrets do not open: %+v", r)
		}
		if after := h.room.Hello().State; after.Sequence != before.Sequence+1 {
			t.Error("an opening is not in the journal")
		}
	}
	size, _ := h.log.Head()
	edit := func(change func(*audit.IssueRedelivered)) audit.IssueRedelivered {
		e := again(index, intent)
		change(&e)
		return e
	}
	operator := audit.Actor{Kind: audit.ByOperator, Name: alice.Name}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name, code string
		who        audit.Actor
		leaf       audit.IssueRedelivered
		sealed     []byte
	}{
		{"another caller", "open.caller", audit.Actor{Kind: audit.ByCaller, Name: "somebody"}, again(index, intent), sealed},
		{"nobody", "open.caller", audit.Actor{Kind: audit.ByCaller}, again(index, intent), sealed},
		{"an operator with the caller's name", "open.caller", operator, again(index, intent), sealed},
		{"the request of another caller", "open.caller", alice, again(other, otherIntent), otherSealed},
		{"another request", "open.request", alice, edit(func(e *audit.IssueRedelivered) { e.RequestID = "r-bob" }), sealed},
		{"another serial", "open.request", alice, edit(func(e *audit.IssueRedelivered) { e.Serial = otherIntent.Serial }), sealed},
		{"another blob", "open.sealed", alice, again(index, intent), flipped},
		{"somebody else's blob", "open.sealed", alice, again(index, intent), otherSealed},
		{"no blob", "open.sealed", alice, again(index, intent), nil},
		{"a blob to another key", "open.gone", alice, again(strange, strangeIntent), strangeSealed},
		{"half a name of a key", "open.gone", alice, again(short, shortIntent), shortSealed},
		{"another hash", "open.sealed", alice, edit(func(e *audit.IssueRedelivered) { e.SealedSHA256 = otherIntent.SealedSHA256 }), sealed},
		{"bound to another body", "open.sealed", alice, again(moved, movedIntent), movedSealed},
		{"a certificate that was not signed", "open.unsigned", alice, again(unsigned, unsignedIntent), unsignedSealed},
		{"a leaf for another room", "intent.other_room", alice, edit(func(e *audit.IssueRedelivered) { e.Room = "room-other" }), sealed},
		{"an intent of another room", "intent.other_room", alice, again(foreign, foreignIntent), foreignSealed},
		{"no intent", "index.kind", alice, edit(func(e *audit.IssueRedelivered) { e.Intent = 0 }), sealed},
		{"an intent to come", "index.unknown", alice, edit(func(e *audit.IssueRedelivered) { e.Intent = size + 100 }), sealed},
		{"an intent before the log", "index.unknown", alice, edit(func(e *audit.IssueRedelivered) { e.Intent = -1 }), sealed},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			r := open(c.who, c.leaf, c.sealed)
			if r.Secrets != nil || r.Refused == nil || r.Refused.Code != c.code {
				t.Errorf("got %+v, want %s", r, c.code)
			}
		})
	}
	if r := h.ask(signer.Call{Kind: signer.Open, Index: index, Sealed: sealed}); r.Refused == nil || r.Refused.Code != "index.kind" {
		t.Errorf("opening on the intent itself: %+v", r)
	}
	h.clock.step(defaultDeliveryHours*time.Hour + maxBackdate - profile.Backdate)
	if r := open(alice, again(index, intent), sealed); !bytes.Equal(r.Secrets, secrets) {
		t.Errorf("the secrets do not open in time: %+v", r)
	}
	h.clock.step(time.Second)
	if r := open(alice, again(index, intent), sealed); r.Secrets != nil || r.Refused == nil || r.Refused.Code != "open.late" {
		t.Errorf("the secrets open late: %+v", r)
	}
	for _, c := range []struct {
		hours int
		code  string
	}{{25, ""}, {0, "open.late"}, {25, "open.gone"}} { // without hours there are no keys, and they do not come back
		h.config.DeliveryHours = &c.hours
		h.restart()
		if r := open(alice, again(index, intent), sealed); c.code == "" && !bytes.Equal(r.Secrets, secrets) || c.code != "" && (r.Refused == nil || r.Refused.Code != c.code) {
			t.Errorf("with %d hours: %+v", c.hours, r)
		}
	}
}
