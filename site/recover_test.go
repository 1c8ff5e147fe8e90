package site_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/site"
)

// backTo takes a store back to what it was when its log had n leaves, as an old copy would have it: the
// rows of later leaves are gone, and what they did to older rows is undone. The lists are those of the
// night, whose store is the second argument.
const backTo = `
n, night = int(sys.argv[2]), sys.argv[3]
l = [json.loads(x) for x in leaves()]
c.execute("PRAGMA foreign_keys=OFF")
cut(n)
c.execute("DELETE FROM request WHERE position >= ?", [n])
c.execute("UPDATE certificate SET state = 'open', done = -1, der = NULL, revoked_at = 0, reason = 0 WHERE done >= ?", [n])
c.execute("UPDATE certificate SET state = 'live', revoked_at = 0, reason = 0 WHERE state = 'revoked'")
from datetime import datetime
def micros(s): return int(datetime.fromisoformat(s.replace("Z", "+00:00")).timestamp() * 1000000)
reasons = {"keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5}
def number(r): return reasons.get(r, r)
for leaf in l[:n]:
    e = leaf["event"]
    revoked = e.get("revoked", []) if leaf["type"] == "revoke.done" else [e["revocation"]] if e.get("revocation") else []
    for r in revoked:
        c.execute("UPDATE certificate SET state = 'revoked', revoked_at = ?, reason = ? WHERE serial = ?", [micros(r["at"]), number(r["reason"]), r["serial"]])
    for serial in e.get("pending", []) if leaf["type"] == "revoke.done" else []:
        c.execute("UPDATE certificate SET revoke_asked = 1, revoked_at = ?, reason = ? WHERE serial = ? AND state = 'open'",
            [micros(leaf["time"]) // 1000000 * 1000000, number(e["reason"]), serial])
c.execute("ATTACH ? AS night", [night + "/state/store.db"])
c.execute("DELETE FROM main.list"); c.execute("INSERT INTO main.list SELECT * FROM night.list")
c.execute("DELETE FROM debt")
`

// books prints what certificates and requests there are, without what no leaf holds.
const books = `
cursor = c.execute("SELECT * FROM certificate ORDER BY intent")
names = [d[0] for d in cursor.description]
for row in cursor:
    print([(k, v) for k, v in zip(names, row) if k not in ("csr", "sealed")])
for row in c.execute("SELECT * FROM request ORDER BY caller, id"): print(row)
`

func leafCount(t *testing.T, dir string) int {
	t.Helper()
	n, err := strconv.Atoi(python(t, dir, `print(len(leaves()))`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRecoverFromEveryLeaf puts back copies of the store from every moment of a day, and compares what
// comes out with the books as they were.
func TestRecoverFromEveryLeaf(t *testing.T) {
	t.Parallel()
	h := worlds(t)
	dir := copyOf(t, h.day)
	room(t, dir)
	reader, err := signer.DialReader(t.Context(), filepath.Join(dir, "keyroom", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	known := int(reader.Hello().State.Size)
	reader.Close()
	want, all := python(t, dir, books), python(t, dir, `print([json.loads(l)["type"] for l in leaves()])`)
	for _, kind := range []string{"revoke.done", "crl.signed", "issue.answering"} {
		if !strings.Contains(all, kind) {
			t.Fatalf("the day has no %s: %s", kind, all)
		}
	}
	journal := checksums(t, filepath.Join(dir, "keyroom"))
	c := config(t, dir)
	for n := leafCount(t, h.night); n < known; n++ {
		old := filepath.Join(dir, "old"+strconv.Itoa(n))
		if err := os.Mkdir(old, 0o700); err != nil {
			t.Fatal(err)
		}
		run(t, "cp", "-a", filepath.Join(dir, "state"), old)
		python(t, old, backTo, strconv.Itoa(n), h.night)
		then := c
		then.State = filepath.Join(old, "state")
		done, err := site.Recover(t.Context(), then)
		if err != nil || done.From != int64(n) || done.Leaves != known-n {
			t.Fatalf("from leaf %d: %+v %v", n, done, err)
		}
		if got := python(t, old, books); got != want {
			t.Errorf("from leaf %d the books became\n%s\nnot\n%s", n, got, want)
		}
		if done, err := site.Recover(t.Context(), then); err != nil || done.Leaves != 0 || done.From != int64(known+1) {
			t.Errorf("again: %+v %v", done, err)
		}
		// The store holds what fsck wants of it; what the world lacks is owed.
		report, err := site.Fsck(t.Context(), then)
		if err != nil || report.Violations() > 0 {
			t.Errorf("from leaf %d: %v\n%s", n, err, tell(report))
		}
	}
	if after := checksums(t, filepath.Join(dir, "keyroom")); after["./journal"] != journal["./journal"] {
		t.Error("recovery wrote to the key room's journal")
	}
}

// TestRecoverAndGoOn: after recovery the service goes on, with the same certificates, new serial numbers
// and higher list numbers, and fsck finds nothing; also if recover was killed and asked again, and in a
// fresh copy of the night whose intents are open.
func TestRecoverAndGoOn(t *testing.T) {
	t.Parallel()
	h := worlds(t)
	deadly, err := mortal()
	if err != nil {
		t.Fatal(err)
	}
	intent := python(t, copyOf(t, h.day), `print(intent("dave") + 1)`)
	for name, c := range map[string]struct{ to, crash string }{
		"the night's copy":         {to: ""},
		"after an intent":          {to: intent},
		"killed before the leaves": {crash: "before:1"},
		"killed after the leaves":  {crash: "after:1"},
		"killed before the note":   {crash: "before:2"},
		"killed after the note":    {crash: "after:2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, h.day)
			numbers := python(t, dir, `print(json.dumps(dict(c.execute("SELECT issuer, number FROM list"))))`)
			if c.to != "" {
				python(t, dir, backTo, c.to, h.night)
			} else {
				files(`rm state/store.db*; cp "$night"/state/store.db state/`)(t, dir)
			}
			files(`cp "$night"/directory.ldif .`)(t, dir)
			keyroom := room(t, dir)
			if c.crash != "" {
				p, err := launch("", []string{"CHANCERY_CRASH=" + c.crash}, filepath.Join(deadly, "chancery"), "recover", dir)
				if err != nil {
					t.Fatal(err)
				}
				if code, err := p.end(0); err != nil || code != -1 {
					t.Fatalf("it was not killed: exit code %d, %v\n%s", code, err, p)
				}
			}
			code, stdout, stderr := chancery(t, "recover", dir, "-o", "json")
			var done site.Recovered
			if err := json.Unmarshal([]byte(stdout), &done); err != nil || code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
			}
			if none := c.crash != "" && c.crash != "before:1"; none != (done.Leaves == 0) {
				t.Errorf("%+v", done)
			}
			// Nobody else remembers what the world has to be told.
			owed := "crl callers, crl servers, crl users, directory user/bob, directory user/carol, directory user/dave"
			if c.to != "" {
				owed = "crl callers, crl servers, crl users, directory user/dave"
			}
			if got := python(t, dir, `print(", ".join(t + " " + n for t, n in c.execute("SELECT topic, name FROM debt ORDER BY topic, name")))`); got != owed {
				t.Errorf("owed are %s; want %s", got, owed)
			}
			keyroom.kill()
			serve(t, dir, func() error {
				return callAll(dir, issue("user", "bob"), issue("user", "erin"), revoke("erin", "superseded"), revoke("bob", "superseded"))
			})
			room(t, dir)
			if report := clean(t, dir); report.Certificates != 8 || report.Revoked != 4 {
				t.Errorf("%+v", report)
			}
			var before, after map[string]string
			if err := errors.Join(json.Unmarshal([]byte(numbers), &before),
				json.Unmarshal([]byte(python(t, dir, `print(json.dumps(dict(c.execute("SELECT issuer, number FROM list"))))`)), &after)); err != nil {
				t.Fatal(err)
			}
			if a, b := before["users"], after["users"]; len(a) > len(b) || len(a) == len(b) && a >= b {
				t.Errorf("the list's number went from %s to %s", a, b)
			}
			if serials := strings.Fields(python(t, dir, `for l in leaves():
    l = json.loads(l)
    if l["type"] == "issue.intent": print(l["event"]["serial"])`)); len(slices.Compact(slices.Sorted(slices.Values(serials)))) != len(serials) {
				t.Errorf("a serial number is there twice: %v", serials)
			}
		})
	}
}

// TestRecoverRefuses: what cannot be recovered is left as it is.
func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	h := worlds(t)
	// A night on which the service went on by itself is another history than that of the day.
	fork := copyOf(t, h.night)
	serve(t, fork, func() error { return nil })
	longer := copyOf(t, fork)
	for range 8 {
		serve(t, longer, func() error { return callAll(longer, issue("user", "zoe"), revoke("zoe", "superseded")) })
		if leafCount(t, longer) > leafCount(t, h.day) {
			break
		}
		python(t, longer, `c.execute("DELETE FROM request")`)
	}
	for name, c := range map[string]struct {
		store string
		code  int
		want  string
	}{
		"a fork":          {fork, 4, "hold different logs"},
		"a longer fork":   {longer, 4, "hold different logs"},
		"nothing missing": {h.day, 0, "nothing is missing"},
		"another's":       {h.other, 4, "hold different logs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, h.day)
			run(t, "sh", "-ec", `rm "$1"/state/store.db*; cp "$2"/state/store.db "$1"/state/`, "sh", dir, c.store)
			room(t, dir)
			before := checksums(t, dir)
			code, stdout, stderr := chancery(t, "recover", dir)
			if code != c.code || !strings.Contains(stdout+stderr, c.want) {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			after := checksums(t, dir)
			if before["./keyroom/journal"] != after["./keyroom/journal"] || before["./state/store.db"] != after["./state/store.db"] {
				t.Error("it changed something")
			}
		})
	}
	t.Run("the daemon runs", func(t *testing.T) {
		t.Parallel()
		dir := copyOf(t, h.day)
		serve(t, dir, func() error {
			if code, _, stderr := chancery(t, "recover", dir); code != 1 || !strings.Contains(stderr, "stop the daemon first") {
				t.Errorf("exit code %d\n%s", code, stderr)
			}
			return nil
		})
	})
	t.Run("no key room", func(t *testing.T) {
		t.Parallel()
		if code, _, stderr := chancery(t, "recover", copyOf(t, h.day)); code != 3 || !strings.Contains(stderr, "key room") {
			t.Errorf("exit code %d\n%s", code, stderr)
		}
	})
	t.Run("no store", func(t *testing.T) {
		t.Parallel()
		dir := copyOf(t, h.day)
		room(t, dir)
		files(`rm state/store.db`)(t, dir)
		if code, _, stderr := chancery(t, "recover", dir); code != 1 || !strings.Contains(stderr, "store.db") {
			t.Errorf("exit code %d\n%s", code, stderr)
		}
		if _, err := os.Stat(filepath.Join(dir, "state", "store.db")); err == nil {
			t.Error("it made a store")
		}
	})
}

// TestRecoverFollowsNoLock: recover is often root's, and the lock lies in a folder of the daemon's user.
func TestRecoverFollowsNoLock(t *testing.T) {
	t.Parallel()
	dir, made := copyOf(t, worlds(t).night), filepath.Join(t.TempDir(), "nologin")
	lock := filepath.Join(dir, "state", "lock")
	if err := errors.Join(os.Remove(lock), os.Symlink(made, lock)); err != nil {
		t.Fatal(err)
	}
	if _, err := site.Recover(t.Context(), config(t, dir)); err == nil || !strings.Contains(err.Error(), "locking the state") {
		t.Error(err)
	}
	if _, err := os.Lstat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the link names was made: %v", err)
	}
}
