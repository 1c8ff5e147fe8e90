package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// TestSnapshotWhileSomebodyWrites copies a database that grows meanwhile. Each copy is whole, stands alone,
// continues the one before, and has no octet of a sealed secret.
func TestSnapshotWhileSomebodyWrites(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	secret := func(n int) []byte {
		return fmt.Appendf(nil, "%s-%06d-%s", strings.Repeat("s", 300), n, strings.Repeat("e", 300))
	}
	next := 1
	grow := func() {
		c := certificate(next)
		c.Sealed = secret(next)
		next++
		mustUpdate(t, s, reserve(c))
	}
	for range 40 {
		grow()
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				grow()
			}
		}
	}()
	dir, before := t.TempDir(), int64(0)
	for n := range 5 {
		to := filepath.Join(dir, fmt.Sprintf("copy%d", n))
		size, root, err := Snapshot(context.Background(), s.path, to)
		if err != nil || size < before {
			t.Fatal(size, err)
		}
		before = size
		if want, err := s.Root(context.Background(), size); err != nil || root != want {
			t.Errorf("the copy of %d leaves has another root: %v", size, err)
		}
		look(t, to, size)
	}
	close(stop)
	<-stopped
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 5 {
		t.Errorf("beside the copies there is %v %v", left, err)
	}
}

func look(t *testing.T, copied string, size int64) {
	t.Helper()
	out, err := exec.Command("python3", "-c", `import sqlite3, sys
c = sqlite3.connect("file:%s?mode=ro&immutable=1" % sys.argv[1], uri=True)
print(c.execute("PRAGMA integrity_check").fetchall(), c.execute("SELECT count(*) FROM leaf").fetchone(), c.execute("SELECT count(*) FROM certificate WHERE sealed IS NOT NULL").fetchone())`,
		copied).CombinedOutput()
	if want := fmt.Sprintf("[('ok',)] (%d,) (0,)\n", size); err != nil || string(out) != want {
		t.Errorf("%s %v; want %s", out, err, want)
	}
	content, err := os.ReadFile(copied)
	if err != nil || bytes.Contains(content, []byte("sssss")) || bytes.Contains(content, []byte("eeeee")) {
		t.Errorf("a secret is in the copy: %v", err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	again, err := Open(context.Background(), copied, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	found, err := again.Check(context.Background())
	if err != nil || len(found) > 0 || again.Close() != nil {
		t.Errorf("%v %v", found, err)
	}
}

// TestSnapshotFails: what cannot be copied is said, and what is there is not touched.
func TestSnapshotFails(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Snapshot(context.Background(), s.path, there); err == nil {
		t.Error("it wrote over a file")
	}
	if text, err := os.ReadFile(there); err != nil || string(text) != "mine" {
		t.Errorf("%q %v", text, err)
	}
	if _, _, err := Snapshot(context.Background(), filepath.Join(dir, "none"), filepath.Join(dir, "new")); err == nil {
		t.Error("it copied nothing")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if size, root, err := Snapshot(ended, s.path, filepath.Join(dir, "late")); err == nil || size != 0 || root != (audit.Hash{}) {
		t.Error(size, root, err)
	}
}
