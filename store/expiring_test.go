package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-ca/chancery/ca/cert"
)

// endsIn enters a live certificate of a name that ends so many days after the epoch.
func endsIn(t *testing.T, s *Store, n int, name string, days int) {
	t.Helper()
	c := certificate(n)
	c.Key, c.NotAfter = name, epoch.AddDate(0, 0, days)
	mustUpdate(t, s, reserve(c))
	mustUpdate(t, s, complete(c.Serial))
}

func names(found []Expiring) string {
	var all []string
	for _, e := range found {
		all = append(all, fmt.Sprintf("%s:%t", e.Key, e.Superseded))
	}
	return strings.Join(all, " ")
}

func TestExpiring(t *testing.T) {
	s, _ := newStore(t)
	ctx := context.Background()
	endsIn(t, s, 1, "late", 40)
	endsIn(t, s, 2, "same-a", 20)
	endsIn(t, s, 3, "same-b", 20)
	endsIn(t, s, 4, "renewed", 10)
	endsIn(t, s, 5, "renewed", 300)
	endsIn(t, s, 6, "twice", 12)
	endsIn(t, s, 7, "twice", 12)
	endsIn(t, s, 8, "revoked", 11)
	endsIn(t, s, 9, "given-up", 13)
	endsIn(t, s, 10, "given-up", 300)
	endsIn(t, s, 11, "over", -1)
	mustUpdate(t, s, revoke(certificate(8).Serial, epoch, cert.Superseded))
	mustUpdate(t, s, revoke(certificate(10).Serial, epoch, cert.Superseded))
	open := certificate(12)
	open.NotAfter = epoch.AddDate(0, 0, 5)
	mustUpdate(t, s, reserve(open))

	q := ExpiringQuery{From: epoch, Until: epoch.AddDate(0, 0, 30), Limit: 100}
	all, err := s.Expiring(ctx, q)
	if want := "renewed:true twice:true twice:false given-up:false same-a:false same-b:false"; err != nil || names(all) != want {
		t.Fatalf("%v, %s, want %s", err, names(all), want)
	}
	// Page by page it is the same, also where two end at the same moment.
	q.Limit = 1
	var paged []Expiring
	for {
		page, err := s.Expiring(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		q.After = Place{page[0].NotAfter, page[0].Intent}
	}
	if diff := cmp.Diff(all, paged); diff != "" {
		t.Error(diff)
	}
	q.After, q.Limit, q.Purpose = Place{}, 100, cert.Server
	if found, err := s.Expiring(ctx, q); err != nil || len(found) != 0 {
		t.Errorf("%v, %s", err, names(found))
	}
	q.Purpose, q.From, q.Until = "", epoch.AddDate(0, 0, 20), epoch.AddDate(0, 0, 20)
	if found, err := s.Expiring(ctx, q); err != nil || names(found) != "same-a:false same-b:false" {
		t.Errorf("both ends belong to the window: %v, %s", err, names(found))
	}
}

func TestExpiringUsesItsIndex(t *testing.T) {
	s, _ := newStore(t)
	text, args := ExpiringQuery{From: epoch, Until: epoch.Add(time.Hour), Purpose: cert.User, Limit: 10}.statement()
	if got, want := plan(t, s, text, args...), []string{
		"SEARCH certificate USING INDEX certificate_expiry (not_after>? AND not_after<?)",
		"CORRELATED SCALAR SUBQUERY 1", "SEARCH later USING INDEX certificate_name (purpose=? AND name=?)",
		"CORRELATED SCALAR SUBQUERY 2", "SEARCH later USING INDEX certificate_name (purpose=? AND name=?)",
	}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// plan is how the engine finds what a query asks for.
func plan(t *testing.T, s *Store, text string, args ...any) []string {
	t.Helper()
	var steps []string
	err := s.reading(func(st *statements) error {
		return st.rows(context.Background(), func(rows *sql.Rows) error {
			var id, parent, unused int
			var detail string
			err := rows.Scan(&id, &parent, &unused, &detail)
			steps = append(steps, detail)
			return err
		}, "EXPLAIN QUERY PLAN "+text, args...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}
