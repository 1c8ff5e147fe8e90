package rpc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/store"
)

// built is the key room's program and the keys of one installation, made once: only the copies of it
// ever run.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "rpc"); built.err != nil {
			return
		}
		room := filepath.Join(built.dir, "chancery-keyroom")
		built.err = errors.Join(
			quiet(exec.Command("go", "build", "-o", room, "github.com/chancery-ca/chancery/cmd/chancery-keyroom")),
			os.Mkdir(filepath.Join(built.dir, "site"), 0o700),
			quiet(exec.Command(room, "init", "--dir", filepath.Join(built.dir, "site"), "--org", "Example")),
		)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func quiet(c *exec.Cmd) error {
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", c.Args, err, out)
	}
	return nil
}

// world is an installation: a key room in its own process, a store, an authority, a server and callers.
type world struct {
	testing.TB
	dir       string
	url       string // of the server, without a path
	room      *exec.Cmd
	store     *store.Store
	signer    *signer.Client
	authority *ca.Authority
	server    *Server
	tls       tls.Certificate // the server's
	roots     *x509.CertPool
	offset    atomic.Int64 // of the server's clock
	drift     atomic.Int64 // of the store's clock
	logged    *observer.ObservedLogs
}

var operator = audit.Actor{Kind: audit.ByOperator, Name: "test"}

// newWorld starts everything; it ends with the test, and then everything the key room signed is in the
// books.
func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	return newWorldIn(t, filepath.Join(build(t), "site"), change...)
}

// newWorldIn is newWorld with the keys of another installation.
func newWorldIn(t testing.TB, site string, change ...func(*Options)) *world {
	t.Helper()
	w := &world{TB: t, dir: filepath.Join(t.TempDir(), "site")}
	w.must(exec.Command("cp", "-a", site+"/.", w.dir).Run()) // with the modes of the keys
	w.startRoom()
	ctx := t.Context()
	room, err := signer.DialReader(ctx, w.socket())
	w.must(err)
	hello := room.Hello()
	room.Close()
	w.store, err = store.Create(ctx, filepath.Join(w.dir, "books.db"), w.storeNow, operator, []audit.Event{
		&audit.LogOpened{Origin: hello.Origin, LogKey: hello.LogKey, RecoveryKey: hello.RecoveryKey, Room: hello.Room},
		&audit.RootNamed{Subject: "root", Certificate: hello.Root},
	})
	w.must(err)
	w.signer, err = signer.Dial(ctx, w.socket(), w.store)
	w.must(err)
	w.authority, err = ca.New(ca.Options{Store: w.store, Signer: w.signer, Rand: rand.Reader})
	w.must(err)
	w.tls = w.certificate(cert.Server, "localhost", cert.SANs{IP: []string{"127.0.0.1"}})
	w.roots = x509.NewCertPool()
	root, err := x509.ParseCertificate(hello.Root)
	w.must(err)
	w.roots.AddCert(root)
	w.write("root.pem", asPEM(hello.Root))
	w.serve(change...)
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) socket() string { return filepath.Join(w.dir, "keyroom", "socket") }

func (w *world) write(file, text string) string {
	w.Helper()
	path := filepath.Join(w.dir, file)
	w.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (w *world) startRoom() {
	w.Helper()
	w.room = exec.Command(filepath.Join(build(w), "chancery-keyroom"), "--config", filepath.Join(w.dir, "keyroom.json"))
	var said bytes.Buffer
	w.room.Stderr = &said
	w.must(w.room.Start())
	running := w.room
	w.Cleanup(func() {
		_ = running.Process.Signal(syscall.SIGTERM)
		_ = running.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("unix", w.socket())
		if err == nil {
			w.must(c.Close())
			return
		}
		if time.Now().After(end) {
			w.Fatalf("the key room does not answer: %v\n%s", err, said.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) storeNow() time.Time { return time.Now().Add(time.Duration(w.drift.Load())) }

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

func (w *world) serve(change ...func(*Options)) {
	w.Helper()
	chain, err := w.authority.Chain(cert.Caller)
	w.must(err)
	callers, err := x509.ParseCertificate(chain.Certificates[0])
	w.must(err)
	core, logged := observer.New(zap.WarnLevel)
	w.logged = logged
	o := Options{
		Authority: w.authority, Store: w.store, Config: testConfig(), CallersCA: callers,
		TLSCertificate: func() tls.Certificate { return w.tls },
		Log:            zap.New(core), Now: w.now, Rand: rand.Reader,
	}
	for _, c := range change {
		c(&o)
	}
	w.server, err = New(o)
	w.must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.url = "https://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.server.Serve(ctx, l) }()
	w.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		w.signer.Close()
		if err := w.store.Close(); err != nil {
			w.Error(err)
		}
	})
}

const domain = "example.org"

// payLists says of every list that is owed that it is in git, so that no call waits for one.
func (w *world) payLists() {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			debts, err := w.store.Lease(ctx, store.CRL, 10, w.storeNow().Add(time.Minute))
			if err != nil {
				return
			}
			for _, d := range debts {
				_, _ = w.store.Update(ctx, audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
					return &audit.CRLPublished{Commit: "c"}, tx.Paid(d)
				})
			}
			time.Sleep(time.Millisecond)
		}
	}()
	w.Cleanup(func() { cancel(); <-done })
}

func testConfig() Config {
	all := []string{"ca.issue", "ca.renew", "ca.revoke", "ca.hold", "ca.release", "ca.retire", "ca.status", "ca.find", "ca.expiring", "ca.chain"}
	return Config{Callers: []Caller{
		{Name: "provisioning", PerSecond: 1e6, Grants: []Grant{
			{Methods: all, Purposes: []cert.Purpose{cert.User}, Names: []string{"*"}, Domains: []string{domain}},
			{Methods: all, Purposes: []cert.Purpose{cert.Server}, Names: []string{"*." + domain}, Networks: []string{"192.0.2.0/24"}},
		}},
		{Name: "reader", Grants: []Grant{{Methods: []string{"ca.status", "ca.find", "ca.expiring"}, Purposes: []cert.Purpose{cert.User}, Names: []string{"a*"}}}},
		{Name: "slow", PerSecond: 1, Grants: []Grant{{Methods: all, Purposes: []cert.Purpose{cert.User}, Names: []string{"*"}}}},
		{Name: "nothing"},
	}}
}

// certificate has a certificate issued the normal way, for a key made here.
func (w *world) certificate(p cert.Purpose, cn string, sans cert.SANs) tls.Certificate {
	w.Helper()
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	w.must(err)
	csr, err := profile.MakeCSR(rand.Reader, key, cn)
	w.must(err)
	n, err := name.Canonical(p, cn)
	w.must(err)
	sans, err = name.CanonicalSANs(p, n, sans)
	w.must(err)
	id := fmt.Sprintf("own-%d", time.Now().UnixNano())
	issued, err := w.authority.Issue(w.Context(), ca.Call{Who: operator, RequestID: id, BodySHA256: cert.SHA256([]byte(id))},
		ca.IssueRequest{Purpose: p, Name: n, SANs: sans, CSR: csr})
	w.must(err)
	leaf, err := x509.ParseCertificate(issued.Certificate)
	w.must(err)
	return tls.Certificate{Certificate: append([][]byte{issued.Certificate}, issued.Chain[:1]...), PrivateKey: key, Leaf: leaf}
}

// caller is a new certificate for a configured caller.
func (w *world) caller(cn string) tls.Certificate {
	w.Helper()
	return w.certificate(cert.Caller, cn, cert.SANs{})
}

func (w *world) client(own ...tls.Certificate) *client.Client {
	c := client.New(w.url+"/rpc", w.clientTLS(own...))
	w.Cleanup(c.Close)
	return c
}

func (w *world) clientTLS(own ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: w.roots, Certificates: own}
}

// files writes a certificate where other programs can read it.
func (w *world) files(c tls.Certificate) (certFile, keyFile string) {
	w.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey.(crypto.Signer))
	w.must(err)
	at := fmt.Sprint(time.Now().UnixNano())
	return w.write(at+".pem", asPEM(c.Certificate...)),
		w.write(at+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

// outcome is what Python's xmlrpc.client got.
type outcome struct {
	Result any    `json:"result"`
	Fault  []any  `json:"fault"`
	Error  string `json:"error"`
}

func (o outcome) answer(t testing.TB) (ok bool, msg string, detail map[string]any) {
	t.Helper()
	list, is := o.Result.([]any)
	if !is || len(list) != 3 {
		t.Fatalf("not an answer: %+v", o)
	}
	return list[0].(bool), list[1].(string), list[2].(map[string]any)
}

func (w *world) python(own tls.Certificate, calls ...[]any) []outcome {
	w.Helper()
	job := map[string]any{"url": w.url + "/RPC2", "ca": filepath.Join(w.dir, "root.pem"), "calls": calls}
	if own.PrivateKey != nil {
		job["cert"], job["key"] = w.files(own)
	}
	in, err := json.Marshal(job)
	w.must(err)
	var out []outcome
	w.must(json.Unmarshal(w.tool(in, "python3", "testdata/caller.py"), &out))
	if len(out) != len(calls) {
		w.Fatalf("%d outcomes of %d calls", len(out), len(calls))
	}
	return out
}

// tool runs another program, which must be there and succeed.
func (w *world) tool(in []byte, args ...string) []byte {
	w.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		w.Fatalf("%v: %v\n%s%s", args, err, out.String(), bad.String())
	}
	return out.Bytes()
}

// head is the size of the log.
func (w *world) head() int64 {
	n, _ := w.store.Head()
	return n
}

// since gives the events from an index on.
func (w *world) since(from int64) []audit.Leaf {
	w.Helper()
	raw, err := w.store.Leaves(context.Background(), from, w.head())
	w.must(err)
	var leaves []audit.Leaf
	for _, r := range raw {
		l, err := audit.Decode(r)
		w.must(err)
		leaves = append(leaves, l)
	}
	return leaves
}

// refusal gives the one leaf since an index, which must be a refusal.
func (w *world) refusal(from int64) (audit.Actor, *audit.RequestRefused) {
	w.Helper()
	leaves := w.since(from)
	if len(leaves) != 1 {
		w.Fatalf("%d leaves, want one refusal: %+v", len(leaves), leaves)
	}
	r, ok := leaves[0].Event.(*audit.RequestRefused)
	if !ok {
		w.Fatalf("a %s leaf, want a refusal", leaves[0].Event.Type())
	}
	return leaves[0].Actor, r
}

// post sends a body as it is, and gives the status and the body of the answer.
func (w *world) post(h *http.Client, path, kind string, body io.Reader, header ...string) (int, string) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.url+path, body)
	w.must(err)
	r.Header.Set("Content-Type", kind)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.do(h, r)
}

func (w *world) do(h *http.Client, r *http.Request) (int, string) {
	w.Helper()
	response, err := h.Do(r)
	w.must(err)
	text, err := io.ReadAll(response.Body)
	w.must(errors.Join(err, response.Body.Close()))
	if response.ContentLength != int64(len(text)) || response.ProtoMajor != 1 {
		w.Errorf("%s %s: length %d said, %d sent, %s", r.Method, r.URL.Path, response.ContentLength, len(text), response.Proto)
	}
	return response.StatusCode, string(text)
}

// browser is a bare HTTP client that would speak HTTP/2 if it could.
func (w *world) browser(own ...tls.Certificate) *http.Client {
	tr := &http.Transport{TLSClientConfig: w.clientTLS(own...), ForceAttemptHTTP2: true, DisableCompression: true}
	w.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// strangers gives the counts on the log, by cause, after what is counted was entered.
func (w *world) strangers() map[string]int64 {
	w.Helper()
	w.must(w.server.crowd.flush(context.Background(), w.now().Add(time.Hour)))
	counts := make(map[string]int64)
	for _, l := range w.since(0) {
		if e, ok := l.Event.(*audit.StrangersTurnedAway); ok {
			counts[e.Cause] += e.Count
			if l.Actor != (audit.Actor{Kind: audit.ByStranger}) {
				w.Errorf("%s is by %+v", e.Cause, l.Actor)
			}
		}
	}
	return counts
}

// signatures is how many certificates the key room has signed.
func (w *world) signatures() int64 {
	w.Helper()
	r, err := signer.DialReader(context.Background(), w.socket())
	w.must(err)
	defer r.Close()
	return r.Hello().State.Certificates
}

// detail reads the details of a Go client's answer.
func detail(t testing.TB, a client.Answer) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.Detail, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
