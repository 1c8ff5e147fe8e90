package review

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"fmt"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

var (
	alice  = audit.Actor{Kind: audit.ByCaller, Name: "provisioning", Peer: "192.0.2.1:4711"}
	daemon = audit.Actor{Kind: audit.ByDaemon}
)

// world is a real store and a real repository, and the keys of an installation.
type world struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	now    time.Time
	store  *store.Store
	repo   string
	remote *gitrepo.Local
	log    note.Signer
	logKey string
	root   *x509.Certificate
	top    crypto.Signer // the key of the root
	users  *x509.Certificate
	key    crypto.Signer
	room   audit.RoomState
}

// authority makes a CA under parent, or a root.
func authority(t *testing.T, name string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte(name))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id[:20],
		NotBefore: start, NotAfter: start.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), dir: t.TempDir(), now: start}
	skey, vkey, err := note.GenerateKey(rand.Reader, "log.example.org")
	w.must(err)
	w.logKey = vkey
	w.log, err = note.NewSigner(skey)
	w.must(err)
	w.root, w.top = authority(t, "Example Root", nil, nil)
	w.users, w.key = authority(t, "Example Users", w.root, w.top)
	rootList := w.sign(w.root, w.top, 1)
	w.store, err = store.Create(w.ctx, filepath.Join(w.dir, "db"), w.clock, audit.Actor{Kind: audit.ByCeremony}, []audit.Event{
		&audit.LogOpened{Origin: "log.example.org", LogKey: vkey, Room: "room-1"},
		&audit.RootNamed{Subject: "CN=Example Root", Certificate: w.root.Raw},
		&audit.IssuerNamed{Issuer: "users", Room: "room-1", Subject: "CN=Example Users", Purposes: []cert.Purpose{cert.User}, Certificate: w.users.Raw},
		&audit.RootListNamed{Number: "1", SHA256: cert.SHA256(rootList)},
	})
	w.must(err)
	t.Cleanup(func() { w.must(w.store.Close()) })
	w.room.Room = "room-1"
	w.repo = filepath.Join(w.dir, "config.git")
	w.must(gitrepo.InitBare(w.repo, "main"))
	w.remote, err = gitrepo.OpenLocal(w.repo, "main")
	w.must(err)
	w.commit("root", gitrepo.Files{"root.crl": rootList})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) clock() time.Time {
	w.now = w.now.Add(time.Second)
	return w.now
}

func (w *world) add(who audit.Actor, e audit.Event) int64 {
	w.t.Helper()
	entry, err := w.store.Update(w.ctx, who, func(*store.Tx) (audit.Event, error) { return e, nil })
	w.must(err)
	return entry.Index
}

func (w *world) state() audit.RoomState {
	w.room.Sequence++
	w.room.Journal = fmt.Sprintf("%04x", w.room.Sequence)
	return w.room
}

func serial(n int) cert.Serial { return cert.Serial(fmt.Sprintf("7f%030x", n)) }

func intentOf(n int, cn string) *audit.IssueIntent {
	return &audit.IssueIntent{
		RequestID: fmt.Sprintf("request-%d", n), Room: "room-1", Issuer: "users", Serial: serial(n), Purpose: cert.User, CN: cn, KeyMadeBy: "ca",
		NotBefore: start, NotAfter: start.AddDate(0, 1, 0), SealedSHA256: "5ea1",
	}
}

func (w *world) intent(n int, cn string) int64 { return w.add(alice, intentOf(n, cn)) }

// issue adds the walk of one issue: intent, done, directory, answer.
func (w *world) issue(n int, cn string) int64 {
	intent := w.intent(n, cn)
	w.add(alice, &audit.IssueDone{Serial: serial(n), Intent: intent, Room: w.state()})
	w.add(daemon, &audit.DirectoryPublished{Purpose: cert.User, CN: cn, Entry: "entry", Added: []cert.Serial{serial(n)}})
	w.add(alice, &audit.IssueAnswering{Serial: serial(n), RequestID: fmt.Sprintf("request-%d", n), Secrets: true, Published: true})
	return intent
}

func revocation(n int) audit.Revocation {
	return audit.Revocation{Serial: serial(n), Issuer: "users", At: start.Add(time.Minute), Reason: cert.Superseded}
}

func entryOf(n int) list.Entry {
	r := revocation(n)
	return list.Entry{Serial: r.Serial, RevokedAt: r.At, Reason: r.Reason}
}

func (w *world) revoke(n int) int64 {
	return w.add(alice, &audit.RevokeDone{RequestID: fmt.Sprintf("revoke-%d", n), Reason: cert.Superseded, Revoked: []audit.Revocation{revocation(n)}})
}

// sign makes a list.
func (w *world) sign(issuer *x509.Certificate, key crypto.Signer, number int64, entries ...list.Entry) []byte {
	w.t.Helper()
	return w.signAt(issuer, key, number, start, entries...)
}

func (w *world) signAt(issuer *x509.Certificate, key crypto.Signer, number int64, at time.Time, entries ...list.Entry) []byte {
	w.t.Helper()
	var encoded []byte
	var err error
	for _, e := range entries {
		encoded, err = list.AppendEntry(encoded, e)
		w.must(err)
	}
	der, err := list.Sign(rand.Reader, list.Template{
		Issuer: issuer, Number: big.NewInt(number), ThisUpdate: at, NextUpdate: at.AddDate(0, 0, 7),
	}, encoded, key)
	w.must(err)
	return der
}

// list adds a list to the log, and to git with a checkpoint that covers it.
func (w *world) list(number int64, entries ...list.Entry) (der []byte, commit string) {
	w.t.Helper()
	return w.listAt(number, start, entries...)
}

func (w *world) listAt(number int64, at time.Time, entries ...list.Entry) (der []byte, commit string) {
	w.t.Helper()
	decimal := fmt.Sprint(number)
	intent := w.add(daemon, &audit.CRLIntent{Room: "room-1", Issuer: "users", Number: decimal, ThisUpdate: at, NextUpdate: at.AddDate(0, 0, 7)})
	der = w.signAt(w.users, w.key, number, at, entries...)
	sum := cert.SHA256(der)
	w.add(daemon, &audit.CRLSigned{Issuer: "users", Number: decimal, Intent: intent, Entries: len(entries), SHA256: sum, Room: w.state()})
	size, _ := w.store.Head()
	commit = w.commit("crl(users): number "+decimal, gitrepo.Files{"users.crl": der, "bundle.crl.pem": list.EncodeBundle(der)})
	w.add(daemon, &audit.CRLPublished{Commit: commit, Checkpoint: size, Lists: []audit.ListRef{{Issuer: "users", Number: decimal, SHA256: sum}}})
	return der, commit
}

func (w *world) checkpoint() []byte {
	w.t.Helper()
	size, root := w.store.Head()
	signed, err := audit.Checkpoint{Origin: "log.example.org", Size: size, Root: root}.Sign(w.log)
	w.must(err)
	return signed
}

// commit publishes files with a checkpoint of the log as it is.
func (w *world) commit(subject string, files gitrepo.Files) string {
	w.t.Helper()
	signed := w.checkpoint()
	return w.commitRaw(files, signed, subject+"\n\nAudit-Checkpoint: "+base64.StdEncoding.EncodeToString(signed)+"\n")
}

func (w *world) commitRaw(files gitrepo.Files, checkpoint []byte, message string) string {
	w.t.Helper()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	w.must(err)
	files["checkpoint"] = checkpoint
	p := &gitrepo.Publisher{Remote: w.remote, Folder: "pki", Signer: key, AuthorName: "CA", AuthorEmail: "ca@example.org", Now: w.clock}
	commit, _, err := p.Publish(w.ctx, func(gitrepo.Files) (gitrepo.Change, error) {
		return gitrepo.Change{Files: files, Message: message}, nil
	})
	w.must(err)
	return commit
}

func (w *world) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(cmd.Environ(), "GIT_AUTHOR_NAME=bob", "GIT_AUTHOR_EMAIL=bob@example.org", "GIT_COMMITTER_NAME=bob",
		"GIT_COMMITTER_EMAIL=bob@example.org", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w *world) history() *History {
	w.t.Helper()
	h, err := ReadHistory(w.ctx, w.remote, "pki")
	w.must(err)
	return h
}

func (w *world) verify() Report {
	w.t.Helper()
	return w.verifyLog(w.store)
}

func (w *world) verifyLog(log Log) Report {
	w.t.Helper()
	r, err := Verify(w.ctx, Source{Log: log, LogKey: w.logKey + "\n", History: w.history()})
	w.must(err)
	return r
}

func (w *world) leaves() [][]byte {
	w.t.Helper()
	size, _ := w.store.Head()
	leaves, err := w.store.Leaves(w.ctx, 0, size)
	w.must(err)
	return leaves
}

// rebuilt is a new store with these leaves, whose tree is right: what somebody makes who owns the
// machine.
func (w *world) rebuilt(leaves [][]byte) *store.Store {
	w.t.Helper()
	first, err := audit.Decode(leaves[0])
	w.must(err)
	st, err := store.Create(w.ctx, filepath.Join(w.t.TempDir(), "db"), func() time.Time { return first.Time }, first.Actor, []audit.Event{first.Event})
	w.must(err)
	w.t.Cleanup(func() { w.must(st.Close()) })
	w.must(st.Restore(w.ctx, leaves[1:], func(*store.Tx, int64, audit.Leaf) error { return nil }))
	return st
}

// alter writes into the closed database, past the store, and opens it again.
func (w *world) alter(statement string, args ...any) {
	w.t.Helper()
	w.must(w.store.Close())
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "db"))
	w.must(err)
	result, err := db.Exec(statement, args...)
	w.must(err)
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		w.t.Fatalf("%s changed %d rows, %v", statement, n, err)
	}
	w.must(db.Close())
	w.store, err = store.Open(w.ctx, filepath.Join(w.dir, "db"), w.clock)
	w.must(err)
}

func (w *world) wantContradiction(r Report, code string, index int64, source string) {
	w.t.Helper()
	c := r.Contradiction
	if c == nil || c.Code != code || c.Index != index || !strings.Contains(c.Source, source) {
		w.t.Fatalf("want %s at %d from %q, got %v", code, index, source, c)
	}
}
