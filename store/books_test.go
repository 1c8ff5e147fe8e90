package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

func TestBooksKeepWhatTheIntentSaid(t *testing.T) {
	s, clock := newStore(t)
	want := certificate(1)
	entry := mustUpdate(t, s, reserve(want))
	want.State, want.Intent, want.Done = StateOpen, entry.Index, -1
	if diff := cmp.Diff(want, one(t, s, Query{Serial: want.Serial})); diff != "" {
		t.Fatal(diff)
	}
	clock.advance(time.Second)
	done := mustUpdate(t, s, complete(want.Serial))
	want.State, want.Done, want.DER = StateLive, done.Index, []byte("der of "+want.Serial)
	if diff := cmp.Diff(want, one(t, s, Query{Key: want.Key, Purpose: want.Purpose})); diff != "" {
		t.Fatal(diff)
	}
	mustUpdate(t, s, revoke(want.Serial, epoch.Add(1500*time.Millisecond), cert.Superseded))
	want.State, want.RevokedAt, want.Reason = StateRevoked, epoch.Add(time.Second), cert.Superseded
	if diff := cmp.Diff(want, one(t, s, Query{RequestID: want.RequestID, Caller: want.Caller})); diff != "" {
		t.Fatal(diff)
	}
	verify(t, s)
	if got := dump(t, s.path).States[string(want.Serial)]; got != "revoked" {
		t.Fatalf("python3 reads the state %q", got)
	}
	leaf, err := audit.Decode(entry.Leaf)
	if err != nil || !leaf.Time.Equal(epoch) || leaf.Actor != who {
		t.Fatalf("the leaf reads %+v: %v", leaf, err)
	}
}

// TestStateOf: a state is that of the very certificate, not of another under its serial number.
func TestStateOf(t *testing.T) {
	s, _ := newStore(t)
	c := certificate(1)
	der := []byte("der of " + c.Serial)
	state := func(p cert.Purpose, serial cert.Serial, der []byte) State {
		t.Helper()
		got, err := s.StateOf(t.Context(), p, serial, der)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	mustUpdate(t, s, reserve(c))
	if got := state(c.Purpose, c.Serial, nil); got != "" {
		t.Errorf("an open intent is a certificate: %s", got)
	}
	mustUpdate(t, s, complete(c.Serial))
	if got := state(c.Purpose, c.Serial, der); got != StateLive {
		t.Errorf("it is %q", got)
	}
	for _, got := range []State{
		state(cert.Caller, c.Serial, der), state(c.Purpose, certificate(2).Serial, der), state(c.Purpose, c.Serial, der[1:]), state(c.Purpose, c.Serial, nil),
	} {
		if got != "" {
			t.Errorf("another is %s", got)
		}
	}
	mustUpdate(t, s, revoke(c.Serial, epoch.Add(time.Second), cert.Superseded))
	if got := state(c.Purpose, c.Serial, der); got != StateRevoked {
		t.Errorf("it is %q", got)
	}
}

func TestReserveSpendsSerialAndRequestOnce(t *testing.T) {
	s, _ := newStore(t)
	first := certificate(1)
	mustUpdate(t, s, reserve(first))
	size, _ := s.Head()

	sameSerial := certificate(2)
	sameSerial.Serial = first.Serial
	sameRequest := certificate(3)
	sameRequest.RequestID = first.RequestID
	noRequest := certificate(4)
	noRequest.RequestID = ""
	for _, c := range []struct {
		name string
		Certificate
		want error
	}{{"serial", sameSerial, ErrSerialTaken}, {"request", sameRequest, ErrRequestBound}, {"no request", noRequest, nil}} {
		_, err := s.Update(context.Background(), who, reserve(c.Certificate))
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if now, _ := s.Head(); now != size {
		t.Fatalf("refused changes left %d leaves", now-size)
	}
	r, found, err := s.Request(context.Background(), first.Caller, first.RequestID)
	want := Request{first.Caller, first.RequestID, IssueMethod, first.BodySHA256, first.Serial, size - 1}
	if err != nil || !found || r != want {
		t.Fatalf("the request reads %+v, %v, %v", r, found, err)
	}
	// Another caller's id is another id.
	other := certificate(5)
	other.RequestID, other.Caller = first.RequestID, "another"
	mustUpdate(t, s, reserve(other))
	verify(t, s)
}

func TestBindRequest(t *testing.T) {
	s, _ := newStore(t)
	bind := func(tx *Tx) (audit.Event, error) {
		if _, found, err := tx.Request("provisioning", "r1"); found || err != nil {
			return nil, fmt.Errorf("found %v, %v", found, err)
		}
		r := Request{Caller: "provisioning", ID: "r1", Method: "ca.revoke", BodySHA256: "b", Index: tx.Index()}
		if err := tx.BindRequest(r); err != nil {
			return nil, err
		}
		if got, found, err := tx.Request("provisioning", "r1"); !found || got != r || err != nil {
			return nil, fmt.Errorf("its own binding reads %+v, %v", got, err)
		}
		return &audit.RevokeDone{}, tx.BindRequest(Request{Caller: "provisioning", ID: "r2"})
	}
	mustUpdate(t, s, bind)
	again := func(tx *Tx) (audit.Event, error) {
		return &audit.RevokeDone{}, tx.BindRequest(Request{Caller: "provisioning", ID: "r1", Method: "ca.revoke"})
	}
	if _, err := s.Update(context.Background(), who, again); !errors.Is(err, ErrRequestBound) {
		t.Fatal(err)
	}
	if _, found, err := s.Request(context.Background(), "provisioning", "r3"); found || err != nil {
		t.Fatal(found, err)
	}
}

func TestRevokingAnOpenIntentRevokesItAsItCompletes(t *testing.T) {
	s, clock := newStore(t)
	c := certificate(1)
	mustUpdate(t, s, reserve(c))
	mustUpdate(t, s, revoke(c.Serial, epoch.Add(time.Second), cert.Superseded))
	got := one(t, s, Query{Serial: c.Serial})
	if got.State != StateOpen || !got.RevokeAsked || got.Reason != cert.Superseded || !got.RevokedAt.Equal(epoch.Add(time.Second)) {
		t.Fatalf("%+v", got)
	}
	if _, err := s.Update(context.Background(), who, revoke(c.Serial, epoch, cert.Superseded)); !errors.Is(err, ErrAlreadyRevoked) {
		t.Fatal(err)
	}
	mustUpdate(t, s, revoke(c.Serial, epoch, cert.KeyCompromise))
	clock.advance(time.Minute + 400*time.Millisecond)
	var completed Certificate
	var revocation *audit.Revocation
	mustUpdate(t, s, func(tx *Tx) (event audit.Event, err error) {
		completed, revocation, err = tx.Complete(c.Serial, []byte("der"))
		return &audit.IssueDone{Serial: c.Serial, Revocation: revocation}, err
	})
	want := &audit.Revocation{Serial: c.Serial, Issuer: c.Issuer, At: epoch.Add(time.Minute), Reason: cert.KeyCompromise}
	if diff := cmp.Diff(want, revocation); diff != "" {
		t.Fatal(diff)
	}
	got = one(t, s, Query{Serial: c.Serial})
	if diff := cmp.Diff(got, completed); diff != "" {
		t.Error(diff)
	}
	if got.State != StateRevoked || got.RevokeAsked || got.Reason != cert.KeyCompromise || !got.RevokedAt.Equal(want.At) {
		t.Fatalf("%+v", got)
	}
	if live, err := s.Live(context.Background(), Query{}); err != nil || len(live) != 0 {
		t.Fatal(live, err)
	}
	verify(t, s)
}

func TestReasonsChangeOnlyWhereTheyMay(t *testing.T) {
	s, _ := newStore(t)
	for i, c := range []struct {
		first, then cert.Reason
		want        error
	}{
		{cert.Superseded, cert.Superseded, ErrAlreadyRevoked},
		{cert.Superseded, cert.CessationOfOperation, ErrAlreadyRevoked},
		{cert.Superseded, cert.KeyCompromise, nil},
		{cert.KeyCompromise, cert.Superseded, ErrAlreadyRevoked},
		{cert.CertificateHold, cert.Superseded, nil},
		{cert.CertificateHold, cert.CertificateHold, ErrAlreadyRevoked},
	} {
		issued := certificate(i)
		mustUpdate(t, s, reserve(issued))
		mustUpdate(t, s, complete(issued.Serial))
		mustUpdate(t, s, revoke(issued.Serial, epoch, c.first))
		_, err := s.Update(context.Background(), who, revoke(issued.Serial, epoch.Add(time.Hour), c.then))
		if !errors.Is(err, c.want) {
			t.Errorf("%s then %s: %v, want %v", c.first, c.then, err, c.want)
		}
		want := c.first
		if c.want == nil {
			want = c.then
		}
		if got := one(t, s, Query{Serial: issued.Serial}); got.Reason != want || !got.RevokedAt.Equal(epoch) {
			t.Errorf("%s then %s: the books say %s at %s", c.first, c.then, got.Reason, got.RevokedAt)
		}
	}
	for _, change := range []func(*Tx) (audit.Event, error){
		revoke(certificate(0).Serial, epoch, 7), revoke(certificate(0).Serial, time.Time{}, cert.Superseded),
		revoke("", epoch, cert.Superseded), revoke("7f", epoch, cert.Superseded),
	} {
		if _, err := s.Update(context.Background(), who, change); err == nil {
			t.Error("a revocation that is none was entered")
		}
	}
	verify(t, s)
}

func TestAbandonFreesTheRequest(t *testing.T) {
	s, _ := newStore(t)
	c := certificate(1)
	mustUpdate(t, s, reserve(c))
	mustUpdate(t, s, revoke(c.Serial, epoch, cert.Superseded))
	abandon := func(tx *Tx) (audit.Event, error) {
		return &audit.IssueAbandoned{Serial: c.Serial}, tx.Abandon(c.Serial)
	}
	mustUpdate(t, s, abandon)
	got := one(t, s, Query{Serial: c.Serial})
	if got.State != StateAbandoned || got.Sealed != nil || got.RevokeAsked || got.Done < 0 {
		t.Fatalf("%+v", got)
	}
	for name, change := range map[string]func(*Tx) (audit.Event, error){"abandon": abandon, "complete": complete(c.Serial)} {
		if _, err := s.Update(context.Background(), who, change); !errors.Is(err, ErrNotOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Update(context.Background(), who, revoke(c.Serial, epoch, cert.Superseded)); !errors.Is(err, ErrAbandoned) {
		t.Fatal(err)
	}
	if _, err := s.Update(context.Background(), who, complete("7f")); !errors.Is(err, ErrUnknownSerial) {
		t.Fatal(err)
	}
	// That it was to be revoked is not forgotten: only where it was not, another certificate can come of the request.
	retry := certificate(2)
	retry.RequestID = c.RequestID
	if _, err := s.Update(context.Background(), who, reserve(retry)); !errors.Is(err, ErrRequestBound) {
		t.Errorf("another certificate for a request of which all was revoked: %v", err)
	}
	c = certificate(3)
	mustUpdate(t, s, reserve(c))
	mustUpdate(t, s, abandon)
	retry.RequestID = c.RequestID
	mustUpdate(t, s, reserve(retry))
	verify(t, s)
}

func TestFind(t *testing.T) {
	s, clock := newStore(t)
	ctx := context.Background()
	var all []cert.Serial
	for n := range 10 {
		c := certificate(n)
		if n%2 == 1 {
			c.Purpose, c.Issuer = cert.Server, "servers"
		}
		if n == 4 {
			c.NotAfter = epoch.Add(time.Hour)
		}
		all = append(all, c.Serial)
		mustUpdate(t, s, reserve(c))
		if n > 2 {
			mustUpdate(t, s, complete(c.Serial))
		}
	}
	mustUpdate(t, s, revoke(all[9], epoch, cert.Superseded))
	pick := func(ns ...int) (serials []cert.Serial) {
		for _, n := range ns {
			serials = append(serials, all[n])
		}
		return serials
	}
	for _, c := range []struct {
		q    Query
		want []cert.Serial
	}{
		{Query{}, all},
		{Query{Purpose: cert.Server}, pick(1, 3, 5, 7, 9)},
		{Query{Issuer: "users", States: []State{StateOpen}}, pick(0, 2)},
		{Query{States: []State{StateOpen, StateRevoked}}, pick(0, 1, 2, 9)},
		{Query{Limit: 3, After: all[4]}, pick(5, 6, 7)},
		{Query{Caller: "nobody"}, nil},
		{Query{After: "7f"}, nil},
		{Query{Key: "' OR 1=1 --"}, nil},
	} {
		found, err := s.Find(ctx, c.q)
		if diff := cmp.Diff(c.want, serials(found)); err != nil || diff != "" {
			t.Errorf("%+v: %v %s", c.q, err, diff)
		}
	}
	clock.advance(time.Hour)
	live, err := s.Live(ctx, Query{Purpose: cert.User})
	if diff := cmp.Diff(pick(4, 6, 8), serials(live)); err != nil || diff != "" {
		t.Errorf("live in its last instant: %v %s", err, diff)
	}
	clock.advance(time.Microsecond)
	live, err = s.Live(ctx, Query{Purpose: cert.User})
	if diff := cmp.Diff(pick(6, 8), serials(live)); err != nil || diff != "" {
		t.Errorf("live after it: %v %s", err, diff)
	}
	counts, err := s.Counts(ctx)
	want := map[State]int64{StateOpen: 3, StateLive: 6, StateRevoked: 1}
	if diff := cmp.Diff(want, counts.Certificates); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func serials(found []Certificate) (s []cert.Serial) {
	for _, c := range found {
		s = append(s, c.Serial)
	}
	return s
}

func TestListNumbersRise(t *testing.T) {
	s, _ := newStore(t)
	ctx := context.Background()
	put := func(number string) error {
		_, err := s.Update(ctx, who, func(tx *Tx) (audit.Event, error) {
			return &audit.CRLSigned{Issuer: "users", Number: number}, tx.PutList(List{
				Issuer: "users", Number: number, ThisUpdate: epoch, NextUpdate: epoch.Add(time.Hour), Entries: 2,
				DER: []byte("list"), SHA256: "s", Signed: tx.Index(),
			})
		})
		return err
	}
	published := func(number string) error {
		_, err := s.Update(ctx, who, func(tx *Tx) (audit.Event, error) {
			return &audit.CRLPublished{Commit: "c0ffee"}, tx.ListPublished("users", number, "c0ffee", tx.Now())
		})
		return err
	}
	if _, found, err := s.List(ctx, "users"); found || err != nil {
		t.Fatal(found, err)
	}
	for _, c := range []struct {
		number string
		ok     bool
	}{{"9", true}, {"9", false}, {"10", true}, {"9", false}, {"11 ", false}, {"-12", false}, {"012", false}, {"", false},
		{"99999999999999999999999999", true}, {"99999999999999999999999998", false}} {
		if err := put(c.number); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrListNumber) {
			t.Errorf("list %q: %v", c.number, err)
		}
	}
	if err := published("10"); !errors.Is(err, ErrListNumber) {
		t.Fatal(err)
	}
	if err := published("99999999999999999999999999"); err != nil {
		t.Fatal(err)
	}
	got, found, err := s.List(ctx, "users")
	want := List{
		Issuer: "users", Number: "99999999999999999999999999", ThisUpdate: epoch, NextUpdate: epoch.Add(time.Hour), Entries: 2,
		DER: []byte("list"), SHA256: "s", Signed: 4, PublishedNumber: "99999999999999999999999999", PublishedCommit: "c0ffee",
		PublishedAt: epoch, PublishedNextUpdate: epoch.Add(time.Hour),
	}
	if diff := cmp.Diff(want, got); err != nil || !found || diff != "" {
		t.Fatal(err, found, diff)
	}
	if err := put("100000000000000000000000000"); err != nil {
		t.Fatal(err)
	}
	lists, err := s.Lists(ctx)
	if err != nil || len(lists) != 1 || lists[0].PublishedNumber != want.Number || lists[0].Number == want.Number {
		t.Fatalf("%+v %v", lists, err)
	}
}

// What the calls of the RPC ask must not take longer the more certificates there are.
func TestQueriesUseTheirIndexes(t *testing.T) {
	s, _ := newStore(t)
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Serial: "7f"}, "SEARCH certificate USING INDEX sqlite_autoindex_certificate_1 (serial=?)"},
		{Query{Purpose: cert.User, Key: "alice"}, "SEARCH certificate USING INDEX certificate_name (purpose=? AND name=?)"},
		{Query{Purpose: cert.User, Key: "alice", Limit: 10, Newest: true}, "SEARCH certificate USING INDEX certificate_name (purpose=? AND name=?)"},
		{Query{Purpose: cert.User, Key: "alice", States: []State{StateOpen, StateLive}}, "SEARCH certificate USING INDEX certificate_name (purpose=? AND name=?)"},
		{Query{Caller: "c", RequestID: "r"}, "SEARCH certificate USING INDEX certificate_request (caller=? AND request_id=?)"},
		{Query{States: []State{StateOpen}, Limit: 10}, "SEARCH certificate USING INDEX certificate_state (state=?)"},
	} {
		text, args := c.q.statement()
		if diff := cmp.Diff([]string{c.want}, plan(t, s, text, args...)); diff != "" {
			t.Errorf("%+v: %s", c.q, diff)
		}
	}
}
