package audit_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

var ledgerStart = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// ledger is a log under construction. Whatever it is told to add, it adds.
type ledger struct {
	t      *testing.T
	key    note.Signer
	vkey   string
	leaves [][]byte
	tree   audit.Tree
	root   *x509.Certificate
	issuer *x509.Certificate // the last that was named
	now    time.Time
	state  audit.RoomState
}

var (
	alice  = audit.Actor{Kind: audit.ByCaller, Name: "provisioning", Key: "00ff", Peer: "192.0.2.1:4711"}
	bob    = audit.Actor{Kind: audit.ByCaller, Name: "helpdesk"}
	daemon = audit.Actor{Kind: audit.ByDaemon}
)

func ledgerCA(t *testing.T, name string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: ledgerStart, NotAfter: ledgerStart.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
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

// newLedger begins a log with a ceremony: leaf 0 opens it, leaves 1 to 4 name the root, the issuers
// users and servers, and the root's list.
func newLedger(t *testing.T) *ledger {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{t: t, key: signer, vkey: vkey, now: ledgerStart, state: audit.RoomState{Room: "room-1", Sequence: 1, Journal: "aa01"}}
	var rootKey crypto.Signer
	l.root, rootKey = ledgerCA(t, "Example Root", nil, nil)
	l.add(daemon, l.opened())
	l.add(daemon, &audit.RootNamed{Subject: "CN=Example Root", Certificate: l.root.Raw})
	for _, p := range []cert.Purpose{cert.User, cert.Server} {
		c, _ := ledgerCA(t, string(p), l.root, rootKey)
		l.issuer = c
		l.add(daemon, &audit.IssuerNamed{Issuer: cert.Issuer(p + "s"), Room: "room-1", Purposes: []cert.Purpose{p}, Certificate: c.Raw})
	}
	l.add(daemon, &audit.RootListNamed{Number: "1", SHA256: "10"})
	return l
}

func (l *ledger) opened() *audit.LogOpened {
	return &audit.LogOpened{Origin: "log.example.org", LogKey: l.vkey, Room: "room-1"}
}

func (l *ledger) add(who audit.Actor, e audit.Event) int64 {
	l.t.Helper()
	l.now = l.now.Add(time.Second)
	leaf, err := audit.Encode(audit.Leaf{Time: l.now, Actor: who, Event: e})
	if err != nil {
		l.t.Fatal(err)
	}
	return l.raw(leaf)
}

func (l *ledger) raw(leaf []byte) int64 {
	l.leaves = append(l.leaves, leaf)
	l.tree.Append(leaf)
	return l.tree.Size() - 1
}

func (l *ledger) checkpoint() []byte {
	l.t.Helper()
	signed, err := audit.Checkpoint{Origin: l.key.Name(), Size: l.tree.Size(), Root: l.tree.Root()}.Sign(l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return signed
}

// cut takes away all leaves but the first n.
func (l *ledger) cut(n int) {
	leaves := l.leaves[:n]
	l.leaves, l.tree = nil, audit.Tree{}
	for _, leaf := range leaves {
		l.raw(leaf)
	}
}

// room is what the key room says after its next record.
func (l *ledger) room() audit.RoomState {
	l.state.Sequence++
	l.state.Journal = fmt.Sprintf("aa%02d", l.state.Sequence)
	return l.state
}

func ledgerSerial(n int) cert.Serial { return cert.Serial(fmt.Sprintf("7f%030x", n)) }

func ledgerIntent(n int) *audit.IssueIntent {
	return &audit.IssueIntent{
		RequestID: fmt.Sprintf("request-%d", n), Rule: "people", Room: "room-1", Issuer: "users", Serial: ledgerSerial(n),
		Purpose: cert.User, CN: fmt.Sprintf("User %d", n), KeyType: cert.P256, KeyMadeBy: "ca",
		NotBefore: ledgerStart, NotAfter: ledgerStart.AddDate(1, 0, 0), Deadline: ledgerStart.Add(time.Hour),
		TBSSHA256: cert.SHA256([]byte{byte(n)}), SealedSHA256: "5ea1",
	}
}

func (l *ledger) intent(n int) int64 { return l.add(alice, ledgerIntent(n)) }

func (l *ledger) done(n int, intent int64) int64 {
	return l.add(alice, &audit.IssueDone{Serial: ledgerSerial(n), Intent: intent, Fingerprint: cert.Fingerprint(fmt.Sprint("f", n)), Room: l.room()})
}

// issued is intent and done.
func (l *ledger) issued(n int) (intent int64) {
	intent = l.intent(n)
	l.done(n, intent)
	return intent
}

func ledgerRevocation(n int, reason cert.Reason) audit.Revocation {
	return audit.Revocation{Serial: ledgerSerial(n), Issuer: "users", At: ledgerStart.Add(time.Minute), Reason: reason}
}

func (l *ledger) release(id string, n int, issuer cert.Issuer) int64 {
	return l.add(alice, &audit.ReleaseDone{RequestID: id, Released: []audit.Release{{Serial: ledgerSerial(n), Issuer: issuer}}})
}

func (l *ledger) revoke(id string, list ...audit.Revocation) int64 {
	return l.add(alice, &audit.RevokeDone{RequestID: id, Reason: list[0].Reason, Revoked: list})
}

func (l *ledger) listIntent(number string) int64 {
	return l.add(daemon, &audit.CRLIntent{Room: "room-1", Issuer: "users", Number: number, ThisUpdate: ledgerStart, NextUpdate: ledgerStart.AddDate(0, 0, 7)})
}

func (l *ledger) listSigned(number string, intent int64) int64 {
	return l.add(daemon, &audit.CRLSigned{Issuer: "users", Number: number, Intent: intent, SHA256: "c0" + number, Room: l.room()})
}

func (l *ledger) published(number string, checkpoint int64) int64 {
	return l.add(daemon, &audit.CRLPublished{Commit: "c0ffee", Checkpoint: checkpoint,
		Lists: []audit.ListRef{{Issuer: "users", Number: number, SHA256: "c0" + number}}})
}

// aLife adds everything that can happen in order.
func (l *ledger) aLife() {
	l.add(daemon, &audit.IssuerNamed{Issuer: "callers", Room: "room-2", Purposes: []cert.Purpose{cert.Caller}, Certificate: l.issuer.Raw})
	l.add(daemon, &audit.ServiceStarted{Room: l.room()})
	l.add(daemon, &audit.ServiceStarted{Room: audit.RoomState{Room: "room-2", Sequence: 1, Journal: "bb01"}, ConfigSHA256: "a0"})
	l.add(audit.Actor{Kind: audit.ByStranger}, &audit.StrangersTurnedAway{Cause: "tls", Minute: ledgerStart, Count: 3})
	first := l.issued(1)
	l.add(daemon, &audit.DirectoryPublished{Purpose: cert.User, CN: "User 1", Added: []cert.Serial{ledgerSerial(1)}})
	l.add(alice, &audit.IssueAnswering{Serial: ledgerSerial(1), RequestID: "request-1", Secrets: true, Published: true})
	retry := &audit.IssueRedelivered{Serial: ledgerSerial(1), Intent: first, RequestID: "request-1", SealedSHA256: "5ea1", Room: "room-1"}
	l.add(alice, retry)
	retry.Request = &audit.SignedRequest{Body: []byte(`{"method":"ca.issue","params":[{"request_id":"request-1"}]}`)}
	l.add(alice, retry)
	l.add(alice, &audit.IssueAnswering{Serial: ledgerSerial(1), RequestID: "request-1", Secrets: true, Published: true})
	void := l.intent(2)
	l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(2), Intent: void, Why: "intent.late", Room: l.room()})
	again := ledgerIntent(3) // the request id of what was abandoned is free again
	again.RequestID = "request-2"
	third := l.add(alice, again)
	l.add(bob, &audit.RevokeDone{RequestID: "request-1", Reason: cert.CertificateHold, Pending: []cert.Serial{ledgerSerial(3)}}) // another caller, another id
	held := ledgerRevocation(3, cert.CertificateHold)
	l.add(alice, &audit.IssueDone{Serial: ledgerSerial(3), Intent: third, Room: l.room(), Revocation: &held})
	l.revoke("revoke-1", ledgerRevocation(1, cert.Superseded), ledgerRevocation(3, cert.Superseded))
	l.revoke("revoke-2", ledgerRevocation(1, cert.KeyCompromise))
	l.listIntent("1") // the daemon died here
	signed := l.listSigned("1", l.listIntent("1"))
	l.published("1", signed+1)
	l.add(daemon, &audit.RootListNamed{Number: "2", SHA256: "11"})
	l.add(daemon, &audit.LogRecovered{From: signed, Size: signed + 2, Room: l.room()})
	l.add(bob, &audit.RequestRefused{Code: "grant.none", Reason: "no"})
	l.add(bob, &audit.RequestPlanned{Method: "ca.issue", Code: "plan.issue"})
	l.add(daemon, &audit.ConfigReloaded{From: "a0", To: "b0"})
	l.add(daemon, &audit.ConfigReloaded{From: "b0", To: "b0"})
	l.add(daemon, &audit.ServiceStopped{})
}

// verify reads the log as a reviewer who has the given checkpoints does.
func (l *ledger) verify(checkpoints ...[]byte) (*audit.Verifier, error) {
	l.t.Helper()
	v, err := audit.NewVerifier(l.vkey)
	if err != nil {
		l.t.Fatal(err)
	}
	for i, c := range checkpoints {
		if err := v.Expect(c, fmt.Sprintf("clone %d", i)); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, leaf := range l.leaves {
		if err := v.Add(leaf); err != nil {
			return v, err
		}
	}
	return v, v.Finish()
}

// replaced gives the same log with one leaf in another wording, and the tree built anew over it.
func (l *ledger) replaced(index int64, old, with string) *ledger {
	l.t.Helper()
	forged := *l
	forged.tree, forged.leaves = audit.Tree{}, nil
	for i, leaf := range l.leaves {
		if int64(i) == index {
			changed := bytes.Replace(leaf, []byte(old), []byte(with), 1)
			if bytes.Equal(changed, leaf) {
				l.t.Fatalf("leaf %d does not say %q: %s", index, old, leaf)
			}
			leaf = changed
		}
		forged.raw(leaf)
	}
	return &forged
}
