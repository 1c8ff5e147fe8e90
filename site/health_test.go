package site_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/site"
)

// monitored is an installation with a health listener, its two processes apart.
type monitored struct {
	dir    string
	url    string
	room   *process
	daemon *process
}

func newMonitored(t *testing.T, from string) *monitored {
	t.Helper()
	return monitor(t, copyOf(t, from))
}

// monitor gives an installation a health listener and runs it.
func monitor(t *testing.T, dir string) *monitored {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, site.ConfigName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "health: %s\n", address)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m := &monitored{dir: dir, url: "http://" + address}
	m.startRoom(t)
	m.startDaemon(t)
	return m
}

func (m *monitored) startRoom(t *testing.T) {
	t.Helper()
	m.room = room(t, m.dir)
}

func (m *monitored) startDaemon(t *testing.T) {
	t.Helper()
	var err error
	if m.daemon, err = launch("ready https://", nil, filepath.Join(bin(t), "chanceryd"), "--config", filepath.Join(m.dir, site.ConfigName)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.daemon.kill)
}

// curl reads a page and gives its status.
func (m *monitored) curl(t *testing.T, page string, args ...string) (status int, body string) {
	t.Helper()
	out, err := exec.Command("curl", append([]string{"-s", "-m", "10", "-w", "\n%{http_code}", m.url + page}, args...)...).Output()
	if err != nil {
		t.Fatalf("curl %s: %v", page, err)
	}
	body, code, _ := cutLast(string(out), "\n")
	status, err = strconv.Atoi(code)
	if err != nil {
		t.Fatalf("curl %s: %q", page, out)
	}
	return status, body
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// health reads /readyz as JSON.
func (m *monitored) health(t *testing.T) (int, site.Health) {
	t.Helper()
	var h site.Health
	status, body := m.curl(t, "/readyz", "-H", "Accept: application/json")
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if h.Ready != (status == 200) {
		t.Errorf("status %d says %+v", status, h)
	}
	return status, h
}

// await waits until exactly these alarms are on, and gives the status and what is said then.
func (m *monitored) await(t *testing.T, codes ...string) (int, site.Health) {
	t.Helper()
	slices.Sort(codes)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		status, h := m.health(t)
		var on []string
		for _, a := range h.Alarms {
			on = append(on, a.Code)
			if a.Reason == "" || a.Fix == "" || a.Since.IsZero() || time.Since(a.Since) < -time.Minute {
				t.Errorf("an alarm says too little: %+v", a)
			}
		}
		slices.Sort(on)
		if slices.Equal(on, codes) {
			return status, h
		}
		if time.Now().After(deadline) {
			t.Fatalf("alarms %v, want %v\n%+v\n%s", on, codes, h, m.daemon)
		}
	}
}

// samples reads /metrics with python: the values by name and labels, as they are written.
func (m *monitored) samples(t *testing.T) map[string]float64 {
	t.Helper()
	text := run(t, "python3", "-c", `
import json, sys, urllib.request
found = {}
for line in urllib.request.urlopen(sys.argv[1] + "/metrics").read().decode().splitlines():
    if line and not line.startswith("#"):
        name, value = line.rsplit(" ", 1)
        found[name] = float(value)
print(json.dumps(found))`, m.url)
	found := make(map[string]float64)
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestReadiness: what keeps calls from being served is 503, and what comes back is seen.
func TestReadiness(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	if status, body := m.curl(t, "/livez"); status != 200 || body != "alive\n" {
		t.Errorf("%d %q", status, body)
	}
	if status, body := m.curl(t, "/readyz"); status != 200 || body != "ready\n" {
		t.Errorf("%d %q", status, body)
	}
	status, body := m.curl(t, "/readyz?verbose")
	for _, part := range []string{"rpc", "store", "keyroom", "directory", "git", "lists", "certificates", "issuing", "clock", "config"} {
		if !strings.Contains(body, "\n"+fmt.Sprintf("%-12s", part)+" ready\n") {
			t.Errorf("%d: nothing of %s in\n%s", status, part, body)
		}
	}

	notReady := func(code, part string) {
		t.Helper()
		if status, h := m.await(t, code); status != 503 || statusIn(h, part) != "not ready" {
			t.Errorf("%d %+v", status, h)
		}
		if status, body := m.curl(t, "/readyz?verbose"); status != 503 || !strings.HasPrefix(body, "not ready\n") || !strings.Contains(body, "\ncritical "+code+" for ") {
			t.Errorf("%d\n%s", status, body)
		}
		// It is nothing that a restart of the daemon helps against.
		if status, _ := m.curl(t, "/livez"); status != 200 {
			t.Errorf("livez %d", status)
		}
		if found := m.samples(t); found["chancery_ready"] != 0 || found[`chancery_alarm{code="`+code+`"}`] != 1 {
			t.Errorf("ready %v, alarm %v", found["chancery_ready"], found[`chancery_alarm{code="`+code+`"}`])
		}
	}
	ready := func() {
		t.Helper()
		if status, _ := m.await(t); status != 200 {
			t.Errorf("%d", status)
		}
	}

	m.room.kill()
	notReady("keyroom.unreachable", "keyroom")
	if answer, err := ask(m.dir, issue("user", "nobody")); err == nil && answer.OK {
		t.Error("not ready, and a certificate is issued")
	}
	m.startRoom(t)
	ready()
	if err := callAll(m.dir, issue("user", "erin")); err != nil {
		t.Error("ready, and no certificate is issued:", err)
	}

	// A key room that is there and answers nobody.
	if err := freeze(m.room.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	notReady("keyroom.unreachable", "keyroom")
	if err := m.room.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	ready()

	// Another program that does not let go of the database.
	holder, err := launch("held", nil, "python3", "-uc", `
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
c.execute("BEGIN IMMEDIATE")
print("held")
time.sleep(60)`, filepath.Join(m.dir, "state", "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	notReady("store.busy", "store")
	holder.kill()
	ready()

	// A service that stops, with a call under way that it still waits for.
	if err := freeze(m.room.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- callAll(m.dir, issue("user", "last")) }()
	if err := announcedIn(m.dir, "issue-last"); err != nil {
		t.Fatal(err)
	}
	if err := m.daemon.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		status, h := m.health(t)
		return status == 503 && statusIn(h, "rpc") == "not ready"
	})
	if err := m.room.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if code, err := m.daemon.end(syscall.SIGTERM); code != 0 || err != nil {
		t.Errorf("%d, %v\n%s", code, err, m.daemon)
	}
}

func statusIn(h site.Health, name string) string {
	for _, d := range h.Dependencies {
		if d.Name == name {
			return d.Status
		}
	}
	return "missing"
}

// TestOldKeyRoom: an older copy of the key room in its place is noticed by looking, before a call meets it.
func TestOldKeyRoom(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	m.room.kill()
	run(t, "cp", "-a", filepath.Join(m.dir, "keyroom"), filepath.Join(m.dir, "old"))
	m.startRoom(t)
	if err := callAll(m.dir, issue("user", "frank")); err != nil {
		t.Fatal(err)
	}
	m.room.kill()
	run(t, "sh", "-c", `cd "$1" && rm -r keyroom && mv old keyroom`, "sh", m.dir)
	m.startRoom(t)
	if status, h := m.await(t, "keyroom.behind"); status != 503 || h.Status != "not ready" {
		t.Errorf("%d %+v", status, h)
	}
	answer, err := ask(m.dir, issue("user", "grace"))
	if err != nil || answer.OK || !strings.Contains(string(answer.Detail), `"keyroom.behind"`) {
		t.Errorf("%+v, %v", answer, err)
	}
}

// TestDeliveryKeysAlarm: that secrets are not deleted as they should be does not stay between the key room and its log.
func TestDeliveryKeysAlarm(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	draft := filepath.Join(dir, "keyroom", "delivery.keys.new")
	run(t, "mkdir", "-p", filepath.Join(draft, "stays"))
	m := monitor(t, dir)
	status, h := m.await(t, "delivery.destroy")
	if status != 200 || h.Status != "degraded" || statusIn(h, "keyroom") != "degraded" {
		t.Errorf("%d %+v", status, h)
	}
	run(t, "rm", "-r", draft)
	if status, _ := m.await(t); status != 200 {
		t.Errorf("%d", status)
	}
}

// TestDegraded: while only the world outside is in trouble, calls are served and the debts are shown with
// their age; what is paid is shown as well.
func TestDegraded(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	file := func(name string) string { return filepath.Join(m.dir, name) }
	degraded := func(name, code string) {
		t.Helper()
		status, h := m.await(t, code)
		if status != 200 || h.Status != "degraded" || statusIn(h, name) != "degraded" || statusIn(h, "keyroom") != "ready" {
			t.Errorf("%d %+v", status, h)
		}
		found := m.samples(t)
		lag := found[`chancery_publish_lag_seconds{target="`+name+`"}`]
		if lag <= 0 || lag > 60 || found["chancery_ready"] != 1 || found[`chancery_alarm{code="`+code+`"}`] != 1 {
			t.Errorf("lag %v, ready %v", lag, found["chancery_ready"])
		}
		if n := found[`chancery_outbox_depth{state="failing",target="`+name+`"}`] + found[`chancery_outbox_depth{state="due",target="`+name+`"}`]; n != 1 {
			t.Errorf("%v places of %s are owed", n, name)
		}
		if n := found[`chancery_publish_failures_total{kind="`+strings.Split(code, ".")[1]+`",target="`+name+`"}`]; n < 1 {
			t.Errorf("%v failures", n)
		}
	}
	whole := func() {
		t.Helper()
		if status, h := m.await(t); status != 200 || h.Status != "ready" {
			t.Errorf("%d %+v", status, h)
		}
		eventually(t, func() bool {
			found := m.samples(t)
			return found[`chancery_publish_lag_seconds{target="git"}`] == 0 && found[`chancery_publish_lag_seconds{target="directory"}`] == 0
		})
	}

	run(t, "mv", file("config.git"), file("gone.git"))
	if err := callAll(m.dir, revoke("alice", "superseded")); err != nil {
		t.Fatal(err)
	}
	degraded("git", "crl.publish")
	run(t, "mv", file("gone.git"), file("config.git"))
	whole()
	crl := run(t, "sh", "-c", `git --git-dir "$1" show main:pki/users.crl | openssl crl -inform DER -noout -crlnumber`, "sh", file("config.git"))
	if n := m.samples(t)[`x509_crl_number{filename="users.crl"}`]; strings.TrimSpace(crl) != fmt.Sprintf("crlNumber=0x%02X", int(n)) {
		t.Errorf("list %v, and openssl reads %s from git", n, crl)
	}

	run(t, "sh", "-c", `cd "$1" && mv directory.ldif away && mkdir directory.ldif`, "sh", m.dir)
	if err := callAll(m.dir, issue("user", "heidi")); err != nil {
		t.Fatal(err)
	}
	degraded("directory", "directory.down")
	for range 125 { // it lasts between two visits of the debt, too
		if _, h := m.health(t); len(h.Alarms) != 1 || h.Alarms[0].Code != "directory.down" {
			t.Fatalf("%+v\n%s", h, m.daemon)
		}
		time.Sleep(200 * time.Millisecond)
	}
	run(t, "sh", "-c", `cd "$1" && rmdir directory.ldif && mv away directory.ldif`, "sh", m.dir)
	whole()
}

// TestOldDebtsAndDeadlines: what is owed for long, and what ends soon, is an alarm of its own, with its age
// and its end, from the first survey after a start on.
func TestOldDebtsAndDeadlines(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).day)
	run(t, "touch", filepath.Join(m.dir, "config.git", "refs", "heads", "main.lock")) // a git that was killed
	if err := callAll(m.dir, revoke("alice", "superseded")); err != nil {
		t.Fatal(err)
	}
	if code, err := m.daemon.end(syscall.SIGTERM); code != 0 || err != nil {
		t.Fatalf("%d, %v\n%s", code, err, m.daemon)
	}
	python(t, m.dir, `
import time
c.execute("UPDATE debt SET since = since - 7200 * 1000000")
c.execute("UPDATE list SET published_next_update = ? WHERE issuer = 'servers'", [int((time.time() + 12 * 3600) * 1e6)])`)
	m.startDaemon(t)
	status, h := m.await(t, "crl.late", "crl.publish", "expiry.list")
	if status != 200 || statusIn(h, "git") != "degraded" || statusIn(h, "lists") != "degraded" {
		t.Errorf("%d %+v", status, h)
	}
	for _, a := range h.Alarms {
		if a.Code == "crl.late" && (a.Severity != "critical" || time.Since(a.Since) < 2*time.Hour) {
			t.Errorf("%+v", a)
		}
		if a.Code == "expiry.list" && (a.Severity != "critical" || a.Subject != "servers") {
			t.Errorf("%+v", a)
		}
	}
	if lag := m.samples(t)[`chancery_publish_lag_seconds{target="git"}`]; lag < 7200 || lag > 7300 {
		t.Errorf("lag %v", lag)
	}
}

// TestDirectoryServerAway: that the LDAP server is away is known while nobody has anything to write to it,
// and so is its return.
func TestDirectoryServerAway(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	base := filepath.Join(dir, "ldap")
	run(t, "mkdir", "-p", filepath.Join(base, "db"))
	files := map[string]string{
		"slapd.conf": `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=example,dc=org"
rootdn "cn=chancery,dc=example,dc=org"
rootpw secret
directory ` + base + `/db
`,
		"password": "secret\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(base, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, site.ConfigName)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	block := "directory:\n  url: ldapi://" + base + "/socket\n  base: dc=example,dc=org\n" +
		"  bind_dn: cn=chancery,dc=example,dc=org\n  password_file: ldap/password\n"
	text = regexp.MustCompile(`(?m)^directory:\n(  .*\n)*`).ReplaceAllLiteral(text, []byte(block))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m := monitor(t, dir)
	down := func(want bool) {
		t.Helper()
		eventually(t, func() bool {
			status, h := m.health(t)
			is := slices.ContainsFunc(h.Alarms, func(a site.Alarm) bool { return a.Code == "directory.down" })
			return status == 200 && is == want
		})
	}
	down(true)
	server, err := launch("slapd starting", nil, "/usr/sbin/slapd", "-d", "stats", "-f", filepath.Join(base, "slapd.conf"),
		"-h", "ldapi://"+strings.ReplaceAll(base, "/", "%2F")+"%2Fsocket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.kill)
	down(false)
	server.kill()
	down(true)
	if owed := m.samples(t)[`chancery_outbox_depth{state="due",target="directory"}`]; owed != 0 {
		t.Errorf("%v places are owed, so this was no test", owed)
	}
}
