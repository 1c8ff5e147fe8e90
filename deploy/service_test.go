package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// installed boots a machine with the package and an installation on it. Any system call that the units do
// not allow kills the process that makes it there, so that none is refused unseen.
func installed(t *testing.T) *machine {
	t.Helper()
	m := boot(t, packageFile(t, "chancery_"), packageFile(t, "chancery-crlcheck_"))
	m.run(t, "dpkg --no-triggers -i /payload/chancery_*.deb")
	m.run(t, `echo correct horse battery staple | chancery init --system --org Example --domain example.org --passphrase-fd 0
		for unit in chanceryd chancery-keyroom; do
			mkdir -p /run/systemd/system/$unit.service.d
			printf '[Service]\nSystemCallErrorNumber=\n' >/run/systemd/system/$unit.service.d/strict.conf
		done
		systemctl daemon-reload`)
	return m
}

func packageFile(t *testing.T, prefix string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(built(t), prefix+"*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", prefix, found, err)
	}
	return found[0]
}

// answer is what a call gets.
type answer struct {
	OK     bool           `json:"ok"`
	Msg    string         `json:"msg"`
	Detail map[string]any `json:"detail"`
}

// call asks the RPC as the first caller does, with curl.
func (m *machine) call(t *testing.T, method, params string) answer {
	t.Helper()
	out := m.run(t, fmt.Sprintf(`curl -sS --max-time 60 --cacert /etc/chancery/trust/root.pem --cert /var/lib/chancery/callers/provisioning.pem \
		--key /var/lib/chancery/callers/provisioning.key -H 'Content-Type: application/json' https://127.0.0.1:8443/rpc \
		-d '{"jsonrpc": "2.0", "id": 1, "method": "ca.%s", "params": %s}'`, method, params))
	var reply struct{ Result answer }
	if err := json.Unmarshal([]byte(out), &reply); err != nil || !reply.Result.OK {
		t.Fatalf("ca.%s %s: %v\n%s", method, params, err, out)
	}
	return reply.Result
}

func (m *machine) issue(t *testing.T, cn string) answer {
	t.Helper()
	return m.call(t, "issue", fmt.Sprintf(`{"purpose": "user", "cn": %q, "request_id": "hr-%s"}`, cn, cn))
}

// TestService installs the package, makes the installation, and has systemd run it as two users under
// everything that the units forbid.
func TestService(t *testing.T) {
	t.Parallel()
	m := boot(t, packageFile(t, "chancery_"))
	m.run(t, "dpkg --no-triggers -i /payload/chancery_*.deb")

	// Installed is not started, and without an installation there is nothing to start.
	m.run(t, `! systemctl is-enabled --quiet chanceryd && ! systemctl is-enabled --quiet chancery-keyroom
		systemctl start chanceryd && ! systemctl is-active --quiet chanceryd && ! test -e /var/lib/chancery`)
	if out := m.run(t, "systemd-analyze verify chanceryd.service chancery-keyroom.service 2>&1"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	m.refuses(t, "setpriv --reuid nobody chancery init --system", "needs root")
	m.refuses(t, "chancery init --system /srv/ca", "takes no DIR")
	m.run(t, `umask 077; echo correct horse battery staple | chancery init --system --org Example --domain example.org --passphrase-fd 0`)
	m.refuses(t, "chancery init --system", "an installation is never overwritten")

	layout := m.run(t, `cd /; stat -c '%n %U:%G %a' etc/chancery etc/chancery/chancery.yaml etc/chancery/keyroom.json etc/chancery/trust/root.pem \
		var/lib/chancery var/lib/chancery/state/store.db var/lib/chancery/secrets/server.key var/lib/chancery-keyroom var/lib/chancery-keyroom/journal \
		var/lib/chancery-keyroom/passphrase var/lib/chancery-keyroom/users.key root/chancery-offline root/chancery-offline/root.key run/chancery-keyroom
		find etc var/lib root -maxdepth 1 -name '.chancery*'`)
	want := `etc/chancery root:root 755
etc/chancery/chancery.yaml root:chancery 640
etc/chancery/keyroom.json root:chancery-keyroom 640
etc/chancery/trust/root.pem root:root 444
var/lib/chancery chancery:chancery 700
var/lib/chancery/state/store.db chancery:chancery 600
var/lib/chancery/secrets/server.key chancery:chancery 400
var/lib/chancery-keyroom chancery-keyroom:chancery-keyroom 700
var/lib/chancery-keyroom/journal chancery-keyroom:chancery-keyroom 600
var/lib/chancery-keyroom/passphrase chancery-keyroom:chancery-keyroom 400
var/lib/chancery-keyroom/users.key chancery-keyroom:chancery-keyroom 400
root/chancery-offline root:root 700
root/chancery-offline/root.key root:root 400
run/chancery-keyroom chancery-keyroom:chancery 2750
`
	if layout != want {
		t.Errorf("the layout is\n%swant\n%s", layout, want)
	}
	m.refuses(t, "chancery up /etc/chancery", "systemctl start chanceryd runs it")
	m.run(t, "systemctl start chanceryd && systemctl is-active chanceryd chancery-keyroom")

	// The package goes and comes again: what it ran stops, nothing that cannot be had again is touched.
	m.run(t, "dpkg --no-triggers -i /payload/chancery_*.deb && systemctl is-active chanceryd chancery-keyroom") // an upgrade
	alice := m.issue(t, "alice")
	m.keysInMemory(t)
	m.run(t, "systemctl restart chancery-keyroom && systemctl restart chanceryd")
	if again := m.issue(t, "alice"); again.Detail["password"] != alice.Detail["password"] || alice.Detail["password"] == nil {
		t.Errorf("after a restart of the key room a retry gets %v", again.Detail["code"])
	}
	m.run(t, "systemctl stop chancery-keyroom; rm /run/chancery-keyroom/delivery/*; systemctl start chancery-keyroom; systemctl restart chanceryd") // as a reboot does
	if again := m.issue(t, "alice"); again.Detail["code"] != "issued.secrets_gone" || again.Detail["serial"] != alice.Detail["serial"] {
		t.Errorf("after a reboot a retry gets %v", again.Detail["code"])
	}
	m.run(t, "dpkg --no-triggers -r chancery && ! test -e /run/chancery-keyroom/delivery && ! pgrep -x 'chanceryd|chancery-keyroo' && ! test -e /lib/systemd/system/chanceryd.service")
	const sums = "find /etc/chancery /var/lib/chancery /var/lib/chancery-keyroom -type f | sort | xargs sha256sum"
	before := m.run(t, sums)
	if out := m.run(t, "dpkg --no-triggers --purge chancery"); !strings.Contains(out, "/var/lib/chancery-keyroom is kept") {
		t.Errorf("purge says nothing of the keys: %s", out)
	}
	if after := m.run(t, sums); after != before || !strings.Contains(after, "/var/lib/chancery-keyroom/users.key") {
		t.Errorf("purge changed what is kept:\n%s\n%s", before, after)
	}
	m.run(t, "dpkg --no-triggers -i /payload/chancery_*.deb && systemctl start chanceryd && chancery fsck /etc/chancery")
}

// keysInMemory: the delivery keys are the key room's alone, on no disk, and nowhere else.
func (m *machine) keysInMemory(t *testing.T) {
	t.Helper()
	const folder = "/run/chancery-keyroom/delivery"
	if got, want := m.run(t, "stat -c '%U %a' "+folder+" "+folder+"/delivery.keys; stat -fc %T "+folder), "chancery-keyroom 2700\nchancery-keyroom 600\ntmpfs\n"; got != want {
		t.Errorf("the delivery keys are\n%swant\n%s", got, want)
	}
	if found := m.run(t, "find /var /etc /root -name 'delivery*' -path '*chancery*'"); found != "" {
		t.Errorf("delivery keys are also in %s", found)
	}
	m.refuses(t, "setpriv --reuid chancery --regid chancery --clear-groups ls "+folder, "Permission denied")
}

// TestTwoUsers: the installation issues and revokes, what root checks is clean, and neither user gets at
// what is the other's.
func TestTwoUsers(t *testing.T) {
	t.Parallel()
	m := installed(t)
	m.run(t, "systemctl start chanceryd")
	alice := m.issue(t, "alice")
	m.issue(t, "bob")
	m.call(t, "revoke", `{"cn": "alice", "reason": "superseded", "request_id": "hr-9"}`)
	serial := strings.ToUpper(alice.Detail["serial"].(string))
	listed := m.run(t, `setpriv --reuid chancery --regid chancery --clear-groups git --git-dir /var/lib/chancery/config.git show main:pki/users.crl.pem |
		openssl crl -noout -text`)
	if !strings.Contains(listed, "Serial Number: "+strings.TrimLeft(serial, "0")) {
		t.Errorf("%s is not on the list:\n%s", serial, listed)
	}
	for _, check := range []string{
		"chancery fsck /etc/chancery", "chancery audit verify --dir /etc/chancery",
		"setpriv --reuid chancery --regid chancery --clear-groups chancery fsck /etc/chancery",
	} {
		m.run(t, check)
	}

	as := func(user, group, command string) string {
		return fmt.Sprintf("setpriv --reuid %s --regid %s --clear-groups %s", user, group, command)
	}
	for _, file := range []string{"journal", "users.key", "log.key", "passphrase"} {
		m.refuses(t, as("chancery", "chancery", "cat /var/lib/chancery-keyroom/"+file), "Permission denied")
	}
	m.refuses(t, as("chancery", "chancery", "cat /etc/chancery/keyroom.json"), "Permission denied")
	m.refuses(t, as("chancery", "chancery", "touch /etc/chancery/chancery.yaml"), "Permission denied")
	m.refuses(t, as("chancery", "chancery", "rm -f /run/chancery-keyroom/socket"), "Permission denied")
	for _, file := range []string{"/var/lib/chancery/state/store.db", "/var/lib/chancery/secrets/server.key", "/etc/chancery/chancery.yaml"} {
		m.refuses(t, as("chancery-keyroom", "chancery-keyroom", "cat "+file), "Permission denied")
	}
	m.refuses(t, as("nobody", "nogroup", "ls /run/chancery-keyroom"), "Permission denied")
	// Whoever gets into the group is still not the daemon's user.
	m.try(as("nobody", "chancery", "curl -sS --max-time 5 --unix-socket /run/chancery-keyroom/socket http://room/"))
	m.becomes(t, "journalctl -o cat -u chancery-keyroom | grep -c 'uid 65534 may not connect' || true", "1")
	// The key room's own network has nothing in it.
	if links := m.run(t, "nsenter --net=/proc/$(systemctl show -P MainPID chancery-keyroom)/ns/net ip -o link"); strings.Count(links, "\n") != 1 || !strings.Contains(links, "lo: <LOOPBACK") {
		t.Errorf("the key room's network: %s", links)
	}

	// What root leaves behind in the stopped service's folders does not keep the service from them.
	m.run(t, `systemctl stop chanceryd
		chancery audit verify --dir /etc/chancery && chancery fsck /etc/chancery && chancery recover /etc/chancery
		chancery caller rotate /etc/chancery provisioning --out /root
		systemctl start chanceryd`)
	m.issue(t, "carol")
	if restarts := m.run(t, "systemctl show -P NRestarts chanceryd chancery-keyroom | xargs"); restarts != "0 0\n" {
		t.Errorf("processes died, or were killed for a system call: %s", restarts)
	}
	checkLogs(t, m, alice)

	// A host takes the list with what its own package brings.
	m.run(t, `dpkg --no-triggers -i /payload/chancery-crlcheck_*.deb
		git config --global safe.directory '*'
		printf '%s\n' REPOSITORY=/var/lib/chancery/config.git TRUST=/etc/chancery/trust/chain.pem INSTALL=/root/bundle.crl.pem TEST=true RELOAD=true >/root/pull-crl.conf
		pull-crl /root/pull-crl.conf && openssl crl -in /root/bundle.crl.pem -noout -issuer`)
}

// checkLogs reads every line that the two programs have logged: JSON with the fields that are promised, and
// no secret.
func checkLogs(t *testing.T, m *machine, issued answer) {
	t.Helper()
	key := m.run(t, "cat /var/lib/chancery/secrets/server.key")
	secrets := []string{
		"PRIVATE KEY", issued.Detail["password"].(string), issued.Detail["pkcs12"].(string)[40:80], strings.Split(key, "\n")[1][:40],
		strings.TrimSpace(m.run(t, "cat /var/lib/chancery-keyroom/passphrase")),
	}
	lines := 0
	for _, unit := range []string{"chanceryd", "chancery-keyroom"} {
		for line := range strings.Lines(m.run(t, "journalctl -o cat -q _SYSTEMD_UNIT="+unit+".service")) {
			for _, secret := range secrets {
				if strings.Contains(line, secret) {
					t.Errorf("%s logs a secret: %s", unit, line)
				}
			}
			if strings.HasPrefix(line, "ready https://") {
				continue
			}
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Errorf("%s: %v: %s", unit, err, line)
			} else if fields["level"] != "info" && fields["level"] != "warn" || fields["msg"] == nil || fields["time"] == nil {
				t.Errorf("%s: no level, msg or time, or an error: %s", unit, line)
			}
			lines++
		}
	}
	if lines < 4 {
		t.Errorf("%d lines", lines)
	}
}

// TestEncryptedPassphrase runs the commands that README.md gives for it, and then takes the file away.
func TestEncryptedPassphrase(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("systemd/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "## The passphrase, encrypted")
	_, rest, fenced := strings.Cut(rest, "```sh\n")
	commands, _, ended := strings.Cut(rest, "```")
	if !found || !fenced || !ended {
		t.Fatal("README.md has no commands for it")
	}
	m := installed(t)
	m.run(t, commands)
	m.run(t, "rm /var/lib/chancery-keyroom/passphrase && systemctl restart chancery-keyroom && systemctl start chanceryd")
	m.issue(t, "alice")
	m.refuses(t, "setpriv --reuid chancery --regid chancery --clear-groups cat /run/credentials/chancery-keyroom.service/keyroom.passphrase", "Permission denied")
}

// TestInitSystemLeavesNothing: what is stopped or fails on the way has made nothing.
func TestInitSystemLeavesNothing(t *testing.T) {
	t.Parallel()
	m := boot(t, packageFile(t, "chancery_"))
	m.run(t, "dpkg --no-triggers -i /payload/chancery_*.deb; mkdir /mnt/small; mount -t tmpfs -o size=4k small /mnt/small")
	nothing := func(after string) {
		t.Helper()
		if left := m.run(t, "find /etc /var/lib /root /mnt/small -maxdepth 1 -name '*chancery*'"); left != "" {
			t.Errorf("%s: left behind: %s", after, left)
		}
	}
	m.refuses(t, "chancery init --system --offline /mnt/small/chancery", "no space left on device")
	nothing("no space for the offline keys")
	m.refuses(t, "chancery init --system --offline /proc/chancery", "/proc")
	nothing("nowhere to put the offline keys")
	m.refuses(t, "chancery init --system --listen 127.0.0.1", "--listen: want HOST:PORT")
	nothing("a bad address")
	m.refuses(t, "timeout -s INT 0.4 chancery init --system", "")
	nothing("stopped")
	m.run(t, "mkdir /var/lib/chancery-keyroom")
	m.refuses(t, "chancery init --system", "/var/lib/chancery-keyroom exists; an installation is never overwritten")
	m.run(t, "rmdir /var/lib/chancery-keyroom; userdel chancery-keyroom")
	m.refuses(t, "chancery init --system", "unknown user chancery-keyroom; the package makes it")
	nothing("no user")
}

// TestWatchdog: systemd notices a process that lives and does nothing, and puts another in its place.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m := installed(t)
	m.run(t, `for unit in chanceryd chancery-keyroom; do
			printf '[Service]\nWatchdogSec=2\nRestartSec=100ms\n' >/run/systemd/system/$unit.service.d/watchdog.conf
		done
		systemctl daemon-reload && systemctl start chanceryd`)
	time.Sleep(4 * time.Second)
	if restarts := m.run(t, "systemctl show -P NRestarts chanceryd chancery-keyroom | xargs"); restarts != "0 0\n" {
		t.Fatalf("the watchdog bites the healthy: %s", restarts)
	}
	for _, unit := range []string{"chancery-keyroom", "chanceryd"} {
		m.run(t, "kill -STOP $(systemctl show -P MainPID "+unit+")")
		m.becomes(t, "systemctl show -P NRestarts -P ActiveState "+unit+" | xargs", "1 active")
	}
	m.issue(t, "alice")
	m.run(t, "chancery fsck /etc/chancery")

	// A contradiction is not retried; everything else is.
	m.run(t, "systemctl stop chanceryd && cp /etc/chancery/chancery.yaml /tmp/ && echo 'no_such_key: 1' >>/etc/chancery/chancery.yaml")
	m.try("systemctl start --no-block chanceryd")
	m.becomes(t, "test $(systemctl show -P NRestarts chanceryd) -gt 2 && echo again || true", "again")
	m.run(t, "cp /tmp/chancery.yaml /etc/chancery/chancery.yaml")
	m.becomes(t, "systemctl is-active chanceryd || true", "active")
}

// TestUnits: the units forbid what their programs do not need.
func TestUnits(t *testing.T) {
	for _, unit := range []string{"systemd/chanceryd.service", "systemd/chancery-keyroom.service"} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=13", "--no-pager", unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}
