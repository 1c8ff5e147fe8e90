package keyroom

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

// revocations has openssl verify a list and read it: per serial its date and reason.
func (h *hall) revocations(der []byte) map[cert.Serial]string {
	h.Helper()
	ca := filepath.Join(h.config.State, "users.pem")
	text := tool(h, der, "openssl", "crl", "-inform", "DER", "-noout", "-text", "-CAfile", ca)
	if !strings.Contains(text, "verify OK") {
		h.Fatalf("openssl does not verify the list:\n%s", text)
	}
	entries := make(map[cert.Serial]string)
	blocks := strings.Split(text, "Serial Number: ")
	for _, block := range blocks[1:] {
		serial, rest, _ := strings.Cut(block, "\n")
		date := regexp.MustCompile(`Revocation Date: (.*) GMT`).FindStringSubmatch(rest)
		at, err := time.Parse("Jan _2 15:04:05 2006", date[1])
		if err != nil {
			h.Fatal(err)
		}
		reason := "Unspecified"
		if _, after, found := strings.Cut(rest, "CRL Reason Code: \n"); found {
			reason = strings.TrimSpace(strings.Split(after, "\n")[0])
		}
		key := cert.Serial(strings.ToLower(strings.TrimSpace(serial)))
		if _, twice := entries[key]; twice {
			h.Errorf("serial %s stands twice in the list", key)
		}
		entries[key] = at.Format(time.RFC3339) + " " + reason
	}
	return entries
}

// lists signs a list and compares what openssl reads in it with want: serial, then seconds after noon and
// reason.
func (h *hall) lists(number string, want map[cert.Serial]string) {
	h.Helper()
	got := h.revocations(h.list(number))
	if len(got) != len(want) {
		h.Errorf("list %s has %d entries, want %d: %v", number, len(got), len(want), got)
	}
	for serial, entry := range want {
		if got[serial] != entry {
			h.Errorf("list %s, serial %s: %q, want %q", number, serial, got[serial], entry)
		}
	}
}

func at(d time.Duration, reason string) string {
	return noon.Add(d).Format(time.RFC3339) + " " + reason
}

// TestListsHoldEveryRevocation revokes in every way there is. Each list, also one after a restart, holds
// all of it.
func TestListsHoldEveryRevocation(t *testing.T) {
	h := newHall(t)
	w := make(map[string]wanted)
	for _, cn := range []string{"alice", "bob", "carol", "dave", "erin"} {
		w[cn], _ = h.signed(cn, nil)
	}
	want := map[cert.Serial]string{}
	h.lists("1", want)

	h.clock.step(time.Minute)
	h.revoke(w["alice"].Serial, cert.Unspecified)
	want[w["alice"].Serial] = at(time.Minute, "Unspecified")
	h.lists("2", want)

	// Two in one leaf, one of them on hold; and one that comes with the end of its issue.
	h.clock.step(time.Minute)
	now := h.clock.now()
	h.add(alice, &audit.RevokeDone{Revoked: []audit.Revocation{
		{Serial: w["bob"].Serial, Issuer: "users", At: now, Reason: cert.CertificateHold},
		{Serial: w["carol"].Serial, Issuer: "servers", At: now, Reason: cert.Superseded}, // the room knows better which issuer it was
	}, Pending: []cert.Serial{w["dave"].Serial}})
	h.add(daemon, &audit.IssueDone{Serial: w["dave"].Serial, Revocation: &audit.Revocation{
		Serial: w["dave"].Serial, Issuer: "users", At: now, Reason: cert.CessationOfOperation,
	}})
	want[w["bob"].Serial] = at(2*time.Minute, "Certificate Hold")
	want[w["carol"].Serial] = at(2*time.Minute, "Superseded")
	want[w["dave"].Serial] = at(2*time.Minute, "Cessation Of Operation")
	h.lists("3", want)
	h.restart()
	h.lists("4", want)

	// Never signed here: not listed.
	h.revoke("0102030405", cert.KeyCompromise)
	h.lists("5", want)
	if !strings.Contains(h.logged.String(), "never signed") {
		t.Error("the room's log does not tell of a revocation without a certificate")
	}

	// A reason rises, and the date stays; it never falls.
	h.clock.step(time.Minute)
	h.revoke(w["alice"].Serial, cert.KeyCompromise)
	h.revoke(w["bob"].Serial, cert.PrivilegeWithdrawn)
	h.revoke(w["carol"].Serial, cert.AffiliationChanged)
	h.revoke(w["dave"].Serial, cert.CertificateHold)
	want[w["alice"].Serial] = at(time.Minute, "Key Compromise")
	want[w["bob"].Serial] = at(2*time.Minute, "Privilege Withdrawn")
	h.lists("6", want)
	h.revoke(w["alice"].Serial, cert.Superseded)
	h.restart()
	h.lists("7", want)

	// Dates that no list can carry do not keep lists from being made.
	h.add(alice, &audit.RevokeDone{Revoked: []audit.Revocation{
		{Serial: w["erin"].Serial, Issuer: "users", Reason: cert.Superseded}, // year 1
	}})
	want[w["erin"].Serial] = "1950-01-01T00:00:00Z Superseded"
	frank, _ := h.signed("frank", nil)
	h.add(alice, &audit.RevokeDone{Revoked: []audit.Revocation{
		{Serial: frank.Serial, Issuer: "users", At: noon.Add(1500 * time.Millisecond), Reason: cert.Superseded},
	}})
	want[frank.Serial] = at(time.Second, "Superseded")
	// A date to come would let Java and NSS trust the certificate until then. The room puts its own.
	grace, _ := h.signed("grace", nil)
	h.add(alice, &audit.RevokeDone{Revoked: []audit.Revocation{
		{Serial: grace.Serial, Issuer: "users", At: noon.AddDate(900, 0, 0), Reason: cert.KeyCompromise},
	}})
	want[grace.Serial] = at(3*time.Minute, "Key Compromise") // the room's clock by now
	h.lists("8", want)
	h.restart()
	h.lists("9", want)
}

// TestReleases: a release takes a hold out of the lists, also after a restart, and nothing else.
func TestReleases(t *testing.T) {
	h := newHall(t)
	alice1, _ := h.signed("alice", nil)
	bob, _ := h.signed("bob", nil)
	carol, _ := h.signed("carol", nil)
	h.clock.step(time.Minute)
	h.revoke(alice1.Serial, cert.CertificateHold)
	h.revoke(bob.Serial, cert.KeyCompromise)
	h.revoke(carol.Serial, cert.CertificateHold)
	want := map[cert.Serial]string{
		alice1.Serial: at(time.Minute, "Certificate Hold"), bob.Serial: at(time.Minute, "Key Compromise"), carol.Serial: at(time.Minute, "Certificate Hold"),
	}
	h.lists("1", want)
	h.release(alice1.Serial)
	delete(want, alice1.Serial)
	h.lists("2", want)
	h.restart()
	h.lists("3", want)

	// What is not on hold stays, whatever the log says of it.
	for _, serial := range []cert.Serial{alice1.Serial, bob.Serial, "0102030405"} {
		h.release(serial)
	}
	h.lists("4", want)
	if n := strings.Count(h.logged.String(), "not on hold"); n != 3 {
		t.Errorf("the room's log tells of %d releases of nothing", n)
	}

	// Held again, it has a date of its own; restated, it can be released no more.
	h.clock.step(time.Minute)
	h.revoke(alice1.Serial, cert.CertificateHold)
	h.revoke(carol.Serial, cert.Superseded)
	want[alice1.Serial], want[carol.Serial] = at(2*time.Minute, "Certificate Hold"), at(time.Minute, "Superseded")
	h.release(carol.Serial)
	h.lists("5", want)
	h.restart()
	h.lists("6", want)
}

func (h *hall) release(serial cert.Serial) {
	h.Helper()
	h.add(alice, &audit.ReleaseDone{Released: []audit.Release{{Serial: serial, Issuer: "users"}}})
}

// TestRevocationInTheSameBatch brings the revocation and the list's intent together. Of one issuer there
// is one list in a batch: 64 large ones would exhaust the memory, and the journal record with them.
func TestRevocationInTheSameBatch(t *testing.T) {
	h := newHall(t)
	w, _ := h.signed("alice", nil)
	h.revoke(w.Serial, cert.KeyCompromise)
	var calls []signer.Call
	for _, number := range []string{"1", "2", "2", "3"} {
		calls = append(calls, signer.Call{Kind: signer.SignCRL, Index: h.add(daemon, h.crlIntent(number))})
	}
	other := h.crlIntent("1")
	other.Issuer = "servers"
	calls = append(calls, signer.Call{Kind: signer.SignCRL, Index: h.add(daemon, other)})
	c := h.dial()
	defer c.close()
	reply := c.ask(h.batch(c.state, calls...))
	for i, want := range []string{"", "batch.lists", "batch.lists", "batch.lists", ""} {
		r := reply.Results[i]
		if got := codeOf(signer.Reply{Results: []signer.Result{r}}); got != want {
			t.Errorf("call %d: code %q, want %q", i, got, want)
			continue
		}
		if want == "" && i < 4 && (len(h.revocations(r.DER)) != 1 || r.Entries != 1) {
			t.Errorf("call %d: the list does not hold the revocation of its own batch", i)
		}
	}
	if reply.Results[4].Entries != 0 {
		t.Errorf("the list of another issuer has %d entries", reply.Results[4].Entries)
	}
	if s := reply.State; s.Lists != 2 || s.ListNumbers["users"] != "1" || s.ListNumbers["servers"] != "1" {
		t.Errorf("state %+v", s)
	}
}

// days runs the room over many days with a record on each, as a service does: a list a day.
func (h *hall) days(n int, number *int) {
	h.Helper()
	for range n {
		h.clock.step(24 * time.Hour)
		h.daily(number)
	}
}

func (h *hall) daily(number *int) {
	h.Helper()
	*number++
	h.list(fmt.Sprint(*number))
}

func (h *hall) listed(number *int, serial cert.Serial) bool {
	h.Helper()
	*number++
	_, ok := h.revocations(h.list(fmt.Sprint(*number)))[serial]
	return ok
}

// shortLived wants a certificate that ends two days after noon.
func (h *hall) shortLived(w *wanted) { w.NotAfter = noon.Add(2 * 24 * time.Hour) }

// TestEntriesLeave lets certificates expire: an entry leaves 7 days later, and not without a list after
// the expiry that held it.
func TestEntriesLeave(t *testing.T) {
	h := newHall(t)
	number := 0
	w, _ := h.signed("alice", h.shortLived)
	stays, _ := h.signed("bob", nil)
	h.revoke(w.Serial, cert.KeyCompromise)
	h.revoke(stays.Serial, cert.KeyCompromise)
	h.days(9, &number) // to the very second on which 7 days have passed
	if !h.listed(&number, w.Serial) {
		t.Error("the entry left before 7 days had passed")
	}
	h.restart()
	h.clock.step(time.Second)
	if h.listed(&number, w.Serial) {
		t.Error("the entry is still listed after 7 days")
	}
	if !h.listed(&number, stays.Serial) {
		t.Error("the entry of a certificate that is still valid has left")
	}
	last := h.room.Hello().State
	h.restart()
	h.equal(last)
	if h.listed(&number, w.Serial) || !h.listed(&number, stays.Serial) {
		t.Error("a restart changed the list")
	}
}

// TestEntryHeldOnceMore revokes a certificate when it has long expired: one list holds it all the same.
func TestEntryHeldOnceMore(t *testing.T) {
	h := newHall(t)
	number := 0
	w, _ := h.signed("alice", h.shortLived)
	h.days(12, &number)
	h.revoke(w.Serial, cert.KeyCompromise)
	if !h.listed(&number, w.Serial) {
		t.Error("a revocation was in no list")
	}
	if h.listed(&number, w.Serial) {
		t.Error("an expired entry stays although a list held it")
	}
}

// TestLastListBeforeExpiry signs no list between the expiry and the day on which the entry could leave:
// the first one after that still holds it.
func TestLastListBeforeExpiry(t *testing.T) {
	h := newHall(t)
	number := 0
	w, _ := h.signed("alice", h.shortLived)
	h.revoke(w.Serial, cert.KeyCompromise)
	h.daily(&number)
	for range 13 { // records, but no lists
		h.clock.step(23 * time.Hour)
		h.add(daemon, &audit.ServiceStopped{})
		h.ask(signer.Call{Kind: signer.Checkpoint})
	}
	if !h.listed(&number, w.Serial) {
		t.Error("no list after the expiry held the entry")
	}
	if h.listed(&number, w.Serial) {
		t.Error("the entry stays although a list after the expiry held it")
	}
}

// TestClockStep moves the clock forward by more than a day at once. Lists are signed, but nothing leaves
// them until an operator has confirmed the clock.
func TestClockStep(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint("restarted-", restarted), func(t *testing.T) {
			h := newHall(t)
			number := 0
			w, _ := h.signed("alice", h.shortLived)
			h.revoke(w.Serial, cert.KeyCompromise)
			h.days(3, &number) // a list after the expiry holds it
			if restarted {
				h.stop()
			}
			h.clock.step(30 * 24 * time.Hour)
			if restarted {
				h.start()
			}
			for range 3 {
				if !h.listed(&number, w.Serial) {
					t.Fatal("an entry left after a clock step")
				}
				h.restart()
				h.clock.step(time.Hour)
			}
			h.signed("bob", nil)
			if err := h.room.ConfirmClock(); err != nil {
				t.Fatal(err)
			}
			last := h.room.Hello().State
			h.restart()
			h.equal(last)
			if h.listed(&number, w.Serial) {
				t.Error("the entry stays although the clock was confirmed")
			}
		})
	}
}

// TestConfirmClockCommand runs the program's own command against an installation whose room is off.
func TestConfirmClockCommand(t *testing.T) {
	h := newHall(t)
	h.signed("alice", nil)
	sequence := h.room.Hello().State.Sequence
	h.stop()
	tool(t, nil, command(t), "confirm-clock", "--config", filepath.Join(h.dir, "keyroom.json"))
	h.start()
	if got := h.room.Hello().State.Sequence; got != sequence+1 {
		t.Errorf("%d records after the confirmation, %d before", got, sequence)
	}
}

// TestListsStayCheap keeps the encoded entries from list to list; they are the same octets as when they
// are made anew.
func TestListsStayCheap(t *testing.T) {
	h := newHall(t)
	number := 0
	var made [][]byte
	for _, cn := range []string{"alice", "bob", "carol"} {
		w, _ := h.signed(cn, nil)
		h.clock.step(time.Second)
		h.revoke(w.Serial, cert.Superseded)
		h.daily(&number)
		made = append(made, slices.Clone(h.room.issuers["users"].revoked.encoded))
	}
	h.restart()
	h.daily(&number)
	if got := h.room.issuers["users"].revoked.encoded; !bytes.Equal(got, made[2]) || !bytes.HasPrefix(got, made[1]) {
		t.Error("entries kept and entries made anew differ")
	}
}

// TestRootList reads the list of the root, which the ceremony signed.
func TestRootList(t *testing.T) {
	dir := install(t, noon)
	text, err := os.ReadFile(filepath.Join(dir, "keyroom", "root.crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	out := tool(t, text, "openssl", "crl", "-noout", "-text", "-CAfile", filepath.Join(dir, "trust", "root.pem"))
	for _, want := range []string{"verify OK", "No Revoked Certificates", "X509v3 CRL Number: \n                1\n", "Last Update: Dec  1 12:00:00 2026 GMT", "Next Update: Jan  5 12:00:00 2028 GMT"} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not say %q:\n%s", want, out)
		}
	}
}
