package crl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// history is what was acknowledged, and what every list has to agree with.
type history struct {
	*world
	names   int
	live    []cert.Serial
	revoked []cert.Serial
	number  string
}

// day issues two certificates and revokes one, as far as the clocks allow it, and tells why not.
func (h *history) day() error {
	h.Helper()
	for range 2 {
		h.names++
		cn := fmt.Sprint("user", h.names)
		n, err := name.Canonical(cert.User, cn)
		h.must(err)
		issued, err := h.authority.Issue(context.Background(), ca.Call{Who: alice, Rule: "test", RequestID: cn, BodySHA256: cert.SHA256([]byte(cn))},
			ca.IssueRequest{Purpose: cert.User, Name: n})
		if err != nil {
			return err
		}
		h.live = append(h.live, issued.Serial)
	}
	h.revoke(h.live[0], cert.Superseded)
	h.live, h.revoked = h.live[1:], append(h.revoked, h.live[0])
	return nil
}

// published wants git to hold a current list, newer than the last one, with everything that is revoked.
func (h *history) published() {
	h.Helper()
	h.clock.step(lastRetry)
	h.publish()
	l := h.list("users")
	h.must(l.Current(h.clock.now()))
	if h.number != "" && l.Number.Cmp(number(h.number)) <= 0 {
		h.Errorf("list %s after list %s", l.Number, h.number)
	}
	h.number = l.Number.String()
	for _, serial := range h.revoked {
		if _, ok := l.Find(serial); !ok {
			h.Errorf("%s is not in list %s", serial, l.Number)
		}
	}
	if len(l.Entries) != len(h.revoked) {
		h.Errorf("list %s has %d entries, %d are revoked", l.Number, len(l.Entries), len(h.revoked))
	}
	for _, serial := range h.live {
		found, err := h.store.Find(context.Background(), store.Query{Serial: serial})
		h.must(err)
		if len(found) != 1 || found[0].State != store.StateLive {
			h.Errorf("acknowledged, and the books say %+v", found)
		}
	}
}

// The clock of the machine steps, in mid-run or while both processes are down, and is put right later.
// Nothing that was acknowledged is lost, numbers rise, and the service works at each of the times.
func TestMachineClockSteps(t *testing.T) {
	for _, by := range []time.Duration{26 * time.Hour, 40 * 24 * time.Hour, -time.Hour, -26 * time.Hour} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s down %v", by, down), func(t *testing.T) {
				h := &history{world: newWorld(t)}
				h.clock.step(60 * 24 * time.Hour) // the CAs are from today
				h.must(h.day())
				h.published()
				for _, step := range []time.Duration{by, -by} {
					if down {
						h.signer.Close()
						h.stopRoom()
					}
					h.clock.step(step)
					if down {
						h.startRoom()
						h.connect()
					}
					h.must(h.day())
					h.published()
				}
			})
		}
	}
}

// The clocks of the daemon and of the key room part, as they do for a moment when the machine's clock is
// set between an intent and its signature. The room refuses what is out of its window, and nothing is
// lost by that.
func TestClocksPart(t *testing.T) {
	for by, want := range map[time.Duration]struct{ issue, list string }{
		4 * time.Minute:   {"intent.late", ""},
		-4 * time.Minute:  {"", ""},
		10 * time.Minute:  {"intent.late", "crl.this_update"},
		-10 * time.Minute: {"", "crl.this_update"},
		26 * time.Hour:    {"intent.not_before", "crl.this_update"},
		-26 * time.Hour:   {"intent.not_before", "crl.this_update"},
	} {
		t.Run(by.String(), func(t *testing.T) {
			h := &history{world: newWorld(t)}
			h.must(h.day())
			h.published()
			h.apart.step(by)
			err := h.day()
			if !refusedWith(err, want.issue) {
				t.Errorf("issuing says %v; want %q", err, want.issue)
			}
			h.revoke(h.live[0], cert.KeyCompromise)
			h.revoked, h.live = append(h.revoked, h.live[0]), h.live[1:]
			h.clock.step(lastRetry)
			_, err = h.loop.PayOnce(t.Context())
			if !refusedWith(err, want.list) {
				t.Errorf("publishing says %v; want %q", err, want.list)
			}
			if said := strings.Join(h.alarms(codeSign), "\n"); (want.list != "") != strings.Contains(said, "more than 5 minutes from the room's clock") {
				t.Errorf("the log says %q", said)
			}
			if _, owed, err := h.store.Owed(t.Context(), store.CRL, "users"); err != nil || owed != (want.list != "") {
				t.Errorf("owed %v: %v", owed, err)
			}
			h.apart.step(-by)
			h.must(h.day())
			h.published()
		})
	}
}

func refusedWith(err error, code string) bool {
	var refused *signer.Refusal
	if errors.As(err, &refused) {
		return refused.Code == code
	}
	return err == nil && code == ""
}
