package ldapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	who   = audit.Actor{Kind: audit.ByCaller, Name: "provisioning"}
	epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// office is a CA as far as the directory can see it: books, a directory file and the loop between.
type office struct {
	*Loop
	t      *testing.T
	world  *faulty
	path   string
	offset atomic.Int64
	logged *observer.ObservedLogs
	next   int64
}

// faulty is the directory with a hand in it. The hooks may be nil.
type faulty struct {
	*LDIF
	instead func(context.Context) error // of writing
	after   func() error                // writing
}

func (f *faulty) Apply(ctx context.Context, t Target, add, remove [][]byte) error {
	if f.instead != nil {
		return f.instead(ctx)
	}
	err := f.LDIF.Apply(ctx, t, add, remove)
	if err == nil && f.after != nil {
		return f.after()
	}
	return err
}

func newOffice(t *testing.T) *office {
	t.Helper()
	d, path, _ := foreignFile(t)
	world := &faulty{LDIF: d}
	o := newOfficeOf(t, world)
	o.world, o.path = world, path
	return o
}

func (o *office) update(change func(*store.Tx) (audit.Event, error)) audit.Entry {
	o.t.Helper()
	e, err := o.Store.Update(context.Background(), who, change)
	if err != nil {
		o.t.Fatal(err)
	}
	return e
}

// issue enters a certificate that is valid for an hour and owes it.
func (o *office) issue(purpose cert.Purpose, cn, entry string) (cert.Serial, []byte) {
	o.t.Helper()
	o.next++
	n := mustName(o.t, purpose, cn)
	until := o.Now().Add(time.Hour)
	der := selfSigned(o.t, cn, o.next, until)
	c := store.Certificate{
		Serial: cert.Serial(fmt.Sprintf("%02x", o.next)), Issuer: "users", Purpose: purpose, CN: n.Text, Key: n.Key,
		Caller: "provisioning", RequestID: fmt.Sprint(o.next), NotBefore: o.Now(), NotAfter: until, Deadline: until, Entry: entry,
	}
	o.update(func(tx *store.Tx) (audit.Event, error) {
		return &audit.IssueIntent{Serial: c.Serial, Purpose: purpose, CN: n.Text}, tx.Reserve(c)
	})
	o.update(func(tx *store.Tx) (audit.Event, error) {
		_, _, err := tx.Complete(c.Serial, der)
		if err == nil {
			_, err = tx.Owe(store.Directory, string(purpose)+"/"+n.Key)
		}
		return &audit.IssueDone{Serial: c.Serial}, err
	})
	return c.Serial, der
}

func (o *office) revoke(serial cert.Serial) {
	o.t.Helper()
	o.update(func(tx *store.Tx) (audit.Event, error) {
		r, err := tx.Revoke(serial, tx.Now(), cert.Superseded)
		found, err2 := tx.Find(store.Query{Serial: serial})
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		_, err = tx.Owe(store.Directory, string(found[0].Purpose)+"/"+found[0].Key)
		return &audit.RevokeDone{Revoked: []audit.Revocation{r}}, err
	})
}

func (o *office) pay(want int) {
	o.t.Helper()
	if n, err := o.PayOnce(context.Background()); err != nil || n != want {
		o.t.Fatalf("paid %d debts, %v; want %d", n, err, want)
	}
}

func (o *office) debts() []store.Debt {
	o.t.Helper()
	debts, err := o.Store.Debts(context.Background())
	if err != nil {
		o.t.Fatal(err)
	}
	return debts
}

// events gives every directory.published of the log, as text.
func (o *office) events() (out []string) {
	o.t.Helper()
	size, _ := o.Store.Head()
	leaves, err := o.Store.Leaves(context.Background(), 0, size)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, raw := range leaves {
		l, err := audit.Decode(raw)
		if err != nil {
			o.t.Fatal(err)
		}
		if e, ok := l.Event.(*audit.DirectoryPublished); ok {
			if l.Actor.Kind != audit.ByDaemon {
				o.t.Errorf("published by %v", l.Actor)
			}
			out = append(out, fmt.Sprintf("%s %s +%v -%v", e.Purpose, e.CN, e.Added, e.Removed))
		}
	}
	return out
}

func (o *office) wantEvents(want ...string) {
	o.t.Helper()
	if got := o.events(); fmt.Sprint(got) != fmt.Sprint(want) {
		o.t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// wantHeld reads the entry with python3.
func (o *office) wantHeld(dn string, want ...[]byte) {
	o.t.Helper()
	got := readEntry(o.t, o.path, dn).values(published)
	same := len(got) == len(want)
	for i := range got {
		same = same && bytes.Equal(got[i], want[i])
	}
	if !same {
		o.t.Errorf("%s holds %d values, want %d or others", dn, len(got), len(want))
	}
}

func (o *office) wantFailure(code string, err error) {
	o.t.Helper()
	if err == nil {
		o.t.Fatal("no error")
	}
	debts := o.debts()
	if len(debts) != 1 || debts[0].Attempts != 1 || !strings.HasPrefix(debts[0].LastError, code+": ") {
		o.t.Errorf("what is owed: %+v; want one attempt that failed with %s", debts, code)
	}
	if n := o.logged.FilterField(zap.String("code", code)).Len(); n != 1 {
		o.t.Errorf("%d lines of %s in %v", n, code, o.logged.All())
	}
}

const (
	aliceDN = "cn=Alice,ou=people,dc=example,dc=org"
	bobDN   = "uid=bob,ou=People,dc=Example,dc=org"
	bobID   = "11111111-2222-4333-8444-aaaaaaaaaaaa"
)

func TestPublishAndRevoke(t *testing.T) {
	o := newOffice(t)
	serial, der := o.issue(cert.User, "Alice", "")
	_, host := o.issue(cert.Server, "www.example.org", "11111111-2222-4333-8444-bbbbbbbbbbbb")
	_, second := o.issue(cert.User, "Bob Builder", bobID)
	o.pay(3)
	o.wantHeld(aliceDN, der)
	o.wantHeld("cn=www.example.org,ou=hosts,dc=example,dc=org", host)
	o.wantHeld(bobDN, []byte("foreign"), second)
	checkOpenSSL(t, readEntry(t, o.path, aliceDN).values(published)[0], "CN = Alice")

	_, next := o.issue(cert.User, "alice", madeEntry(cert.User, name.Name{Key: "alice"}))
	o.revoke(serial)
	o.pay(1)
	o.wantHeld(aliceDN, next)
	if len(o.debts()) > 0 {
		t.Errorf("still owed: %+v", o.debts())
	}
	if got := o.events(); len(got) != 4 || got[3] != "user alice +[04] -[01]" {
		t.Errorf("the log says %q", got)
	}
}

// Every fault leaves the debt, and the next visit ends where an unbroken one would have.
func TestFaultsWhileWriting(t *testing.T) {
	broken := errors.New("the cable was cut")
	cases := []struct {
		what string
		code string
		set  func(*faulty)
	}{
		{"fails and not written", codeDown, func(f *faulty) { f.instead = func(context.Context) error { return broken } }},
		{"fails but written", codeDown, func(f *faulty) { f.after = func() error { return broken } }},
		{"succeeds but lost", codeReadBack, func(f *faulty) { f.instead = func(context.Context) error { return nil } }},
		{"refused", codeRefused, func(f *faulty) { f.instead = func(context.Context) error { return ErrRefused } }},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			o := newOffice(t)
			_, der := o.issue(cert.User, "Alice", "")
			c.set(o.world)
			n, err := o.PayOnce(context.Background())
			if n != 0 {
				t.Errorf("%d debts are paid", n)
			}
			o.wantFailure(c.code, err)
			o.wantEvents()
			*o.world = faulty{LDIF: o.world.LDIF}
			o.pay(0) // postponed
			o.offset.Add(int64(lastRetry))
			o.pay(1)
			o.wantHeld(aliceDN, der)
			if len(o.events()) != 1 || len(o.debts()) != 0 {
				t.Errorf("log %q, owed %+v", o.events(), o.debts())
			}
		})
	}
}

// The process dies after the directory was written and before the books know: nothing is written twice.
func TestDiesBeforeTheBooksKnow(t *testing.T) {
	o := newOffice(t)
	_, der := o.issue(cert.User, "Alice", "")
	ctx, cancel := context.WithCancel(context.Background())
	o.world.after = func() error { cancel(); return ctx.Err() }
	if _, err := o.PayOnce(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	before := readFile(t, o.path)
	o.world.after = func() error { t.Error("written again"); return nil }
	o.pay(0) // the dead process holds the lease
	if err := o.Store.FreeLeases(context.Background()); err != nil {
		t.Fatal(err)
	}
	o.pay(1)
	o.wantHeld(aliceDN, der)
	if !bytes.Equal(readFile(t, o.path), before) {
		t.Error("the second visit changed the file")
	}
}

// A revocation that lands while the certificate is being added must win, whether a debt is paid or a
// sweep is under way, and also if another visit has paid for it already.
func TestRevokedDuringTheVisit(t *testing.T) {
	for _, sweeping := range []bool{false, true} {
		o := newOffice(t)
		serial, der := o.issue(cert.User, "Alice", "")
		o.world.after = func() error {
			o.world.after = nil
			o.wantHeld(aliceDN, der)
			o.revoke(serial)
			return nil
		}
		if sweeping {
			if n, err := o.Sweep(context.Background()); n != 2 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
		} else {
			debts, err := o.Store.Lease(context.Background(), store.Directory, 1, o.Now().Add(time.Minute))
			if err != nil || len(debts) != 1 {
				t.Fatal(debts, err)
			}
			if err := o.Loop.pay(context.Background(), debts[0]); err != nil {
				t.Fatal(err)
			}
		}
		o.wantHeld(aliceDN)
		o.wantEvents("user Alice +[01] -[]", "user Alice +[] -[01]")
		if len(o.debts()) != 1 {
			t.Errorf("the newer generation is not owed: %+v", o.debts())
		}
		o.pay(1)
		o.wantEvents("user Alice +[01] -[]", "user Alice +[] -[01]", "user Alice +[] -[]")
	}
}

// One of two entries of a name is gone; the revoked certificate leaves the other all the same.
func TestOneEntryFails(t *testing.T) {
	o := newOffice(t)
	gone, _ := o.issue(cert.User, "Bob Builder", "99999999-2222-4333-8444-aaaaaaaaaaaa")
	here, der := o.issue(cert.User, "Bob Builder", bobID)
	_, err := o.PayOnce(context.Background())
	o.wantFailure(codeNoEntry, err)
	o.wantHeld(bobDN, []byte("foreign"), der)
	o.revoke(here)
	if _, err := o.PayOnce(context.Background()); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
	o.wantHeld(bobDN, []byte("foreign"))
	o.wantEvents("user Bob Builder +[02] -[]", "user Bob Builder +[] -[02]")

	o.revoke(gone) // from where it cannot be
	o.pay(1)
	if len(o.debts()) != 0 {
		t.Errorf("owed: %+v", o.debts())
	}
}

func TestNobodyAndSeveral(t *testing.T) {
	o := newOffice(t)
	o.issue(cert.User, "Twice", "")
	_, err := o.PayOnce(context.Background())
	o.wantFailure(codeManyEntries, err)

	o = newOffice(t)
	o.world.create = false
	o.issue(cert.User, "Alice", "")
	_, err = o.PayOnce(context.Background())
	o.wantFailure(codeNoEntry, err)
	o.revoke("01") // nobody can have it, so nothing is left to do
	o.pay(1)
}

func TestSweepAndCompare(t *testing.T) {
	o := newOffice(t)
	ctx := context.Background()
	_, der := o.issue(cert.User, "Alice", "")
	o.issue(cert.User, "Twice", "")
	o.issue(cert.Caller, "provisioning", "") // owed by mistake: callers are not published
	if n, err := o.Sweep(ctx); n != 1 || err == nil {
		t.Errorf("swept %d, %v; want one, and one failure", n, err)
	}
	o.wantHeld(aliceDN, der)
	drifts := func() string {
		var out []string
		err := o.Compare(ctx, func(d Drift) {
			out = append(out, fmt.Sprintf("%s -%v +%v %s", d.Key, d.Missing, d.Extra, failureCode(d.Err)))
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "; ")
	}
	twice := "twice -[] +[] " + codeManyEntries
	if got := drifts(); got != twice {
		t.Errorf("drift: %s", got)
	}
	o.offset.Add(int64(time.Hour)) // notAfter itself is valid
	if got := drifts(); got != twice {
		t.Errorf("drift: %s", got)
	}
	o.offset.Add(int64(time.Second))
	if got := drifts(); got != "alice -[] +[01] directory.down; "+twice {
		t.Errorf("drift: %s", got)
	}
	if n, _ := o.Sweep(ctx); n != 1 {
		t.Errorf("swept %d", n)
	}
	o.wantHeld(aliceDN)
	before := readFile(t, o.path)
	if n, _ := o.Sweep(ctx); n != 0 || !bytes.Equal(readFile(t, o.path), before) {
		t.Errorf("a sweep with nothing to do changed %d", n)
	}
	o.wantEvents("user Alice +[01] -[]", "user Alice +[] -[01]")

	if err := os.Remove(o.path); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Sweep(ctx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("sweeping without a directory: %v", err)
	}
}

func TestDebtOfNoPlace(t *testing.T) {
	for _, key := range []string{"caller/provisioning", "alice", "user/", "dog/alice"} {
		o := newOffice(t)
		o.update(func(tx *store.Tx) (audit.Event, error) {
			_, err := tx.Owe(store.Directory, key)
			return &audit.ServiceStopped{}, err
		})
		_, err := o.PayOnce(context.Background())
		o.wantFailure(codeDebt, err)
		if !o.debts()[0].Parked {
			t.Errorf("%q is tried again", key)
		}
	}
}

func TestRun(t *testing.T) {
	o := newOffice(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	away := o.path + ".away"
	if err := os.Rename(o.path, away); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- o.Run(ctx) }()
	var certs [][]byte
	for i := range 20 {
		_, der := o.issue(cert.User, fmt.Sprintf("person %d", i), "")
		certs = append(certs, der)
	}
	o.eventually("every debt was tried", func() bool {
		return o.logged.FilterField(zap.String("code", codeDown)).Len() >= 20
	})
	if err := os.Rename(away, o.path); err != nil {
		t.Fatal(err)
	}
	o.eventually("every debt is paid", func() bool { return len(o.debts()) == 0 })
	for i, der := range certs {
		o.wantHeld(fmt.Sprintf("cn=person %d,ou=people,%s", i, base), der)
	}

	// A directory that hangs does not keep the daemon from stopping, and is no failure of the name.
	entered := make(chan struct{})
	o.world.instead = func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}
	lines := o.logged.Len()
	o.issue(cert.User, "Alice", "")
	<-entered
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopping: %v", err)
	}
	if debts := o.debts(); len(debts) != 1 || debts[0].Attempts != 0 || o.logged.Len() != lines {
		t.Errorf("after stopping: %+v", debts)
	}
}

func (o *office) eventually(what string, is func() bool) {
	o.t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(20 * time.Millisecond)
		o.offset.Add(int64(time.Second)) // what was postponed becomes due
	}
	o.t.Fatalf("never: %s; %+v", what, o.debts())
}

func TestRunEndsWithTheStore(t *testing.T) {
	o := newOffice(t)
	if err := o.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := o.Run(context.Background()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("the store is closed, and the loop says %v", err)
	}
}

func TestBackoff(t *testing.T) {
	none := func(time.Duration) time.Duration { return 0 }
	most := func(d time.Duration) time.Duration { return d - 1 }
	for attempts := range 100 {
		low, high := backoff(attempts, none), backoff(attempts, most)
		if low != firstRetry || high > lastRetry || high < backoff(max(attempts-1, 0), most) {
			t.Errorf("after %d attempts: %s to %s", attempts, low, high)
		}
	}
	if backoff(0, most) > 2*time.Second || backoff(20, most) < lastRetry-time.Second {
		t.Error("the bound does not grow from two seconds to five minutes")
	}
}
