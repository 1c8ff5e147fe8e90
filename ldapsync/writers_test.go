package ldapsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// A temporary file that a crash left is neither read nor kept, and a change by an editor who does not
// know our lock is seen.
func TestLeftoversAndEditors(t *testing.T) {
	d, path := emptyFile(t)
	writeFile(t, path+".tmp", []byte("dn: half of an ent"))
	alice := find(t, d, cert.User, "alice")
	apply(t, d, alice, [][]byte{[]byte("one")}, nil)
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the temporary file is still there")
	}
	text := strings.Replace(string(readFile(t, path)), "sn: alice", "sn: Liddell", 1)
	writeFile(t, path, []byte(text))
	apply(t, d, alice, [][]byte{[]byte("two")}, nil)
	e := readEntry(t, path, "cn=alice,ou=people,"+base)
	if got := fmt.Sprintf("%s %s", e.values("sn"), e.values(published)); got != "[Liddell] [one two]" {
		t.Errorf("the entry says %s", got)
	}
}

// An editor who does not know our lock saves while we write: the version of the editor stays.
func TestEditorSavesMeanwhile(t *testing.T) {
	d, path := emptyFile(t)
	base, err := d.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer d.release(base)
	text := strings.Replace(string(readFile(t, path)), "ou: people", "ou: People", 1) // as long as before
	writeFile(t, path, []byte(text))
	if err := d.replace(&draft{base: base}); err == nil {
		t.Error("written over the editor's version")
	}
	if string(readFile(t, path)) != text {
		t.Error("the editor's version is lost")
	}
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the temporary file is still there")
	}
}

// Several processes, each with many callers, lose nothing of each other.
func TestConcurrentWriters(t *testing.T) {
	_, path := emptyFile(t)
	const processes, each = 4, 12
	before := descriptors(t)
	var all sync.WaitGroup
	var opened []*LDIF
	for p := range processes {
		d := open(t, path) // its own descriptors and index: what another process has
		opened = append(opened, d)
		for i := range each {
			all.Go(func() {
				own := find(t, d, cert.User, fmt.Sprintf("person %d-%d", p, i))
				shared := find(t, d, cert.Server, "www.example.org")
				apply(t, d, own, [][]byte{[]byte("own")}, nil)
				apply(t, d, shared, [][]byte{fmt.Appendf(nil, "%d-%d", p, i)}, nil)
				apply(t, d, own, [][]byte{[]byte("next")}, [][]byte{[]byte("own")})
			})
		}
	}
	all.Wait()
	for _, d := range opened {
		d.Close()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, before it were %d", after, before)
	}
	entries := readBack(t, path)
	if len(entries) != 3+processes*each+1 {
		t.Errorf("%d entries", len(entries))
	}
	for _, e := range entries[3:] {
		got := e.values(published)
		if strings.Contains(e.DN, "ou=people") && fmt.Sprintf("%s", got) != "[next]" {
			t.Errorf("%s holds %s", e.DN, got)
		}
		if strings.Contains(e.DN, "ou=hosts") && len(got) != processes*each {
			t.Errorf("%s holds %d values", e.DN, len(got))
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// The lock is one that other programs see, and waiting for it ends with the context.
func TestLockIsSeenByOthers(t *testing.T) {
	d, path := emptyFile(t)
	alice := find(t, d, cert.User, "alice")
	apply(t, d, alice, [][]byte{[]byte("one")}, nil)
	holder := exec.Command("python3", "-c", `
import fcntl, sys
f = open(sys.argv[1], "r+")
fcntl.flock(f, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()`, path+".lock")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := d.Apply(ctx, alice, [][]byte{[]byte("two")}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("written under the lock of another: %v", err)
	}
	in.Close()
	if err := holder.Wait(); err != nil {
		t.Fatal(err)
	}
	apply(t, d, alice, [][]byte{[]byte("two")}, nil)
}
