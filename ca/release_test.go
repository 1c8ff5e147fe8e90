package ca

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// releaseBy releases as the caller under an id, as revokeBy revokes.
func (w *world) releaseBy(id string, r RevokeRequest) (*Revoked, error) {
	w.Helper()
	if r.May == nil {
		r.May = anyone
	}
	ctx, stop := context.WithCancel(context.Background())
	paid := make(chan struct{})
	go func() { defer close(paid); w.payLists(ctx) }()
	defer func() { stop(); <-paid }()
	return w.authority.Release(context.Background(), call(id, fmt.Sprint("release", r.Serial, r.Names)), r)
}

// TestHoldAndRelease: a hold stands in the lists until it is released, and not any longer; what comes
// after it is a revocation of its own, with a date of its own.
func TestHoldAndRelease(t *testing.T) {
	w := newWorld(t)
	issued, other := w.issue("one", "Alice"), w.issue("two", "Bob")
	w.withDirectory()
	hold := RevokeRequest{Serial: issued.Serial, Reason: cert.CertificateHold}
	_, err := w.revokeBy("hold", hold)
	w.must(err)
	_, err = w.revokeBy("bob", RevokeRequest{Serial: other.Serial, Reason: cert.Superseded})
	w.must(err)
	held := w.certificate(issued.Serial).RevokedAt
	if e := w.listed("1"); e[issued.Serial].Reason != cert.CertificateHold || len(e) != 2 {
		t.Errorf("list 1 says %v", e)
	}

	w.clock.step(time.Hour)
	from := w.head()
	answer, err := w.releaseBy("release", RevokeRequest{Serial: issued.Serial})
	w.must(err)
	if answer.LogIndex != from || len(answer.Revoked) != 1 || answer.Revoked[0].Serial != issued.Serial || len(answer.Lists) != 1 {
		t.Errorf("%+v", answer)
	}
	done := w.events(from)[0].(*audit.ReleaseDone)
	if done.Rule != "rule" || len(done.Released) != 1 || done.Released[0] != (audit.Release{Serial: issued.Serial, Issuer: "users"}) {
		t.Errorf("the log says %+v", done)
	}
	c := w.certificate(issued.Serial)
	if c.State != store.StateLive || !c.RevokedAt.IsZero() || c.Reason != 0 || !c.Released(held) || c.Released(held.Add(time.Second)) {
		t.Errorf("%+v", c)
	}
	if e := w.listed("2"); len(e) != 1 || e[other.Serial].Reason != cert.Superseded {
		t.Errorf("list 2 says %v", e)
	}
	if _, err := w.authority.Status(context.Background(), StatusRequest{Serial: issued.Serial}); err != nil {
		t.Error(err)
	}

	// The directory is owed the certificate again.
	debt, owed, err := w.store.Owed(context.Background(), store.Directory, debtKey(c.Purpose, c.Key))
	w.must(err)
	if !owed || debt.Generation != answer.LogIndex {
		t.Errorf("nothing is owed to the directory for the release: %+v", debt)
	}

	// A retry gets the same answer, and changes nothing.
	again, err := w.releaseBy("release", RevokeRequest{Serial: issued.Serial})
	w.must(err)
	if again.LogIndex != answer.LogIndex || len(again.Revoked) != 1 {
		t.Errorf("%+v, then %+v", answer, again)
	}

	w.clock.step(time.Hour)
	_, err = w.revokeBy("for good", RevokeRequest{Serial: issued.Serial, Reason: cert.KeyCompromise})
	w.must(err)
	if e := w.listed("3"); !e[issued.Serial].RevokedAt.After(held.Add(90*time.Minute)) || e[issued.Serial].Reason != cert.KeyCompromise {
		t.Errorf("list 3 says %v, held at %s", e, held)
	}
}

// TestReleaseRefuses: nothing but a hold ends.
func TestReleaseRefuses(t *testing.T) {
	w := newWorld(t)
	live, superseded, restated := w.issue("one", "Alice"), w.issue("two", "Bob"), w.issue("three", "Carol")
	for id, r := range map[string]RevokeRequest{
		"r1": {Serial: superseded.Serial, Reason: cert.Superseded}, "r2": {Serial: restated.Serial, Reason: cert.CertificateHold},
	} {
		_, err := w.revokeBy(id, r)
		w.must(err)
	}
	_, err := w.revokeBy("r3", RevokeRequest{Serial: restated.Serial, Reason: cert.CessationOfOperation})
	w.must(err)
	from := w.head()
	for serial, want := range map[cert.Serial]string{
		live.Serial: "certificate.unknown", superseded.Serial: "certificate.not_held", restated.Serial: "certificate.not_held", "1f": "certificate.unknown",
	} {
		_, err := w.releaseBy("release-"+string(serial), RevokeRequest{Serial: serial})
		if got := refusalOf(t, err).Code; got != want {
			t.Errorf("%s: %s, want %s", serial, got, want)
		}
	}
	if w.head() != from {
		t.Errorf("a refusal changed the books: %s", w.types(from))
	}
	if _, err := w.releaseBy("live", RevokeRequest{Serial: live.Serial}); !strings.Contains(refusalOf(t, err).Error(), "no certificate on hold matches") {
		t.Errorf("of a live certificate it says %v", err)
	}
	// Of a name, what is on hold is released and the rest stays.
	if _, err = w.revokeBy("r4", RevokeRequest{Serial: live.Serial, Reason: cert.CertificateHold}); err != nil {
		t.Fatal(err)
	}
	second := w.issue("four", "Alice")
	_, err = w.revokeBy("r5", RevokeRequest{Serial: second.Serial, Reason: cert.KeyCompromise})
	w.must(err)
	answer, err := w.releaseBy("by name", RevokeRequest{Names: names(w, "Alice", cert.User)})
	w.must(err)
	if len(answer.Revoked) != 1 || answer.Revoked[0].Serial != live.Serial || w.certificate(second.Serial).State != store.StateRevoked {
		t.Errorf("%+v", answer)
	}
	// The id of a release is not that of another thing.
	_, err = w.authority.Revoke(context.Background(), call("by name", fmt.Sprint("release", cert.Serial(""), names(w, "Alice", cert.User))), RevokeRequest{Serial: live.Serial, May: anyone})
	if got := refusalOf(t, err).Code; got != "request_id.other_request" {
		t.Error(got)
	}
}

// TestReleaseOfTheExpired: a hold that has left the lists with its certificate is not released any more.
func TestReleaseOfTheExpired(t *testing.T) {
	w := newWorld(t)
	issued := w.issue("one", "Alice")
	_, err := w.revokeBy("hold", RevokeRequest{Serial: issued.Serial, Reason: cert.CertificateHold})
	w.must(err)
	w.clock.step(w.certificate(issued.Serial).NotAfter.Sub(w.store.Now()) + time.Second)
	from := w.head()
	_, err = w.releaseBy("release", RevokeRequest{Serial: issued.Serial})
	if got := refusalOf(t, err).Code; got != "certificate.expired" || w.head() != from {
		t.Errorf("%s, and the log says %s", got, w.types(from))
	}
}

// TestReleasedInTheSameSecond: a hold that comes back before the second is over is still a hold.
func TestReleasedInTheSameSecond(t *testing.T) {
	w := newWorld(t)
	issued := w.issue("one", "Alice")
	for n := range 3 {
		_, err := w.revokeBy(fmt.Sprint("hold", n), RevokeRequest{Serial: issued.Serial, Reason: cert.CertificateHold})
		w.must(err)
		if n < 2 {
			_, err = w.releaseBy(fmt.Sprint("release", n), RevokeRequest{Serial: issued.Serial})
			w.must(err)
		}
	}
	c := w.certificate(issued.Serial)
	if c.State != store.StateRevoked || c.Released(c.RevokedAt) {
		t.Errorf("%+v", c)
	}
	if e := w.listed("1"); len(e) != 1 {
		t.Errorf("list 1 says %v", e)
	}
}
