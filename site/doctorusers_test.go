package site_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/site"
)

// TestDoctorTwoUsers gives each process a user of its own, and then takes the wall down.
func TestDoctorTwoUsers(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	t.Cleanup(func() { _ = asRoot("rm", "-rf", dir).Run() }) // owned by others
	if err := os.Chmod(scratch, 0o711); err != nil {         // who cannot come here can write nothing below
		t.Fatal(err)
	}
	step := func(script string, want ...string) {
		t.Helper()
		if out, err := asRoot("sh", "-ec", `cd "$1"; `+script, "sh", dir).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		if _, got := doctorCommand(t, dir); !slices.Equal(got, plus(want, "offline.here", "service.stopped", "split.disk")) {
			t.Errorf("%s: %q, want %q beside the others", script, got, want)
		}
	}
	// What doctor says is to be done is a command, and enough.
	const obey = `"$0" doctor . -o json >findings || true; python3 -c '
import json, subprocess, sys
for f in json.load(open("findings"))["findings"]:
    if f["severity"] == "critical": subprocess.run(["sh", "-ec", f["fix"].split("; see")[0].split(": ")[-1]], check=True)'; rm findings`
	obeyed := func() {
		t.Helper()
		step(strings.Replace(obey, "$0", filepath.Join(bin(t), "chancery"), 1))
	}
	step(`chown -R 4001:4001 .; chown -R 4002:4002 keyroom keyroom.json; mkdir -m 0700 room; mv secrets/keyroom.passphrase room/
		chown -R 4002:4002 room; sed -i 's,secrets/keyroom.passphrase,room/keyroom.passphrase,' keyroom.json; chmod 0711 . keyroom`, "mode.folder")
	obeyed()
	step(`chmod 0444 room/keyroom.passphrase`, "mode.secret") // nobody else gets there
	step(`chmod 0755 room`, "mode.secret", "split.passphrase")
	obeyed()
	step(`chmod 0755 room; chown 4001 room/keyroom.passphrase`, "split.passphrase")
	obeyed()
	step(`chgrp 4001 keyroom; chmod 0770 keyroom`, "split.keys")
	obeyed()
	step(`chown -R 4003 config.git`, "git.push", "mode.owner")
	obeyed()
	step(`chown 4003 trust/log.pub`, "mode.owner")
	obeyed()
	step(`chown root directory.ldif.lock`, "directory.file")
	obeyed()

	// An LDAP server's password that belongs to root, and then to everybody. No server is asked.
	for script, want := range map[string]string{`chmod 0400 ldap.password`: "mode.unreadable", `chown 4001 ldap.password; chmod 0444 ldap.password`: "mode.secret"} {
		ldap := copyOf(t, dir)
		t.Cleanup(func() { _ = asRoot("rm", "-rf", ldap).Run() })
		if out, err := asRoot("sh", "-ec", `cd "$1"; printf x >ldap.password; sed -i "s,^  url: ldif.*,  url: ldaps://127.0.0.1:1," chancery.yaml
sed -i "s/^  create: true/  bind_dn: cn=chancery\n  password_file: ldap.password/" chancery.yaml; `+script, "sh", ldap).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if _, got := doctorCommand(t, ldap, "--quick"); !slices.Equal(got, plus([]string{want}, "offline.here", "service.stopped", "split.disk")) {
			t.Errorf("%s: %q", script, got)
		}
	}

	// The daemon's own user sees nothing wrong, and says what it could not see.
	cmd := asRoot("setpriv", "--reuid=4001", "--regid=4001", "--clear-groups", filepath.Join(bin(t), "chancery"), "doctor", dir, "-o", "json")
	out, _ := cmd.Output()
	var report site.DoctorReport
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := diagnosed(t, report); !slices.Equal(got, []string{"check.denied", "offline.here"}) {
		t.Errorf("as the daemon: %q: %+v", got, report.Findings)
	}
}

// TestDoctorGoesEverywhere has an installation that lies apart, as a package puts it, with the state behind
// a link.
func TestDoctorGoesEverywhere(t *testing.T) {
	t.Parallel()
	top := copyOf(t, worlds(t).day)
	run(t, "sh", "-ec", `cd "$1"; mkdir etc var; rm -r offline; mv chancery.yaml keyroom.json trust etc/
mv state secrets callers config.git directory.ldif* var/; mv var/state disk; ln -s "$1/disk" var/state; mv keyroom room; mv var/secrets/keyroom.passphrase room/passphrase
sed -i "s,^keyroom: .*,keyroom: $1/room/socket,; s,^state: .*,state: $1/var/state,; s,^secrets: .*,secrets: $1/var/secrets," etc/chancery.yaml
sed -i "s,ldif:directory,ldif://$1/var/directory,; s,^  repository: .*,  repository: $1/var/config.git," etc/chancery.yaml
sed -i "s,keyroom/socket,$1/room/socket,; s,secrets/keyroom.passphrase,$1/room/passphrase,; s,\"keyroom\",\"$1/room\"," etc/keyroom.json`, "sh", top)
	step := func(script string, want ...string) {
		t.Helper()
		run(t, "sh", "-ec", `cd "$1"; `+script, "sh", top)
		if got := diagnose(t, site.Doctor{Dir: filepath.Join(top, "etc")}); !slices.Equal(got, plus(want, "split.disk", "split.user")) {
			t.Errorf("%s: %q, want %q beside the others", script, got, want)
		}
	}
	step(``, "service.stopped")
	room := func() *process {
		p, err := launch(`"msg":"serving"`, nil, filepath.Join(bin(t), "chancery-keyroom"), "--config", filepath.Join(top, "etc", "keyroom.json"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}()
	t.Cleanup(room.kill)
	step(``, "service.daemon")
	room.kill()
	step(`chmod 0666 disk/store.db`, "mode.writable", "service.stopped")
	step(`chmod 0600 disk/store.db; chmod 0444 room/users.key`, "mode.secret", "service.stopped")
	step(`chmod 0400 room/users.key; chmod 0444 room/passphrase`, "mode.secret", "service.stopped")
	step(`chmod 0400 room/passphrase; chmod 0755 room`, "mode.folder", "service.stopped")
	step(`chmod 0700 room; chmod 0755 disk`, "mode.folder", "service.stopped")
	step(`chmod 0700 disk; chmod 0666 var/directory.ldif`, "mode.writable", "service.stopped")
	step(`chmod 0644 var/directory.ldif; chmod 0777 etc/trust`, "mode.writable", "service.stopped")
	step(`chmod 0755 etc/trust; openssl pkey -in room/users.key -passin file:room/passphrase -out room/left; cp etc/trust/root.pem kept
		cp -f room/users.pem etc/trust/root.pem`, "key.issuer", "key.server_chain", "offline.clear", "service.stopped")
	step(`cp -f kept etc/trust/root.pem`, "service.stopped")
}
