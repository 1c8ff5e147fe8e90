package chancery_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readme gives the code blocks of README.md of one language, in order.
func readme(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no block of %s", language)
	}
	return blocks
}

// buildForReadme builds the programs where the README has them after make build, and gives the folder.
func buildForReadme(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "bin")+"/", "./cmd/chancery", "./cmd/chanceryd", "./cmd/chancery-keyroom")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return dir
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
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

// TestReadmeCommands runs the sh blocks of the README as one script, on a fresh build. Only the port
// differs, since that one may be in use.
func TestReadmeCommands(t *testing.T) {
	dir, port := buildForReadme(t), freePort(t)
	python := readme(t, "python")
	if len(python) != 1 {
		t.Fatalf("%d Python blocks; issue.py is one", len(python))
	}
	ours := func(text string) string { return strings.ReplaceAll(text, "8443", port) }
	if err := os.WriteFile(filepath.Join(dir, "issue.py"), []byte(ours(python[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	// The README's reader stops the service; if a command before that fails, the script does.
	script := "set -eu\ntrap 'kill $! 2>/dev/null || true' EXIT\n" + strings.Join(readme(t, "sh"), "")
	script = strings.Replace(ours(script), "chancery init ca", "chancery init ca --listen 127.0.0.1:"+port, 1)
	out, err := runGroup(t, dir, "sh", "-c", script)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	issued := regexp.MustCompile(`(?m)^True certificate ([0-9a-f]+) for the user "alice".*\npassword (\S+)$`).FindAllStringSubmatch(out, -1)
	if len(issued) != 2 || !slices.Equal(issued[0], issued[1]) {
		t.Fatalf("a retry did not get the same answer: %q\n%s", issued, out)
	}
	for _, want := range []string{`"code":"revoked"`, `"state":"published"`, "crlNumber=0x02", "\nverified\n", "\nclean\n"} {
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
	out, err = runGroup(t, dir, "openssl", "verify", "-crl_check_all", "-CAfile", "ca/trust/chain.pem", "-CRLfile", "pulled/pki/bundle.crl.pem", "alice.pem")
	if err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl does not find alice's certificate revoked: %v\n%s", err, out)
	}
}

// TestReadmeOutput runs the demo and compares what it says with what the README shows, line for line
// but for what differs between runs: bytes, ports, times and the order of what happens at once.
func TestReadmeOutput(t *testing.T) {
	dir := buildForReadme(t)
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

// TestReadmeLinks checks that what the README and the documents point to is there.
func TestReadmeLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, decisions...), "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
	link := regexp.MustCompile(`\]\(([^)#]+)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Error(fmt.Errorf("%s links to %s: %w", page, m[1], err))
			}
		}
	}
}
