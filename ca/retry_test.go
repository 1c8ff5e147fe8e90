package ca

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// stillUnknown ends the test unless the error says that something may have been done.
func stillUnknown(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, signer.ErrUnknown) {
		t.Fatalf("%v; want unknown", err)
	}
}

func (w *world) ask(id string) (*Issued, error) {
	w.Helper()
	return w.authority.Issue(context.Background(), call(id, "Alice"), w.request(cert.User, "Alice"))
}

// The key room goes away between intent and signature: the intent stays open, Recover ends it, and the
// id is free.
func TestRoomGoneBeforeSigning(t *testing.T) {
	w := newWorld(t)
	from := w.head()
	w.wire.once(signer.SignCert, cutBefore)
	_, err := w.ask("one")
	stillUnknown(t, err)
	w.stopRoom()
	if n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); n != 0 || err == nil || w.count(store.StateOpen) != 1 {
		t.Errorf("recovered %d without a key room: %v", n, err)
	}
	if _, err := w.ask("one"); !errors.Is(err, signer.ErrUnknown) {
		t.Errorf("a retry without a key room: %v; want unknown", err)
	}
	w.startRoom()
	if n, err := w.authority.Recover(t.Context(), w.clock.now()); n != 0 || err != nil {
		t.Errorf("recovered %d before the deadline: %v", n, err)
	}
	if n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("recovered %d: %v", n, err)
	}
	if got := w.types(from); got != "issue.intent issue.abandoned" {
		t.Errorf("the log says %s", got)
	}
	if e := w.events(from)[1].(*audit.IssueAbandoned); e.Why != "recovered" || e.Intent != from {
		t.Errorf("abandoned as %+v", e)
	}
	if issued, err := w.ask("one"); err != nil || issued.LogIndex == from {
		t.Errorf("%+v, %v", issued, err)
	}
}

// A key room that is not there at all has signed nothing, and that much is known.
func TestRoomNotThere(t *testing.T) {
	w := newWorld(t)
	w.issue("zero", "Bob")
	w.stopRoom()
	w.wire.close()
	if _, err := w.ask("one"); !errors.Is(err, signer.ErrUnreachable) || errors.Is(err, signer.ErrUnknown) {
		t.Errorf("%v; want unreachable", err)
	}
	w.startRoom()
	w.wire = newWire(t, w.wire.path, w.config.Socket)
	if _, err := w.ask("one"); err != nil {
		t.Error(err)
	}
	if got := w.count(store.StateOpen); got != 0 {
		t.Errorf("%d intents are open", got)
	}
}

// The key room signs and its answer is lost: a retry gets that very certificate.
func TestReplyLost(t *testing.T) {
	w := newWorld(t)
	from := w.head()
	w.wire.once(signer.SignCert, cutAfter)
	_, err := w.ask("one")
	stillUnknown(t, err)
	intent := w.events(from)[0].(*audit.IssueIntent)
	if w.room.Hello().State.Certificates != 1 || w.count(store.StateOpen) != 1 {
		t.Fatal("the test did not lose the answer to a signature")
	}
	for _, kind := range []signer.Kind{signer.Settle, signer.Open} {
		w.wire.once(kind, cutAfter)
		_, err := w.ask("one")
		stillUnknown(t, err)
	}
	issued, err := w.ask("one")
	w.must(err)
	if issued.Serial != intent.Serial || issued.LogIndex != from || w.room.Hello().State.Certificates != 1 {
		t.Errorf("%s; the intent was %s", issued.Serial, intent.Serial)
	}
	w.verify(issued)
	w.unpack(issued)
	if got := w.types(from); got != "issue.intent issue.done issue.redelivered issue.redelivered issue.answering" {
		t.Errorf("the log says %s", got)
	}
}

// The same after a crash, by Recover.
func TestReplyLostAndRecovered(t *testing.T) {
	w := newWorld(t)
	from := w.head()
	w.wire.once(signer.SignCert, cutAfter)
	_, err := w.ask("one")
	stillUnknown(t, err)
	w.restart()
	if n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("recovered %d: %v", n, err)
	}
	if e := w.events(from)[1].(*audit.IssueDone); e.Serial != w.events(from)[0].(*audit.IssueIntent).Serial {
		t.Errorf("completed %+v", e)
	}
	issued, err := w.ask("one")
	w.must(err)
	w.unpack(issued)
}

// Without a key room, a retry of something that was signed must not be told that nothing was.
func TestRetryWithoutRoom(t *testing.T) {
	w := newWorld(t)
	first, err := w.ask("one")
	w.must(err)
	w.stopRoom()
	w.wire.close() // and now not even the wire answers
	_, err = w.ask("one")
	stillUnknown(t, err)
	w.startRoom()
	w.wire = newWire(t, w.wire.path, w.config.Socket)
	again, err := w.ask("one")
	w.must(err)
	w.same(first, again)
}

// The store ends between signature and issue.done, and between issue.done and the answer.
func TestStoreGone(t *testing.T) {
	for when, lose := range map[string]func(*world){
		"before done": func(w *world) {
			w.wire.on(signer.SignCert, func() action { w.closeStore(); return pass })
		},
		"before the answer": func(w *world) {
			w.withDirectory()
			// The authority waits for the directory, which nobody pays, when the store ends.
			go func() {
				for w.count(store.StateLive) == 0 {
					time.Sleep(5 * time.Millisecond)
				}
				w.closeStore()
			}()
		},
	} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			from := w.head()
			lose(w)
			_, err := w.ask("one")
			stillUnknown(t, err)
			w.wire.on(signer.SignCert, func() action { return pass })
			w.restart()
			issued, err := w.ask("one")
			w.must(err)
			if issued.LogIndex != from || w.room.Hello().State.Certificates != 1 {
				t.Errorf("%+v", issued)
			}
			w.unpack(issued)
		})
	}
}

// The store loses its database while an intent is on its way to it: whether it is there is unknown, and so is what
// becomes of every other change until the store is opened anew.
func TestStoreBroken(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	first := w.issue("zero", "Bob")
	away := w.books() + ".away"
	var other *sql.DB
	var locked *sql.Tx
	w.directory.find = func(ctx context.Context, _ name.Name) (string, error) {
		// Somebody keeps the write lock, and the database cannot be opened again.
		var err error
		other, err = sql.Open("sqlite", "file:"+w.books()+"?_txlock=immediate")
		w.must(err)
		locked, err = other.Begin()
		w.must(err)
		w.must(os.Rename(w.books(), away))
		return "entry-1", os.Mkdir(w.books(), 0o700)
	}
	if _, err := w.ask("one"); !errors.Is(err, store.ErrBroken) {
		t.Fatalf("the test did not break the store: %v", err)
	} else {
		stillUnknown(t, err)
	}
	_, err := w.ask("one")
	stillUnknown(t, err)
	renew := RenewRequest{Serial: first.Serial, May: func(store.Certificate) (string, int, error) { return "test", 0, nil }}
	_, err = w.authority.Renew(t.Context(), call("renew", "Bob"), renew)
	stillUnknown(t, err)
	_, err = w.authority.Revoke(t.Context(), call("revoke", "Bob"), RevokeRequest{Serial: first.Serial, Reason: cert.Superseded, May: anyone})
	stillUnknown(t, err)

	w.must(errors.Join(locked.Rollback(), other.Close(), os.Remove(w.books()), os.Rename(away, w.books())))
	w.directory.find = func(context.Context, name.Name) (string, error) { return "entry-1", nil }
	w.disconnect()
	w.reopenStore()
	w.connect()
	issued, err := w.ask("one")
	w.must(err)
	w.unpack(issued)
	if n := w.room.Hello().State.Certificates; n != 2 {
		t.Errorf("the key room signed %d certificates", n)
	}
}

// The caller's patience ends after the intent: the certificate is finished all the same.
func TestCallerLeavesAfterIntent(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.wire.on(signer.SignCert, func() action { cancel(); return pass })
	from := w.head()
	first, err := w.authority.Issue(ctx, call("one", "Alice"), w.request(cert.User, "Alice"))
	w.must(err)
	if got := w.types(from); got != "issue.intent issue.done issue.answering" {
		t.Errorf("the log says %s", got)
	}
	from = w.head()
	if _, err := w.authority.Issue(ctx, call("two", "Bob"), w.request(cert.User, "Bob")); !errors.Is(err, context.Canceled) || w.head() != from {
		t.Errorf("%v, and the log says %s", err, w.types(from))
	}
	again, err := w.ask("one")
	w.must(err)
	w.same(first, again)
}

// While a request is under way, Recover leaves it alone and a retry waits for it.
func TestUnderWay(t *testing.T) {
	w := newWorld(t)
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.wire.on(signer.SignCert, func() action {
		once.Do(func() { close(held); <-release })
		return pass
	})
	var first, second *Issued
	var all sync.WaitGroup
	all.Go(func() {
		var err error
		if first, err = w.ask("one"); err != nil {
			t.Error(err)
		}
	})
	<-held
	if n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("recovered %d: %v", n, err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := w.authority.Issue(impatient, call("one", "Alice"), w.request(cert.User, "Alice"))
	stillUnknown(t, err)
	all.Go(func() {
		var err error
		if second, err = w.ask("one"); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	close(release)
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	w.same(first, second)
}

// A retry that comes while the first call waits for the directory gets the same answer after it.
func TestRetryWhilePublicationIsPending(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	answers := make([]*Issued, 2)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = w.ask("one"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	w.same(answers[0], answers[1])
	if answers[0].Directory.State != "pending" || w.room.Hello().State.Certificates != 1 {
		t.Errorf("%+v", answers[0].Directory)
	}
}

func TestRecoverTwiceAtOnce(t *testing.T) {
	w := newWorld(t)
	for i, a := range []action{cutBefore, cutAfter, cutBefore, cutAfter} {
		w.wire.once(signer.SignCert, a)
		_, err := w.ask(string(rune('a' + i)))
		stillUnknown(t, err)
	}
	var mu sync.Mutex
	settled := 0
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour))
			mu.Lock()
			defer mu.Unlock()
			settled += n
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if settled != 4 || w.count(store.StateLive) != 2 || w.count(store.StateAbandoned) != 2 || w.count(store.StateOpen) != 0 {
		t.Errorf("settled %d, %d live, %d abandoned", settled, w.count(store.StateLive), w.count(store.StateAbandoned))
	}
}

// Recover runs all the time while calls are made whose replies get lost.
func TestRecoverAgainstRetries(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	n := 0
	w.wire.on(signer.SignCert, func() action {
		mu.Lock()
		defer mu.Unlock()
		n++
		return []action{pass, cutAfter, cutBefore}[n%3]
	})
	stop := make(chan struct{})
	var recovering, calling sync.WaitGroup
	for range 2 {
		recovering.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); err != nil && !errors.Is(err, signer.ErrUnknown) {
						t.Error(err)
					}
				}
			}
		})
	}
	serials := make([]map[cert.Serial]bool, 6)
	for i := range serials {
		serials[i] = make(map[cert.Serial]bool)
		calling.Go(func() {
			id := string(rune('a' + i))
			for got := 0; got < 2; {
				issued, err := w.ask(id)
				if err == nil {
					serials[i][issued.Serial] = true
					got++
				} else if !errors.Is(err, signer.ErrUnknown) {
					t.Error(err)
					return
				}
			}
		})
	}
	calling.Wait()
	close(stop)
	recovering.Wait()
	for i, s := range serials {
		if len(s) != 1 {
			t.Errorf("request %d got %d certificates", i, len(s))
		}
	}
	if live := w.count(store.StateLive); live != len(serials) {
		t.Errorf("%d certificates for %d requests", live, len(serials))
	}
}

// The directory changes its mind between a call and its retry: what was done is not refused.
func TestRetryIsNotJudgedAgain(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	first, err := w.ask("one")
	w.must(err)
	w.directory.find = func(context.Context, name.Name) (string, error) { return "", ErrNoEntry }
	again, err := w.ask("one")
	w.must(err)
	w.same(first, again)
}

// TestRevokedBeforeSigned: who has been told that a certificate is revoked as soon as it is issued does not see another
// one come of the same request, however its intent ended and however often it is asked again.
func TestRevokedBeforeSigned(t *testing.T) {
	for how, settle := range map[string]func(w *world){
		"retried":   func(*world) {},
		"recovered": func(w *world) { _, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); w.must(err) },
	} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			w.wire.once(signer.SignCert, cutBefore)
			_, err := w.ask("one")
			stillUnknown(t, err)
			_, err = w.revokeBy("two", RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.CessationOfOperation})
			w.must(err)
			settle(w)
			for range 2 {
				_, err = w.ask("one")
				if code := refusalOf(t, err).Code; code != "certificate.revoked" {
					t.Errorf("refused with %s", code)
				}
			}
			if n := w.count(store.StateLive) + w.count(store.StateOpen); n != 0 {
				t.Errorf("%d certificates after all were revoked", n)
			}
			if _, err := w.ask("three"); err != nil {
				t.Error(err)
			}
		})
	}
}
