package store

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

func owe(t testing.TB, s *Store, topic Topic, key string) (d Debt) {
	t.Helper()
	mustUpdate(t, s, func(tx *Tx) (event audit.Event, err error) {
		d, err = tx.Owe(topic, key)
		return &audit.ServiceStopped{}, err
	})
	return d
}

func pay(t testing.TB, s *Store, d Debt) {
	t.Helper()
	mustUpdate(t, s, func(tx *Tx) (audit.Event, error) { return &audit.ServiceStopped{}, tx.Paid(d) })
}

func lease(t testing.TB, s *Store, want int) []Debt {
	t.Helper()
	leased, err := s.Lease(context.Background(), Directory, 10, s.Now().Add(time.Minute))
	if err != nil || len(leased) != want {
		t.Fatalf("leased %+v, want %d: %v", leased, want, err)
	}
	return leased
}

func owed(t testing.TB, s *Store) []Debt {
	t.Helper()
	debts, err := s.Debts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return debts
}

func TestPayingAnOldGenerationDoesNotDeleteTheNewOne(t *testing.T) {
	s, clock := newStore(t)
	first := owe(t, s, Directory, "user/alice")
	visit := lease(t, s, 1)[0]
	if visit.Generation != first.Generation {
		t.Fatalf("%+v, want generation %d", visit, first.Generation)
	}
	clock.advance(time.Second)
	second := owe(t, s, Directory, "user/alice")
	lease(t, s, 0) // two visits of one place at once could overwrite each other
	waiting, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer stop()
	outcome := make(chan error, 1)
	go func() { outcome <- s.AwaitPaid(waiting, second) }()
	time.Sleep(20 * time.Millisecond)
	<-s.Wake(Directory)
	pay(t, s, visit)
	if err := <-outcome; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the second change was reported as paid: %v", err)
	}
	<-s.Wake(Directory) // it is due
	left := owed(t, s)
	if len(left) != 1 || left[0].Generation != second.Generation {
		t.Fatalf("left is %+v", left)
	}
	// The first change is visible to the world by now, the second is not.
	if err := s.AwaitPaid(context.Background(), first); err != nil {
		t.Fatalf("awaiting the first: %v", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.AwaitPaid(short, second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("awaiting the second: %v", err)
	}
	again := lease(t, s, 1)[0]
	pay(t, s, again)
	if left := owed(t, s); len(left) != 0 {
		t.Fatalf("left is %+v", left)
	}
	if err := s.AwaitPaid(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	verify(t, s)
}

func TestALateVisitorDoesNotPayWhatWasOwedAfterwards(t *testing.T) {
	s, clock := newStore(t)
	owe(t, s, Directory, "user/alice")
	late := lease(t, s, 1)[0]
	clock.advance(2 * time.Minute) // the lease runs out
	pay(t, s, lease(t, s, 1)[0])
	owe(t, s, Directory, "user/alice")
	pay(t, s, late)
	if left := owed(t, s); len(left) != 1 {
		t.Fatalf("a new debt was paid by a visit before it: %+v", left)
	}
	holder := lease(t, s, 1)[0]
	if err := s.Postpone(context.Background(), late, s.Now().Add(time.Hour), "late"); err != nil {
		t.Fatal(err)
	}
	lease(t, s, 0) // the late one did not end the holder's lease
	pay(t, s, holder)
	if left := owed(t, s); len(left) != 0 {
		t.Fatalf("left is %+v", left)
	}
}

func TestPostponeAndPark(t *testing.T) {
	s, clock := newStore(t)
	ctx := context.Background()
	owe(t, s, Directory, "user/alice")
	owe(t, s, Directory, "user/bob")
	owe(t, s, CRL, "users")
	both := lease(t, s, 2)
	if err := s.Postpone(ctx, both[0], s.Now().Add(time.Minute), "directory is down"); err != nil {
		t.Fatal(err)
	}
	if err := s.Postpone(ctx, both[1], time.Time{}, "no such entry"); err != nil {
		t.Fatal(err)
	}
	debts := owed(t, s)
	if len(debts) != 3 || debts[1].Attempts != 1 || debts[1].LastError != "directory is down" || !debts[2].Parked {
		t.Fatalf("%+v", debts)
	}
	lease(t, s, 0)
	clock.advance(time.Minute)
	if got := lease(t, s, 1)[0]; got.Key != both[0].Key {
		t.Fatalf("%+v", got)
	}
	clock.advance(time.Minute)
	owe(t, s, Directory, "user/bob")
	for _, got := range lease(t, s, 2) {
		if got.Parked || (got.Attempts == 0) != (got.Key == "user/bob") {
			t.Fatalf("%+v", got)
		}
		if err := s.Postpone(ctx, got, s.Now().Add(time.Hour), "directory is down"); err != nil {
			t.Fatal(err)
		}
	}
	lease(t, s, 0)
	clock.advance(time.Hour)
	visit := lease(t, s, 2)[0]
	owe(t, s, Directory, visit.Key)
	<-s.Wake(Directory)
	if err := s.Postpone(ctx, visit, s.Now().Add(time.Hour), "directory is down"); err != nil {
		t.Fatal(err)
	}
	<-s.Wake(Directory)
	if got := lease(t, s, 1)[0]; got.Key != visit.Key { // a change during the visit does not wait
		t.Fatalf("%+v", got)
	}
	if err := s.FreeLeases(ctx); err != nil {
		t.Fatal(err)
	}
	for _, got := range lease(t, s, 2) {
		if err := s.Postpone(ctx, got, s.Now().Add(time.Hour), "directory is down"); err != nil {
			t.Fatal(err)
		}
	}
	lease(t, s, 0)
	if err := s.Hurry(ctx); err != nil {
		t.Fatal(err)
	}
	<-s.Wake(Directory)
	lease(t, s, 2)
	counts, err := s.Counts(ctx)
	if err != nil || counts.Debts[Directory] != 2 || counts.Debts[CRL] != 1 || counts.Parked != 0 {
		t.Fatalf("%+v %v", counts, err)
	}
}

func TestWake(t *testing.T) {
	s, _ := newStore(t)
	wake := s.Wake(Directory)
	received := func() bool {
		select {
		case <-wake:
			return true
		default:
			return false
		}
	}
	s.Update(context.Background(), who, func(tx *Tx) (audit.Event, error) {
		tx.Owe(Directory, "user/alice")
		return nil, errors.New("changed my mind")
	})
	owe(t, s, CRL, "users")
	if received() {
		t.Fatal("woken though nothing is owed")
	}
	owe(t, s, Directory, "user/alice")
	owe(t, s, Directory, "user/bob")
	if !received() || received() {
		t.Fatal("two debts must wake once")
	}
}

func TestAwaitPaid(t *testing.T) {
	s, _ := newStore(t)
	d := owe(t, s, Directory, "user/alice")
	outcome := make(chan error, 20)
	for range cap(outcome) {
		go func() { outcome <- s.AwaitPaid(context.Background(), d) }()
	}
	s.Update(context.Background(), who, func(tx *Tx) (audit.Event, error) {
		tx.Paid(d)
		return nil, errors.New("changed my mind")
	})
	select {
	case err := <-outcome:
		t.Fatalf("answered before it was paid: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	pay(t, s, d)
	for range cap(outcome) {
		if err := <-outcome; err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.debts.waits); n != 0 {
		t.Fatalf("%d places are still waited for", n)
	}
	d = owe(t, s, Directory, "user/alice")
	go func() { outcome <- s.AwaitPaid(context.Background(), d) }()
	time.Sleep(20 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestDropSealedLeavesNoByteBehind(t *testing.T) {
	s, clock := newStore(t)
	ctx := context.Background()
	old, young := certificate(1), certificate(2)
	padding := strings.Repeat("x", 9000) // onto pages of its own
	old.Sealed, young.Sealed = []byte(padding+"sealed-long-ago"), []byte(padding+"sealed-just-now")
	mustUpdate(t, s, reserve(old))
	clock.advance(time.Hour)
	mustUpdate(t, s, reserve(young))
	if !inFiles(t, s, "sealed-long-ago") {
		t.Fatal("grep does not find what is there")
	}
	n, err := s.DropSealed(ctx, epoch.Add(time.Minute))
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if got := one(t, s, Query{Serial: old.Serial}); got.Sealed != nil {
		t.Fatalf("%+v", got)
	}
	if got := one(t, s, Query{Serial: young.Serial}); got.Sealed == nil {
		t.Fatalf("%+v", got)
	}
	if inFiles(t, s, "sealed-long-ago") || !inFiles(t, s, "sealed-just-now") {
		t.Fatal("the files hold the wrong secrets")
	}
	if n, err := s.DropSealed(ctx, epoch.Add(time.Minute)); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	verify(t, s)
}

func TestDropSealedWhileSomebodyReads(t *testing.T) {
	s, clock := newStore(t)
	ctx := context.Background()
	c := certificate(1)
	c.Sealed = []byte("sealed-long-ago")
	mustUpdate(t, s, reserve(c))
	clock.advance(time.Hour)
	reader, err := s.engine.readDB.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRow("SELECT count(*) FROM leaf").Scan(&n); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if n, err := s.DropSealed(ctx, s.Now()); err == nil {
		t.Fatalf("%d dropped while the WAL is read", n)
	}
	if took := time.Since(begin); took > busyWait/2 {
		t.Fatalf("every change waited for %v", took)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DropSealed(ctx, s.Now()); err != nil || inFiles(t, s, "sealed-long-ago") {
		t.Fatal("the secret is still in the files", err)
	}
}

// inFiles looks for bytes in the database and its WAL, from another process: closing a descriptor here
// would drop the store's locks.
func inFiles(t testing.TB, s *Store, secret string) bool {
	t.Helper()
	err := exec.Command("grep", "-q", "-a", "-F", "-e", secret, s.path, s.path+"-wal").Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	return err == nil
}
