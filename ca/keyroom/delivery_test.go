package keyroom

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
)

// parcel is what is sealed for one caller, and how to ask for it.
type parcel struct {
	wanted
	index  int64
	sealed []byte
	to     string
}

var content = []byte("a key and a password")

// send seals something to the key of the hour and has its certificate signed.
func (h *hall) send(cn string) *parcel {
	h.Helper()
	return h.sendTo(cn, h.current())
}

func (h *hall) sendTo(cn, to string) *parcel {
	h.Helper()
	p := &parcel{to: to}
	p.wanted = h.want(cn, nil, func(w *wanted) {
		binding := signer.Binding{Caller: alice.Name, RequestID: w.RequestID, BodySHA256: w.BodySHA256}
		var err error
		if p.sealed, err = signer.Seal(p.to, binding, content); err != nil {
			h.Fatal(err)
		}
		w.SealedSHA256 = cert.SHA256(p.sealed)
	})
	p.index = h.add(alice, p.IssueIntent)
	if r := h.ask(signer.Call{Kind: signer.SignCert, Index: p.index, CSR: p.csr}); r.Refused != nil {
		h.Fatal(r.Refused)
	}
	return p
}

// collect asks for it, and gives "opened" or the code of the refusal.
func (h *hall) collect(p *parcel) string {
	h.Helper()
	leaf := h.add(alice, &audit.IssueRedelivered{Serial: p.Serial, Intent: p.index, RequestID: p.RequestID, SealedSHA256: p.SealedSHA256, Room: h.config.Room})
	r := h.ask(signer.Call{Kind: signer.Open, Index: leaf, Sealed: p.sealed})
	switch {
	case r.Refused != nil:
		return r.Refused.Code
	case !bytes.Equal(r.Secrets, content):
		h.Errorf("they are %q", r.Secrets)
	}
	return "opened"
}

func (h *hall) current() string { return h.room.Hello().State.Delivery.Public }

func (h *hall) deliveryPath() string { return filepath.Join(h.config.DeliveryFolder, deliveryName) }

// onDisk gives the public keys in the file, and their secrets, as who has the passphrase reads them.
func (h *hall) onDisk() (public []string, secrets [][]byte) {
	h.Helper()
	passphrase, err := readPassphrase(h.config.PassphraseFile)
	if err != nil {
		h.Fatal(err)
	}
	plain, err := (&deliveryFile{folder: h.config.DeliveryFolder}).read(passphrase, h.config.Room)
	if err != nil {
		h.Fatal(err)
	}
	_, keys, err := decodeDelivery(plain)
	if err != nil {
		h.Fatal(err)
	}
	for _, k := range keys {
		public, secrets = append(public, k.public), append(secrets, k.secret[:])
	}
	return public, secrets
}

// inRoom gives the keys that the room has in memory.
func (h *hall) inRoom() (keys []deliveryKey) {
	d := h.room.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.keys {
		keys = append(keys, *k)
	}
	return keys
}

// files gives every file below the installation that holds one of the texts.
func (h *hall) files(texts ...[]byte) (found []string) {
	h.Helper()
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, wanted := range texts {
			if bytes.Contains(text, wanted) {
				found = append(found, path)
			}
		}
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	return found
}

// keep is what the keeper does when it looks.
func (h *hall) keep() { h.room.delivery.keep(h.clock.now()) }

// TestDeliveryKeysRotate: each hour has its own key, which opens what was sealed to it until its window is
// over and the room's restarts do not matter; then it is nowhere.
func TestDeliveryKeysRotate(t *testing.T) {
	h := newHall(t)
	first := h.send("alice")
	public, secrets := h.onDisk()
	if len(public) != 1 || public[0] != first.to {
		t.Fatalf("the file holds %v; the room says %s", public, first.to)
	}
	if until := h.room.Hello().State.Delivery.Until; !until.Equal(noon.Add(time.Hour)) {
		t.Errorf("the hour ends at %s", until)
	}
	if info, err := os.Stat(h.deliveryPath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	h.staysFor(59*time.Minute - time.Second)
	if h.current() != first.to {
		t.Error("the key changed too early")
	}
	h.clock.step(time.Second)
	h.keep()
	second := h.send("bob")
	if second.to == first.to {
		t.Error("the key does not change")
	}
	if public, _ := h.onDisk(); len(public) != 2 || public[1] != second.to {
		t.Errorf("the file holds %v", public)
	}
	h.restart()
	h.clock.step(time.Hour)
	third := h.send("carol") // no keeper looked: the room is asked, and makes one
	h.restart()
	for _, p := range []*parcel{first, second, third} {
		if got := h.collect(p); got != "opened" {
			t.Errorf("%s: %s", p.CN, got)
		}
	}
	if third.to == second.to || h.current() != third.to {
		t.Error("the third key is not another one, or is lost")
	}
	// The first key's last moment, and the moment after.
	h.clock.step(24*time.Hour + clockSkew - 59*time.Minute)
	h.keep()
	if public, _ := h.onDisk(); public[0] != first.to {
		t.Error("the first key goes too early")
	}
	h.clock.step(time.Second)
	h.keep()
	public, _ = h.onDisk()
	if strings.Contains(strings.Join(public, " "), first.to) || !strings.Contains(strings.Join(public, " "), second.to) {
		t.Errorf("the file holds %v", public)
	}
	if got := h.collect(first); got != "open.late" && got != "open.gone" {
		t.Errorf("the first parcel: %s", got)
	}
	if found := h.files(secrets...); len(found) > 0 {
		t.Errorf("the first key is in %v", found)
	}
	h.staysFor(time.Second)
}

// staysFor checks that the keeper leaves the file alone when there is nothing to write.
func (h *hall) staysFor(d time.Duration) {
	h.Helper()
	before, err := os.Stat(h.deliveryPath())
	if err != nil {
		h.Fatal(err)
	}
	h.clock.step(d)
	h.keep()
	if after, err := os.Stat(h.deliveryPath()); err != nil || !os.SameFile(before, after) {
		h.Errorf("the file is written although nothing changed: %v", err)
	}
}

// TestSealedToAnEarlierKey: a daemon that did not hear of the new key seals to an old one. It opens for as
// long as the room has it.
func TestSealedToAnEarlierKey(t *testing.T) {
	h := newHall(t)
	to := h.current()
	h.clock.step(time.Hour + time.Minute)
	p := h.sendTo("alice", to)
	if got := h.collect(p); got != "opened" || h.current() == to {
		t.Errorf("sealed to the key before: %s", got)
	}
	h.clock.step(24 * time.Hour)
	if got := h.collect(p); got != "opened" {
		t.Errorf("in its last minutes: %s", got)
	}
	h.clock.step(5 * time.Minute)
	q := h.sendTo("bob", to)
	for _, late := range []*parcel{p, q} {
		if got := h.collect(late); got != "open.gone" {
			t.Errorf("%s: %s", late.CN, got)
		}
	}
}

// TestDeliveryKeysOfACopy: who has the disk and the passphrase of a later moment has nothing of an earlier
// one, and where the keys are in memory, nothing at all.
func TestDeliveryKeysOfACopy(t *testing.T) {
	for name, elsewhere := range map[string]bool{"beside the state": false, "in memory": true} {
		t.Run(name, func(t *testing.T) {
			memory := filepath.Join(tempDir(t), "delivery")
			h := newHall(t, func(c *Config) {
				if elsewhere {
					c.DeliveryFolder = memory
				}
			})
			p := h.send("alice")
			_, secrets := h.onDisk()
			if found := h.files(secrets...); len(found) > 0 {
				t.Errorf("a delivery key is in clear in %v", found)
			}
			if found := h.files([]byte(deliveryHead)); (len(found) == 0) != elsewhere {
				t.Errorf("delivery keys are in %v", found)
			}
			// It is the same file under another name: what was in it has to be gone, not only its name.
			link := filepath.Join(filepath.Dir(h.deliveryPath()), "link")
			if err := os.Link(h.deliveryPath(), link); err != nil {
				t.Fatal(err)
			}
			h.clock.step(26 * time.Hour)
			h.keep()
			if text, err := os.ReadFile(link); err != nil || len(bytes.Trim(text, "\x00")) > 0 {
				t.Errorf("the replaced file still holds %d octets: %v", len(bytes.Trim(text, "\x00")), err)
			}
			public, _ := h.onDisk()
			if len(public) != 1 || public[0] == p.to {
				t.Errorf("the file holds %v", public)
			}
			h.clock.step(-26 * time.Hour) // whose clock says that it is time
			h.restart()
			if got := h.collect(p); got != "open.gone" {
				t.Errorf("after the window, and with the clock put back: %s", got)
			}
		})
	}
}

// flip changes a bit of the file "$1".
const flip = `python3 -c 'import sys; f = open(sys.argv[1], "r+b"); n = int(sys.argv[2]); f.seek(n); b = f.read(1)[0]; f.seek(n); f.write(bytes([b ^ 1]))' "$1"`

// TestDeliveryKeysMissing: without the file, with one that is damaged, of another room or readable by
// others, the room serves with new keys, and says so.
func TestDeliveryKeysMissing(t *testing.T) {
	for name, c := range map[string]struct {
		damage string
		loud   bool
	}{
		"missing":            {`rm "$1"`, false},
		"empty":              {`: >"$1"`, true},
		"cut":                {`truncate -s -1 "$1"`, true},
		"altered":            {flip + ` 60`, true},
		"another salt":       {flip + ` 30`, true},
		"readable by others": {`chmod 0644 "$1"`, true},
		"a folder":           {`rm "$1"; mkdir "$1"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHall(t)
			p := h.send("alice")
			h.stop()
			tool(t, nil, "sh", "-ec", c.damage, "sh", h.deliveryPath())
			h.start()
			if got := h.collect(p); got != "open.gone" {
				t.Errorf("what was sealed to a lost key: %s", got)
			}
			if loud := strings.Contains(h.logged.String(), "code=delivery.lost"); loud != c.loud {
				t.Errorf("the log says %v:\n%s", loud, h.logged)
			}
			if loud := slices.Contains(h.room.Hello().Troubles, "delivery.lost"); loud != c.loud {
				t.Errorf("it tells %v", h.room.Hello().Troubles)
			}
			next := h.send("bob")
			if got := h.collect(next); got != "opened" || next.to == p.to {
				t.Errorf("the new key: %s", got)
			}
			if name == "a folder" {
				if !strings.Contains(h.logged.String(), "code=delivery.write") || !slices.Contains(h.room.Hello().Troubles, "delivery.write") {
					t.Errorf("it does not tell that nothing is written: %v\n%s", h.room.Hello().Troubles, h.logged)
				}
				return
			}
			h.clock.step(time.Hour + time.Second)
			if told := h.room.Hello().Troubles; len(told) > 0 {
				t.Errorf("an hour later it tells %v", told)
			}
			if public, _ := h.onDisk(); len(public) != 1 || public[0] != next.to {
				t.Errorf("the file holds %v", public)
			}
		})
	}
}

// TestDeliveryFileOfAnotherRoom: a file does not open under the same passphrase in another room.
func TestDeliveryFileOfAnotherRoom(t *testing.T) {
	h := newHall(t)
	passphrase, err := readPassphrase(h.config.PassphraseFile)
	if err != nil {
		t.Fatal(err)
	}
	f := &deliveryFile{folder: h.config.DeliveryFolder}
	if _, err := f.read(passphrase, h.config.Room); err != nil {
		t.Error(err)
	}
	if _, err := f.read(passphrase, "room-other"); err == nil {
		t.Error("it opens in another room")
	}
	if _, err := f.read([]byte("other words"), h.config.Room); err == nil {
		t.Error("it opens under another passphrase")
	}
}

// TestDeliveryDraftLeftBehind: a room that dies between draft and name leaves the old file whole, and the
// next one takes the draft away, with what is in it. So goes the file of an earlier configuration.
func TestDeliveryDraftLeftBehind(t *testing.T) {
	h := newHall(t)
	p := h.send("alice")
	h.stop()
	draft := h.deliveryPath() + ".new"
	tool(t, nil, "sh", "-ec", `cp -p "$1" "$2"; ln "$2" "$2.link"`, "sh", h.deliveryPath(), draft)
	h.start()
	if got := h.collect(p); got != "opened" {
		t.Errorf("after the crash: %s", got)
	}
	if _, err := os.Lstat(draft); err == nil {
		t.Error("the draft is left behind")
	}
	if text, err := os.ReadFile(draft + ".link"); err != nil || len(bytes.Trim(text, "\x00")) > 0 {
		t.Errorf("what was in the draft is left behind: %v", err)
	}
	h.stop()
	tool(t, nil, "mkdir", "-p", draft+"/full") // which cannot be overwritten
	h.start()
	h.troubles("delivery.destroy")
	tool(t, nil, "rm", "-r", draft)
	h.keep()
	h.troubles()
	before := h.deliveryPath()
	h.config.DeliveryFolder = filepath.Join(tempDir(t), "delivery")
	h.restart()
	if _, err := os.Lstat(before); err == nil {
		t.Error("the file beside the state is left behind")
	}
	if info, err := os.Stat(h.config.DeliveryFolder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	if got := h.collect(p); got != "open.gone" {
		t.Errorf("with another folder: %s", got)
	}
}

// troubles holds what the room tells against what it should.
func (h *hall) troubles(want ...string) {
	h.Helper()
	if told := h.room.Hello().Troubles; !slices.Equal(told, want) {
		h.Errorf("it tells %v, not %v", told, want)
	}
}

// TestDeliveryDiskFails: when the file cannot be written the room goes on, and what has to be destroyed is.
func TestDeliveryDiskFails(t *testing.T) {
	memory := tempDir(t)
	h := newHall(t, func(c *Config) { c.DeliveryFolder = memory })
	first := h.send("alice")
	draft := h.deliveryPath() + ".new"
	if err := os.MkdirAll(filepath.Join(draft, "full"), 0o700); err != nil { // which no draft replaces
		t.Fatal(err)
	}
	h.clock.step(time.Hour)
	h.keep()
	second := h.send("bob")
	if !strings.Contains(h.logged.String(), "code=delivery.write") || second.to == first.to {
		t.Errorf("the log does not say it, or the key is the old one:\n%s", h.logged)
	}
	h.troubles("delivery.write")
	if public, _ := h.onDisk(); len(public) != 1 || public[0] != first.to {
		t.Errorf("the file holds %v", public)
	}
	for _, p := range []*parcel{first, second} {
		if got := h.collect(p); got != "opened" {
			t.Errorf("%s: %s", p.CN, got)
		}
	}
	h.clock.step(24*time.Hour + clockSkew + time.Second)
	h.keep()
	if _, err := os.Stat(h.deliveryPath()); err == nil {
		t.Error("the file still holds a key whose window is over")
	}
	h.troubles("delivery.write")
	tool(t, nil, "mkdir", "-p", h.deliveryPath()+"/full")
	h.clock.step(time.Hour)
	h.send("carol")
	h.clock.step(26 * time.Hour)
	h.keep()
	h.troubles("delivery.destroy", "delivery.write")
	tool(t, nil, "rm", "-r", h.deliveryPath())
	h.keep()
	h.troubles("delivery.write")
	second = h.send("dave")
	if err := os.RemoveAll(draft); err != nil {
		t.Fatal(err)
	}
	h.clock.step(time.Hour)
	h.keep()
	h.troubles()
	if public, _ := h.onDisk(); len(public) != 2 || public[0] != second.to {
		t.Errorf("the file holds %v, not %s and the newest", public, second.to)
	}
}

// TestNoDeliveryHours: there are no keys, and no file.
func TestNoDeliveryHours(t *testing.T) {
	h := newHall(t)
	p := h.send("alice")
	hours := 0
	h.config.DeliveryHours = &hours
	h.restart()
	if got := h.current(); got != "" {
		t.Errorf("there is a key: %s", got)
	}
	if _, err := os.Stat(h.deliveryPath()); err == nil {
		t.Error("there is a file")
	}
	h.config.DeliveryHours = nil
	h.restart()
	if got := h.collect(p); got != "open.gone" {
		t.Errorf("the key came back: %s", got)
	}
}

// TestDeliveryNobodyServes: who only looks at the room, such as root, writes nothing into its folder.
func TestDeliveryNobodyServes(t *testing.T) {
	h := newHall(t)
	h.stop()
	if err := os.Remove(h.deliveryPath()); err != nil {
		t.Fatal(err)
	}
	room, err := Open(h.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := room.ConfirmClock(); err != nil {
		t.Fatal(err)
	}
	if err := room.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.deliveryPath()); err == nil {
		t.Error("it wrote delivery keys")
	}
}
