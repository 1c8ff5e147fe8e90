package site_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/site"
)

// python runs a script with the path of the store in db, a connection to it in c, and the path of the
// installation in dir. What it prints is the result.
func python(t testing.TB, folder, script string, args ...string) string {
	t.Helper()
	const frame = `
import hashlib, json, os, sqlite3, sys
dir = sys.argv[1]
c = sqlite3.connect(dir + "/state/store.db", isolation_level=None)
c.execute("PRAGMA ignore_check_constraints=ON")
def nodes(n):
    total = 0
    while n: total, n = total + n, n >> 1
    return total
def hashes(leaves):
    out, stack = [], []
    for n, leaf in enumerate(leaves):
        h = hashlib.sha256(b"\0" + leaf).digest()
        out.append(h); stack.append(h)
        while n & 1:
            right, left = stack.pop(), stack.pop()
            h = hashlib.sha256(b"\1" + left + right).digest()
            out.append(h); stack.append(h); n >>= 1
    return out
def leaves(): return [l for l, in c.execute("SELECT leaf FROM leaf ORDER BY position")]
def index(kind, n=-1): return [i for i, l in enumerate(leaves()) if json.loads(l)["type"] == kind][n]
def intent(cn): return [i for i, l in enumerate(leaves()) if json.loads(l)["type"] == "issue.intent" and json.loads(l)["event"]["cn"] == cn][0]
def rebuild(all):
    c.execute("DELETE FROM node")
    c.executemany("INSERT INTO node VALUES (?, ?)", list(enumerate(hashes(all))))
def cut(n):
    c.execute("DELETE FROM certificate WHERE intent >= ?", [n])
    c.execute("DELETE FROM leaf WHERE position >= ?", [n])
    c.execute("DELETE FROM node WHERE position >= ?", [nodes(n)])
`
	cmd := exec.Command("python3", append([]string{"-c", frame + script + "\nc.close()\n", folder}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// checksums are of every file that a check must leave alone: SQLite's working files beside the database
// and locks are not among them.
func checksums(t testing.TB, folder string) map[string]string {
	t.Helper()
	out := run(t, "sh", "-c", `cd "$1" && find . -type f ! -name '*-shm' ! -name '*-wal' ! -name '*lock' -exec sha256sum {} +`, "sh", folder)
	sums := make(map[string]string)
	for line := range strings.Lines(out) {
		sum, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		sums[path] = sum
	}
	return sums
}

// codes gives the codes of the violations, each once and sorted, and tells of every finding without
// something to do.
func codes(t testing.TB, report site.FsckReport) []string {
	t.Helper()
	found := []string{}
	for _, f := range report.Findings {
		if f.Fix == "" || f.Reason == "" || f.Subject == "" {
			t.Errorf("a finding says too little: %+v", f)
		}
		if !f.Pending {
			found = append(found, f.Code)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// fsckCommand runs chancery fsck and gives the codes that its JSON names.
func fsckCommand(t testing.TB, folder string) (int, []string) {
	t.Helper()
	code, stdout, stderr := chancery(t, "fsck", folder, "--output", "json")
	var report site.FsckReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	return code, codes(t, report)
}

// clean fails unless fsck finds nothing at all, with only the key room running.
func clean(t testing.TB, folder string) site.FsckReport {
	t.Helper()
	report, err := site.Fsck(t.Context(), config(t, folder))
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("%v: %+v", err, report.Findings)
	}
	return report
}
