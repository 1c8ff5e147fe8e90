// Command demo walks one certificate's whole life on a new installation, as provisioning automation and
// a reviewer would, and shows what happened. It needs the built programs and git.
//
//	demo -bin bin -dir demo
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/chancery-ca/chancery/ca/cert"
)

func main() {
	bin := flag.String("bin", "bin", "folder with the built programs")
	dir := flag.String("dir", "demo", "folder that the installation is made in")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := run(ctx, *bin, *dir, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run.
type demo struct {
	bin, dir string
	out      io.Writer
	url      string
}

func run(ctx context.Context, bin, dir string, out io.Writer) error {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s exists: remove it first (make clean does)", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	d := &demo{bin: bin, dir: dir, out: out}
	stop, err := d.begin(ctx)
	if err != nil {
		return err
	}
	if err := d.walk(ctx); err != nil {
		return errors.Join(err, stop())
	}
	d.title("stop")
	if err := stop(); err != nil {
		return err
	}
	if err := d.forge(ctx); err != nil {
		return err
	}
	d.farewell()
	return nil
}

func (d *demo) title(text string) { fmt.Fprintf(d.out, "\n== %s\n", text) }

// show runs a command in view of the reader.
func (d *demo) show(ctx context.Context, name string, args ...string) error {
	fmt.Fprintf(d.out, "$ %s %s\n", name, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = d.out, d.out
	return cmd.Run()
}

func (d *demo) program(name string) string { return filepath.Join(d.bin, name) }

// begin makes and starts the installation at a free port.
func (d *demo) begin(ctx context.Context) (stop func() error, err error) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	listen := probe.Addr().String()
	if err := probe.Close(); err != nil {
		return nil, err
	}
	d.title("make an installation")
	if err := d.show(ctx, d.program("chancery"), "init", d.dir, "--org", "Example", "--domain", "example.org", "--listen", listen); err != nil {
		return nil, err
	}
	d.title("start it")
	fmt.Fprintf(d.out, "$ %s up %s\n", d.program("chancery"), d.dir)
	log, err := os.Create(filepath.Join(d.dir, "up.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(d.program("chancery"), "up", d.dir)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	for d.url == "" && lines.Scan() {
		fmt.Fprintln(d.out, lines.Text())
		d.url, _ = strings.CutPrefix(lines.Text(), "ready ")
		if !strings.HasPrefix(d.url, "https://") {
			d.url = ""
		}
	}
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return errors.Join(cmd.Wait(), log.Close())
	}
	if d.url == "" {
		return nil, fmt.Errorf("it did not start; %s says why (%w)", log.Name(), stop())
	}
	return stop, nil
}

// walk is the main job: issue for two people and a server, open a PKCS#12, revoke one, look at git and
// at the log.
func (d *demo) walk(ctx context.Context) error {
	client, err := newClient(d.url, d.dir)
	if err != nil {
		return err
	}
	d.title("provisioning automation issues over XML-RPC, with its client certificate")
	alice, err := d.issue(client, map[string]any{"purpose": "user", "cn": "alice", "sans": map[string]any{"email": []any{"alice@example.org"}}, "request_id": "hr-1001"})
	if err != nil {
		return err
	}
	again, err := d.issue(client, map[string]any{"purpose": "user", "cn": "alice", "sans": map[string]any{"email": []any{"alice@example.org"}}, "request_id": "hr-1001"})
	if err != nil {
		return err
	}
	if again["serial"] != alice["serial"] || again["password"] != alice["password"] {
		return errors.New("a retry was answered with another certificate")
	}
	fmt.Fprintln(d.out, "   (a retry with the same request_id: the same certificate and password)")
	bob, err := d.issue(client, map[string]any{"purpose": "user", "cn": "bob", "request_id": "hr-1002"})
	if err != nil {
		return err
	}
	if _, err := d.issue(client, map[string]any{"purpose": "server", "cn": "www.example.org", "request_id": "web-1"}); err != nil {
		return err
	}
	d.title("open alice's PKCS#12")
	if err := d.open(alice); err != nil {
		return err
	}
	d.title("revoke bob")
	answer, err := client.call("ca.revoke", map[string]any{"serial": bob["serial"], "reason": "keyCompromise", "request_id": "hr-1003"})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "ca.revoke -> %v\n", answer.message)
	for _, list := range answer.detail["crl"].([]any) {
		l := list.(map[string]any)
		fmt.Fprintf(d.out, "   list %v of %v is %v in commit %v\n", l["number"], l["issuer"], l["state"], l["commit"])
	}
	d.title("what configuration management pulls")
	if err := d.show(ctx, "git", "--git-dir", filepath.Join(d.dir, "config.git"), "log", "--oneline", "--", "pki"); err != nil {
		return err
	}
	d.title("what the reviewer sees of bob")
	if err := d.show(ctx, d.program("chancery"), "audit", "show", "--dir", d.dir, "--cn", "bob"); err != nil {
		return err
	}
	d.title("the log is whole, and every checkpoint in git agrees")
	if err := d.show(ctx, d.program("chancery"), "audit", "verify", "--dir", d.dir); err != nil {
		return err
	}
	d.title("store, log, key room, directory and git agree")
	return d.show(ctx, d.program("chancery"), "fsck", d.dir)
}

func (d *demo) issue(client *client, request map[string]any) (map[string]any, error) {
	answer, err := client.call("ca.issue", request)
	if err != nil {
		return nil, err
	}
	if !answer.ok {
		return nil, fmt.Errorf("issuing %v: %s", request["cn"], answer.message)
	}
	fmt.Fprintf(d.out, "ca.issue %v -> %s\n", request["cn"], answer.message)
	return answer.detail, nil
}

func (d *demo) open(detail map[string]any) error {
	_, leaf, chain, err := pkcs12.DecodeChain(detail["pkcs12"].([]byte), detail["password"].(string))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	between := x509.NewCertPool()
	between.AddCert(chain[0])
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "password %s opens it: key, certificate and chain\n   subject %s\n   issuer  %s\n   serial  %s, until %s\n",
		detail["password"], leaf.Subject, leaf.Issuer, cert.SerialOf(leaf.SerialNumber), leaf.NotAfter.Format(time.DateOnly))
	return nil
}

// forge alters one leaf in a copy of the installation, as somebody with root on the machine could.
func (d *demo) forge(ctx context.Context) error {
	d.title("forge: in a copy, rewrite who got a certificate")
	forged := d.dir + "/forged"
	for _, part := range []string{"chancery.yaml", "state", "trust", "config.git"} {
		if err := copyAll(filepath.Join(d.dir, part), filepath.Join(forged, part)); err != nil {
			return err
		}
	}
	db, err := sql.Open("sqlite", filepath.Join(forged, "state", "store.db"))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `UPDATE leaf SET leaf = CAST(replace(CAST(leaf AS TEXT), '"cn":"bob"', '"cn":"eve"') AS BLOB)`)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	err = d.show(ctx, d.program("chancery"), "audit", "verify", "--dir", forged)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 {
		return errors.Join(errors.New("the forgery was not caught"), err)
	}
	fmt.Fprintln(d.out, "caught: exit code 4")
	return nil
}

func copyAll(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(to, os.DirFS(from))
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

func (d *demo) farewell() {
	fmt.Fprintf(d.out, `
== look around
  %[1]s up %[2]s                         start it again
  %[1]s audit show --dir %[2]s           every step of every life
  %[1]s audit verify --dir %[2]s         believe nothing, check everything
  %[1]s fsck %[2]s                       needs it running
  git --git-dir %[2]s/config.git show main:pki/manifest.json
  cat %[2]s/directory.ldif
`, d.program("chancery"), d.dir)
}

// newTLS is the caller's side of mutual TLS.
func newTLS(dir string) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, "callers", "provisioning.pem"), filepath.Join(dir, "callers", "provisioning.key"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "trust", "root.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("trust/root.pem is not PEM")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}
