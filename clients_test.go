package chancery_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestClients runs the programs of docs/clients, as they are there, against one installation: over a line
// that loses answers, with names and ids that clients are known to mangle, to a refusal and to a fault.
// What they got is read back with openssl, and the log says that nothing was done twice.
func TestClients(t *testing.T) {
	interpreters := map[string]string{".py": "python3", ".rb": "ruby", ".pl": "perl", ".sh": "sh", ".php": "php", ".mjs": "node", ".go": ""}
	files, err := filepath.Glob("docs/clients/chancery.*")
	if err != nil || len(files) != len(interpreters) {
		t.Fatalf("%v for %v: %v", files, interpreters, err)
	}
	dir, address := clientsInstallation(t)
	var all sync.WaitGroup // not t.Parallel: they mostly wait, and are more than there are processors
	for i, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		kind := filepath.Ext(file)
		c := clientProgram{
			installation: dir, address: address, dir: t.TempDir(), run: []string{interpreters[kind], path}, endpoint: "/rpc",
			// Digits alone are a number to some, and a name is more than ASCII.
			id: string(rune('1'+i)) + "00", name: "Zoë Łukasiewicz " + strings.ToUpper(kind[1:]),
		}
		if kind == ".go" { // go run would make every exit code 1
			program := filepath.Join(t.TempDir(), "chancery-go")
			if out, err := exec.Command("go", "build", "-o", program, file).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			c.run = []string{program}
		}
		if kind == ".py" || kind == ".rb" || kind == ".pl" {
			c.endpoint = "/RPC2"
		}
		all.Go(func() { t.Run(filepath.Base(file), c.test) })
	}
	all.Wait()
}

// clientsInstallation makes an installation and runs it for the test. The caller's files are where the
// programs look for them.
func clientsInstallation(t *testing.T) (dir, address string) {
	t.Helper()
	bin, path := built(t, released), toolPath(t)
	t.Setenv("PATH", path)
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	if address, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	if out, err := runGroup(t, dir, filepath.Join(bin, "chancery"), "init", "ca", "--domain", "example.org", "--listen", address); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for from, to := range map[string]string{"trust/root.pem": "root.pem", "callers/provisioning.pem": "caller.pem", "callers/provisioning.key": "caller.key"} {
		if err := os.Link(filepath.Join(dir, "ca", from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	up, err := launch(nil, filepath.Join(bin, "chancery"), "up", filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := up.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := up.await(up.says("ready https://")); err != nil {
		t.Fatal(err)
	}
	return dir, address
}

// clientProgram is one program of docs/clients, and what it is to ask for.
type clientProgram struct {
	installation, address, dir string
	run                        []string
	endpoint                   string
	id, name                   string
}

// call runs the program in the locale that cron gives it.
func (c clientProgram) call(t *testing.T, address string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(c.run[0], append(append(c.run[1:len(c.run):len(c.run)], "https://"+address+c.endpoint, c.installation), args...)...)
	cmd.Dir, cmd.Env = c.dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C"}
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("%v (make deps installs it)", err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func (c clientProgram) test(t *testing.T) {
	password := regexp.MustCompile(`(?m)^password (\S+)$`)
	serial := regexp.MustCompile(`(?m)^certificate ([0-9a-f]+) for the user `)

	// Nobody answers for so long that the program gives up. It says so, and leaves nothing.
	code, out := c.call(t, c.lossy(t, 1000), "issue", "user", c.name, c.id)
	if code != 3 || !strings.Contains(out, "run the same command again") {
		t.Errorf("without an answer: exit code %d\n%s", code, out)
	}
	if left, err := os.ReadDir(c.dir); err != nil || len(left) > 0 {
		t.Errorf("without an answer: left %v, %v", left, err)
	}
	// The same command again, over a line that is still bad.
	code, out = c.call(t, c.lossy(t, 2), "issue", "user", c.name, c.id)
	word, number := password.FindStringSubmatch(out), serial.FindStringSubmatch(out)
	if code != 0 || word == nil || number == nil {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	c.open(t, word[1], number[1])
	if code, again := c.call(t, c.address, "issue", "user", c.name, c.id); code != 0 || !strings.HasSuffix(out, again) {
		t.Errorf("a retry: exit code %d\n%s\nwant\n%s", code, again, out)
	}
	// Whoever cannot be told is not done.
	deaf := c
	deaf.run = append([]string{"sh", "-c", `exec "$@" >/dev/full`, "sh"}, c.run...)
	if code, out := deaf.call(t, c.address, "issue", "user", c.name, c.id); code != 3 || !strings.Contains(out, "done, and not written: ") || !strings.Contains(out, "run the same command again") {
		t.Errorf("with a full disk behind the output: exit code %d\n%s", code, out)
	}
	c.logSays(t, " issue.done ", 1)

	// A refusal, and a fault.
	code, out = c.call(t, c.address, "issue", "server", "www.example.net", c.id+"-refused")
	if code != 1 || !strings.Contains(out, "refused: ") || !strings.Contains(out, "policy.denied") {
		t.Errorf("a refusal: exit code %d\n%s", code, out)
	}
	if code, out = c.call(t, c.address, "issue", "user", c.name, ""); code != 2 || !strings.Contains(out, "fault -32602 params[0].request_id") {
		t.Errorf("a fault: exit code %d\n%s", code, out)
	}
	if code, out = c.call(t, c.address, "issue"); code != 2 {
		t.Errorf("a wrong command line: exit code %d\n%s", code, out)
	}

	if code, out = c.call(t, c.lossy(t, 1), "revoke", number[1], "superseded", c.id+"-leaves"); code != 0 || !strings.Contains(out, "revoked") {
		t.Errorf("revoking: exit code %d\n%s", code, out)
	}
	c.logSays(t, " revoke.done ", 1)
	c.revoked(t)
	if code, out = c.call(t, c.address, "issue", "user", c.name, c.id); code != 1 || !strings.Contains(out, "do not hand it over") || password.MatchString(out) {
		t.Errorf("a retry for what was revoked since: exit code %d\n%s", code, out)
	}
}

// lossy is an address at which the first answers are lost.
func (c clientProgram) lossy(t *testing.T, lose int) string {
	t.Helper()
	p, err := newLossy(c.address, lose)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.close()
		if p.lost.Load() < int64(min(lose, 4)) {
			t.Errorf("only %d answers were lost", p.lost.Load())
		}
	})
	return p.address()
}

func (c clientProgram) open(t *testing.T, password, serial string) {
	t.Helper()
	file := c.id + ".p12"
	if info, err := os.Stat(filepath.Join(c.dir, file)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	out, err := runGroup(t, c.dir, "openssl", "pkcs12", "-in", file, "-passin", "pass:"+password, "-nodes", "-out", "open.pem")
	if err != nil {
		t.Fatalf("openssl does not open the PKCS#12: %v\n%s", err, out)
	}
	out, err = runGroup(t, c.dir, "openssl", "x509", "-in", "open.pem", "-noout", "-subject", "-serial", "-nameopt", "utf8")
	if err != nil || !strings.Contains(out, "CN="+c.name+"\n") || !strings.Contains(out, "serial="+strings.ToUpper(serial)) {
		t.Errorf("openssl reads another certificate: %v\n%s", err, out)
	}
	out, err = runGroup(t, c.dir, "openssl", "verify", "-CAfile", filepath.Join(c.installation, "root.pem"), "-untrusted", "open.pem", "open.pem")
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func (c clientProgram) revoked(t *testing.T) {
	t.Helper()
	ca := filepath.Join(c.installation, "ca")
	if out, err := runGroup(t, c.dir, "git", "clone", "-q", filepath.Join(ca, "config.git"), "pulled"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := runGroup(t, c.dir, "openssl", "verify", "-crl_check_all", "-CAfile", filepath.Join(ca, "trust/chain.pem"), "-CRLfile", "pulled/pki/bundle.crl.pem", "open.pem")
	if err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl does not find it revoked: %v\n%s", err, out)
	}
}

// logSays counts what the log has on the name.
func (c clientProgram) logSays(t *testing.T, event string, want int) {
	t.Helper()
	out, err := runGroup(t, c.dir, filepath.Join(built(t, released), "chancery"), "audit", "show", "--dir", filepath.Join(c.installation, "ca"), "--cn", c.name)
	if err != nil || strings.Count(out, event) != want {
		t.Errorf("%d times%s, want %d: %v\n%s", strings.Count(out, event), event, want, err, out)
	}
}
