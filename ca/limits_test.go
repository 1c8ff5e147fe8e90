package ca

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// An id that was made for the caller is an id like any other: when the answer was lost, asking under it
// ends in the one certificate, and is no repetition.
func TestMadeIDIsForRetries(t *testing.T) {
	w := newWorld(t)
	w.wire.once(signer.SignCert, cutAfter)
	c := call("call-1", "x")
	c.Made = true
	r := w.request(cert.User, "Alice")
	_, err := w.authority.Issue(t.Context(), c, r)
	stillUnknown(t, err)
	c.Made = false
	first, err := w.authority.Issue(t.Context(), c, r)
	w.must(err)
	again, err := w.authority.Issue(t.Context(), c, r)
	w.must(err)
	w.same(first, again)
	if n := w.room.Hello().State.Certificates; n != 1 || first.RequestID != "call-1" {
		t.Errorf("%d certificates, the answer to %s", n, first.RequestID)
	}
}

// While every place for making RSA keys is taken, plans and repetitions are answered, since they need
// none; who needs one waits, and is let go with nothing done.
func TestRSAKeysWaitForAPlace(t *testing.T) {
	w := newWorld(t)
	r := w.request(cert.User, "Alice")
	r.KeyType = cert.RSA3072
	c := call("call-1", "x")
	c.Made = true
	first, err := w.authority.Issue(t.Context(), c, r)
	w.must(err)
	for range w.authority.rsa.free {
		w.must(w.authority.rsa.take(t.Context(), "another"))
	}
	from := w.head()
	plan := call("plan", "y")
	plan.Plan = true
	planned, err := w.authority.Issue(t.Context(), plan, r)
	w.must(err)
	if planned.Code != "plan.issue" || planned.NotAfter.Before(first.NotAfter) {
		t.Errorf("%+v", planned)
	}
	c.RequestID = "call-2"
	for _, spent := range []bool{false, true} {
		if spent { // that no second one can be had does not keep the first one's id back
			c.Spend = func(...string) (func(), error) { return nil, errors.New("spent") }
		}
		_, err := w.authority.Issue(t.Context(), c, r)
		if got := refusalOf(t, err); got.Code != "request.repeated" || got.Prior != "call-1" {
			t.Errorf("spent %v: %v", spent, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := w.authority.Issue(ctx, call("two", "z"), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a place: %v", err)
	}
	if w.head() != from {
		t.Errorf("the log says %s", w.types(from))
	}
	w.authority.rsa.give()
	if _, err := w.authority.Issue(t.Context(), call("two", "z"), r); err != nil {
		t.Error(err)
	}
}

// The names of the service itself are not for callers: neither a certificate, whatever its common name,
// nor the end of the one that there is.
func TestReservedNames(t *testing.T) {
	w := newWorld(t)
	w.authority.reserved = func() []string { return []string{"ca.example.org"} }
	own := w.request(cert.Server, "ca.example.org")
	hidden := w.request(cert.Server, "www.example.org")
	hidden.SANs.DNS = append(hidden.SANs.DNS, "ca.example.org")
	from := w.head()
	for what, r := range map[string]IssueRequest{"common name": own, "further name": hidden} {
		for _, plan := range []bool{false, true} {
			c := call(what, "x")
			c.Plan = plan
			if _, err := w.authority.Issue(t.Context(), c, r); refusalOf(t, err).Code != "name.reserved" {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if w.head() != from {
		t.Errorf("the log says %s", w.types(from))
	}
	ceremony := call("own", "x")
	ceremony.Who = audit.Actor{Kind: audit.ByCeremony, Name: "init"}
	issued, err := w.authority.Issue(t.Context(), ceremony, own)
	w.must(err)
	for what, r := range map[string]RevokeRequest{
		"serial": {Serial: issued.Serial}, "name": {Names: names(w, "ca.example.org", cert.Server)},
	} {
		if _, err := w.revokeBy(what, r); refusalOf(t, err).Code != "name.reserved" {
			t.Errorf("revoking by %s: %v", what, err)
		}
	}
	if c := w.certificate(issued.Serial); c.State != store.StateLive {
		t.Errorf("it is %s", c.State)
	}
}

// Who asks for a serial that no grant covers learns what somebody learns who asks for none at all; only
// the log may know more.
func TestRevokeSerialOfAnother(t *testing.T) {
	w := newWorld(t)
	issued := w.issue("one", "Alice")
	no := errors.New("rule 7 does not cover it")
	deny := func(store.Certificate, int) (string, error) { return "", no }
	for _, plan := range []bool{false, true} {
		c := call("r", "x")
		c.Plan = plan
		_, err := w.authority.Revoke(t.Context(), c, RevokeRequest{Serial: issued.Serial, May: deny})
		_, none := w.authority.Revoke(t.Context(), c, RevokeRequest{Serial: "7f00", May: deny})
		got, want := refusalOf(t, err), refusalOf(t, none)
		if got.Code != "certificate.unknown" || got.Error() != want.Error() || !strings.Contains(got.Record, no.Error()) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// The newest of what may be seen is told, and no more is looked into.
func TestStatusOfMany(t *testing.T) {
	w := newWorld(t)
	var serials []cert.Serial
	for _, id := range []string{"one", "two", "three", "four"} {
		serials = append(serials, w.issue(id, "Alice").Serial)
	}
	all, err := w.authority.Status(t.Context(), StatusRequest{
		Names: names(w, "Alice", cert.User), Most: 2, See: func(c store.Certificate) bool { return c.Serial != serials[3] },
	})
	w.must(err)
	if len(all) != 2 || all[0].Serial != serials[1] || all[1].Serial != serials[2] {
		t.Errorf("%+v, want the second and third of %v", all, serials)
	}
}

// TestNameWithVeryMany: a name's past costs no call more than a bound; what is live in it is hit as a whole or not at
// all, and never in part.
func TestNameWithVeryMany(t *testing.T) {
	w := newWorld(t)
	alice := w.issue("one", "Alice")
	db, err := sql.Open("sqlite", "file:"+w.books()+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	w.must(err)
	defer db.Close()
	const others = maxCandidates + 50
	for _, statement := range []string{
		"CREATE TABLE copied AS SELECT * FROM certificate WHERE serial = '" + string(alice.Serial) + "'",
		fmt.Sprintf(`WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < %d)
			INSERT INTO copied SELECT copied.* FROM copied, number`, others),
		"UPDATE copied SET serial = '7f' || printf('%08x', rowid), request_id = 'other-' || rowid, intent = -rowid WHERE rowid > 1",
		"INSERT INTO certificate SELECT * FROM copied WHERE rowid > 1",
		"DROP TABLE copied",
	} {
		_, err := db.ExecContext(t.Context(), statement)
		w.must(err)
	}
	counted := 0
	all, err := w.authority.Status(t.Context(), StatusRequest{
		Names: names(w, "Alice", cert.User), Most: 2, See: func(store.Certificate) bool { counted++; return true },
	})
	w.must(err)
	if len(all) != 2 || all[1].Serial != alice.Serial || counted != maxCandidates {
		t.Errorf("%d looked at, and told %+v", counted, all)
	}
	from := w.head()
	renewed, err := w.renew("renewed", RenewRequest{Names: names(w, "Alice", cert.User)})
	w.must(err)
	if intent, ok := w.events(from)[0].(*audit.IssueIntent); !ok || intent.Renews != alice.Serial {
		t.Errorf("the log says %s of %s", w.types(from), renewed.Serial)
	}
	from = w.head()
	revoke := RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.KeyCompromise}
	revoke.May = func(c store.Certificate, _ int) (string, error) { // the others may be among those that are not looked at
		if c.Serial != alice.Serial {
			return "", ErrOthers
		}
		return "rule", nil
	}
	if _, err := w.revokeBy("many", revoke); refusalOf(t, err).Code != "revoke.too_many" || !strings.Contains(err.Error(), "by its serial") {
		t.Error(err)
	}
	held := RevokeRequest{Names: revoke.Names}
	if _, err := w.releaseBy("none", held); refusalOf(t, err).Code != "certificate.unknown" {
		t.Errorf("nothing is on hold: %v", err)
	}
	set := func(columns string) {
		_, err := db.ExecContext(t.Context(), "UPDATE certificate SET "+columns+" WHERE intent < 0")
		w.must(err)
	}
	set(fmt.Sprintf("state = 'revoked', revoked_at = not_before, reason = %d", cert.Superseded)) // and a hold may be among those that are not looked at
	if _, err := w.releaseBy("many", held); refusalOf(t, err).Code != "revoke.too_many" {
		t.Errorf("a hold may be older: %v", err)
	}
	set("state = 'live', revoked_at = 0, reason = 0")
	if w.head() != from {
		t.Errorf("the log says %s", w.types(from))
	}
	revoke.Serial, revoke.Names = alice.Serial, nil
	_, err = w.revokeBy("serial", revoke)
	w.must(err)
	set("not_after = not_before")
	hold, err := w.revokeBy("hold", RevokeRequest{Names: names(w, "Alice", cert.User), Reason: cert.CertificateHold})
	w.must(err)
	if len(hold.Revoked) != 1 || hold.Revoked[0].Serial != renewed.Serial {
		t.Errorf("held %+v", hold.Revoked)
	}
	_, err = db.ExecContext(t.Context(), "DELETE FROM certificate WHERE intent < 0") // the world is whole when the test ends
	w.must(err)
}

// TestSpentForNothing: what the calls an hour are spent on is a certificate, or what may be one.
func TestSpentForNothing(t *testing.T) {
	w := newWorld(t, func(c *keyroom.Config) { c.PerHour = 1 })
	w.issue("first", "Alice")
	spent := 0
	ask := func(id string) error {
		c := call(id, "Bob")
		c.Spend = func(...string) (func(), error) {
			spent++
			return func() { spent-- }, nil
		}
		_, err := w.authority.Issue(t.Context(), c, w.request(cert.User, "Bob"))
		return err
	}
	var refusal *signer.Refusal
	if err := ask("refused"); !errors.As(err, &refusal) || refusal.Code != "rate.hour" || spent != 0 {
		t.Errorf("a refusal by the key room: %v, and %d spent", err, spent)
	}
	w.wire.once(signer.SignCert, cutBefore)
	err := ask("unknown")
	if stillUnknown(t, err); spent != 1 {
		t.Errorf("of what may have been signed %d is spent", spent)
	}
	w.stopRoom()
	w.wire.close()
	if err := ask("away"); !errors.Is(err, signer.ErrUnreachable) || spent != 1 {
		t.Errorf("without a key room: %v, and %d spent", err, spent)
	}
	w.startRoom()
	w.wire = newWire(t, w.wire.path, w.config.Socket)
}
