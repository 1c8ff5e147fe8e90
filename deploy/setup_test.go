package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSetup runs every command of docs/SETUP.md, in order, on one machine that is all of its hosts.
func TestSetup(t *testing.T) {
	page, err := os.ReadFile("../docs/SETUP.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 8 {
		t.Fatalf("%d blocks of commands in docs/SETUP.md", len(blocks))
	}
	debs, err := filepath.Glob(filepath.Join(built(t), "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, append(debs, "../deploy")...)
	// The machine has no network to upgrade anything from.
	script := "set -x\nsystemctl start systemd-user-sessions.service\necho 'APT::Get::Upgrade \"false\";' >/etc/apt/apt.conf.d/99test\nfor host in ca ldap git www; do echo 127.0.0.1 $host.example.org >>/etc/hosts; done\n"
	for _, b := range blocks {
		script += b[1]
	}
	out := m.run(t, script)
	for _, want := range []string{"verified\n", "clean\n", "dn: cn=alice,ou=people,dc=example,dc=org\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if n := strings.Count(out, "\nhello\n"); n != 2 {
		t.Errorf("the web server let in %d times; bob comes once, and alice", n)
	}
	if t.Failed() {
		t.Log(out)
	}
}
