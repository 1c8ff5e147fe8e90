package crl

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/ssh"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/gitrepo"
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

// made is one installation for every test to copy.
var made struct {
	sync.Once
	dir string
	err error
}

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

// world is a key room, a store, an authority, a bare repository and the loop that publishes there.
type world struct {
	testing.TB
	dir       string
	clock     *clock
	apart     *clock // by how much the key room's clock is ahead of that one
	config    keyroom.Config
	room      *keyroom.Room
	stopRoom  func()
	store     *store.Store
	signer    *signer.Client
	authority *ca.Authority
	publisher *gitrepo.Publisher
	loop      *Loop
	logged    *observer.ObservedLogs
}

func newWorld(t *testing.T) *world {
	t.Helper()
	made.Do(func() {
		if made.dir, made.err = os.MkdirTemp("/tmp", "crl-made"); made.err == nil {
			made.err = keyroom.Ceremony{
				Dir: made.dir, Org: "Example  Org", Domains: []string{"example.org"}, OfflinePassphrase: "correct horse battery", Now: time.Now, Rand: rand.Reader,
			}.Init()
		}
	})
	w := &world{TB: t, clock: new(clock), apart: new(clock)}
	w.must(made.err)
	var err error
	w.dir, err = os.MkdirTemp("/tmp", "crl") // the address of a Unix socket is at most 107 octets
	w.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(w.dir) })
	w.must(exec.Command("cp", "-a", made.dir+"/.", w.dir).Run()) // with the modes of the keys
	w.config, err = keyroom.LoadConfig(filepath.Join(w.dir, "keyroom.json"))
	w.must(err)
	w.startRoom()
	w.store, err = store.Create(t.Context(), filepath.Join(w.dir, "books.db"), w.clock.now, audit.Actor{Kind: audit.ByCeremony}, w.ceremony())
	w.must(err)
	w.must(gitrepo.InitBare(w.repo(), "main"))
	w.connect()
	t.Cleanup(func() {
		w.agree()
		w.signer.Close()
		w.must(w.store.Close())
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

func (w *world) repo() string { return filepath.Join(w.dir, "config.git") }

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
		Config: w.config, Build: "test", Now: w.roomTime, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
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

func (w *world) roomTime() time.Time {
	w.apart.mu.Lock()
	defer w.apart.mu.Unlock()
	return w.clock.now().Add(w.apart.offset)
}

func (w *world) connect() {
	w.Helper()
	var err error
	w.signer, err = signer.Dial(context.Background(), w.config.Socket, w.store)
	w.must(err)
	w.authority, err = ca.New(ca.Options{Store: w.store, Signer: w.signer, Rand: rand.Reader})
	w.must(err)
	remote, err := gitrepo.OpenLocal(w.repo(), "main")
	w.must(err)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	sign, err := ssh.NewSignerFromKey(key)
	w.must(err)
	w.write("allowed_signers", append([]byte(`chancery@example.org namespaces="git" `), ssh.MarshalAuthorizedKey(sign.PublicKey())...))
	w.publisher = &gitrepo.Publisher{
		Remote: remote, Folder: "pki", Signer: sign, AuthorName: "Chancery", AuthorEmail: "chancery@example.org", Now: w.clock.now,
	}
	core, logged := observer.New(zap.ErrorLevel)
	w.logged = logged
	w.loop, err = New(Options{Store: w.store, Signer: w.signer, Publisher: w.publisher, Log: zap.New(core)})
	w.must(err)
}

// agree checks that the log verifies, and that every checkpoint in the history is one of it.
func (w *world) agree() {
	w.Helper()
	findings, err := w.store.Check(context.Background())
	w.must(err)
	v, err := audit.NewVerifier(w.room.Hello().LogKey)
	w.must(err)
	if out, err := w.git("log", "--format=%H", "main"); err == nil {
		for commit := range strings.FieldsSeq(out) {
			if note, err := w.git("show", commit+":pki/checkpoint"); err == nil && strings.HasPrefix(note, w.config.Origin) {
				w.must(v.Expect([]byte(note), commit))
			}
		}
	}
	size, _ := w.store.Head()
	leaves, err := w.store.Leaves(context.Background(), 0, size)
	w.must(err)
	for _, leaf := range leaves {
		w.must(v.Add(leaf))
	}
	if err := errors.Join(append(findings, v.Finish())...); err != nil {
		w.Error(err)
	}
}

// git runs git on the repository, without this machine's configuration.
func (w *world) git(args ...string) (string, error) { return w.gitWith(nil, args...) }

func (w *world) gitWith(stdin []byte, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = w.repo()
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Alice", "GIT_AUTHOR_EMAIL=alice@example.org", "GIT_COMMITTER_NAME=Alice", "GIT_COMMITTER_EMAIL=alice@example.org",
		"GIT_INDEX_FILE=" + filepath.Join(w.dir, "index"),
	}
	var diag bytes.Buffer
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("git %s: %w\n%s%s", strings.Join(args, " "), err, out, diag.String())
	}
	return string(out), nil
}

func (w *world) mustGit(args ...string) string {
	w.Helper()
	out, err := w.git(args...)
	w.must(err)
	return strings.TrimRight(out, "\n")
}

func (w *world) tip() string { w.Helper(); return w.mustGit("rev-parse", "main") }

func (w *world) commits() int {
	w.Helper()
	return len(strings.Fields(w.mustGit("rev-list", "main")))
}

// file gives a file of the folder at the tip, as git shows it.
func (w *world) file(path string) []byte {
	w.Helper()
	out, err := w.git("cat-file", "blob", "main:pki/"+path)
	w.must(err)
	return []byte(out)
}

// commit is one by somebody else: files, by their whole path, are written, and removed where nil.
func (w *world) commit(files map[string][]byte) string {
	w.Helper()
	w.mustGit("read-tree", "main")
	for path, content := range files {
		if content == nil {
			w.mustGit("rm", "-r", "--cached", "-q", path)
			continue
		}
		blob, err := w.gitWith(content, "hash-object", "-w", "--stdin")
		w.must(err)
		w.mustGit("update-index", "--add", "--cacheinfo", "100644,"+strings.TrimSpace(blob)+","+path)
	}
	commit := w.mustGit("commit-tree", w.mustGit("write-tree"), "-p", "main", "-m", "work of somebody else")
	w.mustGit("update-ref", "refs/heads/main", commit)
	return commit
}

func (w *world) tool(stdin []byte, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = w.dir
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %v: %w\n%s", program, args, err, out)
	}
	return string(out), err
}

func (w *world) write(file string, data []byte) string {
	w.Helper()
	path := filepath.Join(w.dir, file)
	w.must(os.WriteFile(path, data, 0o600))
	return path
}

// publish has the loop do all there is to do, or ends the test.
func (w *world) publish() string {
	w.Helper()
	commit, err := w.loop.PayOnce(context.Background())
	w.must(err)
	return commit
}

var alice = audit.Actor{Kind: audit.ByCaller, Name: "provisioning"}

func (w *world) issue(cn string) *ca.Issued {
	w.Helper()
	n, err := name.Canonical(cert.User, cn)
	w.must(err)
	issued, err := w.authority.Issue(context.Background(), ca.Call{Who: alice, Rule: "test", RequestID: "i-" + cn, BodySHA256: cert.SHA256([]byte(cn))},
		ca.IssueRequest{Purpose: cert.User, Name: n})
	w.must(err)
	return issued
}

// revoke enters a revocation and what is owed for it, as ca.Revoke does, and waits for nothing.
func (w *world) revoke(serial cert.Serial, reason cert.Reason) store.Debt {
	w.Helper()
	var debt store.Debt
	_, err := w.store.Update(context.Background(), alice, func(tx *store.Tx) (audit.Event, error) {
		rev, err := tx.Revoke(serial, tx.Now(), reason)
		if err != nil {
			return nil, err
		}
		debt, err = tx.Owe(store.CRL, string(rev.Issuer))
		return &audit.RevokeDone{RequestID: fmt.Sprint(serial, reason), Rule: "test", Reason: reason, Revoked: []audit.Revocation{rev}}, err
	})
	w.must(err)
	return debt
}

// list parses an issuer's list at the tip.
func (w *world) list(issuer string) *list.List {
	w.Helper()
	l, err := list.Parse(w.file(issuer + ".crl"))
	w.must(err)
	return l
}

func (w *world) head() int64 {
	size, _ := w.store.Head()
	return size
}

func (w *world) events(from int64) []audit.Event {
	w.Helper()
	leaves, err := w.store.Leaves(context.Background(), from, w.head())
	w.must(err)
	var events []audit.Event
	for _, encoded := range leaves {
		leaf, err := audit.Decode(encoded)
		w.must(err)
		events = append(events, leaf.Event)
	}
	return events
}

// types gives the types of the events from an index on, in one line.
func (w *world) types(from int64) string {
	w.Helper()
	var types []string
	for _, e := range w.events(from) {
		types = append(types, e.Type())
	}
	return strings.Join(types, " ")
}

// alarms gives what was logged under a code since the last call.
func (w *world) alarms(code string) []string {
	var found []string
	for _, e := range w.logged.TakeAll() {
		fields := e.ContextMap()
		if fields["code"] == code {
			found = append(found, fmt.Sprint(fields["file"], " ", fields["error"]))
		}
	}
	return found
}

func asPEM(ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}
