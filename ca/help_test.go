package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if made.dir != "" {
		_ = os.RemoveAll(made.dir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// made is one installation without name constraints, for every test to copy.
var made struct {
	sync.Once
	dir string
	err error
}

// clock is the time of store and key room.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// world is a key room behind a wire that can be cut, a store, and an authority.
type world struct {
	testing.TB
	dir       string
	clock     *clock
	wire      *wire
	config    keyroom.Config
	room      *keyroom.Room
	stopRoom  func()
	store     *store.Store
	signer    *signer.Client
	directory *directory
	authority *Authority
}

// newWorld starts everything. When the test is over, log, store and key room have to agree.
func newWorld(t *testing.T, edits ...func(*keyroom.Config)) *world {
	t.Helper()
	made.Do(func() {
		if made.dir, made.err = os.MkdirTemp("/tmp", "ca-made"); made.err == nil {
			c := keyroom.Ceremony{Dir: made.dir, Org: "Example", OfflinePassphrase: "correct horse battery", Now: time.Now, Rand: rand.Reader}
			made.err = c.Init()
		}
	})
	w := &world{TB: t, clock: new(clock)}
	w.must(made.err)
	var err error
	w.dir, err = os.MkdirTemp("/tmp", "ca") // the address of a Unix socket is at most 107 octets
	w.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(w.dir) })
	w.must(exec.Command("cp", "-a", made.dir+"/.", w.dir).Run()) // with the modes of the keys
	w.config, err = keyroom.LoadConfig(filepath.Join(w.dir, "keyroom.json"))
	w.must(err)
	for _, edit := range edits {
		edit(&w.config)
	}
	w.startRoom()
	w.wire = newWire(t, filepath.Join(w.dir, "wire"), w.config.Socket)
	w.store, err = store.Create(t.Context(), w.books(), w.clock.now, audit.Actor{Kind: audit.ByCeremony}, w.ceremony())
	w.must(err)
	w.connect()
	t.Cleanup(func() {
		w.agree()
		w.disconnect()
		w.wire.close()
		w.stopRoom()
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) books() string { return filepath.Join(w.dir, "books.db") }

// ceremony gives the first leaves of the log.
func (w *world) ceremony() []audit.Event {
	hello := w.room.Hello()
	rootList, err := list.Parse(hello.RootCRL)
	w.must(err)
	events := []audit.Event{
		&audit.LogOpened{Origin: hello.Origin, LogKey: hello.LogKey, RecoveryKey: hello.RecoveryKey, Room: hello.Room},
		&audit.RootNamed{Subject: "root", Certificate: hello.Root},
	}
	for _, i := range hello.Issuers {
		events = append(events, &audit.IssuerNamed{Issuer: i.ID, Room: hello.Room, Subject: string(i.ID), Purposes: i.Purposes, Certificate: i.Certificate})
	}
	return append(events, &audit.RootListNamed{
		Number: rootList.Number.String(), ThisUpdate: rootList.ThisUpdate, NextUpdate: rootList.NextUpdate, SHA256: cert.SHA256(hello.RootCRL),
	})
}

func (w *world) startRoom() {
	w.Helper()
	var err error
	w.room, err = keyroom.Open(keyroom.Options{
		Config: w.config, Build: "test", Now: w.clock.now, Rand: rand.Reader, Log: slog.New(slog.NewTextHandler(w.logFile(), nil)),
	})
	w.must(err)
	room := w.room
	listener, err := room.Listen()
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- room.Serve(ctx, listener) }()
	w.stopRoom = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-served, room.Close()); err != nil {
			w.Errorf("stopping the key room: %v", err)
		}
	})
}

// logFile takes what the key room logs, for the test that looks for secrets in it.
func (w *world) logFile() *os.File {
	f, err := os.OpenFile(filepath.Join(w.dir, "room.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.must(err)
	w.Cleanup(func() { _ = f.Close() })
	return f
}

// connect makes a signer and an authority on the open store.
func (w *world) connect() {
	w.Helper()
	var err error
	w.signer, err = signer.Dial(context.Background(), w.wire.path, w.store)
	w.must(err)
	o := Options{Store: w.store, Signer: w.signer, Rand: rand.Reader}
	if w.directory != nil {
		o.Directory = w.directory
	}
	w.authority, err = New(o)
	w.must(err)
}

func (w *world) disconnect() {
	w.signer.Close()
	w.closeStore()
}

func (w *world) closeStore() {
	if err := w.store.Close(); err != nil {
		w.Errorf("closing the store: %v", err)
	}
}

// restart is what a crash of both processes and a new start do, short of Recover.
func (w *world) restart() {
	w.Helper()
	w.disconnect()
	w.stopRoom()
	w.startRoom()
	w.reopenStore()
	w.connect()
}

// reopenStore opens the store that was closed.
func (w *world) reopenStore() {
	w.Helper()
	var err error
	w.store, err = store.Open(context.Background(), w.books(), w.clock.now)
	w.must(err)
}

// withDirectory publishes users and servers from here on.
func (w *world) withDirectory() {
	w.Helper()
	w.directory = &directory{find: func(context.Context, name.Name) (string, error) { return "entry-1", nil }}
	w.signer.Close()
	w.connect()
}

// agree checks that the log verifies from its first leaf, that the store is sound, and that the key room
// has signed and voided what the books say.
func (w *world) agree() {
	w.Helper()
	ctx := context.Background()
	findings, err := w.store.Check(ctx)
	w.must(err)
	for _, f := range findings {
		w.Errorf("the store: %v", f)
	}
	v, err := audit.NewVerifier(w.room.Hello().LogKey)
	w.must(err)
	for _, leaf := range w.rawLeaves(0) {
		w.must(v.Add(leaf))
	}
	w.must(v.Finish())
	counts := make(map[audit.State]int64)
	for _, c := range v.Books().Certificates {
		counts[c.State]++
	}
	books, err := w.store.Counts(ctx)
	w.must(err)
	for state, n := range counts {
		if books.Certificates[store.State(state)] != n {
			w.Errorf("the log has %d certificates that are %s, the books %d", n, state, books.Certificates[store.State(state)])
		}
	}
	room := w.room.Hello().State
	if signed := counts[audit.Live] + counts[audit.Revoked]; counts[audit.Open] == 0 && room.Certificates != signed {
		w.Errorf("the key room signed %d certificates, the log says %d", room.Certificates, signed)
	}
	if counts[audit.Open] == 0 && room.Voided != counts[audit.Abandoned] {
		w.Errorf("the key room voided %d serials, the log says %d", room.Voided, counts[audit.Abandoned])
	}
}

func (w *world) head() int64 {
	size, _ := w.store.Head()
	return size
}

func (w *world) rawLeaves(from int64) [][]byte {
	w.Helper()
	leaves, err := w.store.Leaves(context.Background(), from, w.head())
	w.must(err)
	return leaves
}

// events gives what stands on the log from an index on.
func (w *world) events(from int64) []audit.Event {
	w.Helper()
	var events []audit.Event
	for _, encoded := range w.rawLeaves(from) {
		leaf, err := audit.Decode(encoded)
		w.must(err)
		events = append(events, leaf.Event)
	}
	return events
}

// types gives the types of the events from an index on, in one line.
func (w *world) types(from int64) string {
	w.Helper()
	var text string
	for i, e := range w.events(from) {
		if i > 0 {
			text += " "
		}
		text += e.Type()
	}
	return text
}

func (w *world) count(state store.State) int {
	w.Helper()
	found, err := w.store.Find(context.Background(), store.Query{States: []store.State{state}})
	w.must(err)
	return len(found)
}

var alice = audit.Actor{Kind: audit.ByCaller, Name: "provisioning"}

// call is one by the caller under an id, with a body of its own.
func call(id, body string) Call {
	return Call{Who: alice, Rule: "test", RequestID: id, BodySHA256: cert.SHA256([]byte(body))}
}

func (w *world) request(p cert.Purpose, cn string) IssueRequest {
	w.Helper()
	n, err := name.Canonical(p, cn)
	w.must(err)
	sans, err := name.CanonicalSANs(p, n, cert.SANs{})
	w.must(err)
	return IssueRequest{Purpose: p, Name: n, SANs: sans}
}

// issue makes a user's certificate, or ends the test.
func (w *world) issue(id, cn string) *Issued {
	w.Helper()
	issued, err := w.authority.Issue(context.Background(), call(id, cn), w.request(cert.User, cn))
	w.must(err)
	return issued
}

func (w *world) certificate(serial cert.Serial) store.Certificate {
	w.Helper()
	c, err := w.authority.certificate(context.Background(), serial)
	w.must(err)
	return c
}

// refusalOf gives the code of a refusal by this package, and ends the test on any other outcome.
func refusalOf(t testing.TB, err error) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || errors.Is(err, signer.ErrUnknown) {
		t.Fatalf("%v; want a refusal", err)
	}
	return r
}

// directory is the one outside the CA as this package sees it.
type directory struct {
	find func(context.Context, name.Name) (string, error)
}

func (d *directory) Find(ctx context.Context, _ cert.Purpose, n name.Name) (string, error) {
	return d.find(ctx, n)
}

// payDirectory does the duty of the loop that publishes: it waits for a debt and pays it.
func (w *world) payDirectory() {
	for range 400 {
		debts, err := w.store.Lease(context.Background(), store.Directory, 10, w.clock.now().Add(time.Minute))
		if err != nil {
			w.Error(err)
			return
		}
		for _, d := range debts {
			_, err := w.store.Update(context.Background(), audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
				return &audit.DirectoryPublished{Purpose: cert.User, CN: d.Key, Entry: "entry-1"}, tx.Paid(d)
			})
			if err != nil {
				w.Error(err)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.Error("nothing was owed to the directory")
}

// tool runs a program that did not write what it reads.
func (w *world) tool(stdin []byte, program string, args ...string) string {
	w.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = w.dir
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}

func (w *world) write(file string, data []byte) string {
	w.Helper()
	path := filepath.Join(w.dir, file)
	w.must(os.WriteFile(path, data, 0o600))
	return path
}

func asPEM(ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

func (w *world) parse(der []byte) *x509.Certificate {
	w.Helper()
	c, err := x509.ParseCertificate(der)
	w.must(err)
	return c
}
