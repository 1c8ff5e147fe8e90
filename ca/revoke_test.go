package ca

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

func anyone(store.Certificate, int) (string, error) { return "rule", nil }

// revokeBy revokes as the caller under an id, without waiting for a list that nobody publishes here.
func (w *world) revokeBy(id string, r RevokeRequest) (*Revoked, error) {
	w.Helper()
	if r.May == nil {
		r.May = anyone
	}
	ctx, stop := context.WithCancel(context.Background())
	paid := make(chan struct{})
	go func() { defer close(paid); w.payLists(ctx) }()
	defer func() { stop(); <-paid }()
	return w.authority.Revoke(context.Background(), call(id, fmt.Sprint(r.Serial, r.Names, r.Reason)), r)
}

// payLists pays what is owed to git, but brings nothing there.
func (w *world) payLists(ctx context.Context) {
	for ctx.Err() == nil {
		debts, err := w.store.Lease(ctx, store.CRL, 10, w.clock.now().Add(time.Minute))
		for _, d := range debts {
			_, err = w.store.Update(context.Background(), audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
				return &audit.CRLPublished{Commit: "c"}, tx.Paid(d)
			})
		}
		if err != nil && ctx.Err() == nil {
			w.Error(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// listed has the key room sign the next list of the users' issuer and gives its entries.
func (w *world) listed(number string) map[cert.Serial]list.Entry {
	w.Helper()
	entry, err := w.store.Update(context.Background(), audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
		now := tx.Now().Truncate(time.Second)
		return &audit.CRLIntent{Room: w.config.Room, Issuer: "users", Number: number, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, nil
	})
	w.must(err)
	der, _, err := w.signer.SignCRL(context.Background(), entry)
	w.must(err)
	l, err := list.Parse(der)
	w.must(err)
	entries := make(map[cert.Serial]list.Entry)
	for _, e := range l.Entries {
		entries[e.Serial] = e
	}
	return entries
}

// publishedList puts list 1 of an issuer into the books, published.
func (w *world) publishedList(issuer cert.Issuer) {
	w.Helper()
	_, err := w.store.Update(context.Background(), audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
		err := tx.PutList(store.List{Issuer: issuer, Number: "1", Signed: tx.Index()})
		return &audit.CRLPublished{Commit: "c"}, errors.Join(err, tx.ListPublished(issuer, "1", "c", tx.Now()))
	})
	w.must(err)
}

func names(w *world, cn string, purposes ...cert.Purpose) map[cert.Purpose]name.Name {
	m := make(map[cert.Purpose]name.Name)
	for _, p := range purposes {
		n, err := name.Canonical(p, cn)
		w.must(err)
		m[p] = n
	}
	return m
}

func TestRevokeBySerial(t *testing.T) {
	w := newWorld(t)
	issued, other := w.issue("one", "Alice"), w.issue("two", "Bob")
	w.publishedList("users")
	from := w.head()
	r := RevokeRequest{Serial: issued.Serial, Reason: cert.Superseded}
	answer, err := w.revokeBy("r", r)
	w.must(err)
	if answer.RequestID != "r" || answer.LogIndex != from || len(answer.Revoked) != 1 ||
		answer.Revoked[0] != (RevokedCertificate{Serial: issued.Serial, CN: "Alice", Purpose: cert.User}) {
		t.Errorf("%+v", answer)
	}
	// The debt is paid, so the list that is published counts as the one that holds it.
	if len(answer.Lists) != 1 || answer.Lists[0] != (ListState{"users", "1", "published", "c"}) {
		t.Errorf("%+v", answer.Lists)
	}
	done := w.events(from)[0].(*audit.RevokeDone)
	if done.Rule != "rule" || len(done.Revoked) != 1 || done.Revoked[0].Serial != issued.Serial || done.Revoked[0].At.Nanosecond() != 0 {
		t.Errorf("the log says %+v", done)
	}
	again, err := w.revokeBy("r", r)
	w.must(err)
	if again.LogIndex != answer.LogIndex || !slices.Equal(again.Revoked, answer.Revoked) {
		t.Errorf("%+v, then %+v", answer, again)
	}
	plan := call("r", fmt.Sprint(r.Serial, r.Names, r.Reason))
	plan.Plan, r.May = true, anyone
	if told, err := w.authority.Revoke(t.Context(), plan, r); err != nil || told.LogIndex != answer.LogIndex || !slices.Equal(told.Lists, answer.Lists) {
		t.Errorf("a plan of what is done: %+v, %v", told, err)
	}
	if n := strings.Count(w.types(from), "revoke.done"); n != 1 {
		t.Errorf("revoked %d times", n)
	}
	for reason, want := range map[cert.Reason]string{cert.Superseded: "already.revoked", cert.CessationOfOperation: "already.revoked"} {
		_, err = w.revokeBy("again "+reason.String(), RevokeRequest{Serial: issued.Serial, Reason: reason})
		if got := refusalOf(t, err).Code; got != want {
			t.Errorf("refused with %s, want %s", got, want)
		}
	}
	w.clock.step(time.Hour)
	if _, err = w.revokeBy("worse", RevokeRequest{Serial: issued.Serial, Reason: cert.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	c := w.certificate(issued.Serial)
	entries := w.listed("1")
	if e := entries[issued.Serial]; len(entries) != 1 || e.Reason != cert.KeyCompromise || !e.RevokedAt.Equal(done.Revoked[0].At) || !c.RevokedAt.Equal(e.RevokedAt) {
		t.Errorf("the list says %+v, the books %+v", entries, c)
	}
	if c := w.certificate(other.Serial); c.State != store.StateLive {
		t.Errorf("the other one is %s", c.State)
	}
	status, err := w.authority.Status(t.Context(), StatusRequest{Serial: issued.Serial})
	w.must(err)
	if len(status) != 1 || status[0].State != "revoked" || status[0].List == nil || status[0].Directory.State != "none" {
		t.Errorf("status: %+v", status)
	}
}

func TestRevokeUnknownAndExpired(t *testing.T) {
	w := newWorld(t)
	live, revoked := w.issue("one", "Alice"), w.issue("two", "Bob")
	_, err := w.revokeBy("r", RevokeRequest{Serial: revoked.Serial})
	w.must(err)
	w.wire.once(signer.SignCert, cutBefore)
	_, err = w.ask("gone")
	stillUnknown(t, err)
	gone, err := w.store.Find(t.Context(), store.Query{States: []store.State{store.StateOpen}})
	w.must(err)
	_, err = w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour))
	w.must(err)
	w.clock.step(400 * 24 * time.Hour)
	from := w.head()
	for what, c := range map[string]struct {
		r    RevokeRequest
		want string
	}{
		"unknown serial":   {RevokeRequest{Serial: "7f00"}, "certificate.unknown"},
		"abandoned serial": {RevokeRequest{Serial: gone[0].Serial}, "certificate.unknown"},
		"unknown name":     {RevokeRequest{Names: names(w, "Carol", cert.User)}, "certificate.unknown"},
		"expired":          {RevokeRequest{Serial: live.Serial}, "certificate.expired"},
		"expired and revoked, for a worse reason": {RevokeRequest{Serial: revoked.Serial, Reason: cert.KeyCompromise}, "already.revoked"},
	} {
		if _, err := w.revokeBy(what, c.r); refusalOf(t, err).Code != c.want {
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
	}
	if w.head() != from {
		t.Errorf("refusals did %s", w.types(from))
	}
}

// By name: over purposes, at most max, all or none.
func TestRevokeByName(t *testing.T) {
	w := newWorld(t)
	const cn = "robot"
	var serials []cert.Serial
	for i := range 3 {
		serials = append(serials, w.issue(fmt.Sprint("user", i), cn).Serial)
	}
	issued, err := w.authority.Issue(t.Context(), call("caller", "x"), w.request(cert.Caller, cn))
	w.must(err)
	serials = append(serials, issued.Serial)
	bystander := w.issue("other", "Alice")
	both := names(w, cn, cert.User, cert.Caller)
	from := w.head()

	_, err = w.revokeBy("few", RevokeRequest{Names: both, Max: 3})
	if r := refusalOf(t, err); r.Code != "revoke.too_many" {
		t.Error(r)
	}
	no := errors.New("no grant")
	_, err = w.revokeBy("some", RevokeRequest{Names: both, May: func(c store.Certificate, _ int) (string, error) {
		if c.Serial == serials[2] {
			return "", no
		}
		return "rule", nil
	}})
	if !errors.Is(err, no) {
		t.Errorf("%v; want the refusal of the one", err)
	}
	plan := call("plan", "x")
	plan.Plan = true
	planned, err := w.authority.Revoke(t.Context(), plan, RevokeRequest{Names: both, May: anyone})
	w.must(err)
	if len(planned.Revoked) != 4 || len(planned.Lists) != 2 || planned.Lists[0].State != "pending" {
		t.Errorf("the plan says %+v", planned)
	}
	if w.head() != from || w.count(store.StateRevoked) != 0 {
		t.Fatalf("refusals and plans did %s", w.types(from))
	}
	if debts, err := w.store.Debts(t.Context()); len(debts) != 0 || err != nil {
		t.Errorf("refusals and plans owe %v: %v", debts, err)
	}

	answer, err := w.revokeBy("all", RevokeRequest{Names: both})
	w.must(err)
	var hit []cert.Serial
	for _, c := range answer.Revoked {
		hit = append(hit, c.Serial)
	}
	if !slices.Equal(hit, serials) || len(answer.Lists) != 2 || w.certificate(bystander.Serial).State != store.StateLive {
		t.Errorf("hit %v, want %v; lists %+v", hit, serials, answer.Lists)
	}
	_, err = w.revokeBy("once more", RevokeRequest{Names: both})
	if r := refusalOf(t, err); r.Code != "already.revoked" {
		t.Error(r)
	}
}

func TestRevokeTooManyByDefault(t *testing.T) {
	w := newWorld(t)
	for i := range defaultRevoke + 1 {
		w.issue(fmt.Sprint(i), "Alice")
	}
	r := RevokeRequest{Names: names(w, "Alice", cert.User)}
	if _, err := w.revokeBy("many", r); refusalOf(t, err).Code != "revoke.too_many" {
		t.Error(err)
	}
	r.Max = defaultRevoke + 1
	if answer, err := w.revokeBy("max", r); err != nil || len(answer.Revoked) != r.Max {
		t.Errorf("%+v, %v", answer, err)
	}
}

// A certificate that is revoked while it is being issued is never live.
func TestRevokeOpenIntent(t *testing.T) {
	w := newWorld(t)
	w.publishedList("users")
	held, release := make(chan struct{}), make(chan struct{})
	w.wire.on(signer.SignCert, func() action { close(held); <-release; return pass })
	var issued *Issued
	var all sync.WaitGroup
	from := w.head()
	all.Go(func() {
		var err error
		if issued, err = w.ask("one"); err != nil {
			t.Error(err)
		}
	})
	<-held
	r := RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.AffiliationChanged}
	answer, err := w.revokeBy("r", r)
	w.must(err)
	if len(answer.Revoked) != 1 || !answer.Revoked[0].Pending || len(answer.Lists) != 1 || answer.Lists[0].State != "pending" || answer.Lists[0].Number != "2" {
		t.Errorf("%+v", answer)
	}
	if _, err := w.revokeBy("s", r); refusalOf(t, err).Code != "already.revoked" {
		t.Error(err)
	}
	close(release)
	all.Wait()
	if got := w.types(from); got != "issue.intent revoke.done issue.done issue.answering" { // no list is owed in between
		t.Errorf("the log says %s", got)
	}
	events := w.events(from)
	revoke, done, answering := events[1].(*audit.RevokeDone), events[2].(*audit.IssueDone), events[3].(*audit.IssueAnswering)
	if len(revoke.Revoked) != 0 || !slices.Equal(revoke.Pending, []cert.Serial{issued.Serial}) ||
		done.Revocation == nil || done.Revocation.Reason != cert.AffiliationChanged || answering.Published {
		t.Errorf("the log says %+v, %+v", revoke, done)
	}
	if _, owed, err := w.store.Owed(t.Context(), store.CRL, "users"); !owed || err != nil {
		t.Errorf("no list is owed: %v", err)
	}
	if e, ok := w.listed("1")[issued.Serial]; !ok || e.Reason != cert.AffiliationChanged || !e.RevokedAt.Equal(w.certificate(issued.Serial).RevokedAt) {
		t.Errorf("the list says %+v", e)
	}
	again, err := w.revokeBy("r", r)
	w.must(err)
	if len(again.Revoked) != 1 || again.Revoked[0].Serial != issued.Serial || again.Revoked[0].Pending {
		t.Errorf("%+v", again)
	}
}

// TestRetryOfARevokeTellsWhatBecame: of what was still being issued, and of what has ended since.
func TestRetryOfARevokeTellsWhatBecame(t *testing.T) {
	w := newWorld(t)
	bob := w.issue("bob", "Bob")
	_, err := w.revokeBy("end", RevokeRequest{Serial: bob.Serial, Reason: cert.Superseded})
	w.must(err)
	w.wire.once(signer.SignCert, cutBefore)
	_, err = w.ask("one")
	stillUnknown(t, err)
	hold := RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.CertificateHold}
	again := func(id string, r RevokeRequest, want *Became) {
		t.Helper()
		from := w.head()
		answer, err := w.revokeBy(id, r)
		w.must(err)
		if got := answer.Revoked[0].Became; len(answer.Revoked) != 1 || (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%+v, became %+v, want %+v", answer.Revoked, got, want)
		}
		if w.head() != from {
			t.Errorf("a retry does %s", w.types(from))
		}
	}
	_, err = w.revokeBy("hold", hold)
	w.must(err)
	again("hold", hold, nil)
	_, err = w.revokeBy("revoke", RevokeRequest{Names: hold.Names, Reason: cert.KeyCompromise})
	w.must(err)
	again("hold", hold, &Became{State: "open", Reason: cert.KeyCompromise})
	if n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); n != 1 || err != nil {
		t.Fatalf("recovered %d: %v", n, err)
	}
	again("hold", hold, &Became{State: "abandoned"})
	again("revoke", RevokeRequest{Names: hold.Names, Reason: cert.KeyCompromise}, &Became{State: "abandoned"})
	again("end", RevokeRequest{Serial: bob.Serial, Reason: cert.Superseded}, nil)
	w.clock.step(bob.NotAfter.Sub(w.store.Now()) + time.Second)
	again("end", RevokeRequest{Serial: bob.Serial, Reason: cert.Superseded}, &Became{State: "expired"})
}

// The revocation of an intent that was signed without anybody hearing of it holds, through a crash.
func TestRevokeLostReply(t *testing.T) {
	w := newWorld(t)
	w.wire.once(signer.SignCert, cutAfter)
	_, err := w.ask("one")
	stillUnknown(t, err)
	_, err = w.revokeBy("r", RevokeRequest{Names: names(w, "Alice", cert.User)})
	w.must(err)
	_, err = w.revokeBy("worse", RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.KeyCompromise})
	w.must(err)
	w.restart()
	if n, err := w.authority.Recover(t.Context(), w.clock.now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("recovered %d: %v", n, err)
	}
	if entries := slices.Collect(maps.Values(w.listed("1"))); len(entries) != 1 || entries[0].Reason != cert.KeyCompromise {
		t.Errorf("the list says %+v", entries)
	}
}

// The answer waits for the list, not for ever, and says truly where it is.
func TestRevokeWaitsForTheList(t *testing.T) {
	w := newWorld(t)
	issued := w.issue("one", "Alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.authority.Revoke(ctx, call("none", "x"), RevokeRequest{Serial: issued.Serial, May: anyone}); !errors.Is(err, context.Canceled) || w.certificate(issued.Serial).State != store.StateLive {
		t.Errorf("a caller who has left: %v", err)
	}
	start := time.Now()
	answer, err := w.authority.Revoke(t.Context(), call("r", "x"), RevokeRequest{Serial: issued.Serial, May: anyone})
	w.must(err)
	if took := time.Since(start); took < revokeWait-time.Second || took > revokeWait+3*time.Second {
		t.Errorf("answered after %s", took)
	}
	if len(answer.Lists) != 1 || answer.Lists[0].State != "pending" || answer.Lists[0].Issuer != "users" {
		t.Errorf("%+v", answer.Lists)
	}
}

// The store ends when the revocation is durable: it must not be told as not done.
func TestRevokeStoreGone(t *testing.T) {
	w := newWorld(t)
	issued := w.issue("one", "Alice")
	go func() {
		for w.count(store.StateRevoked) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		w.closeStore()
	}()
	answer, err := w.authority.Revoke(t.Context(), call("r", "x"), RevokeRequest{Serial: issued.Serial, May: anyone})
	if err != nil { // a store that is closing may still be read
		stillUnknown(t, err)
	} else if answer.Lists[0].State != "pending" {
		t.Errorf("%+v", answer)
	}
	w.restart()
	if c := w.certificate(issued.Serial); c.State != store.StateRevoked {
		t.Errorf("it is %s", c.State)
	}
}

// A name that is revoked and one that goes on: the directory is owed, and the answers are true.
func TestRevokePublished(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	var paying sync.WaitGroup
	paying.Go(w.payDirectory)
	issued := w.issue("one", "Alice")
	paying.Wait()
	_, err := w.revokeBy("r", RevokeRequest{Serial: issued.Serial})
	w.must(err)
	state := func() string {
		status, err := w.authority.Status(t.Context(), StatusRequest{Names: names(w, "Alice", cert.User)})
		w.must(err)
		return status[0].Directory.State
	}
	if got := state(); got != "pending" {
		t.Errorf("the directory is said to be %s", got)
	}
	w.payDirectory()
	if got := state(); got != "removed" {
		t.Errorf("the directory is said to be %s", got)
	}
	from := w.head()
	w.issue("one", "Alice") // again
	events := w.events(from)
	if a, ok := events[len(events)-1].(*audit.IssueAnswering); !ok || a.Published {
		t.Errorf("the log says that the directory shows a revoked certificate: %+v", a)
	}
}

// TestAnswerOvertaken: a revocation that was answered while an issue waits for the directory is in the answer to that.
func TestAnswerOvertaken(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	revoked := make(chan error)
	go func() {
		for w.count(store.StateLive) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		_, err := w.revokeBy("two", RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.KeyCompromise})
		revoked <- err
	}()
	issued := w.issue("one", "Alice")
	w.must(<-revoked)
	if issued.RevokedAt.IsZero() {
		t.Errorf("%+v", issued)
	}
}
