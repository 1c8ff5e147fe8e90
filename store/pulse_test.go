package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// TestObserve: who watches is told of each event that is on the log, with its place, and of no other.
func TestObserve(t *testing.T) {
	s, _ := newStore(t)
	seen := make(map[int64]string)
	s.Observe(func(index int64, e audit.Event) { seen[index] = e.Type() })
	entry := mustUpdate(t, s, stopped)
	if _, err := s.Update(t.Context(), audit.Actor{Kind: audit.ByDaemon}, func(*Tx) (audit.Event, error) {
		return nil, errors.New("changed its mind")
	}); err == nil {
		t.Error("a change that failed has no error")
	}
	if len(seen) != 1 || seen[entry.Index] != "service.stopped" {
		t.Errorf("seen %v, entered %d", seen, entry.Index)
	}
	if n := s.Failures(); n != 0 {
		t.Errorf("%d failures of the engine after a change that was refused", n)
	}
}

func TestPing(t *testing.T) {
	s, _ := newStore(t)
	size, _ := s.Head()
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if after, _ := s.Head(); after != size {
		t.Errorf("%d leaves, then %d", size, after)
	}
	// A change that does not come to an end.
	begun, gate, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = s.Update(context.Background(), audit.Actor{Kind: audit.ByDaemon}, func(*Tx) (audit.Event, error) {
			close(begun)
			<-gate
			return &audit.ServiceStopped{}, nil
		})
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind a change that does not end: %v", err)
	}
	close(gate)
	<-ended
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestBacklogs(t *testing.T) {
	s, _ := newStore(t)
	backlogs := func(want map[Topic]Backlog) {
		t.Helper()
		got, err := s.Backlogs(t.Context())
		if err != nil || len(got) != len(want) {
			t.Fatalf("%+v, %v", got, err)
		}
		for topic, b := range want {
			if g := got[topic]; g.Debts != b.Debts || g.Failing != b.Failing || g.Parked != b.Parked || !g.Oldest.Equal(b.Oldest) {
				t.Errorf("%s: %+v, want %+v", topic, g, b)
			}
		}
	}
	backlogs(map[Topic]Backlog{Directory: {}, CRL: {}})
	first := owe(t, s, Directory, "user/alice")
	owe(t, s, Directory, "user/bob")
	owe(t, s, Directory, "user/carol")
	backlogs(map[Topic]Backlog{Directory: {Debts: 3, Oldest: first.Since}, CRL: {}})
	leased := lease(t, s, 3)
	for i, next := range []time.Time{s.Now().Add(time.Hour), {}} {
		if err := s.Postpone(t.Context(), leased[i], next, "down"); err != nil {
			t.Fatal(err)
		}
	}
	backlogs(map[Topic]Backlog{Directory: {Debts: 3, Failing: 1, Parked: 1, Oldest: first.Since}, CRL: {}})
	pay(t, s, leased[2])
	backlogs(map[Topic]Backlog{Directory: {Debts: 2, Failing: 1, Parked: 1, Oldest: first.Since}, CRL: {}})
}

// TestFailures: what the engine cannot do is counted.
func TestFailures(t *testing.T) {
	s, _ := newStore(t)
	python(t, s.path, "DROP TABLE debt")
	if _, err := s.Backlogs(t.Context()); err == nil || !strings.Contains(err.Error(), "debt") {
		t.Errorf("%v", err)
	}
	if n := s.Failures(); n != 1 {
		t.Errorf("%d failures", n)
	}
}
