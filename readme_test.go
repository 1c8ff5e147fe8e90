package chancery_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/site"
)

// readme gives the code blocks of README.md of one language, in order.
func readme(t *testing.T, language string) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(page(t, "README.md"), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no block of %s", language)
	}
	return blocks
}

// readmeFolder makes a folder with the programs where the README has them after make build.
func readmeFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(built(t, released), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runGroup runs a command in dir with its own process group, which is killed if it takes too long, and
// gives what it wrote to either stream.
func runGroup(t *testing.T, dir string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What outlives a script that failed holds its output open, and would be waited for.
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.Cancel, cmd.WaitDelay = kill, 20*time.Second
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestReadmeCommands runs the sh blocks of the README as one script, on a fresh build. Only the address
// differs, since that one may be in use.
func TestReadmeCommands(t *testing.T) {
	dir := readmeFolder(t)
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	python := readme(t, "python")
	if len(python) != 1 {
		t.Fatalf("%d Python blocks; issue.py is one", len(python))
	}
	ours := func(text string) string { return strings.ReplaceAll(text, "127.0.0.1:8443", address) }
	if err := os.WriteFile(filepath.Join(dir, "issue.py"), []byte(ours(python[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	// The README's reader stops the service; if a command before that fails, the script does.
	script := "set -eu\ntrap 'kill $! 2>/dev/null || true' EXIT\n" + strings.Join(readme(t, "sh"), "")
	script = strings.Replace(ours(script), "chancery init my-ca", "chancery init my-ca --listen "+address, 1)
	out, err := runGroup(t, dir, "sh", "-c", script)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	issued := regexp.MustCompile(`(?m)^True certificate ([0-9a-f]+) for the user "alice".*\npassword (\S+)$`).FindAllStringSubmatch(out, -1)
	if len(issued) != 2 || !slices.Equal(issued[0], issued[1]) {
		t.Fatalf("a retry did not get the same answer: %q\n%s", issued, out)
	}
	for _, want := range []string{`"code":"revoked"`, `"state":"published"`, "carol.p12", "crlNumber=0x02", "\nverified\n", "\nclean\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	checkWithOpenSSL(t, dir, issued[0][1], issued[0][2])
	if t.Failed() {
		t.Log(out)
	}
}

// checkWithOpenSSL opens what the README's reader got, and has openssl refuse it as revoked.
func checkWithOpenSSL(t *testing.T, dir, serial, password string) {
	t.Helper()
	leaf, err := runGroup(t, dir, "openssl", "pkcs12", "-in", "alice.p12", "-passin", "pass:"+password, "-clcerts", "-nokeys", "-out", "alice.pem")
	if err != nil {
		t.Fatalf("openssl does not open the PKCS#12: %v\n%s", err, leaf)
	}
	out, err := runGroup(t, dir, "openssl", "x509", "-in", "alice.pem", "-noout", "-serial", "-email")
	if err != nil || !strings.Contains(out, "serial="+strings.ToUpper(serial)) || !strings.Contains(out, "alice@example.org") {
		t.Errorf("openssl reads another certificate: %v\n%s", err, out)
	}
	out, err = runGroup(t, dir, "openssl", "verify", "-crl_check_all", "-CAfile", "my-ca/trust/chain.pem", "-CRLfile", "pulled/pki/bundle.crl.pem", "alice.pem")
	if err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl does not find alice's certificate revoked: %v\n%s", err, out)
	}
}

// TestReadmeOutput runs the demo and compares what it says with what the README shows, line for line
// but for what differs between runs: bytes, ports, times and the order of what happens at once.
func TestReadmeOutput(t *testing.T) {
	dir := readmeFolder(t)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "run-demo"), "./scripts/demo").CombinedOutput(); err != nil {
		t.Fatalf("building the demo: %v\n%s", err, out)
	}
	out, err := runGroup(t, dir, "./run-demo", "-bin", "bin", "-dir", "demo")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, _, found := strings.Cut(out, "\n== look around")
	if !found {
		t.Fatalf("the demo does not end with what to look at:\n%s", out)
	}
	shown, happened := plain(readme(t, "text")[0]), plain(got)
	for _, line := range shown {
		if !slices.Contains(happened, line) {
			t.Errorf("the README shows, and the demo did not say: %s", line)
		}
	}
	for _, line := range happened {
		if !slices.Contains(shown, line) {
			t.Errorf("the demo said, and the README does not show: %s", line)
		}
	}
	if len(shown) != len(happened) && !t.Failed() {
		t.Errorf("the README shows %d lines, the demo said %d", len(shown), len(happened))
	}
	if t.Failed() {
		t.Log(out)
	}
}

// plain gives the lines of a text that are not empty, with a sign for what differs between runs.
func plain(text string) []string {
	var lines []string
	varies := regexp.MustCompile(`\b(?:[0-9a-z]{5}-){5}[0-9a-z]{5}\b|\b[0-9a-f]{7,}\b|\d+`)
	spaces := regexp.MustCompile(` +`)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(spaces.ReplaceAllString(varies.ReplaceAllString(line, "#"), " "))
		if line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// TestDocumentsPointToWhatIsThere checks the links of all documents, and that the tests and stories
// that the design names are there.
func TestDocumentsPointToWhatIsThere(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob("docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	delivered, err := filepath.Glob("deploy/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(append(pages, below...), delivered...), "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
	link := regexp.MustCompile(`\]\(([^)#]+)`)
	for _, path := range pages {
		for _, m := range link.FindAllStringSubmatch(page(t, path), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
	sources := testSources(t)
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+|[\w-]+\.txtar`).FindAllString(page(t, "docs/DESIGN.md"), -1) {
		if _, err := os.Stat("testdata/script/" + name); err != nil && !strings.Contains(sources, "\nfunc "+name+"(") && name != "NAME.txtar" {
			t.Errorf("docs/DESIGN.md names %s, which is not there", name)
		}
	}
}

func page(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testSources gives all test files of the module in one.
func testSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestEveryKeyIsDocumented checks that docs/CONFIG.md, which chancery config reference prints, has one row for
// every key of the two files, and no row for anything else.
func TestEveryKeyIsDocumented(t *testing.T) {
	rows := map[string][]string{}
	for _, r := range site.References() {
		rows[r.File] = append(rows[r.File], r.Key)
		if r.Meaning == "" || !strings.HasPrefix(r.Needed, "yes") && !strings.HasPrefix(r.Needed, "no") &&
			!strings.HasPrefix(r.Needed, "this or ") && !strings.HasPrefix(r.Needed, "unless ") && !strings.HasPrefix(r.Needed, "with ") {
			t.Errorf("the row of %s does not say what it means, or whether it is needed: %+v", r.Key, r)
		}
	}
	for file, keys := range map[string][]string{
		site.ConfigName:     keysOf(reflect.TypeFor[site.Config](), "yaml", ""),
		site.RoomConfigName: keysOf(reflect.TypeFor[keyroom.Config](), "json", ""),
	} {
		if len(keys) < 10 {
			t.Errorf("only %d keys found for %s", len(keys), file)
		}
		for _, key := range keys {
			if n := len(slices.DeleteFunc(slices.Clone(rows[file]), func(row string) bool { return row != key })); n != 1 {
				t.Errorf("docs/CONFIG.md has %d rows that say what %s in %s is", n, key, file)
			}
		}
		for _, row := range rows[file] {
			if !slices.ContainsFunc(keys, func(key string) bool {
				return key == row || strings.HasPrefix(key, row+".") || strings.HasPrefix(key, row+"[].")
			}) {
				t.Errorf("docs/CONFIG.md says what %s in %s is, and there is no such key", row, file)
			}
		}
	}
}

// keysOf gives the keys of a configuration, those of lists as in callers[].name.
func keysOf(config reflect.Type, tag, prefix string) []string {
	var keys []string
	for i := range config.NumField() {
		f := config.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get(tag), ",")
		if name == "" || name == "-" {
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
			name, inner = name+"[]", inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			keys = append(keys, keysOf(inner, tag, prefix+name+".")...)
			continue
		}
		keys = append(keys, prefix+name)
	}
	return keys
}
