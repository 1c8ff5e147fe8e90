package site_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readKey has openssl decrypt one of the installation's keys.
func readKey(t *testing.T, file, passin string) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode([]byte(run(t, "openssl", "pkey", "-in", file, "-passin", passin)))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

func readCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// aged gives the service a certificate that was made some days ago and ends in some, with a key of its own.
func aged(t *testing.T, folder string, ago, left int) *x509.Certificate {
	t.Helper()
	at := func(name ...string) string { return filepath.Join(append([]string{folder}, name...)...) }
	issuer := readCertificate(t, at("keyroom", "servers.pem"))
	was := readCertificate(t, at("secrets", "server.pem"))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := *was
	template.SerialNumber = new(big.Int).Add(was.SerialNumber, big.NewInt(int64(ago)))
	template.NotBefore, template.NotAfter = time.Now().AddDate(0, 0, -ago), time.Now().AddDate(0, 0, left)
	template.DNSNames = append(template.DNSNames, "ca.example.org")
	template.SubjectKeyId, template.AuthorityKeyId = nil, nil
	der, err := x509.CreateCertificate(rand.Reader, &template, issuer, key.Public(), readKey(t, at("keyroom", "servers.key"), "file:"+at("secrets", "keyroom.passphrase")))
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"server.pem": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Raw})...),
		"server.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.Remove(at("secrets", name)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at("secrets", name), text, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return readCertificate(t, at("secrets", "server.pem"))
}

// served is what the RPC shows now, as openssl sees it: it verifies under the root, or the test fails.
func served(t *testing.T, folder string) *x509.Certificate {
	t.Helper()
	out := run(t, "sh", "-c", `openssl s_client -connect "$1" -servername ca.example.org -verify_return_error -CAfile "$2" </dev/null 2>/dev/null || true`,
		"sh", config(t, folder).Listen, filepath.Join(folder, "trust", "root.pem"))
	block, _ := pem.Decode([]byte(out))
	if block == nil || !strings.Contains(out, "Verification: OK") {
		t.Fatalf("openssl s_client says\n%s", out)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// renewals is how many certificates the service has announced for itself, and how many of them it got.
func renewals(t *testing.T, folder string) string {
	t.Helper()
	return python(t, folder, `
mine = [json.loads(l)["event"]["serial"] for l in leaves() if json.loads(l)["actor"].get("name") == "service.renewal" and json.loads(l)["type"] == "issue.intent"]
live = [s for s in mine if c.execute("SELECT state FROM certificate WHERE serial = ?", [s]).fetchone()[0] == "live"]
print(len(mine), len(live))`)
}

// TestServiceRenewsItsCertificate: with a certificate in its last third the daemon gets the next one while
// it serves, an open connection goes on, and the next start uses it.
func TestServiceRenewsItsCertificate(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	old := aged(t, dir, 300, 20)
	serve(t, dir, func() error {
		caller, err := tls.LoadX509KeyPair(filepath.Join(dir, "callers", "provisioning.pem"), filepath.Join(dir, "callers", "provisioning.key"))
		if err != nil {
			return err
		}
		open, err := tls.Dial("tcp", config(t, dir).Listen, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{caller}})
		if err != nil {
			return err
		}
		defer open.Close()
		eventually(t, func() bool { return served(t, dir).SerialNumber.Cmp(old.SerialNumber) != 0 })
		next := served(t, dir)
		if strings.Join(next.DNSNames, " ") != strings.Join(old.DNSNames, " ") || next.Subject.CommonName != old.Subject.CommonName ||
			len(next.IPAddresses) != 1 || !next.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) {
			t.Errorf("its names are %v %v", next.DNSNames, next.IPAddresses)
		}
		if left := time.Until(next.NotAfter); left < 80*24*time.Hour {
			t.Errorf("it ends at %s", next.NotAfter)
		}
		if same, ok := next.PublicKey.(*ecdsa.PublicKey); !ok || same.Equal(old.PublicKey) {
			t.Error("it has the old key")
		}
		if _, err := fmt.Fprintf(open, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Errorf("the connection of before: %v", err)
		}
		answer := make([]byte, 12)
		if _, err := open.Read(answer); err != nil || string(answer) != "HTTP/1.1 404" {
			t.Errorf("the connection of before: %q %v", answer, err)
		}
		return callAll(dir, issue("user", "frank"))
	})
	pair := filepath.Join(dir, "state", "service.pem")
	if info, err := os.Stat(pair); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	first := readPair(t, dir).SerialNumber
	serve(t, dir, func() error {
		if now := served(t, dir); now.SerialNumber.Cmp(first) != 0 {
			t.Errorf("after a restart it is %x, not %x", now.SerialNumber, first)
		}
		return callAll(dir, issue("user", "grace"))
	})
	if got := renewals(t, dir); got != "1 1" {
		t.Errorf("certificates announced and live: %s", got)
	}
	if left, _ := filepath.Glob(pair + ".*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	room(t, dir)
	clean(t, dir)
}

// TestRenewalSurvivesCrashes: the daemon dies before and after each durable step of a renewal, and the next
// one serves with one new certificate, the only one that was signed.
func TestRenewalSurvivesCrashes(t *testing.T) {
	t.Parallel()
	deadly, err := mortal()
	if err != nil {
		t.Fatal(err)
	}
	from := copyOf(t, worlds(t).night)
	aged(t, from, 300, 20)
	daemon := func(dir string, until string, env ...string) (*process, error) {
		return launch(until, env, filepath.Join(deadly, "chanceryd"), "--config", filepath.Join(dir, "chancery.yaml"))
	}
	dir, steps := copyOf(t, from), filepath.Join(scratch, "renewal-steps")
	running := room(t, dir)
	p, err := daemon(dir, "certificate is renewed", "CHANCERY_CRASH_LOG="+steps)
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	running.kill()
	text, err := os.ReadFile(steps)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	inside, tried := false, 0
	for _, step := range all {
		n, op, _ := strings.Cut(step, " ")
		if inside = inside || op == "service.draft"; !inside {
			continue
		}
		for _, side := range []string{"before:", "after:"} {
			tried++
			dir := copyOf(t, from)
			running := room(t, dir)
			p, err := daemon(dir, "certificate is renewed", "CHANCERY_CRASH="+side+n)
			if err == nil {
				p.kill()
			}
			// The next one finds the draft as the crash left it; a torn end stands for a write that was cut.
			if f, err := os.OpenFile(filepath.Join(dir, "state", "service.pem.next"), os.O_WRONLY|os.O_APPEND, 0); err == nil {
				fmt.Fprint(f, "-----BEGIN CERTIFICATE-----\nMIIB")
				f.Close()
			}
			if p, err = daemon(dir, "ready https://"); err != nil {
				t.Fatalf("%s%s %s: %v", side, n, op, err)
			}
			eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "state", "service.pem")); return err == nil })
			eventually(t, func() bool { return strings.HasSuffix(renewals(t, dir), " 1") })
			now := readPair(t, dir)
			eventually(t, func() bool { return served(t, dir).SerialNumber.Cmp(now.SerialNumber) == 0 })
			if _, err := p.end(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if got := renewals(t, dir); !strings.HasSuffix(got, " 1") {
				t.Errorf("%s%s %s: certificates announced and live: %s", side, n, op, got)
			}
			clean(t, dir)
			running.kill()
		}
		if op == "service.replace" {
			break
		}
	}
	if tried < 8 {
		t.Errorf("only %d crashes; the steps are %v", tried, all)
	}
}

// readPair reads the renewed pair as any server would, so that key and certificate belong together.
func readPair(t *testing.T, folder string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "state", "service.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// TestDamagedRenewal: a renewed pair that cannot be read stops the start and says what to do, and what that
// is works; a younger pair in secrets is taken before it.
func TestDamagedRenewal(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	pair := filepath.Join(dir, "state", "service.pem")
	if err := os.WriteFile(pair, []byte("-----BEGIN PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := room(t, dir)
	p, err := launch("ready", nil, filepath.Join(bin(t), "chanceryd"), "--config", filepath.Join(dir, "chancery.yaml"))
	if err == nil || p == nil || !strings.Contains(p.String(), "remove the file") {
		t.Fatalf("%v %v", err, p)
	}
	running.kill()
	run(t, "sh", "-c", `cat "$1"/callers/provisioning.key "$1"/callers/provisioning.pem >"$1"/state/service.pem`, "sh", dir)
	young := aged(t, dir, 0, 90)
	serve(t, dir, func() error {
		if now := served(t, dir); now.SerialNumber.Cmp(young.SerialNumber) != 0 {
			t.Errorf("it serves with %s", now.Subject)
		}
		return nil
	})
}
