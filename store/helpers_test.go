package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

func TestMain(m *testing.M) {
	childMain() // does not return in a child process
	goleak.VerifyTestMain(m)
}

var (
	who   = audit.Actor{Kind: audit.ByCaller, Name: "provisioning"}
	epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// clock is a clock that the test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return epoch.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func opened() []audit.Event {
	return []audit.Event{
		&audit.LogOpened{Origin: "log.example.org", Room: "room-1"},
		&audit.RootNamed{Subject: "CN=Example Root", Certificate: []byte{0x30, 0x00}},
	}
}

func newStore(t testing.TB) (*Store, *clock) {
	t.Helper()
	c := &clock{}
	s, err := Create(context.Background(), filepath.Join(t.TempDir(), "chancery.db"), c.now, who, opened())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, c
}

// certificate is the n-th certificate of these tests, as an intent.
func certificate(n int) Certificate {
	return Certificate{
		Serial: cert.Serial(fmt.Sprintf("7f%030x", n)), Issuer: "users", Purpose: cert.User,
		CN: fmt.Sprintf("User %d", n), Key: fmt.Sprintf("user %d", n),
		SANs: cert.SANs{Email: []string{fmt.Sprintf("user%d@example.org", n)}}, KeyType: cert.P256,
		Caller: "provisioning", RequestID: fmt.Sprintf("request-%d", n), BodySHA256: cert.SHA256([]byte(fmt.Sprint(n))),
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.AddDate(1, 0, 0), Deadline: epoch.Add(time.Minute),
		SPKISHA256: cert.SHA256([]byte("spki")), TBSSHA256: cert.SHA256([]byte("tbs")),
		CSR: []byte("csr"), Sealed: []byte("sealed secret"), Entry: "entry-1",
	}
}

func intentOf(c Certificate) *audit.IssueIntent {
	return &audit.IssueIntent{
		RequestID: c.RequestID, BodySHA256: c.BodySHA256, Room: "room-1", Issuer: c.Issuer, Serial: c.Serial,
		Purpose: c.Purpose, CN: c.CN, SANs: c.SANs, KeyType: c.KeyType, KeyMadeBy: "ca", NotBefore: c.NotBefore,
		NotAfter: c.NotAfter, Deadline: c.Deadline, SPKISHA256: c.SPKISHA256, TBSSHA256: c.TBSSHA256, Entry: c.Entry,
	}
}

func reserve(c Certificate) func(*Tx) (audit.Event, error) {
	return func(tx *Tx) (audit.Event, error) { return intentOf(c), tx.Reserve(c) }
}

func complete(serial cert.Serial) func(*Tx) (audit.Event, error) {
	return func(tx *Tx) (audit.Event, error) {
		der := []byte("der of " + serial)
		completed, revocation, err := tx.Complete(serial, der)
		if err == nil {
			found, missing := tx.Find(Query{Serial: serial})
			if diff := cmp.Diff([]Certificate{completed}, found); missing != nil || diff != "" {
				err = fmt.Errorf("what was completed is not what is found: %w\n%s", missing, diff)
			}
		}
		return &audit.IssueDone{Serial: serial, Fingerprint: cert.FingerprintOf(der), Revocation: revocation}, err
	}
}

func revoke(serial cert.Serial, at time.Time, reason cert.Reason) func(*Tx) (audit.Event, error) {
	return func(tx *Tx) (audit.Event, error) {
		r, err := tx.Revoke(serial, at, reason)
		return &audit.RevokeDone{RequestID: "r", Revoked: []audit.Revocation{r}}, err
	}
}

func stopped(*Tx) (audit.Event, error) { return &audit.ServiceStopped{}, nil }

func mustUpdate(t testing.TB, s *Store, change func(*Tx) (audit.Event, error)) audit.Entry {
	t.Helper()
	entry, err := s.Update(context.Background(), who, change)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func one(t testing.TB, s *Store, q Query) Certificate {
	t.Helper()
	found, err := s.Find(context.Background(), q)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d certificates of %+v: %v", len(found), q, err)
	}
	return found[0]
}

// verify reads the database with Python, which did not write it, and holds everything against
// everything: indexes dense, nodes and every edge equal to a tree computed from leaf 0, the head in
// memory, the store's own check, and a row for each intent leaf and none besides.
func verify(t testing.TB, s *Store) {
	t.Helper()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Fatalf("the store's own check: %v %v", findings, err)
	}
	d := dump(t, s.path)
	tree, at := &audit.Tree{}, 0
	intents := make(map[string]int64)
	for i, leaf := range d.Leaves {
		if leaf.Position != int64(i) {
			t.Fatalf("leaf %d stands where %d belongs", leaf.Position, i)
		}
		decoded, err := audit.Decode(leaf.Bytes)
		if err != nil {
			t.Fatalf("leaf %d: %v", i, err)
		}
		if e, ok := decoded.Event.(*audit.IssueIntent); ok {
			intents[string(e.Serial)] = leaf.Position
		}
		for _, want := range tree.Append(leaf.Bytes) {
			if at >= len(d.Nodes) || d.Nodes[at].Position != int64(at) || !bytes.Equal(d.Nodes[at].Bytes, want[:]) {
				t.Fatalf("node %d does not follow from leaf %d", at, i)
			}
			at++
		}
		root, err := s.Root(context.Background(), tree.Size())
		if err != nil || root != tree.Root() {
			t.Fatalf("root of %d leaves: %v %v, want %v", tree.Size(), root, err, tree.Root())
		}
	}
	if at != len(d.Nodes) || int64(at) != tlog.StoredHashIndex(0, tree.Size()) {
		t.Fatalf("%d nodes, want %d", len(d.Nodes), at)
	}
	if size, root := s.Head(); size != tree.Size() || root != tree.Root() {
		t.Fatalf("head %d %v, want %d %v", size, root, tree.Size(), tree.Root())
	}
	for serial, intent := range d.Intents {
		if at, ok := intents[serial]; !ok || at != intent {
			t.Fatalf("the row of %s says intent %d, the log says %d (%v)", serial, intent, at, ok)
		}
	}
	if len(intents) != len(d.Intents) {
		t.Fatalf("%d intents on the log, %d rows in the books", len(intents), len(d.Intents))
	}
}

type dumped struct {
	Leaves, Nodes []struct {
		Position int64
		Bytes    []byte
	}
	Intents map[string]int64
	States  map[string]string
	Check   string
}

// dump reads the database file with Python's sqlite3.
func dump(t testing.TB, path string) dumped {
	t.Helper()
	const script = `
import sqlite3, sys, json, base64, pathlib
db = sqlite3.connect(pathlib.Path(sys.argv[1]).as_uri() + "?mode=ro", uri=True)
rows = lambda q: [{"Position": p, "Bytes": base64.b64encode(b).decode()} for p, b in db.execute(q)]
json.dump({
  "Leaves": rows("SELECT position, leaf FROM leaf ORDER BY position"),
  "Nodes": rows("SELECT position, hash FROM node ORDER BY position"),
  "Intents": dict(db.execute("SELECT serial, intent FROM certificate")),
  "States": dict(db.execute("SELECT serial, state FROM certificate")),
  "Check": db.execute("PRAGMA integrity_check").fetchone()[0],
}, sys.stdout)`
	cmd := exec.Command("python3", "-c", script, path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("reading %s with python3: %v\n%s", path, err, stderr.Bytes())
	}
	var d dumped
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatal(err)
	}
	if d.Check != "ok" {
		t.Fatalf("python3 finds the database damaged: %s", d.Check)
	}
	return d
}
