package ca

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/signer"
)

// TestRetryAcrossRotations: the keys change, both processes start anew, and a retry still gets the same
// octets, as long as the window is open.
func TestRetryAcrossRotations(t *testing.T) {
	w := newWorld(t)
	first := w.issue("one", "Alice")
	to := []string{w.sealedTo(first)}
	w.clock.step(time.Hour)
	w.same(first, w.issue("one", "Alice"))
	second := w.issue("two", "Bob")
	w.clock.step(time.Hour)
	w.restart()
	third := w.issue("three", "Carol")
	to = append(to, w.sealedTo(second), w.sealedTo(third))
	if to[0] == to[1] || to[1] == to[2] || to[0] == to[2] {
		t.Errorf("sealed to %q", to)
	}
	for id, issued := range map[string]*Issued{"one": first, "two": second, "three": third} {
		w.same(issued, w.issue(id, issued.CN))
	}
	w.clock.step(22*time.Hour - time.Minute)
	w.same(first, w.issue("one", "Alice"))
}

// sealedTo names the key that the secrets of a certificate are sealed to.
func (w *world) sealedTo(i *Issued) string {
	w.Helper()
	to, ok := signer.SealedTo(w.certificate(i.Serial).Sealed)
	if !ok {
		w.Fatal("nothing is sealed")
	}
	return string(to[:])
}

// TestSecretsThatDoNotOpen: whatever the reason, the room will not open them another time either. So the
// answer is the certificate, and never that nothing is known.
func TestSecretsThatDoNotOpen(t *testing.T) {
	again := func(w *world, change func()) {
		w.signer.Close()
		w.stopRoom()
		change()
		w.startRoom()
		w.connect()
	}
	for name, spoil := range map[string]func(*world, *Issued){
		"the window is over, and the daemon has not dropped them": func(w *world, _ *Issued) { w.clock.step(25*time.Hour + 10*time.Minute) },
		"the keys are lost, as by a reboot": func(w *world, _ *Issued) {
			again(w, func() { w.must(os.Remove(filepath.Join(w.config.State, "delivery.keys"))) })
		},
		"the window was closed": func(w *world, _ *Issued) {
			none := 0
			again(w, func() { w.config.DeliveryHours = &none })
		},
		"they are damaged": func(w *world, i *Issued) {
			w.disconnect()
			w.tool(nil, "python3", "-c", `import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
(sealed,) = c.execute("SELECT sealed FROM certificate WHERE serial = ?", [sys.argv[2]]).fetchone()
c.execute("UPDATE certificate SET sealed = ? WHERE serial = ?", [sealed[:-1] + bytes([sealed[-1] ^ 1]), sys.argv[2]])
c.commit()`, w.books(), string(i.Serial))
			w.reopenStore()
			w.connect()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.issue("one", "Alice")
			if w.certificate(first.Serial).Sealed == nil {
				t.Fatal("nothing is sealed")
			}
			spoil(w, first)
			from := w.head()
			for range 2 {
				got, err := w.authority.Issue(t.Context(), call("one", "Alice"), w.request(cert.User, "Alice"))
				if err != nil || got.Code != "issued.secrets_gone" || got.PKCS12 != nil || got.Password != "" || !bytes.Equal(got.Certificate, first.Certificate) {
					t.Fatalf("%+v, %v", got, err)
				}
			}
			for _, e := range w.events(from) {
				if answering, ok := e.(*audit.IssueAnswering); ok && answering.Secrets {
					t.Errorf("the log says %s, with secrets", w.types(from))
				}
			}
			w.issue("two", "Bob")
		})
	}
}

// TestOpenUnknown: that the room did not answer, or failed, is not that the secrets are gone.
func TestOpenUnknown(t *testing.T) {
	w := newWorld(t)
	first := w.issue("one", "Alice")
	w.wire.once(signer.Open, cutAfter)
	if _, err := w.authority.Issue(t.Context(), call("one", "Alice"), w.request(cert.User, "Alice")); !errors.Is(err, signer.ErrUnknown) {
		t.Errorf("%v; want unknown", err)
	}
	w.same(first, w.issue("one", "Alice"))
}

// TestNothingIsSealedForNobody: with no delivery hours the daemon seals nothing, and the log says so.
func TestNothingIsSealedForNobody(t *testing.T) {
	none := 0
	w := newWorld(t, func(c *keyroom.Config) { c.DeliveryHours = &none })
	from := w.head()
	issued := w.issue("one", "Alice")
	if intent := w.events(from)[0].(*audit.IssueIntent); intent.SealedSHA256 != "" || intent.KeyMadeBy != "ca" || w.certificate(issued.Serial).Sealed != nil {
		t.Errorf("%+v", intent)
	}
	// The window is opened while the daemon runs.
	w.config.DeliveryHours = nil
	w.stopRoom()
	w.startRoom()
	_, _ = w.signer.Checkpoint(t.Context()) // on the old line
	if _, err := w.signer.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := w.issue("two", "Bob")
	w.same(second, w.issue("two", "Bob"))
	if n, err := w.authority.ForgetSecrets(t.Context()); n != 0 || err != nil {
		t.Errorf("forgot %d: %v", n, err)
	}
}

// TestNoRoomForAKey: the hour is over and the key room is away. Nothing is done, and that much is known.
func TestNoRoomForAKey(t *testing.T) {
	w := newWorld(t)
	w.issue("zero", "Bob")
	w.clock.step(2 * time.Hour)
	from := w.head()
	w.stopRoom()
	w.wire.close()
	if _, err := w.authority.Issue(context.Background(), call("one", "Alice"), w.request(cert.User, "Alice")); !errors.Is(err, signer.ErrUnreachable) || errors.Is(err, signer.ErrUnknown) {
		t.Errorf("%v; want unreachable", err)
	}
	if w.head() != from {
		t.Errorf("the log says %s", w.types(from))
	}
	w.startRoom()
	w.wire = newWire(t, w.wire.path, w.config.Socket)
	w.issue("one", "Alice")
}
