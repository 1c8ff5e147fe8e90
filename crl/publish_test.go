package crl

import (
	"bytes"
	"context"
	"encoding/base64"
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
	"github.com/chancery-ca/chancery/store"
)

func TestFirstPublication(t *testing.T) {
	w := newWorld(t)
	from := w.head()
	commit := w.publish()
	if commit != w.tip() || w.commits() != 1 {
		t.Errorf("published in %s, the tip is %s", commit, w.tip())
	}
	if got := w.types(from); got != strings.Repeat("crl.intent crl.signed ", 3)+"crl.published" {
		t.Errorf("the log says %s", got)
	}
	w.mustGit("-c", "gpg.ssh.allowedSignersFile="+filepath.Join(w.dir, "allowed_signers"), "verify-commit", "main")
	w.mustGit("fsck", "--strict")
	if alarms := w.logged.TakeAll(); len(alarms) > 0 {
		t.Errorf("logged %v", alarms)
	}
	w.checkFolder()
	w.checkMessage(from, []string{"users 1", "servers 1", "callers 1"})
}

// checkFolder reads what is published with tools that did not write it.
func (w *world) checkFolder() {
	w.Helper()
	checkout := filepath.Join(w.dir, "checkout")
	w.must(os.RemoveAll(checkout))
	w.mustGit("clone", "-q", w.repo(), checkout)
	pki := filepath.Join(checkout, "pki")
	for _, i := range []string{"users", "servers", "callers", "root"} {
		crl, ca := filepath.Join(pki, i+".crl.pem"), filepath.Join(pki, "ca", i+".pem")
		text, err := w.tool(nil, "openssl", "crl", "-in", crl, "-CAfile", filepath.Join(pki, "ca", "chain.pem"), "-noout", "-hash", "-crlnumber")
		w.must(err)
		if !strings.Contains(text, "verify OK") {
			w.Errorf("openssl on %s: %s", crl, text)
		}
		hash, err := w.tool(nil, "openssl", "x509", "-in", ca, "-noout", "-hash")
		w.must(err)
		byHash, err := os.ReadFile(filepath.Join(pki, "rehash", strings.TrimSpace(hash)+".r0"))
		w.must(err)
		if !bytes.Equal(byHash, w.file(i+".crl.pem")) || !strings.Contains(text, strings.TrimSpace(hash)) {
			w.Errorf("rehash/%s.r0 is not the list of %s; openssl crl says %s", hash, i, text)
		}
		der, err := w.tool(w.file(i+".crl"), "openssl", "crl", "-inform", "DER")
		w.must(err)
		if der != string(w.file(i+".crl.pem")) {
			w.Errorf("%s.crl and %s.crl.pem differ", i, i)
		}
	}
	var m struct {
		Lists []struct {
			Issuer, Number string
			Entries        int
		}
		Files map[string]string
	}
	w.must(json.Unmarshal(w.file("manifest.json"), &m))
	var files []string
	for path := range strings.FieldsSeq(w.mustGit("ls-tree", "-r", "--name-only", "main:pki")) {
		if path != "manifest.json" && path != "checkpoint" {
			files = append(files, path)
		}
	}
	for _, path := range files {
		sum, err := w.tool(nil, "sha256sum", filepath.Join(pki, path))
		w.must(err)
		if !strings.HasPrefix(sum, m.Files[path]+" ") || m.Files[path] == "" {
			w.Errorf("the manifest says %s of %s; it is %s", m.Files[path], path, sum)
		}
	}
	if len(files) != len(m.Files) || len(m.Lists) != 4 {
		w.Errorf("%d files, the manifest has %d; %d lists", len(files), len(m.Files), len(m.Lists))
	}
	for _, l := range m.Lists {
		if parsed := w.list(l.Issuer); parsed.Number.String() != l.Number || len(parsed.Entries) != l.Entries {
			w.Errorf("the manifest says %+v; the list is %s with %d", l, parsed.Number, len(parsed.Entries))
		}
	}
}

// checkMessage reads the trailers of the tip with git, and opens the checkpoint in them: it covers what
// was signed from an index on.
func (w *world) checkMessage(from int64, lists []string) {
	w.Helper()
	message := w.mustGit("log", "-1", "--format=%B", "main")
	out, err := w.gitWith([]byte(message), "interpret-trailers", "--parse")
	w.must(err)
	got := map[string][]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[key] = append(got[key], value)
	}
	for n, l := range lists {
		issuer, number, _ := strings.Cut(l, " ")
		// The books give lists in the order of their names.
		at := -1
		for i, name := range got["CRL-Issuer"] {
			if name == issuer {
				at = i
			}
		}
		if at < 0 || got["CRL-Number"][at] != number || got["CRL-SHA256"][at] != cert.SHA256(w.file(issuer+".crl")) {
			w.Errorf("trailers of list %d, %s: %v", n, l, got)
			continue
		}
		parsed := w.list(issuer)
		if got["This-Update"][at] != parsed.ThisUpdate.Format(time.RFC3339) || got["Next-Update"][at] != parsed.NextUpdate.Format(time.RFC3339) {
			w.Errorf("trailers of %s: %v", l, got)
		}
	}
	if len(got["CRL-Issuer"]) != len(lists) || len(got["Audit-Checkpoint"]) != 1 {
		w.Fatalf("trailers: %v", got)
	}
	note, err := base64.StdEncoding.DecodeString(got["Audit-Checkpoint"][0])
	w.must(err)
	if !bytes.Equal(note, w.file("checkpoint")) {
		w.Error("the trailer and the file are two checkpoints")
	}
	checkpoint, err := audit.OpenCheckpoint(note, w.room.Hello().LogKey)
	w.must(err)
	root, err := w.store.Root(context.Background(), checkpoint.Size)
	w.must(err)
	var published *audit.CRLPublished
	for i, e := range w.events(from) {
		switch e := e.(type) {
		case *audit.CRLSigned:
			if checkpoint.Size <= from+int64(i) {
				w.Errorf("the checkpoint of %d leaves does not cover list %s of %s at %d", checkpoint.Size, e.Number, e.Issuer, from+int64(i))
			}
		case *audit.CRLPublished:
			published = e
		}
	}
	if root != checkpoint.Root || published == nil || published.Checkpoint != checkpoint.Size || published.Commit != w.tip() {
		w.Errorf("the checkpoint is %+v; the log says %+v", checkpoint, published)
	}
}

func TestRevocationReachesGit(t *testing.T) {
	w := newWorld(t)
	w.publish()
	gone, good := w.issue("Alice"), w.issue("Bob")
	debt := w.revoke(gone.Serial, cert.KeyCompromise)
	before, from := w.tip(), w.head()
	paid := make(chan error, 1)
	go func() { paid <- w.store.AwaitPaid(context.Background(), debt) }()
	w.publish()
	w.must(<-paid)
	if got := w.types(from); got != "crl.intent crl.signed crl.published" {
		t.Errorf("the log says %s", got)
	}
	if w.mustGit("rev-parse", "main^") != before {
		t.Error("not one commit on the last tip")
	}
	l := w.list("users")
	c, err := w.store.Find(t.Context(), store.Query{Serial: gone.Serial})
	w.must(err)
	if e := l.Entries[0]; l.Number.String() != "2" || len(l.Entries) != 1 || e.Serial != gone.Serial || e.Reason != cert.KeyCompromise || !e.RevokedAt.Equal(c[0].RevokedAt) {
		t.Errorf("list %s holds %+v", l.Number, l.Entries)
	}
	if n := w.list("servers").Number.String(); n != "1" {
		t.Errorf("the servers' list is number %s", n)
	}
	w.checkFolder()
	w.checkMessage(from, []string{"users 2"})
	if subject := w.mustGit("log", "-1", "--format=%s", "main"); subject != "crl(users): number 2, +1 revoked" {
		t.Errorf("the subject is %q", subject)
	}
	pki := filepath.Join(w.dir, "checkout", "pki")
	// As a server does with one file, and as one does with a folder.
	root, chain := filepath.Join(pki, "ca", "root.pem"), filepath.Join(pki, "ca", "users.pem")
	leaf := w.write("leaf.pem", asPEM(gone.Certificate))
	ok := w.write("ok.pem", asPEM(good.Certificate))
	rehash := filepath.Join(pki, "rehash")
	hash, err := w.tool(nil, "openssl", "x509", "-in", root, "-noout", "-hash")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(rehash, strings.TrimSpace(hash)+".0"), asPEM(w.signer.Hello().Root), 0o600))
	for _, consumer := range [][]string{
		{"-CAfile", root, "-CRLfile", filepath.Join(pki, "bundle.crl.pem")},
		{"-CApath", rehash},
	} {
		verify := func(leaf string) (string, error) {
			return w.tool(nil, "openssl", append(append([]string{"verify", "-crl_check_all", "-untrusted", chain}, consumer...), leaf)...)
		}
		if out, err := verify(leaf); err == nil || !strings.Contains(out, "certificate revoked") {
			t.Errorf("%v: the revoked certificate: %s", consumer, out)
		}
		if out, err := verify(ok); err != nil {
			t.Errorf("%v: the good certificate: %s", consumer, out)
		}
	}
}

// While nothing changes there is no commit and no leaf, however often it is looked at.
func TestSweepChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.publish()
	tip, from := w.tip(), w.head()
	for range 3 {
		w.clock.step(3 * time.Hour)
		if commit := w.publish(); commit != tip {
			t.Errorf("published in %s", commit)
		}
	}
	if w.tip() != tip || w.head() != from {
		t.Errorf("the tip is %s, the log says %s", w.tip(), w.types(from))
	}
	w.issue("Alice") // the log grows, and the lists stay
	from = w.head()
	if w.publish(); w.tip() != tip || w.head() != from {
		t.Errorf("the tip is %s, the log says %s", w.tip(), w.types(from))
	}
}

func TestSignedAnewInTime(t *testing.T) {
	w := newWorld(t)
	w.publish()
	w.clock.step(signEvery + time.Minute)
	from := w.head()
	w.publish()
	if got := w.types(from); got != strings.Repeat("crl.intent crl.signed ", 3)+"crl.published" || w.list("users").Number.String() != "2" {
		t.Errorf("the log says %s", got)
	}
	// After a long silence: what is expired is not pushed, but signed anew first.
	w.clock.step(30 * 24 * time.Hour)
	w.publish()
	if l := w.list("users"); l.Number.String() != "3" || l.Current(w.clock.now()) != nil {
		t.Errorf("list %s until %s", l.Number, l.NextUpdate)
	}
	// A clock that was ahead and is put right.
	w.clock.step(-2 * time.Hour)
	w.publish()
	if l := w.list("users"); l.Number.String() != "4" || l.Current(w.clock.now()) != nil {
		t.Errorf("list %s of %s", l.Number, l.ThisUpdate)
	}
}

// stuck makes pushes fail until the function it returns is called.
func (w *world) stuck() func() {
	lock := filepath.Join(w.repo(), "refs", "heads", "main.lock")
	w.must(os.WriteFile(lock, nil, 0o600))
	return func() { w.must(os.Remove(lock)) }
}

func TestPushFails(t *testing.T) {
	w := newWorld(t)
	w.publish()
	issued := w.issue("Alice")
	debt := w.revoke(issued.Serial, cert.Superseded)
	tip, from := w.tip(), w.head()
	release := w.stuck()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var last store.Debt
	for attempt := 1; attempt <= 2; attempt++ {
		if _, err := w.loop.PayOnce(ctx); err == nil {
			t.Fatal("a push onto a locked branch")
		}
		owed, ok, err := w.store.Owed(t.Context(), store.CRL, "users")
		w.must(err)
		if wait := owed.NextAt.Sub(w.clock.now()); !ok || owed.Attempts != attempt || owed.LastError == "" || wait <= 0 || wait > lastRetry {
			t.Errorf("attempt %d: owed %v: %+v", attempt, ok, owed)
		}
		last = owed
		w.clock.step(lastRetry)
		ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
	}
	if got := w.types(from); got != "crl.intent crl.signed" {
		t.Errorf("the log says %s: a number was spent on each try", got)
	}
	if w.tip() != tip {
		t.Errorf("the tip is %s", w.tip())
	}
	if err := w.store.AwaitPaid(ctx, debt); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a debt that is not paid: %v", err)
	}
	release()
	w.publish()
	w.must(w.store.AwaitPaid(t.Context(), debt))
	if got := w.types(from); got != "crl.intent crl.signed crl.published" || len(w.list("users").Entries) != 1 {
		t.Errorf("the log says %s", got)
	}
	if _, ok, err := w.store.Owed(t.Context(), store.CRL, "users"); ok || err != nil {
		t.Errorf("still owed after %+v: %v", last, err)
	}
}

// The push reached the branch and the process died before it could say so.
func TestCrashAfterPush(t *testing.T) {
	w := newWorld(t)
	w.publish()
	issued := w.issue("Alice")
	debt := w.revoke(issued.Serial, cert.Superseded)
	from := w.head()
	// The process dies as Publish returns: its remote reads back nothing, so Publish fails.
	good := w.publisher.Remote
	w.publisher.Remote = &forgetful{Remote: good}
	if _, err := w.loop.PayOnce(t.Context()); err == nil {
		t.Fatal("the test lost nothing")
	}
	w.publisher.Remote = good
	pushed := w.tip()
	if got := w.types(from); got != "crl.intent crl.signed" || len(w.list("users").Entries) != 1 {
		t.Fatalf("the log says %s", got)
	}
	w.issue("Bob") // the log goes on: the checkpoint in the commit is not the newest any more
	from = w.head()
	w.clock.step(lastRetry)
	w.publish()
	if w.tip() != pushed {
		t.Errorf("a second commit, %s", w.tip())
	}
	if got := w.types(from); got != "crl.published" {
		t.Errorf("the log says %s", got)
	}
	checkpoint, err := audit.OpenCheckpoint(w.file("checkpoint"), w.room.Hello().LogKey)
	w.must(err)
	if e := w.events(from)[0].(*audit.CRLPublished); e.Commit != pushed || e.Checkpoint != checkpoint.Size {
		t.Errorf("the log says %+v; the checkpoint in the commit is of %d leaves", e, checkpoint.Size)
	}
	w.must(w.store.AwaitPaid(t.Context(), debt))
}

// forgetful is a remote on which a push succeeds and nothing can be read afterwards.
type forgetful struct {
	gitrepo.Remote
	pushed bool
}

func (f *forgetful) Fetch(ctx context.Context) (gitrepo.Tip, *gitrepo.Objects, error) {
	if f.pushed {
		return gitrepo.Tip{}, nil, errors.New("the connection is gone")
	}
	return f.Remote.Fetch(ctx)
}

func (f *forgetful) Push(ctx context.Context, old gitrepo.Tip, commit gitHash, objects []gitrepo.Object) error {
	f.pushed = true
	return f.Remote.Push(ctx, old, commit, objects)
}

// The loop itself: it wakes when something is owed, and ends with its context.
func TestRun(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.loop.Run(ctx) }()
	for n := range 3 {
		issued := w.issue(fmt.Sprint("user", n))
		debt := w.revoke(issued.Serial, cert.Superseded)
		patience, stop := context.WithTimeout(ctx, 10*time.Second)
		if err := w.store.AwaitPaid(patience, debt); err != nil {
			t.Errorf("revocation %d: %v", n, err)
		}
		stop()
		if got := len(w.list("users").Entries); got != n+1 {
			t.Errorf("%d entries after %d revocations", got, n+1)
		}
	}
	cancel()
	w.must(<-ended)
}

// TestUse: another publisher takes over while the loop runs, again and again, and the lists get to its place.
func TestUse(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.loop.Run(ctx) }()
	for n := range 16 {
		other := *w.publisher
		other.Folder = fmt.Sprint("site", n)
		if err := w.loop.Witness(ctx, &other); err != nil && !errors.Is(err, ErrNoWitness) {
			t.Fatal(err)
		}
		w.loop.Use(&other, true)
		if n%5 > 0 {
			continue // the next one is faster
		}
		w.revoke(w.issue(fmt.Sprint("user", n)).Serial, cert.Superseded)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			_, err := w.git("cat-file", "-e", "main:"+other.Folder+"/users.crl")
			_, owed, failed := w.store.Owed(ctx, store.CRL, "users")
			w.must(failed)
			if err == nil && !owed { // it is done, read back and all
				break
			}
			if time.Now().After(end) {
				t.Fatalf("nothing is published in %s: %v", other.Folder, err)
			}
		}
	}
	if rang := w.alarms(codeTampered); len(rang) > 0 {
		t.Errorf("false alarms: %v", rang)
	}
	same := *w.publisher
	same.Folder = "site15"
	w.mustGit("update-ref", "refs/heads/main", w.mustGit("commit-tree", "-m", "gone", "-p", "main", w.mustGit("mktree")))
	w.loop.Use(&same, false)
	for end := time.Now().Add(20 * time.Second); len(w.alarms(codeTampered)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no alarm for lists that are gone")
		}
	}
	cancel()
	w.must(<-ended)
}

// TestUseHurries: what could not be published to the old place is published to the new one at once, also if the
// attempt at the old one ends only then.
func TestUseHurries(t *testing.T) {
	w := newWorld(t)
	w.publish()
	serial := w.issue("Alice").Serial
	gone := *w.publisher
	gone.Remote = &forgetful{Remote: w.publisher.Remote, pushed: true}
	w.loop.Use(&gone, true)
	w.loop.takeOver()
	w.revoke(serial, cert.Superseded)
	w.loop.Use(w.publisher, true)
	if _, err := w.loop.once(t.Context(), false); err == nil {
		t.Fatal("a broken remote takes a list")
	}
	if debt, owed, err := w.store.Owed(t.Context(), store.CRL, "users"); err != nil || !owed || debt.Attempts != 1 || debt.NextAt.After(w.store.Now()) {
		t.Errorf("owed %v, due at %s after %d attempts: %v", owed, debt.NextAt, debt.Attempts, err)
	}
	w.loop.takeOver()
	w.publish()
	if got := len(w.list("users").Entries); got != 1 {
		t.Errorf("%d entries", got)
	}
}

// A reason that gets worse while a list is being signed holds nothing up.
func TestReasonChangesMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.publish()
	issued := w.issue("Alice")
	w.revoke(issued.Serial, cert.Superseded)
	current, found, err := w.store.List(t.Context(), "users")
	w.must(err)
	w.must(w.loop.sign(t.Context(), w.loop.issuers[0], current, found, nil))
	signed, _, err := w.store.List(t.Context(), "users")
	w.must(err)
	w.revoke(issued.Serial, cert.KeyCompromise)
	w.must(w.loop.check(t.Context(), w.loop.issuers[0], signed.DER, signed.Number, current, found, nil))
	w.publish()
	if e := w.list("users").Entries[0]; e.Reason != cert.KeyCompromise {
		t.Errorf("the list says %s", e.Reason)
	}
}
