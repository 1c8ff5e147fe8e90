package review

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// aLife issues two certificates, publishes a list, revokes one and publishes the next list.
func (w *world) aLife() {
	w.issue(1, "User 1")
	w.list(1)
	w.issue(2, "User 2")
	w.revoke(1)
	w.list(2, entryOf(1))
}

// fill adds leaves that mean nothing.
func (w *world) fill(n int) {
	for i := range n {
		w.add(alice, &audit.RequestRefused{Code: "grant.none", Reason: fmt.Sprint("attempt ", i)})
	}
}

func TestACleanLogIsVerified(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	w.fill(2 * pageSize)
	size, root := w.store.Head()
	r := w.verify()
	if r.Contradiction != nil || len(r.Findings)+len(r.Remarks) != 0 {
		t.Fatalf("contradiction %v, findings %v, remarks %v", r.Contradiction, r.Findings, r.Remarks)
	}
	if r.Leaves != size || r.Root != fmt.Sprintf("%x", root[:]) || r.Checkpoints != 3 || r.Commits != 3 || r.Lists != 3 || r.Origin != "log.example.org" {
		t.Errorf("report: %+v", r)
	}
	if r.Witnessed <= 4 || r.Witnessed >= size-2*pageSize {
		t.Errorf("witnessed %d leaves of %d", r.Witnessed, size)
	}
	if r.Books.Certificates[serial(1)].State != audit.Revoked || r.Books.Issuers["users"].PublishedNumber != "2" {
		t.Error("the books are not those of the log")
	}
	text, err := json.Marshal(r)
	if err != nil || !bytes.Contains(text, []byte(`"leaves":`)) || bytes.Contains(text, []byte("contradiction")) {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}

func TestAForgedHistoryMeetsTheClones(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	w.fill(5)
	leaves := w.leaves()
	leaves[4] = bytes.Replace(leaves[4], []byte("User 1"), []byte("User 9"), 1)
	forged := w.rebuilt(leaves)
	first := strings.Fields(w.git("-C", w.repo, "log", "--reverse", "--format=%H"))[1]
	w.wantContradiction(w.verifyLog(forged), audit.CheckpointRoot, 4, "commit "+first)

	// Without the clones the forgery is whole: they are what catches it.
	r, err := Verify(w.ctx, Source{Log: forged, LogKey: w.logKey})
	if err != nil || r.Contradiction != nil {
		t.Errorf("the forgery contradicts itself, so the clones prove nothing: %v, %v", r.Contradiction, err)
	}
}

func TestALogCutShortMeetsTheClones(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	whole := w.verify()
	cut := w.rebuilt(w.leaves()[:whole.Witnessed-1])
	r := w.verifyLog(cut)
	w.wantContradiction(r, audit.LogShort, whole.Witnessed-1, "commit "+w.git("-C", w.repo, "rev-parse", "main"))
	if !strings.Contains(r.Contradiction.Reason, "it was cut") {
		t.Error(r.Contradiction)
	}
}

func TestALeafAlteredInTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.fill(pageSize)
	intent := w.issue(1, "User 1")
	w.fill(pageSize)
	good := w.leaves()[intent]
	for name, altered := range map[string][]byte{
		"a whole leaf with another name": bytes.Replace(good, []byte("User 1"), []byte("User 9"), 1),
		"a leaf with one bit flipped":    append(append([]byte{}, good[:9]...), append([]byte{good[9] ^ 1}, good[10:]...)...),
	} {
		t.Run(name, func(t *testing.T) {
			w.alter("UPDATE leaf SET leaf = ? WHERE position = ?", altered, intent)
			w.wantContradiction(w.verify(), audit.LeafHash, intent, "")
			w.alter("UPDATE leaf SET leaf = ? WHERE position = ?", good, intent)
			if r := w.verify(); r.Contradiction != nil {
				t.Fatal(r.Contradiction)
			}
		})
	}
}

func TestHolesInTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.fill(pageSize)
	intent := w.issue(1, "User 1")
	w.fill(pageSize)
	w.must(w.store.Close())
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "db"))
	w.must(err)
	for i, step := range []struct {
		statement string
		code      string
		index     int64
	}{
		{"UPDATE node SET position = 999999 WHERE position = (SELECT max(position) FROM node)", audit.LeafHash, intent + 3 + pageSize},
		{"UPDATE leaf SET leaf = x'7b7d' WHERE position = (SELECT max(position) FROM leaf)", audit.LeafHash, intent + 3 + pageSize},
		{fmt.Sprintf("DELETE FROM leaf WHERE position = %d", intent), LeafMissing, intent},
		{"DELETE FROM leaf WHERE position = 0", LeafMissing, 0},
	} {
		_, err := db.Exec(step.statement)
		w.must(err)
		damaged, err := store.OpenReader(w.ctx, filepath.Join(w.dir, "db"), w.clock)
		w.must(err)
		r := w.verifyLog(damaged)
		w.must(damaged.Close())
		w.wantContradiction(r, step.code, step.index, "")
		if r.Leaves != step.index {
			t.Errorf("step %d: %d leaves are called verified", i, r.Leaves)
		}
	}
	w.must(db.Close())
	w.store, err = store.OpenReader(w.ctx, filepath.Join(w.dir, "db"), w.clock)
	w.must(err)
}

func TestADamagedRepositoryIsAnError(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	h := w.history()
	blob := func(file string) string { return w.git("-C", w.repo, "rev-parse", "main:pki/"+file) }
	for _, file := range []string{"users.crl", "checkpoint"} {
		id := blob(file)
		w.must(os.Remove(filepath.Join(w.repo, "objects", id[:2], id[2:])))
		_, again := ReadHistory(w.ctx, w.remote, "pki")
		if (again != nil) != (file == "checkpoint") {
			t.Errorf("reading the checkpoints without %s: %v", file, again)
		}
		if _, err := Verify(w.ctx, Source{Log: w.store, LogKey: w.logKey, History: h}); err == nil {
			t.Errorf("verified without %s, which cannot be read", file)
		}
	}
}

func TestAFolderThatBecameALink(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	clone := filepath.Join(t.TempDir(), "clone")
	w.git("clone", "-q", w.repo, clone)
	w.must(os.RemoveAll(filepath.Join(clone, "pki")))
	w.must(os.Symlink("/etc", filepath.Join(clone, "pki")))
	w.git("-C", clone, "add", "-A")
	w.git("-C", clone, "commit", "-qm", "a link")
	w.git("-C", clone, "push", "-q")
	r := w.verify()
	codes := map[string]int{}
	for _, f := range r.Findings {
		codes[f.Code]++
	}
	if r.Contradiction != nil || codes[CheckpointForm] != 1 || codes[CRLForeign] != 3 {
		t.Errorf("%v, findings %+v", r.Contradiction, r.Findings)
	}
}

func TestOthersCommitsAreFindings(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	clone := filepath.Join(t.TempDir(), "clone")
	w.git("clone", "-q", w.repo, clone)
	for name, text := range map[string]string{"checkpoint": "log.example.org\n1\nAAAA\n\n— \x1b[2J", "users.crl": "no list", "bundle.crl.pem": "no bundle"} {
		w.must(os.WriteFile(filepath.Join(clone, "pki", name), []byte(text), 0o600))
	}
	stranger, strangerKey := authority(t, "Example Users", nil, nil)
	w.must(os.WriteFile(filepath.Join(clone, "pki", "root.crl"), w.sign(stranger, strangerKey, 9), 0o600))
	w.git("-C", clone, "commit", "-qam", "put things straight\n\nAudit-Checkpoint: %%%")
	w.must(os.WriteFile(filepath.Join(clone, "pki", "notes"), nil, 0o600))
	w.git("-C", clone, "add", "-A")
	w.git("-C", clone, "commit", "-qm", "notes")
	w.must(os.WriteFile(filepath.Join(clone, "pki", "checkpoint"), bytes.Repeat([]byte("x"), maxNote+1), 0o600))
	w.git("-C", clone, "commit", "-qam", "more")
	w.must(os.Remove(filepath.Join(clone, "pki", "checkpoint")))
	w.must(os.Remove(filepath.Join(clone, "pki", "users.crl")))
	w.must(os.Mkdir(filepath.Join(clone, "pki", "users.crl"), 0o700))
	w.must(os.WriteFile(filepath.Join(clone, "pki", "users.crl", "x"), nil, 0o600))
	w.git("-C", clone, "add", "-A")
	w.git("-C", clone, "commit", "-qm", "even more")
	w.git("-C", clone, "push", "-q")
	w.list(3, entryOf(1))
	r := w.verify()
	if r.Contradiction != nil {
		t.Fatalf("what others commit proves nothing against the log: %v", r.Contradiction)
	}
	codes := map[string]int{}
	for _, f := range r.Findings {
		codes[f.Code]++
		if strings.ContainsRune(f.Reason, 0x1b) {
			t.Errorf("a finding with an escape sequence: %q", f.Reason)
		}
	}
	if codes[audit.CheckpointSignature] != 1 || codes[CheckpointForm] != 2 || codes[CRLForeign] != 3 {
		t.Errorf("findings: %+v", r.Findings)
	}
	if r.Commits != 8 || r.Lists != 4 {
		t.Errorf("%d commits, %d lists", r.Commits, r.Lists)
	}
}

func TestTwoHistoriesSignedByTheLogKey(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	size, _ := w.store.Head()
	other := audit.Checkpoint{Origin: "log.example.org", Size: size - 1, Root: audit.Hash{1}}
	signed, err := other.Sign(w.log)
	w.must(err)
	commit := w.commitRaw(gitrepo.Files{}, signed, "subject\n")
	r := w.verify()
	w.wantContradiction(r, audit.CheckpointRoot, r.Witnessed, commit)
}

func TestListsAgainstTheLog(t *testing.T) {
	tip := func(w *world) string { return w.git("-C", w.repo, "rev-parse", "main") }
	t.Run(CRLNotOnLog, func(t *testing.T) {
		w := newWorld(t)
		w.aLife()
		w.commit("stolen key", gitrepo.Files{"users.crl": w.sign(w.users, w.key, 3)})
		w.wantContradiction(w.verify(), CRLNotOnLog, -1, tip(w)+", file users.crl")
	})
	t.Run("in the bundle only", func(t *testing.T) {
		w := newWorld(t)
		w.aLife()
		w.commit("stolen key", gitrepo.Files{"bundle.crl.pem": list.EncodeBundle(w.sign(w.users, w.key, 3))})
		w.wantContradiction(w.verify(), CRLNotOnLog, -1, tip(w)+", file bundle.crl.pem")
	})
	t.Run(CRLIncomplete, func(t *testing.T) {
		w := newWorld(t)
		w.aLife()
		w.list(3)
		w.wantContradiction(w.verify(), CRLIncomplete, w.signed(), tip(w))
	})
	held := audit.Revocation{Serial: serial(1), Issuer: "users", At: start.Add(time.Minute), Reason: cert.CertificateHold}
	hold := func(w *world) {
		w.issue(1, "User 1")
		w.add(alice, &audit.RevokeDone{RequestID: "hold", Reason: cert.CertificateHold, Revoked: []audit.Revocation{held}})
	}
	release := func(w *world) {
		w.add(alice, &audit.ReleaseDone{RequestID: "release", Released: []audit.Release{{Serial: serial(1), Issuer: "users"}}})
	}
	onHold := list.Entry{Serial: held.Serial, RevokedAt: held.At, Reason: held.Reason}
	t.Run("a hold and its release", func(t *testing.T) {
		w := newWorld(t)
		hold(w)
		w.list(1, onHold)
		release(w)
		w.list(2)
		w.revoke(1)
		w.list(3, entryOf(1))
		if r := w.verify(); r.Contradiction != nil || r.Lists != 4 {
			t.Errorf("%v, %d lists", r.Contradiction, r.Lists)
		}
	})
	t.Run(CRLIncomplete+" without a hold that was released later", func(t *testing.T) {
		w := newWorld(t)
		hold(w)
		w.list(1)
		at, commit := w.signed(), tip(w)
		release(w)
		w.wantContradiction(w.verify(), CRLIncomplete, at, commit)
	})
	t.Run(CRLEntry+" of a hold that was released before", func(t *testing.T) {
		w := newWorld(t)
		hold(w)
		release(w)
		w.list(1, onHold)
		w.wantContradiction(w.verify(), CRLEntry, w.signed(), tip(w))
	})
	t.Run(CRLEntry+" of a live certificate", func(t *testing.T) {
		w := newWorld(t)
		w.aLife()
		w.list(3, entryOf(1), entryOf(2))
		w.wantContradiction(w.verify(), CRLEntry, w.signed(), tip(w))
	})
	t.Run(CRLEntry+" of one that was revoked later", func(t *testing.T) {
		w := newWorld(t)
		w.aLife()
		w.list(3, entryOf(1), entryOf(2))
		at := w.signed()
		w.revoke(2)
		w.wantContradiction(w.verify(), CRLEntry, at, tip(w))
	})
	for name, change := range map[string]func(*list.Entry){
		"date":   func(e *list.Entry) { e.RevokedAt = e.RevokedAt.Add(time.Second) },
		"reason": func(e *list.Entry) { e.Reason = cert.KeyCompromise },
	} {
		t.Run(CRLEntry+" with another "+name, func(t *testing.T) {
			w := newWorld(t)
			w.aLife()
			e := entryOf(1)
			change(&e)
			w.list(3, e)
			w.wantContradiction(w.verify(), CRLEntry, w.signed(), tip(w))
		})
	}
	t.Run("an entry leaves after its certificate", func(t *testing.T) {
		w := newWorld(t)
		w.aLife()
		expired := start.AddDate(0, 1, 0)
		w.listAt(3, expired.Add(list.KeepAfterExpiry).Add(-list.Skew), entryOf(1))
		w.listAt(4, expired.Add(list.KeepAfterExpiry))
		if r := w.verify(); r.Contradiction != nil {
			t.Fatal(r.Contradiction)
		}
		w.listAt(5, expired.Add(list.KeepAfterExpiry).Add(-list.Skew))
		w.wantContradiction(w.verify(), CRLIncomplete, w.signed(), tip(w))
	})
	t.Run("a revocation that the key room may not have read", func(t *testing.T) {
		w := newWorld(t)
		w.issue(1, "User 1")
		intent := w.add(daemon, &audit.CRLIntent{Room: "room-1", Issuer: "users", Number: "1", ThisUpdate: start})
		w.revoke(1)
		for i, der := range [][]byte{w.sign(w.users, w.key, 1), w.sign(w.users, w.key, 2, entryOf(1))} {
			if i == 1 {
				intent = w.add(daemon, &audit.CRLIntent{Room: "room-1", Issuer: "users", Number: "2", ThisUpdate: start})
			}
			w.add(daemon, &audit.CRLSigned{Issuer: "users", Number: fmt.Sprint(i + 1), Intent: intent, SHA256: cert.SHA256(der), Room: w.state()})
			w.commit("list", gitrepo.Files{"users.crl": der})
		}
		if r := w.verify(); r.Contradiction != nil || r.Lists != 3 {
			t.Fatal(r.Contradiction, r.Lists)
		}
	})
}

// signed is the leaf of the last list: after it came only its publication.
func (w *world) signed() int64 {
	size, _ := w.store.Head()
	return size - 2
}

func TestWhatIsCommittedWhileTheLogIsRead(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	h := w.history()
	before := w.rebuilt(w.leaves())
	w.revoke(2)
	w.list(3, entryOf(1), entryOf(2))
	r, err := Verify(w.ctx, Source{Log: before, LogKey: w.logKey, History: h})
	if err != nil || r.Contradiction != nil || r.Lists != 3 {
		t.Errorf("a commit that came later contradicts: %v, %v, %d lists", err, r.Contradiction, r.Lists)
	}
}

// A root signs its lists away from the log, and revokes issuers, which have no leaf of their own.
func TestAListOfTheRoot(t *testing.T) {
	w := newWorld(t)
	w.aLife()
	der := w.sign(w.root, w.top, 2, list.Entry{Serial: "0b", RevokedAt: start, Reason: cert.CACompromise})
	w.add(audit.Actor{Kind: audit.ByCeremony}, &audit.RootListNamed{Number: "2", SHA256: cert.SHA256(der)})
	w.commit("root", gitrepo.Files{"root.crl": der})
	if r := w.verify(); r.Contradiction != nil || r.Lists != 4 {
		t.Error(r.Contradiction, r.Lists)
	}
}

// unreadable is a store whose tree cannot be read just now, which proves nothing.
type unreadable struct{ Log }

func (unreadable) Root(context.Context, int64) (audit.Hash, error) {
	return audit.Hash{}, os.ErrDeadlineExceeded
}

func TestWhatCannotBeReadIsNoContradiction(t *testing.T) {
	w := newWorld(t)
	r, err := Verify(w.ctx, Source{Log: unreadable{w.store}, LogKey: w.logKey})
	if !errors.Is(err, os.ErrDeadlineExceeded) || r.Contradiction != nil {
		t.Errorf("%v, %v", err, r.Contradiction)
	}
}

func TestTheKeyComesFromTheReviewer(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	for _, key := range []string{"", "\n", "nonsense"} {
		if _, err := Verify(w.ctx, Source{Log: w.store, LogKey: key}); err == nil {
			t.Errorf("verified with the key %q", key)
		}
	}
	r, err := Verify(w.ctx, Source{Log: w.store, LogKey: other.logKey})
	w.must(err)
	w.wantContradiction(r, audit.LogKey, 0, "")
}
