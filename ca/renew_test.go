package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

func (w *world) renew(id string, r RenewRequest) (*Issued, error) {
	if r.May == nil {
		r.May = func(store.Certificate) (string, int, error) { return "rule", 0, nil }
	}
	return w.authority.Renew(context.Background(), call(id, fmt.Sprint("renew", r.Serial, r.Names)), r)
}

// TestRenew: the new certificate has the names of the old one and a key of its own, and a retry gets it
// again even after the old one was revoked.
func TestRenew(t *testing.T) {
	w := newWorld(t)
	asked := w.request(cert.User, "Alice")
	asked.SANs = cert.SANs{Email: []string{"alice@example.org"}}
	old, err := w.authority.Issue(context.Background(), call("one", "alice"), asked)
	w.must(err)
	from := w.head()
	fresh, err := w.renew("two", RenewRequest{Serial: old.Serial})
	w.must(err)
	was, is := w.parse(old.Certificate), w.parse(fresh.Certificate)
	if fresh.Serial == old.Serial || bytes.Equal(was.RawSubjectPublicKeyInfo, is.RawSubjectPublicKeyInfo) || !bytes.Equal(was.RawSubject, is.RawSubject) ||
		len(is.EmailAddresses) != 1 || is.EmailAddresses[0] != "alice@example.org" || len(fresh.PKCS12) == 0 || fresh.CN != "Alice" || fresh.Purpose != cert.User {
		t.Errorf("%+v", fresh)
	}
	if intent := w.events(from)[0].(*audit.IssueIntent); intent.Renews != old.Serial || intent.Rule != "rule" {
		t.Errorf("the log says %+v", intent)
	}
	if w.certificate(old.Serial).State != store.StateLive {
		t.Error("the old certificate did not stay")
	}

	_, err = w.revokeBy("r", RevokeRequest{Serial: old.Serial, Reason: cert.Superseded})
	w.must(err)
	again, err := w.renew("two", RenewRequest{Serial: old.Serial})
	w.must(err)
	if again.Serial != fresh.Serial || again.Password != fresh.Password || !bytes.Equal(again.PKCS12, fresh.PKCS12) {
		t.Error("a retry got another answer")
	}
	// By name it is the newest that is live.
	third, err := w.renew("three", RenewRequest{Names: names(w, "alice", cert.User, cert.Caller)})
	w.must(err)
	if c := w.certificate(third.Serial); c.CN != "Alice" || third.Serial == fresh.Serial {
		t.Errorf("%+v", c)
	}
}

// TestRenewMeansTheNewest: where the newest certificate has a name too many for the caller, an older one is not renewed
// in its place, except to give an answer again.
func TestRenewMeansTheNewest(t *testing.T) {
	w := newWorld(t)
	denied := errors.New("not with that name")
	by := RenewRequest{Names: names(w, "www.example.org", cert.Server, cert.User), May: func(c store.Certificate) (string, int, error) {
		if slices.Contains(c.SANs.DNS, "b.example.org") {
			return "", 0, denied
		}
		return "rule", 0, nil
	}}
	first := w.request(cert.Server, "www.example.org")
	more := first
	more.SANs = cert.SANs{DNS: []string{"www.example.org", "b.example.org"}}
	_, err := w.authority.Issue(t.Context(), call("one", "first"), first)
	w.must(err)
	renewed, err := w.renew("two", by)
	w.must(err)
	_, err = w.authority.Issue(t.Context(), call("three", "more"), more)
	w.must(err)
	from := w.head()
	if _, err := w.renew("four", by); !errors.Is(err, denied) || w.head() != from {
		t.Errorf("%v, and the log says %s", err, w.types(from))
	}
	again, err := w.renew("two", by)
	w.must(err)
	w.same(renewed, again)
	_, err = w.authority.Issue(t.Context(), call("five", "first again"), first)
	w.must(err)
	if _, err := w.renew("six", by); err != nil {
		t.Errorf("the newest is within the grant: %v", err)
	}
}

// TestRenewOfTheRetired: an older certificate that had expired before is no way around a revocation.
func TestRenewOfTheRetired(t *testing.T) {
	w := newWorld(t)
	asked := w.request(cert.User, "Bob")
	asked.ValidDays = 1
	old, err := w.authority.Issue(context.Background(), call("one", "bob"), asked)
	w.must(err)
	newer, err := w.renew("newer", RenewRequest{Serial: old.Serial})
	w.must(err)
	w.clock.step(48 * time.Hour)
	_, err = w.revokeBy("retired", RevokeRequest{Serial: newer.Serial, Reason: cert.CessationOfOperation})
	w.must(err)
	from := w.head()
	for id, c := range map[string]struct {
		r    RenewRequest
		want string
	}{
		"by name":   {RenewRequest{Names: names(w, "Bob", cert.User)}, "certificate.revoked"},
		"by serial": {RenewRequest{Serial: old.Serial}, "certificate.expired"},
	} {
		_, err := w.renew(id, c.r)
		if got := refusalOf(t, err).Code; got != c.want || w.head() != from {
			t.Errorf("%s: %s, want %s; the log says %s", id, got, c.want, w.types(from))
		}
	}
}

// TestRenewRefuses: nothing that is revoked, unknown or not the caller's is renewed.
func TestRenewRefuses(t *testing.T) {
	w := newWorld(t)
	revoked, live := w.issue("one", "Bob"), w.issue("two", "alice")
	_, err := w.revokeBy("r", RevokeRequest{Serial: revoked.Serial, Reason: cert.CertificateHold})
	w.must(err)
	_, err = w.authority.Issue(context.Background(), call("three", "alice"), w.request(cert.Caller, "alice"))
	w.must(err)
	from := w.head()
	denied := func(store.Certificate) (string, int, error) { return "", 0, refuse("policy.denied", "no") }
	for name, c := range map[string]struct {
		r    RenewRequest
		want string
	}{
		"on hold":             {RenewRequest{Serial: revoked.Serial}, "certificate.revoked"},
		"on hold, by name":    {RenewRequest{Names: names(w, "bob", cert.User)}, "certificate.revoked"},
		"unknown":             {RenewRequest{Serial: "1f"}, "certificate.unknown"},
		"unknown, by name":    {RenewRequest{Names: names(w, "carol", cert.User)}, "certificate.unknown"},
		"two purposes":        {RenewRequest{Names: names(w, "alice", cert.User, cert.Caller)}, "selection"},
		"another's":           {RenewRequest{Serial: live.Serial, May: denied}, "certificate.unknown"},
		"another's, by name":  {RenewRequest{Names: names(w, "alice", cert.User), May: denied}, "policy.denied"},
		"for too long a time": {RenewRequest{Serial: live.Serial, ValidDays: 10_000}, "validity.days"},
	} {
		_, err := w.renew("x"+cert.SHA256([]byte(name)), c.r)
		if got := refusalOf(t, err).Code; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if _, err := w.renew("two", RenewRequest{Serial: live.Serial}); refusalOf(t, err).Code != "request_id.other_request" {
		t.Error(err)
	}
	if w.head() != from {
		t.Errorf("a refusal changed the books: %s", w.types(from))
	}
}

// TestRenewalOvertaken: a revocation that comes while the key of a renewal is made, or between a call of which nothing
// came and its retry, leaves no new certificate.
func TestRenewalOvertaken(t *testing.T) {
	for what, revoke := range map[string]RevokeRequest{"revoked": {Reason: cert.KeyCompromise}, "on hold": {Reason: cert.CertificateHold}} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			old := w.issue("one", "Alice")
			revoke.Serial = old.Serial
			w.wire.once(signer.SignCert, cutBefore)
			_, err := w.renew("lost", RenewRequest{Serial: old.Serial})
			stillUnknown(t, err)

			w.withDirectory()
			w.directory.find = func(context.Context, name.Name) (string, error) {
				_, err := w.revokeBy("revoked", revoke)
				return "entry-1", err
			}
			_, err = w.renew("overtaken", RenewRequest{Serial: old.Serial})
			if code := refusalOf(t, err).Code; code != "certificate.revoked" {
				t.Errorf("a renewal that was overtaken: %s", code)
			}
			_, err = w.renew("lost", RenewRequest{Serial: old.Serial})
			if code := refusalOf(t, err).Code; code != "certificate.revoked" {
				t.Errorf("a retry of a renewal of which nothing came: %s", code)
			}
			if live, open := w.count(store.StateLive), w.count(store.StateOpen); live+open != 0 {
				t.Errorf("%d live and %d open certificates", live, open)
			}
		})
	}
}
