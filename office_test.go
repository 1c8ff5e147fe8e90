package chancery_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite"

	"github.com/chancery-ca/chancery/rpc/client"
)

// The processes, in the order in which they start.
const (
	theRoom   = "room"
	theDaemon = "daemon"
)

// office is an installation that runs, and is brought back to life when it dies.
type office struct {
	bin, dir string
	client   *client.Client
	running  map[string]*process
}

const templateAddress = "127.0.0.1:8443"

// template is an installation that is copied: its paths are relative.
var template = sync.OnceValues(func() (string, error) {
	bin, err := mortal()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(scratch, "template")
	out, err := exec.Command(filepath.Join(bin, "chancery"), "init", dir, "--org", "Example", "--domain", "example.org", "--listen", templateAddress).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("making the installation to copy: %w\n%s", err, out)
	}
	return dir, nil
})

// newOffice copies the template to a new folder and gives it an address of its own.
func newOffice() (*office, error) {
	from, err := template()
	if err != nil {
		return nil, err
	}
	bin, err := mortal()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(scratch, "o")
	if err != nil {
		return nil, err
	}
	o := &office{bin: bin, dir: dir, running: make(map[string]*process)}
	if out, err := exec.Command("cp", "-a", from+"/.", o.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying the installation: %w\n%s", err, out)
	}
	// The key room makes it anew as it starts: one durable step more.
	if err := os.Remove(filepath.Join(o.dir, "keyroom", "delivery.keys")); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(o.dir, "chancery.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, bytes.Replace(text, []byte(templateAddress), []byte(address), 1), 0o600); err != nil {
		return nil, err
	}
	o.client, err = o.connect(address)
	return o, err
}

func (o *office) connect(address string) (*client.Client, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(o.dir, "callers", "provisioning.pem"), filepath.Join(o.dir, "callers", "provisioning.key"))
	if err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(o.dir, "trust", "root.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	return client.New("https://"+address+"/rpc", &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, MinVersion: tls.VersionTLS13}), nil
}

func (o *office) close() {
	o.client.Close()
	for _, p := range o.running {
		p.kill()
	}
}

// start runs one of the processes. That it dies by SIGKILL while it starts is no error: it is what the
// environment asked for, or a test did.
func (o *office) start(who string, env ...string) error {
	begin := startDaemon
	if who == theRoom {
		begin = startRoom
	}
	p, err := begin(o.bin, o.dir, env...)
	if p == nil {
		return err
	}
	o.running[who] = p
	if err != nil && p.dead() && p.code() == -1 {
		return nil
	}
	return err
}

// revive starts what has died. A daemon that started without its key room has ended by itself.
func (o *office) revive() error {
	for _, who := range []string{theRoom, theDaemon} {
		if p := o.running[who]; p != nil && !p.dead() {
			continue
		}
		if err := o.start(who); err != nil {
			return err
		}
	}
	return nil
}

// stop ends one process in order, unless it has died.
func (o *office) stop(who string) error {
	p := o.running[who]
	if p.dead() {
		return nil
	}
	if err := p.stop(); err != nil && p.code() != -1 {
		return err
	}
	return nil
}

// request is one call with its request id.
type request struct {
	method string
	params map[string]any
}

func (r request) id() string { return r.params["request_id"].(string) }

// detail is what an answer says.
type detail map[string]any

const patience = time.Minute

// ask asks until it is done, with the same request id, and has between called while it waits. What is
// not done may only be unknown, or fail because the key room is not there.
func (o *office) ask(r request, between func() error) (detail, error) {
	deadline := time.Now().Add(patience)
	for {
		var a client.Answer
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		err := o.client.Call(ctx, r.method, r.params, &a)
		cancel()
		var d detail
		if err == nil {
			err = json.Unmarshal(a.Detail, &d)
		}
		var fault *client.Fault
		switch {
		case err == nil && a.OK:
			return d, nil
		case errors.As(err, &fault) && fault.Code == tooOften:
			time.Sleep(time.Second)
		case fault != nil, err == nil && d["code"] != "outcome.unknown" && d["code"] != "keyroom.unreachable":
			return nil, fmt.Errorf("%s %s: %v %s", r.method, r.id(), err, a.Msg)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%s %s is not done after %s: %v %s", r.method, r.id(), patience, err, a.Msg)
		}
		if err := between(); err != nil {
			return nil, err
		}
		time.Sleep(pollTime)
	}
}

// tooOften is the fault of a caller that is above its rate, which the check of a fast machine can be.
const tooOften = 4290

// published asks until the list with a revocation is in git.
func (o *office) published(r request, between func() error) error {
	for deadline := time.Now().Add(patience); ; {
		d, err := o.ask(r, between)
		if err != nil {
			return err
		}
		lists := d["crl"].([]any)
		if len(lists) == 1 && lists[0].(map[string]any)["state"] == "published" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the list is not published: %v", lists)
		}
		if err := between(); err != nil {
			return err
		}
		time.Sleep(20 * pollTime) // or the caller is told that it calls too often
	}
}

// sameAnswer compares two answers to the same request. Where it is published may have changed.
func sameAnswer(r request, first, second detail) error {
	for _, key := range []string{"code", "serial", "log_index", "certificate", "fingerprint", "chain", "pkcs12", "password", "not_after", "revoked"} {
		a, b := fmt.Sprint(first[key]), fmt.Sprint(second[key])
		if a != b {
			return fmt.Errorf("%s %s was answered with %s %q, and then with %q", r.method, r.id(), key, a, b)
		}
	}
	if r.method == "ca.issue" && (first["password"] == nil || first["pkcs12"] == nil) {
		return fmt.Errorf("%s %s: an answer without the key", r.method, r.id())
	}
	return nil
}

// leaf is as much of a leaf as the checks need.
type leaf struct {
	Type  string
	Event struct {
		Serial      string
		RequestID   string `json:"request_id"`
		Fingerprint string
	}
}

// life is what the log says of one request.
type life struct{ announced, done, abandoned int }

// readLog reads the log out of the database, and tells what became of each request id, and which
// certificates were signed.
func (o *office) readLog() (map[string]*life, map[string]bool, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(o.dir, "state", "store.db")+"?mode=ro")
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	rows, err := db.Query("SELECT leaf FROM leaf ORDER BY position")
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	lives, bySerial, signed := make(map[string]*life), make(map[string]*life), make(map[string]bool)
	for rows.Next() {
		var text []byte
		var l leaf
		if err := rows.Scan(&text); err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, nil, err
		}
		switch e := l.Event; l.Type {
		case "issue.intent":
			if lives[e.RequestID] == nil {
				lives[e.RequestID] = new(life)
			}
			lives[e.RequestID].announced++
			bySerial[e.Serial] = lives[e.RequestID]
		case "issue.done":
			bySerial[e.Serial].done++
			signed[e.Fingerprint] = true
		case "issue.abandoned":
			bySerial[e.Serial].abandoned++
		}
	}
	return lives, signed, rows.Err()
}

// run runs a program in the installation's folder and wants exit code 0.
func (o *office) run(name string, args ...string) (string, error) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	code, err := command(ctx, &out, &out, o.dir, os.Environ(), name, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, &out)
	}
	return out.String(), nil
}

func (o *office) chancery(args ...string) error {
	_, err := o.run(filepath.Join(o.bin, "chancery"), args...)
	return err
}

// revokedInGit gives what openssl reads in the list of users at the tip.
func (o *office) revokedInGit() (map[string]bool, error) {
	crl, err := o.run("git", "--git-dir", "config.git", "show", "main:pki/users.crl.pem")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, "users.crl.pem")
	if err := os.WriteFile(file, []byte(crl), 0o600); err != nil {
		return nil, err
	}
	text, err := o.run("openssl", "crl", "-in", file, "-CAfile", "keyroom/users.pem", "-noout", "-text")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(text, "verify OK") {
		return nil, fmt.Errorf("openssl does not verify the list:\n%s", text)
	}
	listed := make(map[string]bool)
	for _, m := range regexp.MustCompile(`Serial Number: ([0-9A-F]+)`).FindAllStringSubmatch(text, -1) {
		listed[strings.ToLower(m[1])] = true
	}
	return listed, nil
}

// audited stops both processes and has the log verified, and checks that there is one certificate for
// each request.
func (o *office) audited() (signed map[string]bool, err error) {
	if err := o.chancery("fsck", "."); err != nil {
		return nil, err
	}
	if err := errors.Join(o.stop(theDaemon), o.stop(theRoom)); err != nil {
		return nil, err
	}
	if err := o.chancery("audit", "verify", "--dir", "."); err != nil {
		return nil, err
	}
	lives, signed, err := o.readLog()
	for id, l := range lives {
		if l.done != 1 || l.announced != l.done+l.abandoned {
			err = errors.Join(err, fmt.Errorf("request %s: announced %d times, signed %d, abandoned %d", id, l.announced, l.done, l.abandoned))
		}
	}
	return signed, err
}
