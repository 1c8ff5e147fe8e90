package keyroom

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// made keeps one installation a start time and what is slow to make, for every test to copy.
var made struct {
	sync.Mutex
	dirs map[time.Time]string
	room string // the built command
}

func TestMain(m *testing.M) {
	made.dirs = make(map[time.Time]string)
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "a test leaves goroutines behind:", err)
		code = 1
	}
	for _, dir := range made.dirs {
		_ = os.RemoveAll(dir)
	}
	if made.room != "" {
		_ = os.RemoveAll(filepath.Dir(made.room))
	}
	os.Exit(code)
}

// clock is what a room under test takes for the time.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// hall is one installation with a log that the test writes by hand, and the room that reads it.
type hall struct {
	*testing.T
	dir     string
	config  Config
	clock   *clock
	log     *memLog
	builder map[cert.Issuer]*profile.Builder
	logged  *lockedBuffer
	tune    func(*Room) // before it serves

	room *Room
	stop func()
}

// install makes a fresh installation of example.org and gives its folder. Its path is short enough for
// the address of a Unix socket.
func install(t testing.TB, at time.Time) string {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.dirs[at] == "" {
		master := tempDir(nil)
		if err := ceremony(master, at).Init(); err != nil {
			t.Fatal(err)
		}
		quicken(t, filepath.Join(master, "keyroom"), filepath.Join(master, "secrets", "keyroom.passphrase"))
		made.dirs[at] = master
	}
	dir := tempDir(t)
	if err := exec.Command("cp", "-a", made.dirs[at]+"/.", dir).Run(); err != nil { // with the modes of the keys
		t.Fatal(err)
	}
	return dir
}

func ceremony(dir string, at time.Time) Ceremony {
	return Ceremony{
		Dir: dir, Org: "Example", Domains: []string{"example.org"}, OfflinePassphrase: "correct horse battery",
		Now: func() time.Time { return at }, Rand: rand.Reader,
	}
}

// quicken has openssl encrypt the keys again so that a room opens in no time.
func quicken(t testing.TB, state, secret string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(state, "*.key"))
	if err != nil || len(paths) != 4 {
		t.Fatalf("%d keys: %v", len(paths), err)
	}
	for _, path := range paths {
		text := tool(t, nil, "sh", "-c", `p=$(cat "$2"); openssl pkcs8 -topk8 -in "$1" -passin "pass:$p" -scrypt -scrypt_N 16 -v2 aes-256-cbc -passout "pass:$p"`, "sh", path, secret)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
}

func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "kr")
	if err != nil {
		panic(err)
	}
	if t != nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	return dir
}

// newHall installs, opens the room, serves it, and writes the first leaf of its log.
func newHall(t *testing.T, edits ...func(*Config)) *hall {
	t.Helper()
	h := &hall{
		T: t, dir: install(t, noon), clock: &clock{t: noon}, log: new(memLog),
		builder: make(map[cert.Issuer]*profile.Builder), logged: new(lockedBuffer),
	}
	var err error
	if h.config, err = LoadConfig(filepath.Join(h.dir, "keyroom.json")); err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		edit(&h.config)
	}
	h.start()
	h.Cleanup(func() { h.stop() })
	hello := h.room.Hello()
	for _, i := range hello.Issuers {
		if h.builder[i.ID], err = profile.NewBuilder(parseCert(t, i.Certificate), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	h.add(audit.Actor{Kind: audit.ByCeremony}, opening(hello))
	return h
}

func opening(hello signer.Hello) *audit.LogOpened {
	return &audit.LogOpened{
		Origin: hello.Origin, LogKey: hello.LogKey, RecoveryKey: hello.RecoveryKey,
		Room: hello.Room,
	}
}

func (h *hall) options() Options {
	return Options{
		Config: h.config, Build: "test", Now: h.clock.now, Rand: rand.Reader,
		Log: slog.New(slog.NewTextHandler(h.logged, nil)),
	}
}

// start opens the room and serves it until h.stop is called, which may be more than once.
func (h *hall) start() {
	h.Helper()
	room, err := Open(h.options())
	if err != nil {
		h.Fatal(err)
	}
	if h.tune != nil {
		h.tune(room)
	}
	listener, err := room.Listen()
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- room.Serve(ctx, listener) }()
	h.room = room
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			h.Errorf("serving: %v", err)
		}
		if err := room.Close(); err != nil {
			h.Errorf("closing the room: %v", err)
		}
	})
	h.dial().close() // it answers when it has looked after the delivery keys
}

func (h *hall) restart() {
	h.Helper()
	h.stop()
	h.start()
}

// add enters an event on the log and gives its index.
func (h *hall) add(who audit.Actor, event audit.Event) int64 {
	h.Helper()
	leaf, err := audit.Encode(audit.Leaf{Time: h.clock.now(), Actor: who, Event: event})
	if err != nil {
		h.Fatal(err)
	}
	return h.log.add(leaf)
}

var (
	alice  = audit.Actor{Kind: audit.ByCaller, Name: "provisioning"}
	daemon = audit.Actor{Kind: audit.ByDaemon}
)

// wanted is an intent and what goes with it.
type wanted struct {
	*audit.IssueIntent
	csr []byte
	key crypto.Signer
}

// want makes the intent of an ordinary user's certificate; edit may change the request before the TBS
// is built, and spoil the intent after.
func (h *hall) want(cn string, edit, spoil func(*wanted)) wanted {
	h.Helper()
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	if err != nil {
		h.Fatal(err)
	}
	serial, err := cert.NewSerial(rand.Reader)
	if err != nil {
		h.Fatal(err)
	}
	now := h.clock.now()
	w := wanted{key: key, IssueIntent: &audit.IssueIntent{
		RequestID: "r-" + cn, BodySHA256: cert.SHA256([]byte(cn)), Rule: "test", Room: h.config.Room,
		Issuer: "users", Serial: serial, Purpose: cert.User, CN: cn, KeyType: cert.P256, KeyMadeBy: "ca",
		NotBefore: now.Add(-profile.Backdate), NotAfter: now.Add(30 * 24 * time.Hour), Deadline: now.Add(10 * time.Minute),
	}}
	if edit != nil {
		edit(&w)
	}
	if w.csr, err = profile.MakeCSR(rand.Reader, w.key, w.CN); err != nil {
		h.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(w.key.Public())
	if err != nil {
		h.Fatal(err)
	}
	w.SPKISHA256 = cert.SHA256(spki)
	if builder := h.builder[w.Issuer]; builder != nil {
		// A request that the profile refuses has no TBS, and its intent a hash that matches nothing.
		_, tbs, _ := builder.Precertificate(profile.Request{
			Serial: w.Serial, Purpose: w.Purpose, CN: w.CN, SANs: w.SANs, Public: w.key.Public(),
			NotBefore: w.NotBefore, NotAfter: w.NotAfter,
		})
		w.TBSSHA256 = cert.SHA256(tbs)
	}
	if spoil != nil {
		spoil(&w)
	}
	return w
}

// signCert enters the intent and asks for the certificate over a new connection.
func (h *hall) signCert(w wanted) signer.Result {
	h.Helper()
	return h.ask(signer.Call{Kind: signer.SignCert, Index: h.add(alice, w.IssueIntent), CSR: w.csr})
}

// signed makes a certificate, or ends the test.
func (h *hall) signed(cn string, edit func(*wanted)) (wanted, []byte) {
	h.Helper()
	w := h.want(cn, edit, nil)
	r := h.signCert(w)
	if r.Refused != nil {
		h.Fatal(r.Refused)
	}
	return w, r.DER
}

// crlIntent is one that the room should sign.
func (h *hall) crlIntent(number string) *audit.CRLIntent {
	now := h.clock.now().Truncate(time.Second)
	return &audit.CRLIntent{
		Room: h.config.Room, Issuer: "users", Number: number, ThisUpdate: now, NextUpdate: now.Add(7 * 24 * time.Hour),
	}
}

// list enters the intent of a list and asks for it, or ends the test.
func (h *hall) list(number string) []byte {
	h.Helper()
	r := h.ask(signer.Call{Kind: signer.SignCRL, Index: h.add(daemon, h.crlIntent(number))})
	if r.Refused != nil {
		h.Fatal(r.Refused)
	}
	return r.DER
}

// revoke enters a revocation, at the second of the clock.
func (h *hall) revoke(serial cert.Serial, reason cert.Reason) {
	h.Helper()
	h.add(alice, &audit.RevokeDone{RequestID: "rev", Rule: "test", Revoked: []audit.Revocation{
		{Serial: serial, Issuer: "users", At: h.clock.now().Truncate(time.Second), Reason: reason},
	}})
}

// ask brings the room the rest of the log over a new connection and asks one thing.
func (h *hall) ask(call signer.Call) signer.Result {
	h.Helper()
	c := h.dial()
	defer c.close()
	reply := c.ask(h.batch(c.state, call))
	if reply.Refused != nil {
		h.Fatalf("the batch was refused: %v", reply.Refused)
	}
	return reply.Results[0]
}

// batch is what an honest daemon sends: the leaves that the room lacks, and calls.
func (h *hall) batch(s signer.State, calls ...signer.Call) signer.Batch {
	h.Helper()
	size, root := h.log.Head()
	return signer.Batch{
		From: s.Size, FromRoot: h.log.root(s.Size), Leaves: h.log.from(s.Size, size),
		Root: hex.EncodeToString(root[:]), Calls: calls,
	}
}

// same fails the test if the room's counts and numbers are not those of before.
func (h *hall) same(before signer.State) {
	h.Helper()
	after := h.room.Hello().State
	if before.Certificates != after.Certificates || before.Voided != after.Voided || before.Lists != after.Lists ||
		!maps.Equal(before.ListNumbers, after.ListNumbers) {
		h.Errorf("the room was moved:\n before %+v\n after  %+v", before, after)
	}
}

// equal fails the test if anything that the room says of itself differs.
func (h *hall) equal(before signer.State) {
	h.Helper()
	if before, after := fmt.Sprintf("%+v", before), fmt.Sprintf("%+v", h.room.Hello().State); before != after {
		h.Errorf("the room differs:\n before %s\n after  %s", before, after)
	}
}

func codeOf(r signer.Reply) string {
	switch {
	case r.Refused != nil:
		return r.Refused.Code
	case len(r.Results) > 0 && r.Results[len(r.Results)-1].Refused != nil:
		return r.Results[len(r.Results)-1].Refused.Code
	}
	return ""
}

func parseCert(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tool runs a program that did not write what it reads.
func tool(t testing.TB, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// lockedBuffer takes the log of a room that serves.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

var _ io.Writer = (*lockedBuffer)(nil)
