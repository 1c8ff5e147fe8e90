package ca

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/store"
)

// TestSearchByState: what has ended is not live any more, wherever the window is.
func TestSearchByState(t *testing.T) {
	w := newWorld(t)
	for _, one := range []struct {
		id   string
		days int
	}{{"short", 5}, {"long", 50}} {
		r := w.request("user", "alice")
		r.ValidDays = one.days
		_, err := w.authority.Issue(context.Background(), call(one.id, one.id), r)
		w.must(err)
	}
	w.clock.step(10 * 24 * time.Hour)
	everything := func(store.Certificate) bool { return true }
	for state, want := range map[string]string{"live": "long", "expired": "short", "": "short long", "revoked": "", "open": ""} {
		page, err := w.authority.Search(context.Background(), SearchRequest{State: state, Most: 10, See: everything})
		w.must(err)
		var got []string
		for _, c := range page.Certificates {
			got = append(got, c.RequestID)
		}
		if strings.Join(got, " ") != want || page.Next != 0 {
			t.Errorf("%q: %v, want %s; next %d", state, got, want, page.Next)
		}
	}
}

// TestSearchLooksAtSoMany: somebody who may see nothing gets an empty page and where to go on, and not the
// whole of the books' time.
func TestSearchLooksAtSoMany(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.issue("one", "alice")
	}
	w.issue("two", "bob")
	seen := 0
	page, err := w.authority.Search(context.Background(), SearchRequest{Most: 10, See: func(store.Certificate) bool { seen++; return false }})
	w.must(err)
	if seen != 2 || len(page.Certificates) != 0 || page.Next != 0 {
		t.Errorf("%d were looked at; %+v", seen, page)
	}
}
