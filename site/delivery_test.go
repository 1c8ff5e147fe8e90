package site_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/scrypt"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/site"
	"github.com/chancery-ca/chancery/store"
)

// shop is an installation whose key room and books run in this process, under a clock that the test sets.
type shop struct {
	*testing.T
	dir       string
	delivery  string // folder of the delivery keys
	config    keyroom.Config
	room      *keyroom.Room
	store     *store.Store
	authority *ca.Authority
	ahead     time.Duration
	stop      func()
}

func openShop(t *testing.T, dir, delivery string, ahead time.Duration) *shop {
	t.Helper()
	s := &shop{T: t, dir: dir, delivery: delivery, ahead: ahead}
	var err error
	s.config, err = keyroom.LoadConfig(filepath.Join(dir, "keyroom.json"))
	s.must(err)
	s.config.DeliveryFolder = delivery
	s.room, err = keyroom.Open(keyroom.Options{Config: s.config, Build: "test", Now: s.now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	s.must(err)
	listener, err := s.room.Listen()
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.room.Serve(ctx, listener) }()
	s.store, err = store.Open(ctx, filepath.Join(dir, "state", "store.db"), s.now)
	s.must(err)
	client, err := signer.Dial(ctx, s.config.Socket, s.store)
	s.must(err)
	s.authority, err = ca.New(ca.Options{Store: s.store, Signer: client, Rand: rand.Reader})
	s.must(err)
	s.stop = sync.OnceFunc(func() {
		client.Close()
		cancel()
		if err := errors.Join(<-served, s.room.Close(), s.store.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *shop) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *shop) now() time.Time { return time.Now().Add(s.ahead) }

// goes is a clock that goes on, and a daemon that forgets what it has to.
func (s *shop) goes(d time.Duration) {
	s.Helper()
	s.stop()
	*s = *openShop(s.T, s.dir, s.delivery, s.ahead+d)
	_, err := s.authority.ForgetSecrets(s.Context())
	s.must(err)
}

var hired = ca.Call{Who: audit.Actor{Kind: audit.ByCaller, Name: "provisioning"}, Rule: "test", RequestID: "hire", BodySHA256: cert.SHA256([]byte("hire"))}

func (s *shop) issue() *ca.Issued {
	s.Helper()
	n, err := name.Canonical(cert.User, "Eve")
	s.must(err)
	issued, err := s.authority.Issue(s.Context(), hired, ca.IssueRequest{Purpose: cert.User, Name: n})
	s.must(err)
	return issued
}

// thief reads files as somebody does who has the passphrase and this page, and no program of ours.
type thief struct {
	*testing.T
	room, passphrase string
	sealed           []byte
}

// keys gives what any file below the folders holds of delivery keys.
func (f thief) keys(folders ...string) (found []*ecdh.PrivateKey) {
	f.Helper()
	f.walk(folders, func(_ string, text []byte) {
		const head = "chancery delivery keys 1\n"
		at := bytes.Index(text, []byte(head))
		if at < 0 {
			return
		}
		rest := text[at+len(head):]
		wrap, err := scrypt.Key([]byte(f.passphrase), rest[:16], 1<<14, 8, 1, 32)
		f.must(err)
		block, err := aes.NewCipher(wrap)
		f.must(err)
		aead, err := cipher.NewGCM(block)
		f.must(err)
		plain, err := aead.Open(nil, rest[16:28], rest[28:], append([]byte(head+f.room+"\n"), rest[:16]...))
		f.must(err)
		for plain = plain[8:]; len(plain) > 0; plain = plain[40:] {
			key, err := ecdh.X25519().NewPrivateKey(plain[8:40])
			f.must(err)
			found = append(found, key)
		}
	})
	return found
}

// opens tells which of the keys opens what was sealed, nil if none.
func (f thief) opens(keys []*ecdh.PrivateKey) *ecdh.PrivateKey {
	binding := signer.Binding{Caller: hired.Who.Name, RequestID: hired.RequestID, BodySHA256: hired.BodySHA256}
	for _, key := range keys {
		if text, err := signer.Unseal(key, binding, f.sealed); err == nil && bytes.Contains(text, []byte(`"password"`)) {
			return key
		}
	}
	return nil
}

func (f thief) walk(folders []string, see func(path string, text []byte)) {
	f.Helper()
	for _, folder := range folders {
		f.must(filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			see(path, text)
			return err
		}))
	}
}

func (f thief) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// TestCopiesDoNotOpen: somebody copies everything while secrets wait for a retry: the disk, the passphrase, a
// backup and its identity. What waits opens then, for who has the delivery keys as well. When the window is
// over, nothing opens it that is on the copies, in the backup, or on the machine that goes on, neither with
// the service's own programs under a clock put back nor by hand; but for the delivery keys themselves, where
// they are on the disk and were copied with it.
func TestCopiesDoNotOpen(t *testing.T) {
	t.Parallel()
	for what, inMemory := range map[string]bool{"keys beside the state": false, "keys in memory": true} {
		t.Run(what, func(t *testing.T) {
			dir := copyOf(t, worlds(t).night)
			delivery := filepath.Join(dir, "keyroom")
			if inMemory {
				delivery = filepath.Join(t.TempDir(), "delivery")
				run(t, "sed", "-i", `s|^{|{"delivery_folder": "`+delivery+`",|`, filepath.Join(dir, "keyroom.json"))
			}
			s := openShop(t, dir, delivery, 0)
			first := s.issue()
			s.goes(2 * time.Hour) // the keys have changed twice
			if again := s.issue(); again.Code != "issued" || again.Password != first.Password || !bytes.Equal(again.PKCS12, first.PKCS12) {
				t.Fatalf("inside the window a retry gets %s", again.Code)
			}
			f := s.robbed(first)
			l := s.loot(f)

			// Controls: all of this does open while the window lasts.
			key := f.opens(f.keys(l.memory))
			if key == nil {
				t.Fatal("the live keys do not open it inside the window")
			}
			if onDisk := f.opens(f.keys(l.disk)) != nil; onDisk == inMemory {
				t.Errorf("on the disk is a key that opens it: %v", onDisk)
			}
			if got := s.attack(l.disk, l.memory); got.Password != first.Password {
				t.Errorf("a service made of everything answers %s", got.Code)
			}
			run(t, "rm", "-f", filepath.Join(l.disk, "keyroom", "delivery.keys")) // where it is, it opens, as docs/THREATS.md says

			s.goes(24 * time.Hour)
			if again := s.issue(); again.Code != "issued.secrets_gone" || again.Password != "" || again.PKCS12 != nil || !bytes.Equal(again.Certificate, first.Certificate) {
				t.Errorf("after the window a retry gets %s", again.Code)
			}
			s.stop()
			left := []string{l.disk, l.backup, l.unpacked, dir, delivery}
			if keys := f.keys(left...); len(keys) == 0 || f.opens(keys) != nil {
				t.Errorf("of %d keys that are left, one opens it: %v", len(keys), f.opens(keys) != nil)
			}
			f.walk(left, func(path string, text []byte) {
				if bytes.Contains(text, key.Bytes()) || bytes.Contains(text, key.PublicKey().Bytes()) {
					t.Errorf("%s holds the key", path)
				}
			})
			for _, copied := range []string{l.disk, l.unpacked} {
				for _, keys := range []string{t.TempDir(), delivery} {
					if got := s.attack(copied, keys); got.Code != "issued.secrets_gone" || got.Password != "" {
						t.Errorf("a service made of %s and the keys in %s answers %s", copied, keys, got.Code)
					}
				}
			}
		})
	}
}

// attack puts a service together from a copy and a folder of delivery keys, under a clock by which the window
// is open, and asks it as the caller does.
func (s *shop) attack(copied, keys string) *ca.Issued {
	s.Helper()
	dir := copyOf(s, copied)
	run(s, "sh", "-c", `cp -a "$1"/delivery.keys "$2"/keyroom 2>/dev/null || true`, "sh", keys, dir)
	a := openShop(s.T, dir, filepath.Join(dir, "keyroom"), 2*time.Hour)
	defer a.stop()
	return a.issue()
}

// robbed is somebody who knows the passphrase, and what is sealed.
func (s *shop) robbed(i *ca.Issued) thief {
	s.Helper()
	found, err := s.store.Find(s.Context(), store.Query{Serial: i.Serial})
	if err != nil || len(found) != 1 || found[0].Sealed == nil {
		s.Fatalf("nothing is sealed: %v", err)
	}
	words, err := os.ReadFile(filepath.Join(s.dir, "secrets", "keyroom.passphrase"))
	s.must(err)
	return thief{s.T, s.config.Room, strings.TrimSpace(string(words)), found[0].Sealed}
}

// loot is what somebody takes along: folders with a copy of the disk, of the delivery keys, with a backup that
// the service makes, also decrypted, and with what restore makes of it.
type loot struct{ disk, memory, backup, unpacked string }

func (s *shop) loot(f thief) loot {
	s.Helper()
	us, err := age.GenerateX25519Identity()
	s.must(err)
	l := loot{memory: s.TempDir(), backup: s.TempDir(), unpacked: s.dir + "u"}
	night := filepath.Join(l.backup, "night.age")
	m, err := site.Backup{Config: config(s, s.dir), Build: "test", Recipients: []age.Recipient{us.Recipient()}}.ToFile(s.Context(), night)
	s.must(err)
	if !slices.Contains(m.LeftOut, filepath.Join(s.delivery, "delivery.keys")) {
		s.Errorf("the backup says that it leaves out %q", m.LeftOut)
	}
	sealed, err := os.Open(night)
	s.must(err)
	defer sealed.Close()
	plain, err := age.Decrypt(sealed, us)
	s.must(err)
	octets, err := io.ReadAll(plain)
	s.must(err)
	s.must(os.WriteFile(filepath.Join(l.backup, "night.tar"), octets, 0o600))
	_, err = sealed.Seek(0, io.SeekStart)
	s.must(err)
	_, err = site.Restore{Identities: []age.Identity{us}, Dir: l.unpacked}.Run(s.Context(), sealed)
	s.must(err)
	s.Cleanup(func() { os.RemoveAll(l.unpacked) })
	run(s, "cp", "-a", filepath.Join(s.dir, "secrets", "keyroom.passphrase"), filepath.Join(l.unpacked, "secrets"))
	s.stop() // so that the copy of the disk is of one moment
	l.disk = copyOf(s, s.dir)
	run(s, "cp", "-a", filepath.Join(s.delivery, "delivery.keys"), l.memory)
	where := func(folders ...string) (found []string) {
		f.walk(folders, func(path string, text []byte) {
			if bytes.Contains(text, f.sealed) {
				found = append(found, path)
			}
		})
		return found
	}
	if len(where(l.disk)) == 0 || len(where(l.backup, l.unpacked)) > 0 {
		s.Errorf("what is sealed is in %v", where(l.disk, l.backup, l.unpacked))
	}
	return l
}
