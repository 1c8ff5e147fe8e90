package keyroom

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

// TestRestore takes the delivery key away, as a backup does. The room does not start; Restore makes a new
// key only if everything else is there and whole; and what was sealed to the old one stays closed.
func TestRestore(t *testing.T) {
	h := newHall(t)
	old := h.room.Hello().DeliveryKey
	var sealed []byte
	w, der := h.signed("alice", func(w *wanted) {
		binding := signer.Binding{Caller: alice.Name, RequestID: w.RequestID, BodySHA256: w.BodySHA256}
		var err error
		if sealed, err = signer.Seal(old, binding, []byte("a key and a password")); err != nil {
			t.Fatal(err)
		}
		w.SealedSHA256 = cert.SHA256(sealed)
	})
	index, _ := h.log.Head()
	before := h.room.Hello().State
	if err := Restore(h.options()); err == nil || !strings.Contains(err.Error(), "needs no new one") {
		t.Errorf("while there is one: %v", err)
	}
	key, journal := filepath.Join(h.config.State, "delivery.key"), filepath.Join(h.config.State, "journal")
	whole, err := os.Stat(journal)
	if err != nil {
		t.Fatal(err)
	}
	h.signed("carol", nil)
	h.stop()
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(h.options()); err == nil || !strings.Contains(err.Error(), "run chancery-keyroom restore") {
		t.Errorf("without one: %v", err)
	}
	for name, damage := range map[string]string{
		"another passphrase": `chmod 600 "$1/secrets/keyroom.passphrase"; echo other words >"$1/secrets/keyroom.passphrase"; chmod 400 "$1/secrets/keyroom.passphrase"`,
		"a missing key":      `rm "$1/keyroom/users.key"`,
		"a missing log key":  `rm "$1/keyroom/log.key"`,
		"no journal":         `rm "$1/keyroom/journal"`,
		"a damaged journal":  `printf x | dd of="$1/keyroom/journal" bs=1 seek=60 conv=notrunc 2>&1`,
	} {
		spoiled := tempDir(t)
		tool(t, nil, "sh", "-ec", `cp -a "$2/." "$1"; `+damage, "sh", spoiled, h.dir)
		o := h.options()
		var err error
		if o.Config, err = LoadConfig(filepath.Join(spoiled, "keyroom.json")); err != nil {
			t.Fatal(err)
		}
		if err := Restore(o); err == nil {
			t.Errorf("%s: it made a delivery key", name)
		}
		if left, err := filepath.Glob(filepath.Join(o.Config.State, "delivery*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v %v", name, left, err)
		}
	}
	// The journal was copied while its last record was written.
	if err := os.Truncate(journal, whole.Size()+100); err != nil {
		t.Fatal(err)
	}
	if err := Restore(h.options()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(h.config.State, "delivery.key.new")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the draft is left behind")
	}
	h.start()
	h.equal(before)
	if h.room.Hello().DeliveryKey == old {
		t.Error("it is the old key")
	}
	again := h.add(alice, &audit.IssueRedelivered{Serial: w.Serial, Intent: index - 1, RequestID: w.RequestID, SealedSHA256: w.SealedSHA256, Room: h.config.Room})
	if r := h.ask(signer.Call{Kind: signer.Open, Index: again, Sealed: sealed}); r.Refused == nil || r.Refused.Code != "open.sealed" {
		t.Errorf("%+v", r)
	}
	if r := h.ask(signer.Call{Kind: signer.Settle, Index: index - 1}); string(r.DER) != string(der) {
		t.Error("it is not the certificate that it signed")
	}
	h.signed("bob", nil)
}
