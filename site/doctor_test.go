package site_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/site"
)

// evaluation is what doctor has to say of every installation that chancery up runs.
func evaluation() []string { return []string{"offline.here", "split.disk", "split.user"} }

// hostCodes are about the machine that the tests run on, which may be as it is.
func hostCodes() []string {
	return []string{"clock.free", "disk.inodes", "disk.low", "host.core", "host.swap", "unit.exposure", "unit.unknown"}
}

// diagnose gives the codes of a report but for those of the machine, each once and sorted, and tells of
// every finding that says too little.
func diagnosed(t testing.TB, report site.DoctorReport) []string {
	t.Helper()
	found := []string{}
	for _, f := range report.Findings {
		if f.Fix == "" || f.Reason == "" || f.Subject == "" || f.Severity == "" || strings.Contains(f.Fix, "{") {
			t.Errorf("a finding says too little: %+v", f)
		}
		if !slices.Contains(hostCodes(), f.Code) {
			found = append(found, f.Code)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func diagnose(t testing.TB, d site.Doctor) []string {
	t.Helper()
	if d.Now == nil {
		d.Now = time.Now
	}
	d.UnitDirs = []string{}
	report, err := d.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return diagnosed(t, report)
}

// plus adds codes to others.
func plus(codes []string, more ...string) []string {
	return slices.Sorted(slices.Values(append(more, codes...)))
}

func minus(codes []string, less string) []string {
	return slices.DeleteFunc(slices.Clone(codes), func(c string) bool { return c == less })
}

// asRoot runs a command with the rights that an administrator has.
func asRoot(args ...string) *exec.Cmd {
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	return exec.Command(args[0], args[1:]...)
}

// doctorCommand runs chancery doctor as root and gives its exit code and the codes that its JSON names.
func doctorCommand(t testing.TB, folder string, more ...string) (int, []string) {
	t.Helper()
	cmd := asRoot(append([]string{filepath.Join(bin(t), "chancery"), "doctor", folder, "--output", "json"}, more...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var report site.DoctorReport
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return cmd.ProcessState.ExitCode(), diagnosed(t, report)
}

// ailment is a breakage of an installation of which nothing runs.
type ailment struct {
	name string
	do   func(t *testing.T, dir string)
	want []string // codes beside those of the evaluation
	exit int
}

func fileAilments() []ailment {
	return []ailment{
		{"a secret that everybody can read", files(`chmod 0444 secrets/server.key`), []string{"mode.secret"}, 1},
		{"a renewed key that everybody can read", files(`cat secrets/server.key secrets/server.pem >state/service.pem; chmod 0644 state/service.pem`), []string{"mode.secret"}, 1},
		{"a caller's key that everybody can read", files(`chmod 0644 callers/provisioning.key`), []string{"mode.secret"}, 1},
		{"an open folder", files(`chmod 0755 secrets`), []string{"mode.folder"}, 1},
		{"a file that everybody can write", files(`chmod 0666 chancery.yaml`), []string{"mode.writable"}, 1},
		{"a folder that everybody can write", files(`chmod 0777 trust`), []string{"mode.writable"}, 1},
		{"a link in the place of a secret", files(`mv secrets/git_signing.key moved; ln -s ../moved secrets/git_signing.key`), []string{"mode.link"}, 1},
		{"the root's key in clear", files(`openssl pkey -in offline/root.key -passin "pass:` + passphrase + `" -out callers/spare.pem`), []string{"offline.clear"}, 1},
		{"no state", files(`mv state gone`), []string{"disk.gone", "store.unreadable"}, 1},
		{"no store", files(`rm state/store.db`), []string{"store.unreadable"}, 1},
		{"no directory", files(`rm directory.ldif`), []string{"directory.file"}, 1},
		{"a store of nonsense", files(`printf nonsense >state/store.db`), []string{"store.unreadable"}, 1},
		{"no configuration", files(`rm chancery.yaml`), []string{"config"}, 2},
		{"a configuration with a slip", files(`echo "directry: x" >>chancery.yaml`), []string{"config"}, 2},
	}
}

func keyAilments() []ailment {
	return []ailment{
		{"another certificate", files(`cp -f $other/secrets/server.pem secrets/`), []string{"key.server"}, 1},
		{"no certificate", files(`rm secrets/server.pem`), []string{"key.server"}, 1},
		{"a renewed certificate, and the first one gone", files(`cat secrets/server.key secrets/server.pem >state/service.pem; chmod 0600 state/service.pem; rm secrets/server.*`), nil, 1},
		{"a renewed certificate of another CA", files(`cat $other/secrets/server.key $other/secrets/server.pem >state/service.pem; chmod 0600 state/service.pem`), []string{"key.server_chain"}, 1},
		{"another certificate with its key", files(`cp -f $other/secrets/server.* secrets/`), []string{"key.server_chain"}, 1},
		{"another root", files(`cp -f $other/trust/root.pem trust/`), []string{"key.issuer", "key.server_chain"}, 4},
		{"no root", files(`rm trust/root.pem`), []string{"key.server_chain"}, 1},
		{"another host", files(`sed -i 's/^listen: .*:/listen: ca.example.net:/' chancery.yaml`), []string{"key.server_name"}, 1},
		{"another key that signs commits", files(`cp -f $other/secrets/git_signing.key secrets/`), []string{"key.git"}, 1},
		{"no key that signs commits", files(`rm secrets/git_signing.key`), []string{"key.git"}, 1},
		{"a damaged one", files(`printf nonsense >x; cat x >secrets/git_signing.key; rm x`), []string{"key.git"}, 1},
		{"no passphrase", files(`rm -f secrets/keyroom.passphrase`), []string{"key.room"}, 1},
		{"no log key", files(`rm -f keyroom/log.key`), []string{"key.room"}, 1},
		{"another log key", files(`cp -f $other/trust/log.pub trust/`), []string{"key.log"}, 4},
	}
}

func debtAilments() []ailment {
	owed := func(topic, key, since, parked string) func(*testing.T, string) {
		return sql(`import time
c.execute("INSERT INTO debt (topic, name, generation, oldest, since, next_at, last_error, parked) VALUES (?, ?, 30, 30, ?, 1, 'it is down', ?)",
    ["` + topic + `", "` + key + `", ` + since + `, ` + parked + `])`)
	}
	return []ailment{
		{"owed just now", owed("directory", "user/alice", "int(time.time()*1e6)", "0"), []string{"owed"}, 1},
		{"owed for long", owed("directory", "user/alice", "int((time.time()-1000)*1e6)", "0"), []string{"owed.late"}, 1},
		{"refused", owed("directory", "user/alice", "1", "1"), []string{"owed.parked"}, 1},
		{"a list owed for half an hour", owed("crl", "users", "int((time.time()-1800)*1e6)", "0"), []string{"owed.late"}, 1},
		{"a list owed for two hours", owed("crl", "users", "int((time.time()-7200)*1e6)", "0"), []string{"owed.list"}, 1},
	}
}

func gitAilments() []ailment {
	return []ailment{
		{"an older list", pushed(`git checkout -q HEAD~1 -- pki/users.crl`), []string{"git.list_old"}, 1},
		{"no list", pushed(`git rm -q pki/users.crl`), []string{"git.list_missing"}, 1},
		{"nonsense for a list", pushed(`printf nonsense >pki/users.crl`), []string{"git.list_bad"}, 1},
		{"another CA's list", pushed(`cp pki/servers.crl pki/users.crl`), []string{"git.list_bad"}, 1},
		{"another root's list", pushed(`git -C $other/config.git show main:pki/root.crl >pki/root.crl`), []string{"git.list_bad"}, 1},
		{"an old store", files(`cp $night/state/store.db state/; rm -f state/*-wal state/*-shm`), []string{"git.list_unknown"}, 4},
		{"no repository", files(`mv config.git gone`), []string{"disk.gone", "git.unreachable"}, 1},
		{"no branch", files(`git --git-dir config.git update-ref -d refs/heads/main`), []string{"git.branch"}, 1},
		{"an old lock", files(`touch -d "1 hour ago" config.git/refs/heads/main.lock`), []string{"git.locked"}, 1},
	}
}

// TestDoctorNamesIt breaks one thing after the other and sees exactly that named. Looking changes nothing.
func TestDoctorNamesIt(t *testing.T) {
	for class, ailments := range map[string][]ailment{
		"files": fileAilments(), "keys": keyAilments(), "debts": debtAilments(), "git": gitAilments(),
	} {
		for _, a := range ailments {
			t.Run(class+"/"+a.name, func(t *testing.T) {
				t.Parallel()
				dir := copyOf(t, worlds(t).day)
				a.do(t, dir)
				before := checksums(t, dir)
				code, got := doctorCommand(t, dir)
				want := plus(evaluation(), append(a.want, "service.stopped")...)
				if _, err := os.Stat(filepath.Join(dir, "state", "store.db")); err != nil {
					want = minus(want, "split.user") // nobody knows the daemon's any more
				}
				if _, err := os.Stat(filepath.Join(dir, "secrets", "keyroom.passphrase")); err != nil {
					want = minus(want, "split.disk") // nobody knows where it would be
				}
				if !slices.Equal(got, want) || code != a.exit {
					t.Errorf("exit code %d, got  %q\nwant %d, %q", code, got, a.exit, want)
				}
				if after := checksums(t, dir); !maps.Equal(after, before) {
					t.Errorf("it changed something:\n%v\n%v", before, after)
				}
			})
		}
	}
}

// TestDoctorHealthy looks at what nobody broke, in each state that the service can be in.
func TestDoctorHealthy(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	want := func(what string, codes []string) {
		t.Helper()
		if got := diagnose(t, site.Doctor{Dir: dir}); !slices.Equal(got, codes) {
			t.Errorf("%s: %q, want %q", what, got, codes)
		}
	}
	want("stopped", plus(evaluation(), "service.stopped"))
	keyroom := room(t, dir)
	want("only the key room", plus(evaluation(), "service.daemon"))
	daemon, err := launch("ready https://", nil, filepath.Join(bin(t), "chanceryd"), "--config", filepath.Join(dir, site.ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.kill)
	want("both", evaluation())
	run(t, "sh", "-c", `mkdir "$2"; mv "$1"/offline "$2"`, "sh", dir, dir+".safe")
	t.Cleanup(func() { os.RemoveAll(dir + ".safe") })
	want("the offline keys are elsewhere", minus(evaluation(), "offline.here"))
	if code, got := doctorCommand(t, dir, "--quick"); code != 1 || !slices.Equal(got, minus(evaluation(), "offline.here")) {
		t.Errorf("quick: exit code %d, %q", code, got)
	}
	if err := callAll(dir, issue("user", "erin"), revoke("erin", "superseded")); err != nil {
		t.Error(err)
	}
	if err := freeze(keyroom.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got := diagnose(t, site.Doctor{Dir: dir, Limit: 5 * time.Second}); !slices.Equal(got, plus(minus(evaluation(), "offline.here"), "service.room")) {
		t.Errorf("a key room that hangs: %q", got)
	}
	keyroom.kill()
	want("only the daemon", plus(minus(evaluation(), "offline.here"), "service.room"))
}

// TestDoctorBesideTheService looks while calls are made, and finds nothing wrong at any moment.
func TestDoctorBesideTheService(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	serve(t, dir, func() error {
		done := make(chan error, 1)
		go func() {
			var calls []call
			for _, name := range []string{"dave", "erin", "frank", "grace"} {
				calls = append(calls, issue("user", name), revoke(name, "superseded"))
			}
			done <- callAll(dir, calls...)
		}()
		for {
			if got := minus(diagnose(t, site.Doctor{Dir: dir}), "owed"); !slices.Equal(got, evaluation()) {
				t.Errorf("%q", got)
			}
			select {
			case err := <-done:
				return err
			default:
			}
		}
	})
}

// TestDoctorAsksTheRoom breaks what only a running key room can tell.
func TestDoctorAsksTheRoom(t *testing.T) {
	for _, a := range []struct {
		name string
		do   func(*testing.T, string)
		now  func() time.Time
		want []string
		exit int
	}{
		{"a shorter store", sql(`cut(20); rebuild(leaves())`), time.Now, []string{"store.behind"}, 4},
		{"another history", sql(`
all = leaves(); all[20] = all[20].replace(b'"caller"', b'"daemon"') if b'"caller"' in all[20] else all[20].replace(b'"daemon"', b'"caller"')
c.execute("UPDATE leaf SET leaf = ? WHERE position = 20", [all[20]])
rebuild(all)`), time.Now, []string{"room.fork"}, 4},
		{"another installation's store", files(`cp $other/state/store.db state/; rm -f state/*-wal state/*-shm`), time.Now,
			[]string{"git.list_bad", "key.log", "room.other"}, 4},
		{"another installation's key room", files(`rm -r keyroom; cp -a $other/keyroom $other/keyroom.json .; cp -f $other/secrets/keyroom.passphrase secrets/`), time.Now,
			[]string{"key.issuer", "key.log", "key.root", "room.other"}, 4},
		{"another root", files(`cp -f $other/trust/root.pem trust/`), time.Now, []string{"key.issuer", "key.root", "key.server_chain"}, 4},
		{"a caller who signs, for the key room only", files(`sed -i 's|^  "issuers"|  "callers": [{"name": "provisioning", "signing_keys": ["MCowBQYDK2VwAyEAtyG0FyHennMy2zaw3sO2KsWSXAq/n2jC73D64xUE+zg="]}],\n&|' keyroom.json`), time.Now, []string{"key.signing"}, 1},
		{"a signer who is no caller", files(`sed -i 's|^  "issuers"|  "callers": [{"name": "provisionin", "signing_keys": ["MCowBQYDK2VwAyEAtyG0FyHennMy2zaw3sO2KsWSXAq/n2jC73D64xUE+zg="]}],\n&|' keyroom.json`), time.Now, []string{"key.signing"}, 1},
		{"a draft of delivery keys that stays", files(`mkdir -p keyroom/delivery.keys.new/full`), time.Now, []string{"room.trouble"}, 1},
		{"a clock of yesterday", files(``), func() time.Time { return time.Now().Add(-time.Hour) }, []string{"clock.behind"}, 0},
		{"a clock of tomorrow", files(``), func() time.Time { return time.Now().Add(25 * time.Hour) }, []string{"clock.step"}, 0},
	} {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, worlds(t).day)
			a.do(t, dir)
			room(t, dir)
			want := plus(evaluation(), append(a.want, "service.daemon")...)
			if got := diagnose(t, site.Doctor{Dir: dir, Now: a.now}); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if code, _ := doctorCommand(t, dir); a.exit != 0 && code != a.exit {
				t.Errorf("exit code %d, want %d", code, a.exit)
			}
		})
	}
}

// TestDoctorSeesEndsComing goes through the years.
func TestDoctorSeesEndsComing(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	day := 24 * time.Hour
	for after, want := range map[time.Duration][]string{
		5 * day:   {"expiry.list"},
		8 * day:   {"expiry.list", "git.list_expired"},
		340 * day: {"expiry.caller", "expiry.list", "expiry.root_crl", "git.list_expired"},
		400 * day: {"expiry.caller", "expiry.list", "expiry.root_crl", "expiry.service", "git.list_expired"},
	} {
		now := func() time.Time { return time.Now().Add(after) }
		if got := diagnose(t, site.Doctor{Dir: dir, Now: now}); !slices.Equal(got, plus(evaluation(), append(want, "service.stopped")...)) {
			t.Errorf("after %s: %q, want %q and those of the evaluation", after, got, want)
		}
	}
}

// TestDoctorOnAFullDisk puts the state on a file system that has no room, in a mount namespace of its own,
// and then nobody may write to it.
func TestDoctorOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	out := run(t, "unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", `cd "$1"; mv state state.was; mkdir -m 0700 state
mount -t tmpfs -o size=40m,mode=0700 none state; cp -a state.was/. state
"$2" doctor . -o json 2>/dev/null || echo ,; mount -o remount,ro none state; "$2" doctor . -o json 2>/dev/null || true`, "sh", dir, filepath.Join(bin(t), "chancery"))
	var reports []site.DoctorReport
	if err := json.Unmarshal([]byte("["+out+"]"), &reports); err != nil || len(reports) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	if got := diagnosed(t, reports[0]); !slices.Equal(got, plus(evaluation(), "disk.full", "service.stopped")) {
		t.Errorf("full: %q", got)
	}
	if got := diagnosed(t, reports[1]); !slices.Contains(got, "disk.full") || !slices.Contains(got, "disk.readonly") {
		t.Errorf("full and read-only: %q", got)
	}
}

// TestDoctorDoesNotWait has an LDAP server that takes connections and then says nothing, and another one
// that is not there.
func TestDoctorDoesNotWait(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := copyOf(t, worlds(t).day)
	run(t, "sh", "-ec", `cd "$1"; printf secret >ldap.password; chmod 0400 ldap.password
sed -i "s,^  url: ldif.*,  urls: [ldaps://$2\, ldap://127.0.0.1:1]," chancery.yaml
sed -i "s/^  create: true/  bind_dn: cn=chancery\n  password_file: ldap.password/" chancery.yaml`, "sh", dir, l.Addr().String())
	start := time.Now()
	report, err := site.Doctor{Dir: dir, Now: time.Now, Limit: 3 * time.Second, UnitDirs: []string{}}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, took := diagnosed(t, report), time.Since(start); !slices.Equal(got, plus(evaluation(), "directory.unreachable", "service.stopped")) || took > 20*time.Second {
		t.Errorf("%s: %q", took, got)
	}
	if n := report.Count(site.SeverityCritical); n != 2 {
		t.Errorf("%d findings are critical, want one for each server: %+v", n, report.Findings)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (site.Doctor{Dir: dir, Now: time.Now}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestDoctorCommand: what people see, and what a wrong folder gets.
func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	code, stdout, stderr := chancery(t, "doctor", dir)
	if code != 1 || !strings.Contains(stdout, "warning  split.user: uid ") || !strings.Contains(stdout, "\n         to do: ") ||
		!strings.Contains(stdout, "checks: critical 0, warning ") || !strings.Contains(stderr, "something to fix") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, args := range [][]string{{"doctor"}, {"doctor", dir, "-o", "xml"}, {"doctor", dir + "/nowhere"}, {"doctor", dir + "/chancery.yaml"}} {
		if code, stdout, stderr := chancery(t, args...); code != 2 || stdout != "" || stderr == "" {
			t.Errorf("%q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

// TestDoctorJudgesUnits with a unit that is open to everything, a confined one, and no systemd-analyze.
func TestDoctorJudgesUnits(t *testing.T) {
	dir := copyOf(t, worlds(t).day)
	units := t.TempDir()
	codes := func() (codes []string) {
		report, err := site.Doctor{Dir: dir, Now: time.Now, UnitDirs: []string{units}}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range report.Findings {
			if strings.HasPrefix(f.Code, "unit.") {
				codes = append(codes, f.Code+" "+filepath.Base(f.Subject))
			}
		}
		return codes
	}
	confined, err := os.ReadFile("testdata/confined.service")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"chanceryd.service": "[Service]\nExecStart=/bin/true\n", "chancery-keyroom.service": string(confined)} {
		if err := os.WriteFile(filepath.Join(units, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := codes(); !slices.Equal(got, []string{"unit.exposure chanceryd.service"}) {
		t.Errorf("%q", got)
	}
	t.Setenv("PATH", t.TempDir())
	if got := codes(); !slices.Equal(got, []string{"unit.unknown chancery-keyroom.service", "unit.unknown chanceryd.service"}) {
		t.Errorf("%q", got)
	}
}

// TestDoctorSeesCoreFiles runs a program of that name which does not turn them off.
func TestDoctorSeesCoreFiles(t *testing.T) {
	dir := copyOf(t, worlds(t).day)
	program := filepath.Join(t.TempDir(), "chanceryd")
	run(t, "sh", "-c", `cp "$(command -v sleep)" "$1"`, "sh", program)
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited && exec "$1" 60`, "sh", program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	eventually(t, func() bool {
		report, err := site.Doctor{Dir: dir, Now: time.Now, Quick: true}.Run(t.Context())
		return err == nil && slices.ContainsFunc(report.Findings, func(f site.Finding) bool {
			return f.Code == "host.core" && strings.Contains(f.Subject, fmt.Sprint(cmd.Process.Pid))
		})
	})
}
