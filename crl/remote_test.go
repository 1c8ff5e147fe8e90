package crl

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

type gitHash = plumbing.Hash

// What others do to our folder is put back on their tip, and an alarm says so where lists were hit.
func TestTampering(t *testing.T) {
	w := newWorld(t)
	w.publish()
	old := map[string][]byte{"pki/users.crl": w.file("users.crl"), "pki/users.crl.pem": w.file("users.crl.pem"), "pki/bundle.crl.pem": w.file("bundle.crl.pem")}
	w.revoke(w.issue("Alice").Serial, cert.Superseded)
	w.publish()
	folder := w.mustGit("rev-parse", "main:pki")
	for _, c := range []struct {
		what   string
		files  map[string][]byte
		alarms string // of the files, in order
	}{
		{"garbage", map[string][]byte{"pki/users.crl": []byte("garbage")}, "users.crl"},
		{"garbage in the bundle", map[string][]byte{"pki/bundle.crl.pem": []byte("garbage")}, "bundle.crl.pem"},
		{"an empty file", map[string][]byte{"pki/users.crl": {}}, "users.crl"},
		{"a list of another CA", map[string][]byte{"pki/users.crl": w.file("servers.crl")}, "users.crl"},
		{"an older genuine list", old, "bundle.crl.pem users.crl users.crl.pem"},
		{"a deleted file", map[string][]byte{"pki/users.crl.pem": nil}, "users.crl.pem"},
		{"a deleted folder", map[string][]byte{"pki": nil},
			"bundle.crl.pem callers.crl callers.crl.pem root.crl root.crl.pem servers.crl servers.crl.pem users.crl users.crl.pem"},
		{"the README", map[string][]byte{"pki/README.md": []byte("hello")}, ""},
		{"the checkpoint", map[string][]byte{"pki/checkpoint": []byte("hello")}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.files["site.pp"] = []byte(c.what)
			theirs := w.commit(c.files)
			w.logged.TakeAll()
			from := w.head()
			w.publish()
			var files []string
			for _, alarm := range w.alarms(codeTampered) {
				file, _, _ := strings.Cut(alarm, " ")
				files = append(files, file)
			}
			if got := strings.Join(files, " "); got != c.alarms {
				t.Errorf("alarms for %q, want %q", got, c.alarms)
			}
			if w.mustGit("rev-parse", "main^") != theirs || w.mustGit("show", "main:site.pp") != c.what {
				t.Error("their work is not below ours")
			}
			if got := w.types(from); got != "crl.published" && got != "" || w.list("users").Number.String() != "2" {
				t.Errorf("the log says %s, the list is %s", got, w.list("users").Number)
			}
			// The checkpoint may be a newer one; the rest is as it was.
			if c.what == "the checkpoint" {
				if _, err := audit.OpenCheckpoint(w.file("checkpoint"), w.room.Hello().LogKey); err != nil {
					t.Error(err)
				}
			}
			if diff := w.mustGit("diff", "--name-only", folder, "main:pki"); strings.TrimSpace(diff) != "checkpoint" && diff != "" {
				t.Errorf("not put back: %s", diff)
			}
		})
	}
}

// History is rewritten below us: ours again, on the new tip.
func TestHistoryRewritten(t *testing.T) {
	w := newWorld(t)
	w.publish()
	first := w.tip()
	w.revoke(w.issue("Alice").Serial, cert.Superseded)
	w.publish()
	w.mustGit("update-ref", "refs/heads/main", first)
	w.logged.TakeAll()
	w.publish()
	if w.mustGit("rev-parse", "main^") != first || len(w.list("users").Entries) != 1 || len(w.alarms(codeTampered)) == 0 {
		t.Error("the rewritten history was not noticed")
	}
	blob, err := w.gitWith([]byte("x"), "hash-object", "-w", "--stdin")
	w.must(err)
	tree, err := w.gitWith([]byte("100644 blob "+strings.TrimSpace(blob)+"\tother\n"), "mktree")
	w.must(err)
	orphan := w.mustGit("commit-tree", strings.TrimSpace(tree), "-m", "another history")
	w.mustGit("update-ref", "refs/heads/main", orphan)
	w.publish()
	if w.mustGit("rev-parse", "main^") != orphan || w.mustGit("show", "main:other") != "x" || len(w.list("users").Entries) != 1 {
		t.Error("the other history was not taken up")
	}
}

// Another committer is faster between our reading and our push.
func TestSecondCommitter(t *testing.T) {
	w := newWorld(t)
	w.publish()
	w.revoke(w.issue("Alice").Serial, cert.Superseded)
	good := w.publisher.Remote
	r := &racing{Remote: good, world: w}
	w.publisher.Remote = r
	w.publish()
	w.publisher.Remote = good
	for n := range r.n {
		if w.mustGit("show", fmt.Sprintf("main:other%d", n)) != "x" {
			t.Errorf("the work of committer %d is lost", n)
		}
	}
	if r.n != 3 || len(w.list("users").Entries) != 1 || w.list("users").Number.String() != "2" {
		t.Errorf("after %d races list %s", r.n, w.list("users").Number)
	}
}

// Another copy of the installation is faster: its list is not replaced by an older one of ours.
func TestAnotherCopyIsFaster(t *testing.T) {
	w := newWorld(t)
	w.publish()
	w.revoke(w.issue("Alice").Serial, cert.Superseded)
	good := w.publisher.Remote
	w.publisher.Remote = &faster{Remote: good, push: func() { w.commit(map[string][]byte{"pki/users.crl": w.forge(40)}) }}
	if _, err := w.loop.PayOnce(t.Context()); err == nil || w.list("users").Number.String() != "40" {
		t.Errorf("list %s: %v", w.list("users").Number, err)
	}
	w.publisher.Remote = good
	w.clock.step(lastRetry)
	w.publish()
	if l := w.list("users"); l.Number.String() != "41" || len(l.Entries) != 1 {
		t.Errorf("list %s holds %v", l.Number, l.Entries)
	}
}

// faster is a remote where somebody else does something before the first push.
type faster struct {
	gitrepo.Remote
	push func()
}

func (f *faster) Push(ctx context.Context, old gitrepo.Tip, commit gitHash, objects []gitrepo.Object) error {
	if f.push != nil {
		f.push()
		f.push = nil
	}
	return f.Remote.Push(ctx, old, commit, objects)
}

// racing is a remote where somebody else is faster three times.
type racing struct {
	gitrepo.Remote
	world *world
	n     int
}

func (r *racing) Push(ctx context.Context, old gitrepo.Tip, commit gitHash, objects []gitrepo.Object) error {
	if r.n < 3 {
		r.world.commit(map[string][]byte{fmt.Sprintf("other%d", r.n): []byte("x")})
		r.n++
	}
	return r.Remote.Push(ctx, old, commit, objects)
}

// forge signs a list with the users' key, as another copy of this installation could.
func (w *world) forge(number int64, entries ...list.Entry) []byte {
	w.Helper()
	var encoded []byte
	for _, e := range entries {
		var err error
		encoded, err = list.AppendEntry(encoded, e)
		w.must(err)
	}
	now := w.clock.now().UTC().Truncate(time.Second)
	text, err := w.tool(nil, "openssl", "pkey", "-in", "keyroom/users.key", "-passin", "file:secrets/keyroom.passphrase")
	w.must(err)
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	w.must(err)
	template := list.Template{Issuer: w.loop.issuers[0].cert, Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	der, err := list.Sign(rand.Reader, template, encoded, key.(crypto.Signer))
	w.must(err)
	return der
}

func TestRemoteAhead(t *testing.T) {
	w := newWorld(t)
	w.publish()
	revoked := w.issue("Alice")
	w.revoke(revoked.Serial, cert.Superseded)
	w.publish()
	ours := w.list("users").Entries

	w.commit(map[string][]byte{"pki/users.crl": w.forge(40, ours...)})
	w.publish()
	if n := w.list("users").Number.String(); n != "41" {
		t.Errorf("above list 40 comes list %s", n)
	}
	// The same number and another list: who has that one would not take ours.
	w.commit(map[string][]byte{"pki/users.crl": w.forge(41, ours...)})
	w.publish()
	if n := w.list("users").Number.String(); n != "42" {
		t.Errorf("above another list 41 comes list %s", n)
	}
	// It revokes what the books do not know: to replace it would un-revoke.
	stranger := list.Entry{Serial: "1234567890abcdef", RevokedAt: w.clock.now().UTC().Truncate(time.Second), Reason: cert.KeyCompromise}
	live := w.issue("Bob")
	for _, e := range []list.Entry{stranger, {Serial: live.Serial, RevokedAt: stranger.RevokedAt, Reason: cert.Superseded}} {
		tip := w.commit(map[string][]byte{"pki/users.crl": w.forge(50, append(ours, e)...)})
		from := w.head()
		for range 2 {
			if _, err := w.loop.PayOnce(t.Context()); err == nil || !strings.Contains(err.Error(), string(e.Serial)) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("un-revoked %s: %v", e.Serial, err)
			}
		}
		if w.tip() != tip || w.head() != from {
			t.Errorf("a refused publication did %s", w.types(from))
		}
	}
	// With the revocation in the books it goes on, above.
	w.commit(map[string][]byte{"pki/users.crl": w.forge(50, ours...)})
	w.publish()
	if n := w.list("users").Number.String(); n != "51" {
		t.Errorf("above list 50 comes list %s", n)
	}
}

// An old genuine list whose entries have left since must not hold back new ones.
func TestOldListAfterEntriesLeft(t *testing.T) {
	w := newWorld(t)
	w.publish()
	w.revoke(w.issue("Alice").Serial, cert.Superseded)
	w.publish()
	old := w.file("users.crl")
	w.clock.step(366 * 24 * time.Hour)
	w.publish() // a list past the expiry that still holds the entry
	w.must(w.room.ConfirmClock())
	w.clock.step(8 * 24 * time.Hour)
	w.publish() // the step was more than a day: the room still drops nothing
	w.must(w.room.ConfirmClock())
	w.clock.step(13 * time.Hour)
	w.publish()
	if n := len(w.list("users").Entries); n != 0 {
		t.Fatalf("%d entries are left; the test needs none", n)
	}
	w.commit(map[string][]byte{"pki/users.crl": old})
	w.clock.step(13 * time.Hour)
	w.publish()
	if l := w.list("users"); len(l.Entries) != 0 {
		t.Errorf("list %s holds %v", l.Number, l.Entries)
	}
}

// A list that breaks the rules is never pushed, whoever signed it.
func TestBadListIsNotPushed(t *testing.T) {
	w := newWorld(t)
	w.publish()
	revoked := w.issue("Alice")
	w.revoke(revoked.Serial, cert.Superseded)
	w.publish()
	current, found, err := w.store.List(t.Context(), "users")
	w.must(err)
	entry := w.list("users").Entries[0]
	i := w.loop.issuers[0]
	moved, weaker := entry, entry
	moved.RevokedAt = moved.RevokedAt.Add(-time.Hour)
	weaker.Reason = cert.CessationOfOperation
	unknown := list.Entry{Serial: "1234567890abcdef", RevokedAt: entry.RevokedAt}
	for what, der := range map[string][]byte{
		"an entry is missing": w.forge(9),
		"a date moved":        w.forge(9, moved),
		"a reason changed":    w.forge(9, weaker),
		"an unknown entry":    w.forge(9, entry, unknown),
		"another number":      w.forge(10, entry),
		"an old number":       w.forge(2, entry),
		"another CA":          w.file("servers.crl"),
		"garbage":             []byte("garbage"),
		"a broken signature":  append(bytes.Clone(current.DER[:len(current.DER)-1]), current.DER[len(current.DER)-1]^1),
	} {
		if err := w.loop.check(t.Context(), i, der, "9", current, found, nil); err == nil {
			t.Errorf("%s: passes", what)
		}
	}
	w.must(w.loop.check(t.Context(), i, w.forge(9, entry), "9", current, found, nil))

	// In the books and on the log all the same: the files are judged once more.
	tip := w.tip()
	daemon := audit.Actor{Kind: audit.ByDaemon}
	intent, err := w.store.Update(t.Context(), daemon, func(*store.Tx) (audit.Event, error) {
		return &audit.CRLIntent{Room: w.config.Room, Issuer: "users", Number: "3", ThisUpdate: current.ThisUpdate, NextUpdate: current.NextUpdate}, nil
	})
	w.must(err)
	_, err = w.store.Update(t.Context(), daemon, func(tx *store.Tx) (audit.Event, error) {
		current.DER, current.Number, current.Signed = append(bytes.Clone(current.DER[:len(current.DER)-1]), current.DER[len(current.DER)-1]^1), "3", intent.Index
		return &audit.CRLSigned{Issuer: "users", Number: "3", Intent: intent.Index, Room: w.signer.RoomState()}, tx.PutList(current)
	})
	w.must(err)
	if _, err := w.loop.PayOnce(t.Context()); err == nil || w.tip() != tip || !strings.Contains(err.Error(), list.BadSignature) {
		t.Errorf("a list with a broken signature was pushed: %v", err)
	}
}
