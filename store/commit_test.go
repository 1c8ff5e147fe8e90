package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

const callers = 32

// crowd runs do for n numbers from many goroutines, and gives the entries of those that were acknowledged.
func crowd(n int, do func(n int) (audit.Entry, error)) (acked map[int]audit.Entry, failed map[int]error) {
	return by(callers, n, do)
}

// by runs do for n numbers from so many goroutines.
func by(callers, n int, do func(n int) (audit.Entry, error)) (acked map[int]audit.Entry, failed map[int]error) {
	acked, failed = make(map[int]audit.Entry), make(map[int]error)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := caller; i < n; i += callers {
				entry, err := do(i)
				mu.Lock()
				if err == nil {
					acked[i] = entry
				} else {
					failed[i] = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return acked, failed
}

// hold checks that exactly the acknowledged certificates are in the books, each with its leaf where
// the caller was told, and that everything verifies.
func hold(t testing.TB, s *Store, acked map[int]audit.Entry) {
	t.Helper()
	verify(t, s)
	d := dump(t, s.path)
	for n, entry := range acked {
		if d.Intents[string(certificate(n).Serial)] != entry.Index || string(d.Leaves[entry.Index].Bytes) != string(entry.Leaf) {
			t.Fatalf("certificate %d was acknowledged at %d, and is not there", n, entry.Index)
		}
	}
	if len(d.Intents) != len(acked) {
		t.Fatalf("%d certificates in the books, %d acknowledged", len(d.Intents), len(acked))
	}
}

func TestCallersShareCommits(t *testing.T) {
	s, _ := newStore(t)
	const n = 1600
	acked, failed := crowd(n, func(n int) (audit.Entry, error) {
		return s.Update(context.Background(), who, reserve(certificate(n)))
	})
	if len(failed) > 0 {
		t.Fatal(failed)
	}
	commits := s.commits.Load()
	t.Logf("%d updates in %d commits", n, commits)
	if commits*4 >= n {
		t.Fatalf("%d commits for %d updates", commits, n)
	}
	hold(t, s, acked)
}

func TestFailingAndPanickingChangesTakeNoIndex(t *testing.T) {
	for _, callers := range []int{1, callers} { // alone, and among others in one transaction
		t.Run(fmt.Sprint(callers), func(t *testing.T) { failing(t, callers) })
	}
}

func failing(t *testing.T, callers int) {
	s, _ := newStore(t)
	wrong := errors.New("wrong")
	acked, failed := by(callers, 640, func(n int) (audit.Entry, error) {
		return s.Update(context.Background(), who, func(tx *Tx) (audit.Event, error) {
			event, err := reserve(certificate(n))(tx)
			if err == nil {
				_, err = tx.Owe(Directory, certificate(n).Key)
			}
			switch {
			case n%20 == 3:
				return event, wrong
			case n%20 == 7:
				panic("at the disco")
			case n%20 == 11: // an event that no reader would accept
				return (*audit.RequestRefused)(nil), err
			case n%20 == 13:
				return nil, err
			}
			return event, err
		})
	})
	if len(acked) != 640-4*32 || !errors.Is(failed[3], wrong) || !strings.Contains(fmt.Sprint(failed[7]), "at the disco") ||
		!errors.Is(failed[11], audit.ErrNotCanonical) {
		t.Fatalf("%d acknowledged; %v; %v; %v", len(acked), failed[3], failed[7], failed[11])
	}
	hold(t, s, acked)
	if debts := owed(t, s); len(debts) != len(acked) {
		t.Fatalf("%d debts for %d changes", len(debts), len(acked))
	}
}

// A change that ignores an error of the engine fails nevertheless, and does not go on outside a
// transaction that the error undid.
func TestAChangeThatIgnoresTheEngineFails(t *testing.T) {
	for _, fault := range []string{"no statement", "ROLLBACK"} { // SQLite rolls back by itself when the disk is full
		for _, callers := range []int{1, callers} {
			t.Run(fmt.Sprint(fault, " ", callers), func(t *testing.T) { ignoring(t, callers, fault) })
		}
	}
}

func ignoring(t *testing.T, callers int, fault string) {
	s, _ := newStore(t)
	acked, failed := by(callers, 320, func(n int) (audit.Entry, error) {
		return s.Update(context.Background(), who, func(tx *Tx) (audit.Event, error) {
			if n%80 == 5 {
				tx.exec(fault)
			}
			tx.Reserve(certificate(n))
			return intentOf(certificate(n)), nil
		})
	})
	for n := range 4 {
		if _, wrong := acked[n*80+5]; wrong {
			t.Errorf("change %d was acknowledged", n*80+5)
		}
	}
	t.Logf("%d acknowledged, %d failed", len(acked), len(failed))
	if (fault != "ROLLBACK" || callers == 1) && len(failed) != 4 || len(acked) == 0 {
		t.Error("others failed with it")
	}
	hold(t, s, acked)
}

func TestATxEndsWithItsChange(t *testing.T) {
	s, _ := newStore(t)
	var kept *Tx
	mustUpdate(t, s, func(tx *Tx) (audit.Event, error) {
		kept = tx
		return stopped(tx)
	})
	if err := kept.Reserve(certificate(1)); !errors.Is(err, errTxOver) {
		t.Fatal(err)
	}
	hold(t, s, nil)
}

func TestCancelledWhileQueued(t *testing.T) {
	s, _ := newStore(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		s.Update(context.Background(), who, func(tx *Tx) (audit.Event, error) {
			close(entered)
			<-leave
			return stopped(tx)
		})
	})
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	outcome := make(chan error)
	go func() {
		_, err := s.Update(ctx, who, reserve(certificate(1)))
		outcome <- err
	}()
	for len(s.queue) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-outcome; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(leave)
	wg.Wait()
	if _, err := s.Update(ctx, who, reserve(certificate(2))); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	hold(t, s, nil)
}

func TestCancelledWhileRunning(t *testing.T) {
	s, _ := newStore(t)
	acked, failed := crowd(640, func(n int) (audit.Entry, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if n%2 == 0 { // any time: in the queue, in the statement, in the commit
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
			defer stop()
		}
		return s.Update(ctx, who, func(tx *Tx) (audit.Event, error) {
			if n%10 == 1 {
				cancel()
			}
			return reserve(certificate(n))(tx)
		})
	})
	for n, err := range failed {
		if n%2 == 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("change %d: %v", n, err)
		}
	}
	t.Logf("%d acknowledged, %d cancelled", len(acked), len(failed))
	if len(failed) == 0 {
		t.Fatal("no context ended in time")
	}
	hold(t, s, acked)
}

func TestDiskFullInMidBatch(t *testing.T) {
	s, _ := newStore(t)
	limit := func(pages int) {
		t.Helper()
		if _, err := s.engine.conn.ExecContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(200)
	acked, failed := crowd(1280, func(n int) (audit.Entry, error) {
		return s.Update(context.Background(), who, reserve(certificate(n)))
	})
	t.Logf("%d acknowledged, %d failed, one of them: %v", len(acked), len(failed), failed[1279])
	if len(acked) == 0 || len(failed) == 0 {
		t.Fatal("the disk did not fill")
	}
	hold(t, s, acked)
	limit(1 << 30)
	again, failed := crowd(1280, func(n int) (audit.Entry, error) {
		return s.Update(context.Background(), who, reserve(certificate(1280+n)))
	})
	if len(failed) > 0 {
		t.Fatal(failed)
	}
	for n, entry := range again {
		acked[1280+n] = entry
	}
	hold(t, s, acked)
}

func TestClosedStoreAnswersEverybody(t *testing.T) {
	s, _ := newStore(t)
	closed := make(chan error, 1)
	var once sync.Once
	acked, failed := crowd(640, func(n int) (audit.Entry, error) {
		if n == 320 {
			go once.Do(func() { closed <- s.Close() })
		}
		return s.Update(context.Background(), who, reserve(certificate(n)))
	})
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	for n, err := range failed {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("change %d: %v", n, err)
		}
	}
	if _, err := s.Find(context.Background(), Query{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := s.Check(context.Background()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	again, err := Open(context.Background(), s.path, s.now)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	hold(t, again, acked)
}

func TestTwoProcessesShareALog(t *testing.T) {
	s, clock := newStore(t)
	other, err := Open(context.Background(), s.path, clock.now)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	acked, failed := crowd(320, func(n int) (audit.Entry, error) {
		return []*Store{s, other}[n/callers%2].Update(context.Background(), who, reserve(certificate(n)))
	})
	if len(failed) > 0 {
		t.Fatal(failed)
	}
	mustUpdate(t, s, stopped) // learns of what the other did last
	hold(t, s, acked)
}
