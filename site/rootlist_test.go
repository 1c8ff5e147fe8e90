package site_test

import (
	"crypto/rand"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/site"
)

// signRootList runs the command where the root key is.
func signRootList(t *testing.T, pass string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin(t), "chancery"), append([]string{"root-crl", "sign", "--passphrase-fd", "0"}, args...)...)
	cmd.Stdin = strings.NewReader(pass)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// rootListInGit is what openssl says of the root's list at the tip: its number, if the root signed it.
func rootListInGit(t *testing.T, folder string) string {
	t.Helper()
	out := run(t, "sh", "-c", `git --git-dir "$1/config.git" show main:pki/root.crl.pem | openssl crl -noout -verify -CAfile "$1/trust/root.pem" -crlnumber 2>&1`, "sh", folder)
	if !strings.Contains(out, "verify OK") {
		t.Fatalf("openssl says\n%s", out)
	}
	_, number, _ := strings.Cut(out, "crlNumber=")
	return strings.TrimSpace(number)
}

// TestRootListIsRenewed: signed where only the offline folder is, installed into a running installation, on
// the log before it is in git, and every check agrees.
func TestRootListIsRenewed(t *testing.T) {
	t.Parallel()
	h := worlds(t)
	dir, away := copyOf(t, h.night), copyOf(t, h.other)
	run(t, "cp", "-a", filepath.Join(dir, "offline"), filepath.Join(away, "medium"))
	medium := filepath.Join(away, "medium")
	run(t, "rm", "-rf", filepath.Join(dir, "offline")) // it is not on the machine of the CA
	if code, said := signRootList(t, "wrong "+passphrase, medium); code != 1 || !strings.Contains(said, "wrong passphrase") {
		t.Errorf("a wrong passphrase: exit code %d, %s", code, said)
	}
	if code, said := signRootList(t, passphrase, medium, "--days", "801"); code != 2 || !strings.Contains(said, "1 to 800") {
		t.Errorf("too long: exit code %d, %s", code, said)
	}
	code, said := signRootList(t, passphrase, medium)
	if code != 0 || !strings.Contains(said, "signed list 2 of the root, valid until "+time.Now().UTC().AddDate(0, 0, 400).Format(time.DateOnly)) {
		t.Fatalf("exit code %d, %s", code, said)
	}
	signed := filepath.Join(medium, "root.crl.pem")
	if code, _, said := chancery(t, "root-crl", "install", away, signed); code != 1 || !strings.Contains(said, "is not installed") {
		t.Errorf("into another installation: exit code %d, %s", code, said)
	}
	if code, _, said := chancery(t, "root-crl", "install", dir, filepath.Join(dir, "trust", "root.pem")); code != 1 {
		t.Errorf("no list: exit code %d, %s", code, said)
	}
	serve(t, dir, func() error {
		if number := rootListInGit(t, dir); number != "0x01" {
			t.Errorf("list %s is in git before", number)
		}
		if code, out, said := chancery(t, "root-crl", "install", dir, signed); code != 0 || !strings.Contains(out, "installed list 2 of the root") {
			t.Errorf("exit code %d, %s%s", code, out, said)
		}
		if report, err := site.Fsck(t.Context(), config(t, dir)); err != nil || report.Violations() > 0 {
			t.Errorf("while it is on its way: %v %+v", err, report.Findings)
		}
		return callAll(dir, revoke("alice", "superseded")) // which has a list published, and so this one
	})
	if number := rootListInGit(t, dir); number != "0x02" {
		t.Errorf("list %s is in git", number)
	}
	if order := python(t, dir, `print(index("ceremony.root_crl") < index("crl.published"), index("ceremony.root_crl", 0) < index("ceremony.root_crl"))`); order != "True True" {
		t.Errorf("on the log before in git, and a further one: %s", order)
	}
	if message := run(t, "git", "--git-dir", filepath.Join(dir, "config.git"), "log", "-1", "--format=%B"); !strings.HasPrefix(message, "crl(users,root): number 2,2, +1 revoked") {
		t.Errorf("the commit says\n%s", message)
	}
	room(t, dir)
	clean(t, dir)
	if code, out, said := chancery(t, "audit", "verify", "--dir", dir); code != 0 {
		t.Errorf("exit code %d, %s%s", code, out, said)
	}
}

// TestOldRootListPutBack: an older list of the root in the key room is found, and does not get to hosts.
func TestOldRootListPutBack(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	old, err := os.ReadFile(filepath.Join(dir, "keyroom", "root.crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	offline := filepath.Join(dir, "offline")
	if code, said := signRootList(t, passphrase, offline); code != 0 {
		t.Fatal(said)
	}
	if code, _, said := chancery(t, "root-crl", "install", dir, filepath.Join(offline, "root.crl.pem")); code != 0 {
		t.Fatal(said)
	}
	serve(t, dir, func() error { return callAll(dir, revoke("alice", "superseded")) })
	if err := errors.Join(os.Remove(filepath.Join(dir, "keyroom", "root.crl.pem")), os.WriteFile(filepath.Join(dir, "keyroom", "root.crl.pem"), old, 0o444)); err != nil {
		t.Fatal(err)
	}
	p, err := launch("ready https://", nil, filepath.Join(bin(t), "chancery"), "up", dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := callAll(dir, revoke("www.example.org", "superseded")); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { return strings.Contains(p.String(), `"code":"crl.root"`) })
	if code, found := fsckCommand(t, dir); code != 4 || !slices.Equal(found, []string{"room.root_list"}) {
		t.Errorf("fsck: exit code %d, %v", code, found)
	}
	if code, err := p.end(syscall.SIGTERM); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if number := rootListInGit(t, dir); number != "0x02" {
		t.Errorf("list %s is in git", number)
	}
}

// TestExpiredRootList: when the root's list has expired no list is published any more, and after the
// next one is installed all that is owed is.
func TestExpiredRootList(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	offline := filepath.Join(dir, "offline")
	p, err := launch("ready https://", nil, filepath.Join(bin(t), "chancery"), "up", dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	const life = 8 * time.Second
	der, err := list.Sign(rand.Reader, list.Template{
		Issuer: readCertificate(t, filepath.Join(offline, "root.pem")), Number: big.NewInt(2), ThisUpdate: now, NextUpdate: now.Add(life),
	}, nil, readKey(t, filepath.Join(offline, "root.key"), "pass:"+passphrase))
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(offline, "root.crl.pem")
	if err := errors.Join(os.Remove(short), os.WriteFile(short, list.EncodePEM(der), 0o444)); err != nil {
		t.Fatal(err)
	}
	if code, _, said := chancery(t, "root-crl", "install", dir, short); code != 0 {
		t.Fatal(said)
	}
	if err := callAll(dir, revoke("alice", "superseded")); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { return rootListInGit(t, dir) == "0x02" })
	time.Sleep(time.Until(now.Add(life + time.Second)))
	if err := callAll(dir, revoke("www.example.org", "superseded")); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { return strings.Contains(p.String(), "list.expired") })
	if code, found := fsckCommand(t, dir); code != 4 || !slices.Contains(found, "git.list_expired") {
		t.Errorf("fsck: exit code %d, %v", code, found)
	}
	if code, said := signRootList(t, passphrase, offline); code != 0 {
		t.Fatal(said)
	}
	if code, _, said := chancery(t, "root-crl", "install", dir, short); code != 0 {
		t.Fatal(said)
	}
	eventually(t, func() bool { return rootListInGit(t, dir) == "0x03" })
	eventually(t, func() bool {
		return python(t, dir, `print(c.execute("SELECT count(*) FROM debt").fetchone()[0])`) == "0"
	})
	clean(t, dir)
	if code, err := p.end(syscall.SIGTERM); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
}
