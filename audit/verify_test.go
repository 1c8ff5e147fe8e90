package audit_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

func wantContradiction(t *testing.T, err error, code string, index int64) *audit.Contradiction {
	t.Helper()
	var c *audit.Contradiction
	if !errors.As(err, &c) {
		t.Fatalf("want a contradiction %s, got %v", code, err)
	}
	if c.Code != code || c.Index != index {
		t.Fatalf("want %s at leaf %d, got %v", code, index, c)
	}
	return c
}

func TestEveryContradictionIsNamedAtItsLeaf(t *testing.T) {
	for _, c := range contradictions() {
		t.Run(c.code, func(t *testing.T) {
			l := newLedger(t)
			index := c.build(l)
			l.add(daemon, &audit.ServiceStopped{})
			v, err := l.verify()
			first := wantContradiction(t, err, c.code, index)
			if again := v.Add(l.leaves[0]); again != error(first) {
				t.Fatalf("after a contradiction the verifier goes on: %v", again)
			}
		})
	}
}

// TestEveryCodeIsProvoked reads the codes from the sources, so that none is forgotten.
func TestEveryCodeIsProvoked(t *testing.T) {
	provoked := map[string]bool{
		// these are not about one leaf and have tests of their own
		audit.LeafHash: true, audit.LogKey: true, audit.LogShort: true, audit.CheckpointRoot: true,
		audit.CheckpointSignature: true, audit.TimeBackwards: true,
	}
	for _, c := range contradictions() {
		provoked[c.code] = true
	}
	code := regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)
	found := 0
	for _, file := range []string{"verify.go", "lifecycle.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil && code.MatchString(text) {
				found++
				if !provoked[text] {
					t.Errorf("no test provokes %s", text)
				}
			}
			return true
		})
	}
	if found < 30 {
		t.Fatalf("only %d codes found in the sources", found)
	}
}

// TestReleasedHolds: a release makes a certificate live, and what it was on hold for stays known.
func TestReleasedHolds(t *testing.T) {
	l := newLedger(t)
	l.issued(1)
	by := l.revoke("r", ledgerRevocation(1, cert.CertificateHold))
	to := l.release("s", 1, "users")
	anew := ledgerRevocation(1, cert.KeyCompromise)
	anew.At = anew.At.Add(time.Second)
	again := l.revoke("t", anew)
	v, err := l.verify()
	if err != nil {
		t.Fatal(err)
	}
	c := v.Books().Certificates[ledgerSerial(1)]
	hold := audit.Hold{At: ledgerRevocation(1, 0).At, By: by, To: to}
	if c.State != audit.Revoked || c.RevokedBy != again || !c.RevokedAt.Equal(anew.At) || len(c.Holds) != 1 || c.Holds[0] != hold {
		t.Errorf("%+v, want the hold %+v", c, hold)
	}
}

func TestACleanLogImpliesItsBooks(t *testing.T) {
	l := newLedger(t)
	beginning := l.checkpoint()
	l.aLife()
	v, err := l.verify(beginning, l.checkpoint(), l.checkpoint())
	if err != nil {
		t.Fatal(err)
	}
	if agreed, covered := v.Checkpoints(); agreed != 2 || covered != l.tree.Size() || v.Tree().Root() != l.tree.Root() {
		t.Errorf("%d checkpoints agree, %d leaves covered of %d", agreed, covered, l.tree.Size())
	}
	b := v.Books()
	one, two, three := b.Certificates[ledgerSerial(1)], b.Certificates[ledgerSerial(2)], b.Certificates[ledgerSerial(3)]
	if len(b.Certificates) != 3 || one.State != audit.Revoked || two.State != audit.Abandoned || three.State != audit.Revoked {
		t.Fatalf("certificates: %+v, %+v, %+v", one, two, three)
	}
	if one.Fingerprint != "f1" || one.Caller != "provisioning" || one.RequestID != "request-1" || one.CN != "User 1" ||
		one.Intent != 9 || one.Ended != 10 || !one.NotAfter.Equal(ledgerStart.AddDate(1, 0, 0)) {
		t.Errorf("certificate 1: %+v", one)
	}
	if one.Reason != cert.KeyCompromise || one.RestatedBy != one.RevokedBy+1 || !one.RevokedAt.Equal(ledgerStart.Add(time.Minute)) {
		t.Errorf("the revocation of certificate 1: %+v", one)
	}
	if three.RevokeAsked || three.RevokedBy != three.Ended || three.Reason != cert.Superseded {
		t.Errorf("certificate 3, revoked while it was open: %+v", three)
	}
	users, root := b.Issuers["users"], b.Issuers[cert.Root]
	if len(users.Lists) != 1 || users.Lists[0].SHA256 != "c01" || users.PublishedNumber != "1" || users.PublishedCommit != "c0ffee" {
		t.Errorf("issuer users: %+v", users)
	}
	if list, ok := root.Find("11"); !ok || list.Number != "2" || list.Intent != -1 {
		t.Errorf("the root's list: %+v", list)
	}
	if b.Events["issue.intent"] != 3 || b.Events["log.opened"] != 1 || b.Rooms["room-1"] != l.state || b.Log != *l.opened() {
		t.Errorf("events %v, room %+v", b.Events, b.Rooms)
	}
	if len(b.Remarks) != 0 {
		t.Errorf("remarks on a clean log: %v", b.Remarks)
	}
}

func TestARewrittenHistoryMeetsTheCheckpoints(t *testing.T) {
	l := newLedger(t)
	early := l.checkpoint()
	size := l.tree.Size()
	l.aLife()
	late := l.checkpoint()
	l.add(daemon, &audit.ServiceStopped{})
	forged := l.replaced(9, "User 1", "User 9")
	if _, err := forged.verify(); err != nil {
		t.Fatalf("without a checkpoint nobody can know, but: %v", err)
	}
	_, err := forged.verify(early, late)
	c := wantContradiction(t, err, audit.CheckpointRoot, size)
	if c.Source != "clone 1" || !strings.Contains(c.Reason, "from "+strconv.FormatInt(size, 10)+" to ") {
		t.Errorf("it does not say where: %v", c)
	}
	// Two histories that the log key has signed: whichever of them is shown, the other contradicts.
	if _, err := l.verify(late, forged.checkpoint()); err == nil {
		t.Error("a forged checkpoint of the real key agrees")
	}
}

func TestALogCutShort(t *testing.T) {
	l := newLedger(t)
	l.aLife()
	whole := l.checkpoint()
	l.leaves = l.leaves[:9]
	_, err := l.verify(whole)
	c := wantContradiction(t, err, audit.LogShort, 9)
	if c.Source != "clone 0" || !strings.Contains(c.Reason, "it was cut") {
		t.Error(c)
	}
	if text := c.Error(); !strings.HasPrefix(text, "leaf 9 contradicts (log.short): ") || !strings.HasSuffix(text, " [clone 0]") {
		t.Error(text)
	}
	c.Index, c.Source = -1, ""
	if text := c.Error(); text != "log.short: "+c.Reason {
		t.Error(text)
	}
	_, err = l.verify(whole)
	wantContradiction(t, err, audit.LogShort, 9)
	l.leaves = nil
	_, err = l.verify()
	wantContradiction(t, err, audit.LogFirst, 0)
}

func TestTheLogKeyIsPinned(t *testing.T) {
	l, other := newLedger(t), newLedger(t)
	v, err := audit.NewVerifier(other.vkey)
	if err != nil {
		t.Fatal(err)
	}
	wantContradiction(t, v.Add(l.leaves[0]), audit.LogKey, 0)
	if _, err := audit.NewVerifier("no key"); err == nil {
		t.Error("a pinned key that is none is taken")
	}
	misnamed := l.replaced(0, `"origin":"log.example.org"`, `"origin":"log.example.com"`)
	_, err = misnamed.verify()
	wantContradiction(t, err, audit.LogFirst, 0)
	misnamed = l.replaced(0, "log.opened", "log.closed")
	_, err = misnamed.verify()
	wantContradiction(t, err, audit.LeafNotCanonical, 0)
	_, err = l.replaced(0, l.vkey, "log.example.org+00000000+AAAA").verify()
	wantContradiction(t, err, audit.LogFirst, 0)
	l.leaves = l.leaves[1:]
	_, err = l.verify()
	wantContradiction(t, err, audit.LogFirst, 0)
}

func TestCheckpointsWhileReading(t *testing.T) {
	l, other := newLedger(t), newLedger(t)
	v, err := audit.NewVerifier("")
	if err != nil {
		t.Fatal(err)
	}
	head := l.checkpoint()
	var c *audit.Contradiction
	if err := v.Expect(head, "a clone"); err == nil || errors.As(err, &c) {
		t.Fatalf("a checkpoint before any key: %v", err)
	}
	for i, leaf := range l.leaves {
		if err := v.Add(leaf); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			err := v.Expect(other.checkpoint(), "vandals")
			if bad := wantContradiction(t, err, audit.CheckpointSignature, -1); bad.Source != "vandals" {
				t.Error(bad)
			}
		}
	}
	if err := v.Expect(head, "a clone"); err != nil {
		t.Fatal(err)
	}
	forged := l.replaced(4, `"10"`, `"99"`)
	wantContradiction(t, v.Expect(forged.checkpoint(), "a clone"), audit.CheckpointRoot, 4)
	if err := v.Finish(); err == nil {
		t.Error("the contradiction is forgotten")
	}
	late, err := audit.NewVerifier("")
	if err != nil {
		t.Fatal(err)
	}
	l.add(daemon, &audit.ServiceStopped{})
	for _, leaf := range l.leaves {
		if err := late.Add(leaf); err != nil {
			t.Fatal(err)
		}
	}
	if err := late.Expect(head, "a clone"); err == nil {
		t.Error("a checkpoint that can no longer be compared is taken")
	}
}

func TestALeafThatIsNotTheHashedOne(t *testing.T) {
	l := newLedger(t)
	l.aLife()
	forged := l.replaced(9, "User 1", "User 9")
	v, err := audit.NewVerifier("")
	if err != nil {
		t.Fatal(err)
	}
	var stored audit.Tree // what the store kept
	for i, leaf := range forged.leaves {
		stored.Append(l.leaves[i])
		if err := v.AddWithRoot(leaf, stored.Root()); err != nil {
			wantContradiction(t, err, audit.LeafHash, 9)
			wantContradiction(t, v.AddWithRoot(l.leaves[9], stored.Root()), audit.LeafHash, 9)
			wantContradiction(t, v.Expect(l.checkpoint(), "a clone"), audit.LeafHash, 9)
			return
		}
	}
	t.Error("a leaf altered in the store is not found")
}

func TestAClockSetBackIsARemark(t *testing.T) {
	l := newLedger(t)
	l.now = l.now.Add(-4 * time.Minute)
	l.add(daemon, &audit.ServiceStopped{})
	l.now = l.now.Add(-24 * time.Hour)
	at := l.add(daemon, &audit.ServiceStopped{})
	l.add(daemon, &audit.ServiceStopped{})
	v, err := l.verify()
	if err != nil {
		t.Fatal(err)
	}
	if r := v.Books().Remarks; len(r) != 1 || r[0].Code != audit.TimeBackwards || r[0].Index != at {
		t.Errorf("remarks: %v", r)
	}
}

func TestListNumbersBeyondAWord(t *testing.T) {
	l := newLedger(t)
	n := new(big.Int).Lsh(big.NewInt(1), 150)
	first := n.String()
	second := n.Add(n, big.NewInt(1)).String()
	l.listSigned(first, l.listIntent(first))
	l.listSigned(second, l.listIntent(second))
	if _, err := l.verify(); err != nil {
		t.Fatal(err)
	}
}
