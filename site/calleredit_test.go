package site_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/site"
)

// withCallers gives an installation whose callers are written in some way, and the path of its configuration.
func withCallers(t *testing.T, callers string) (path string) {
	t.Helper()
	dir := copyOf(t, worlds(t).night)
	path = filepath.Join(dir, site.ConfigName)
	text := read(t, path)
	text = text[:strings.Index(text, "callers:")]
	write(t, path, text+callers)
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newCaller() rpc.Caller {
	return rpc.Caller{
		Name: "new",
		Credentials: []rpc.Credential{
			{SPKI: strings.Repeat("07", 32)},
			{SPKI: strings.Repeat("ab", 32)},
		},
		Grants: []rpc.Grant{
			{Methods: []string{"ca.issue"}, Purposes: []cert.Purpose{cert.Server}, Names: []string{"*.example.org", "example.org"}, Domains: []string{"example.org"}, Networks: []string{"192.0.2.0/24"}},
			{Methods: []string{"ca.chain"}, Purposes: []cert.Purpose{cert.User, cert.Caller}},
		},
	}
}

const newLines = `- name: new
  credentials:
    - spki: "0707070707070707070707070707070707070707070707070707070707070707"
    - spki: "abababababababababababababababababababababababababababababababab"
  grants:
    - methods: [ca.issue]
      purposes: [server]
      names: ["*.example.org", example.org]
      domains: [example.org]
      networks: ["192.0.2.0/24"]
    - methods: [ca.chain]
      purposes: [user, caller]
`

// TestEditCallers adds a caller to lists in all plain shapes, and takes each one out: what is there besides stays
// to the octet.
func TestEditCallers(t *testing.T) {
	t.Parallel()
	indented := func(indent string) string {
		return indent + strings.TrimSuffix(strings.ReplaceAll(newLines, "\n", "\n"+indent), indent)
	}
	for name, c := range map[string]struct{ before, added, without string }{ // without "one"
		"empty":         {"callers: []\n", "callers: \n" + indented("  "), ""},
		"empty, told":   {"callers: [ ] # none\n# end\n", "callers: # none\n" + indented("  ") + "# end\n", ""},
		"one":           {"callers:\n  - name: one\n", "callers:\n  - name: one\n" + indented("  "), "callers: [] \n"},
		"no end":        {"callers:\n  - name: one", "callers:\n  - name: one\n" + indented("  "), "callers: [] \n"},
		"to the left":   {"callers:\n- name: one\n- name: two\n", "callers:\n- name: one\n- name: two\n" + newLines, "callers:\n- name: two\n"},
		"far right":     {"callers: # who\n      -   name: one\n          grants: []\n", "callers: # who\n      -   name: one\n          grants: []\n" + indented("      "), "callers: [] # who\n"},
		"dash alone":    {"callers:\n  -\n    name: one\n", "callers:\n  -\n    name: one\n" + indented("  "), "callers: [] \n"},
		"braces":        {"callers:\n  - {name: one}\n  - {name: two,\n     grants: []}\n", "callers:\n  - {name: one}\n  - {name: two,\n     grants: []}\n" + indented("  "), "callers:\n  - {name: two,\n     grants: []}\n"},
		"a key behind":  {"callers:\n  - name: one\n\n# of TLS\ntls12: true\n", "callers:\n  - name: one\n" + indented("  ") + "\n# of TLS\ntls12: true\n", "callers: [] \n\n# of TLS\ntls12: true\n"},
		"comments":      {"callers:\n  # all\n  - name: zero\n    # of zero\n\n  # one\n  # again\n  - name: one # x\n    # of one\n  # of two\n  - name: two\n    # tail\n# end\n", "callers:\n  # all\n  - name: zero\n    # of zero\n\n  # one\n  # again\n  - name: one # x\n    # of one\n  # of two\n  - name: two\n    # tail\n" + indented("  ") + "# end\n", "callers:\n  # all\n  - name: zero\n    # of zero\n\n  # of two\n  - name: two\n    # tail\n# end\n"},
		"left at end":   {"callers:\n  - name: one\n  # - name: gone\n\n  # never again\n", "callers:\n  - name: one\n" + indented("  ") + "  # - name: gone\n\n  # never again\n", "callers: [] \n  # - name: gone\n\n  # never again\n"},
		"first of two":  {"callers:\n  # all\n  - name: one\n  # of two\n  - name: two\n", "callers:\n  # all\n  - name: one\n  # of two\n  - name: two\n" + indented("  "), "callers:\n  # all\n  # of two\n  - name: two\n"},
		"carriage":      {"callers:\r\n  - name: one\r\n  - name: two\r\n", "callers:\r\n  - name: one\r\n  - name: two\r\n" + indented("  "), "callers:\r\n  - name: two\r\n"},
		"dashes inside": {"callers:\n  - name: one\n    grants:\n      - methods: [ca.chain]\n        purposes:\n          - user\n  - name: two\n", "callers:\n  - name: one\n    grants:\n      - methods: [ca.chain]\n        purposes:\n          - user\n  - name: two\n" + indented("  "), "callers:\n  - name: two\n"},
	} {
		path := withCallers(t, c.before)
		head := strings.TrimSuffix(read(t, path), c.before)
		after, err := site.AddCaller(path, newCaller())
		if got := read(t, path); err != nil || got != head+c.added {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, strings.TrimPrefix(got, head), c.added)
			continue
		}
		if !slices.ContainsFunc(after.Callers, func(c rpc.Caller) bool { return c.Name == "new" }) || after.SHA256 != cert.SHA256([]byte(read(t, path))) {
			t.Errorf("%s: %+v", name, after)
		}
		// Taken out again, it is as it was, but for the end of the last line and an empty list.
		_, err = site.RemoveCaller(path, "new")
		var got, want site.Config
		if err := errors.Join(err, yaml.Unmarshal([]byte(read(t, path)), &got), yaml.Unmarshal([]byte(head+c.before), &want)); err != nil || len(got.Callers) != len(want.Callers) {
			t.Errorf("%s: %v\n%s", name, err, read(t, path))
		}
		if !strings.HasPrefix(name, "empty") && read(t, path) != head+strings.TrimSuffix(c.before, "\n")+"\n" {
			t.Errorf("%s: not as it was:\n%s", name, read(t, path))
		}
		if c.without == "" {
			continue
		}
		write(t, path, head+c.before)
		if _, err := site.RemoveCaller(path, "one"); err != nil || read(t, path) != head+c.without {
			t.Errorf("%s: without one: %v\n%s\nwant\n%s", name, err, strings.TrimPrefix(read(t, path), head), c.without)
		}
	}
}

// TestEditNothing: what cannot be changed well, or would be wrong, is left as it is, and no draft stays.
func TestEditNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		callers string
		caller  string
		want    string
	}{
		"in one line":   {"callers: [{name: one}, {name: two}]\n", "new", "change it by hand"},
		"two in a line": {"callers:\n  - - name: one\n", "new", "mapping"},
		"an end mark":   {"callers:\n  - name: one\n...\n", "new", "change it by hand"},
		"quoted key":    {"\"callers\":\n  - name: one\n", "new", "change it by hand"},
		"there already": {"callers:\n  - name: one\n", "one", `has a caller "one" already`},
		"bad name":      {"callers:\n  - name: one\n", "N W", "a caller's name has only"},
		"wrong before":  {"callers:\n  - name: one\nlisten: x\n", "new", "listen"},
		"no list":       {"callers: yes\n", "new", "callers"},
	} {
		path := withCallers(t, c.callers)
		before := read(t, path)
		_, err := site.AddCaller(path, rpc.Caller{Name: c.caller})
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".chancery.yaml*"))
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, site.ErrConfig) || read(t, path) != before || len(left) > 0 {
			t.Errorf("%s: %v; left are %v\n%s", name, err, left, read(t, path))
		}
	}

	path := withCallers(t, "callers: []\n")
	if _, err := site.RemoveCaller(path, "one"); err == nil || !strings.Contains(err.Error(), `has no caller "one"`) {
		t.Error(err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = syscall.Flock(int(folder.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := site.AddCaller(path, newCaller()); err == nil || !strings.Contains(err.Error(), "another command is changing it") {
		t.Error(err)
	}
	folder.Close()
	if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := site.AddCaller(path, newCaller()); err == nil || !strings.Contains(err.Error(), "change it by hand") {
		t.Error(err)
	}
}

// TestEditMeanwhile: what somebody else writes while a change is checked is not written over.
func TestEditMeanwhile(t *testing.T) {
	t.Parallel()
	path := withCallers(t, "callers:\n  - name: one\nforeign_cas: [{name: corp, file: trust/corp.pem}]\n")
	slow := filepath.Join(filepath.Dir(path), "trust", "corp.pem")
	foreign := run(t, "openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=corp")
	if err := syscall.Mkfifo(slow, 0o600); err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(read(t, path), "  - name: one\n", "  - name: two\n", 1)
	done := make(chan error, 1)
	go func() {
		pipe, err := os.OpenFile(slow, os.O_WRONLY, 0) // when it is read
		if err == nil {
			err = os.WriteFile(path, []byte(other), 0o600)
			_, written := pipe.WriteString(foreign)
			err = errors.Join(err, written, pipe.Close())
		}
		done <- err
	}()
	_, err := site.AddCaller(path, newCaller())
	if err == nil || !strings.Contains(err.Error(), "meanwhile") || !errors.Is(err, site.ErrConfig) {
		t.Error(err)
	}
	if err := <-done; err != nil || read(t, path) != other {
		t.Errorf("%v\n%s", err, read(t, path))
	}
}
