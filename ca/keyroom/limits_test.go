package keyroom

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
)

// TestOwnLimits asks for what the room's configuration or its profile does not allow, and for what lies
// on the border and is allowed.
func TestOwnLimits(t *testing.T) {
	h := newHall(t, func(c *Config) {
		c.Issuers[0].MaxValidityDays = 90 // narrower than the profile
	})
	h.clock.step(2 * time.Hour) // the issuers are older than the oldest notBefore
	seconds := func(field string, d time.Duration) func(*wanted) {
		return func(w *wanted) {
			v := reflect.ValueOf(w.IssueIntent).Elem().FieldByName(field)
			v.Set(reflect.ValueOf(h.clock.now().Add(d)))
		}
	}
	server := func(dns ...string) func(*wanted) {
		return func(w *wanted) {
			w.Issuer, w.Purpose, w.SANs.DNS = "servers", cert.Server, dns
			w.CN = dns[0]
		}
	}
	mail := func(address string) func(*wanted) { return func(w *wanted) { w.SANs.Email = []string{address} } }
	for _, c := range []struct {
		name, code  string
		edit, spoil func(*wanted)
	}{
		{"another room", "intent.other_room", func(w *wanted) { w.Room = "room-other" }, nil},
		{"an issuer of another room", "intent.issuer", func(w *wanted) { w.Issuer = "others" }, nil},
		{"the root as issuer", "intent.issuer", func(w *wanted) { w.Issuer = cert.Root }, nil},
		{"a purpose of another issuer", "policy.purpose", func(w *wanted) { w.Purpose = cert.Caller }, nil},
		{"a purpose that there is not", "policy.purpose", func(w *wanted) { w.Purpose = "ca" }, nil},
		{"after the deadline", "intent.late", seconds("Deadline", -time.Microsecond), nil},
		{"at the deadline", "", seconds("Deadline", 0), nil},
		{"notBefore too old", "intent.not_before", seconds("NotBefore", -maxBackdate-time.Second), nil},
		{"notBefore just not too old", "", seconds("NotBefore", -maxBackdate), nil},
		{"notBefore in the future", "intent.not_before", seconds("NotBefore", clockSkew+time.Second), nil},
		{"notBefore just within the skew", "", seconds("NotBefore", clockSkew), nil},
		{"valid for too long", "policy.validity", seconds("NotAfter", 90*24*time.Hour-profile.Backdate), nil},
		{"valid for as long as may be", "", seconds("NotAfter", 90*24*time.Hour-profile.Backdate-time.Second), nil},
		{"valid until year 9999", "policy.validity", func(w *wanted) { w.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, nil},
		{"valid backwards", "validity.order", seconds("NotAfter", -time.Hour), nil},
		{"a host outside the domain", "policy.name", server("www.example.com"), nil},
		{"a host that ends like the domain", "policy.name", server("badexample.org"), nil},
		{"one of two hosts outside", "policy.name", server("www.example.org", "example.net"), nil},
		{"a host in the domain", "", server("www.example.org", "example.org"), nil},
		{"a mailbox outside the domain", "policy.name", mail("alice@example.com"), nil},
		{"a mailbox with two signs", "policy.name", mail("alice@example.org@example.com"), nil},
		{"a mailbox with the domain in front", "san.email", mail("alice@example.com@example.org"), nil},
		{"a mailbox in the domain", "", mail("alice@mail.example.org"), nil},
		{"a wildcard", "san.dns", server("*.example.org"), nil},
		{"an address", "san.constraint", func(w *wanted) { server("www.example.org")(w); w.SANs.IP = []string{"192.0.2.1"} }, nil},
		{"a URI", "san.kind", func(w *wanted) { w.SANs.URI = []string{"https://www.example.org/"} }, nil},
		{"a newline in the name", "name.cn", func(w *wanted) { w.CN = "alice\nbob" }, nil},
		{"a serial of zero", "serial.invalid", func(w *wanted) { w.Serial = "00" }, nil},
		{"no CSR", "csr.malformed", nil, func(w *wanted) { w.csr = nil }},
		{"garbage for a CSR", "csr.malformed", nil, func(w *wanted) { w.csr = []byte("0\x82") }},
		{"a key that is not in the intent", "csr.other_key", nil, func(w *wanted) { w.SPKISHA256 = cert.SHA256(nil) }},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			h := *h
			h.T = t
			before := h.room.Hello().State
			r := h.signCert(h.want("alice", c.edit, c.spoil))
			switch {
			case c.code == "" && r.Refused == nil:
				before.Certificates++
			case r.Refused == nil:
				t.Errorf("signed, want %s", c.code)
			case r.Refused.Code != c.code:
				t.Errorf("got %s (%s), want %q", r.Refused.Code, r.Refused.Reason, c.code)
			}
			h.same(before)
		})
	}
}

// TestOwnRates fills the hour and the day; neither a batch nor a restart is a way around them.
func TestOwnRates(t *testing.T) {
	h := newHall(t, func(c *Config) { c.PerHour, c.PerDay = 3, 5 })
	many := func(n int) (codes string) {
		var calls []signer.Call
		for i := range n {
			w := h.want(fmt.Sprint("user", i), nil, nil)
			calls = append(calls, signer.Call{Kind: signer.SignCert, Index: h.add(alice, w.IssueIntent), CSR: w.csr})
		}
		c := h.dial()
		defer c.close()
		for _, r := range c.ask(h.batch(c.state, calls...)).Results {
			if r.Refused != nil {
				codes += r.Refused.Code + " "
			} else {
				codes += "ok "
			}
		}
		return codes
	}
	check := func(n int, want string) {
		t.Helper()
		if got := many(n); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check(4, "ok ok ok rate.hour ")
	h.restart()
	check(1, "rate.hour ")
	h.clock.step(-10 * time.Minute) // what was signed is not in the future
	check(1, "rate.hour ")
	h.clock.step(10 * time.Minute)
	h.clock.step(time.Hour)
	check(3, "ok ok rate.day ")
	h.restart()
	h.clock.step(time.Hour)
	check(1, "rate.day ")
	h.clock.step(22 * time.Hour)
	check(4, "ok ok ok rate.hour ") // the first three have left the day, and three more leave room for none this hour
	h.clock.step(time.Hour)
	check(3, "ok ok rate.day ")
}

// TestLogOfAnotherRoom shows the room first leaves that are not the beginning of its own log.
func TestLogOfAnotherRoom(t *testing.T) {
	h := newHall(t)
	good := opening(h.room.Hello())
	for name, spoil := range map[string]func(*audit.LogOpened){
		"origin":       func(o *audit.LogOpened) { o.Origin = "example.org/other" },
		"room":         func(o *audit.LogOpened) { o.Room = "room-other" },
		"log key":      func(o *audit.LogOpened) { o.LogKey = good.RecoveryKey },
		"recovery key": func(o *audit.LogOpened) { o.RecoveryKey = good.LogKey },
	} {
		bad := *good
		spoil(&bad)
		h.refusesFirst(name, &bad)
	}
	h.refusesFirst("not an opening", &audit.ServiceStopped{})
	h.signed("alice", nil)
	h.refusesNext("a second opening", good, "log.other")
}

func (h *hall) refusesFirst(name string, event audit.Event) {
	h.Helper()
	log := h.log
	defer func() { h.log = log }()
	h.log = new(memLog)
	h.refusesNext(name, event, "log.other")
}

// refusesNext enters event on a fork of the log and expects that the room refuses the leaf.
func (h *hall) refusesNext(name string, event audit.Event, code string) {
	h.Helper()
	log := h.log
	defer func() { h.log = log }()
	h.log = log.fork()
	h.add(daemon, event)
	c := h.dial()
	defer c.close()
	before := c.state
	reply := c.ask(h.batch(c.state, signer.Call{Kind: signer.Checkpoint}))
	if reply.Refused == nil || reply.Refused.Code != code {
		h.Errorf("%s: got %+v, want a refusal of the batch with %s", name, reply, code)
	}
	h.equal(before)
}

// TestOldCopyOfTheRoom shows the room leaves that have seen more of its journal than there is, or
// another record than it holds, in every kind of event that tells of the room.
func TestOldCopyOfTheRoom(t *testing.T) {
	h := newHall(t)
	h.signed("alice", nil)
	now := h.room.Hello().State
	told := audit.RoomState{Room: h.config.Room, Sequence: now.Sequence, Journal: now.Journal}
	later, other, none, foreign := told, told, told, told
	later.Sequence++
	other.Journal = strings.Repeat("00", 32)
	none.Sequence = 0
	foreign.Room, foreign.Sequence = "room-other", 1000
	kinds := 0
	for _, event := range audit.Events() {
		field := reflect.ValueOf(event).Elem().FieldByName("Room")
		if !field.IsValid() || field.Type() != reflect.TypeFor[audit.RoomState]() {
			continue
		}
		kinds++
		for code, state := range map[string]audit.RoomState{"room.behind": later, "room.diverged": other} {
			field.Set(reflect.ValueOf(state))
			h.refusesNext(event.Type(), event, code)
		}
		field.Set(reflect.ValueOf(none))
		h.refusesNext(event.Type(), event, "room.behind")
	}
	if kinds != 5 {
		t.Errorf("%d kinds of event tell of the room, want 5", kinds)
	}
	h.add(daemon, &audit.ServiceStarted{Room: told})
	h.add(daemon, &audit.ServiceStarted{Room: foreign})
	h.signed("bob", nil)
}
