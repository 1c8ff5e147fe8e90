package gitrepo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// server is a git server with one bare repository, which is at path here.
type server struct {
	path   string
	url    string
	access Access
}

func (s *server) open(t testing.TB) *Hosted {
	t.Helper()
	h, err := OpenHosted(s.url, "main", "site/pki", s.access)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// through is the server as it is reached through a proxy.
func (s *server) through(t testing.TB, p *proxy) *server {
	t.Helper()
	other := *s
	other.url = strings.Replace(s.url, p.to, p.at, 1)
	if s.access.KnownHosts != "" {
		text, err := os.ReadFile(s.access.KnownHosts)
		if err != nil {
			t.Fatal(err)
		}
		swap := func(address string) string { return "[" + strings.Replace(address, ":", "]:", 1) }
		other.access.KnownHosts = write(t, 0o600, strings.Replace(string(text), swap(p.to), swap(p.at), 1))
	}
	return &other
}

// write makes a file of its own.
func write(t testing.TB, mode os.FileMode, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// onEach runs a test with a repository behind git http-backend, and behind sshd.
func onEach(t *testing.T, test func(t *testing.T, s *server)) {
	t.Run("https", func(t *testing.T) { test(t, overTLS(t, newBare(t), nil)) })
	t.Run("ssh", func(t *testing.T) { test(t, overSSHD(t, newBare(t))) })
}

// backend is git's own CGI program. One whose request ends in the middle turns for ever, until the web
// server ends it.
func backend(t testing.TB, path string) *cgi.Handler {
	t.Helper()
	dir := git(t, ".", "--exec-path")
	program := filepath.Join(dir, "git-http-backend")
	if _, err := os.Stat(program); err != nil {
		t.Fatal(err)
	}
	return &cgi.Handler{
		Path: "/usr/bin/timeout", Args: []string{"30", program}, Stderr: io.Discard, InheritEnv: []string{"PATH"},
		Env: []string{
			"GIT_PROJECT_ROOT=" + filepath.Dir(path), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=chancery",
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent",
		},
	}
}

const password = "correct horse"

// overTLS serves a repository over https, to whoever knows the password.
func overTLS(t testing.TB, path string, wrap func(http.Handler) http.Handler) *server {
	t.Helper()
	git(t, path, "config", "receive.autogc", "false")
	var h http.Handler = backend(t, path)
	h = func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if user, given, _ := r.BasicAuth(); (user != "chancery" || given != password) && len(r.TLS.PeerCertificates) == 0 {
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		}
	}(h)
	if wrap != nil {
		h = wrap(h)
	}
	web := httptest.NewTLSServer(h)
	t.Cleanup(web.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	return &server{path, web.URL + "/" + filepath.Base(path), Access{
		Username: "chancery", PasswordFile: write(t, 0o400, password+"\n"), CA: write(t, 0o644, string(ca)),
	}}
}

// newKey makes a key pair as ssh-keygen would.
func newKey(t testing.TB) (private, public string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

// overSSHD serves a repository with OpenSSH's sshd and git-shell, as deploy/git says.
func overSSHD(t testing.TB, path string) *server {
	t.Helper()
	git(t, path, "config", "receive.autogc", "false")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	hostPrivate, hostPublic := newKey(t)
	private, public := newKey(t)
	config := fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
`, port, write(t, 0o600, hostPrivate), write(t, 0o644, `restrict,command="git-shell -c \"$SSH_ORIGINAL_COMMAND\"" `+public))
	said, err := os.Create(filepath.Join(t.TempDir(), "said")) // a pipe would live as long as a session
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", write(t, 0o644, config))
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // says that it was killed
		for start := time.Now(); worksIn(path); time.Sleep(10 * time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Errorf("a session of sshd still works in %s", path)
				break
			}
		}
		if text, _ := os.ReadFile(said.Name()); t.Failed() {
			t.Logf("sshd: %s", text)
		}
		said.Close()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			break
		} else if time.Since(start) > 10*time.Second {
			t.Fatalf("sshd: %v", err)
		}
	}
	return &server{path, "ssh://" + me.Username + "@" + address + path, Access{
		SSHKey: write(t, 0o400, private), KnownHosts: write(t, 0o644, fmt.Sprintf("[127.0.0.1]:%d %s", port, hostPublic)),
	}}
}

// worksIn tells whether a process is in a folder, as git's are in their repository.
func worksIn(path string) bool {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is a good one
	return slices.ContainsFunc(links, func(link string) bool {
		dir, err := os.Readlink(link)
		return err == nil && dir == path
	})
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// proxy passes connections on. While cut says so, what the server sends is swallowed and the
// connection ends, or, if it stalls, stays open in silence.
type proxy struct {
	at, to string
	cut    atomic.Pointer[func() bool]
	stalls atomic.Bool
	deaf   atomic.Int64 // if not 0, the server gets no more octets of a connection than these
	slow   atomic.Int64 // if not 0, the time that passes before each octet of the server
}

func newProxy(t testing.TB, address string) *proxy {
	t.Helper()
	host := address[strings.Index(address, "127."):]
	host, _, _ = strings.Cut(host, "/")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{at: l.Addr().String(), to: host}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(ctx, from)
		}
	}()
	return p
}

func (p *proxy) pass(ctx context.Context, from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = from.Close(); _ = to.Close() })
	defer stop()
	go func() {
		var sent int64
		_, _ = io.Copy(to, readerFunc(func(b []byte) (int, error) {
			n, err := from.Read(b)
			if sent += int64(n); p.deaf.Load() > 0 && sent > p.deaf.Load() {
				<-ctx.Done()
			}
			return n, err
		}))
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := to.Read(buffer)
		if cut := p.cut.Load(); cut != nil && (*cut)() {
			if p.stalls.Load() {
				<-ctx.Done()
			}
			return
		}
		for at := 0; at < n; {
			next := n
			if pause := p.slow.Load(); pause > 0 {
				time.Sleep(time.Duration(pause))
				next = at + 1
			}
			if _, failed := from.Write(buffer[at:next]); failed != nil {
				return
			}
			at = next
		}
		if err != nil {
			return
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// clone is a work tree of somebody else.
func clone(t testing.TB, path string) string {
	t.Helper()
	work := filepath.Join(t.TempDir(), "work")
	git(t, ".", "clone", "-q", path, work)
	return work
}

func commitAll(t testing.TB, work, name, content string) {
	t.Helper()
	file := filepath.Join(work, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, work, "add", "-A")
	git(t, work, "commit", "-qm", name)
}

// hook installs deploy/git's hook, with our key as the CA's.
func hook(t testing.TB, path string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/git/pre-receive")
	if err != nil {
		t.Fatal(err)
	}
	line := `ca@example.org namespaces="git" ` + string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(testSigner().PublicKey()))) + "\n"
	git(t, path, "config", "chancery.branch", "main")
	git(t, path, "config", "chancery.folder", "site/pki")
	git(t, path, "config", "gpg.ssh.allowedSignersFile", write(t, 0o644, line))
	if err := os.MkdirAll(filepath.Join(path, "hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "hooks/pre-receive"), text, 0o755); err != nil {
		t.Fatal(err)
	}
}
