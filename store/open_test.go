package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/chancery-ca/chancery/audit"
)

// python changes a closed database behind the store's back.
func python(t testing.TB, path, statements string) {
	t.Helper()
	const script = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.executescript(sys.argv[2])
db.commit()`
	if out, err := exec.Command("python3", "-c", script, path, statements).CombinedOutput(); err != nil {
		t.Fatalf("python3: %v\n%s", err, out)
	}
}

// closedStore is a store with n certificates, closed.
func closedStore(t testing.TB, n int) *Store {
	t.Helper()
	s, _ := newStore(t)
	for i := range n {
		mustUpdate(t, s, reserve(certificate(i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCreateNeverOverwrites(t *testing.T) {
	s := closedStore(t, 1)
	before, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.Symlink("nowhere", link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.path, empty, link} {
		if _, err := Create(context.Background(), path, s.now, who, opened()); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	after, err := os.ReadFile(s.path)
	if err != nil || string(after) != string(before) {
		t.Fatal("the database was touched", err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a file? with #odd %41 names.db")
	if _, err := Create(context.Background(), path, (&clock{}).now, who, nil); err == nil {
		t.Fatal("a log without a first leaf was created")
	}
	poison := append(opened(), (*audit.LogOpened)(nil))
	if _, err := Create(context.Background(), path, (&clock{}).now, who, poison); !errors.Is(err, audit.ErrNotCanonical) {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Fatalf("a failed Create left %v, %v", left, err)
	}
	s, err := Create(context.Background(), path, (&clock{}).now, who, opened())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	verify(t, s)
	leaves, err := s.Leaves(context.Background(), 0, 2)
	if err != nil || len(leaves) != 2 {
		t.Fatal(leaves, err)
	}
	if first, err := audit.Decode(leaves[0]); err != nil || first.Event.Type() != "log.opened" {
		t.Fatal(first, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestOpenCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(context.Background(), filepath.Join(dir, "none.db"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("this is no database, whatever its name"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), text, nil); err == nil {
		t.Fatal("a text was opened")
	}
	foreign := filepath.Join(dir, "foreign")
	python(t, foreign, "CREATE TABLE leaf (position INTEGER PRIMARY KEY, leaf BLOB)")
	if _, err := Open(context.Background(), foreign, nil); !errors.Is(err, ErrSchema) {
		t.Fatal(err)
	}
}

func TestSchemaIsPinned(t *testing.T) {
	for name, statements := range map[string]string{
		"newer":   "INSERT INTO migration VALUES (99, 'migrations/sqlite/0099_later.sql', 'abc')",
		"changed": "UPDATE migration SET sha256 = 'abc'",
		"gap":     "UPDATE migration SET version = 99 WHERE version = 1",
	} {
		s := closedStore(t, 0)
		python(t, s.path, statements)
		if _, err := Open(context.Background(), s.path, s.now); !errors.Is(err, ErrSchema) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, _ := newStore(t)
	later := append([]migration{}, sqliteMigrations...)
	later = append(later, migration{sqliteMigrations[0].file, "abc"})
	if err := s.engine.migrate(context.Background(), later, false); !errors.Is(err, ErrSchema) {
		t.Errorf("a step that is not the pinned one: %v", err)
	}
	files, err := migrationFiles.ReadDir("migrations/sqlite")
	if err != nil || len(files) != len(sqliteMigrations) {
		t.Errorf("%d files, %d steps, %v", len(files), len(sqliteMigrations), err)
	}
}

func TestReadersCannotWrite(t *testing.T) {
	s, _ := newStore(t)
	for _, text := range []string{"DELETE FROM leaf", "CREATE TABLE more (x)", "PRAGMA user_version = 7"} {
		if _, err := s.engine.readDB.Exec(text); err == nil {
			t.Errorf("%s was done", text)
		}
	}
	verify(t, s)
}

func TestOpenReader(t *testing.T) {
	ctx := context.Background()
	if _, err := OpenReader(ctx, filepath.Join(t.TempDir(), "none.db"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	s := closedStore(t, 5)
	r, err := OpenReader(ctx, s.path, s.now)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, r)
	if _, err := r.Update(ctx, who, stopped); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := r.engine.readDB.Exec("DELETE FROM leaf"); err == nil {
		t.Fatal("it writes")
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	python(t, s.path, "UPDATE node SET hash = zeroblob(32) WHERE position = (SELECT max(position) FROM node)")
	if r, err = OpenReader(ctx, s.path, s.now); err != nil {
		t.Fatal(err)
	}
	findings, err := r.Check(ctx)
	if err != nil || len(findings) == 0 || r.Close() != nil {
		t.Fatal("a damaged log is not noticed", findings, err)
	}
	python(t, s.path, "INSERT INTO migration VALUES (99, 'later', 'abc')")
	if _, err := OpenReader(ctx, s.path, s.now); !errors.Is(err, ErrSchema) {
		t.Fatal(err)
	}
}

func TestEngineFloor(t *testing.T) {
	for version, want := range map[string]bool{
		"3.51.3": true, "3.51.10": true, "3.52.0": true, "4.0.0": true, "3.53.4": true,
		"3.51.2": false, "3.9.9": false, "3.51": false, "": false, "x.y.z": false,
	} {
		if atLeast(version, sqliteFloor) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

func TestTamperedLogIsNoticed(t *testing.T) {
	const certificates = 600 // more than the overlap that Open hashes
	last := tlog.StoredHashIndex(0, certificates+1)
	for name, c := range map[string]struct {
		statements string
		atOpen     bool
	}{
		"last leaf changed":   {"UPDATE leaf SET leaf = CAST(replace(leaf, 'User', 'Loser') AS BLOB) WHERE position = 601", true},
		"last leaf removed":   {"DELETE FROM leaf WHERE position = 601", true},
		"last node changed":   {"UPDATE node SET hash = zeroblob(32) WHERE position = " + strconv.FormatInt(last, 10), true},
		"a leaf near the end": {"UPDATE leaf SET leaf = CAST(replace(leaf, 'User', 'Loser') AS BLOB) WHERE position = 590", true},
		"early leaf changed":  {"UPDATE leaf SET leaf = CAST(replace(leaf, 'User', 'Loser') AS BLOB) WHERE position = 7", false},
		"early leaf removed":  {"DELETE FROM certificate WHERE intent = 7; DELETE FROM leaf WHERE position = 7", false},
		"early node changed":  {"UPDATE node SET hash = zeroblob(32) WHERE position = 9", false},
		"early node removed":  {"DELETE FROM node WHERE position = 9", false},
		"row without a leaf":  {"UPDATE certificate SET intent = 1000000 WHERE intent = 7", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := tamperable(t, certificates)
			python(t, s.path, c.statements)
			again, err := Open(context.Background(), s.path, s.now)
			if err != nil {
				if !c.atOpen {
					t.Fatal(err)
				}
				t.Log(err)
				return
			}
			defer again.Close()
			if c.atOpen {
				t.Error("Open did not notice")
			}
			findings, err := again.Check(context.Background())
			if err != nil || len(findings) == 0 {
				t.Fatalf("Check found %v, %v", findings, err)
			}
			t.Log(findings[0])
		})
	}
}

func tamperable(t *testing.T, certificates int) *Store {
	s, _ := newStore(t)
	_, failed := crowd(certificates, func(n int) (audit.Entry, error) {
		return s.Update(context.Background(), who, reserve(certificate(n)))
	})
	if len(failed) > 0 {
		t.Fatal(failed)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRootsAndLeavesOfEveryLength(t *testing.T) {
	s := closedStore(t, 70)
	s, err := Open(context.Background(), s.path, s.now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	verify(t, s) // which asks for the root of every length
	size, root := s.Head()
	if got, err := s.Root(context.Background(), size); err != nil || got != root {
		t.Fatal(err)
	}
	for _, bad := range [][2]int64{{-1, 2}, {3, 2}, {0, size + 1}} {
		if _, err := s.Leaves(context.Background(), bad[0], bad[1]); err == nil {
			t.Errorf("leaves %v", bad)
		}
	}
	for _, bad := range []int64{-1, size} {
		if _, err := s.Leaf(context.Background(), bad); err == nil {
			t.Errorf("leaf %d", bad)
		}
	}
	if first, err := s.Leaf(context.Background(), 0); err != nil || first.Event.Type() != "log.opened" {
		t.Errorf("%+v, %v", first, err)
	}
	for _, bad := range []int64{-1, size + 1} {
		if _, err := s.Root(context.Background(), bad); err == nil {
			t.Errorf("root of %d", bad)
		}
	}
	if none, err := s.Leaves(context.Background(), size, size); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

func TestRestore(t *testing.T) {
	ahead, clock := newStore(t)
	behind, err := Create(context.Background(), filepath.Join(t.TempDir(), "behind.db"), clock.now, who, opened())
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	for n := range 150 {
		clock.advance(100 * time.Millisecond)
		mustUpdate(t, ahead, reserve(certificate(n)))
	}
	size, root := ahead.Head()
	leaves, err := ahead.Leaves(context.Background(), 2, size)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(tx *Tx, index int64, leaf audit.Leaf) error {
		if tx.Index() != index || !tx.Now().Equal(leaf.Time) {
			t.Errorf("index %d at %v, leaf %d at %v", tx.Index(), tx.Now(), index, leaf.Time)
		}
		intent := leaf.Event.(*audit.IssueIntent)
		c := certificate(int(index) - 2)
		if intent.Serial != c.Serial {
			t.Errorf("leaf %d is of %s", index, intent.Serial)
		}
		return tx.Reserve(c)
	}
	broken := append([][]byte{}, leaves...)
	broken[149] = append([]byte(" "), leaves[149]...)
	if err := behind.Restore(context.Background(), broken, fill); !errors.Is(err, audit.ErrNotCanonical) {
		t.Fatal(err)
	}
	if size, _ := behind.Head(); size != 2 {
		t.Fatalf("half a restore: %d leaves", size)
	}
	if err := behind.Restore(context.Background(), leaves, fill); err != nil {
		t.Fatal(err)
	}
	if gotSize, gotRoot := behind.Head(); gotSize != size || gotRoot != root {
		t.Fatalf("%d %v, want %d %v", gotSize, gotRoot, size, root)
	}
	verify(t, behind)
}
