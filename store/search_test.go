package store

import (
	"context"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

// TestSearchUsesItsIndexes: a name, a further name and a caller are found without looking at the rest.
func TestSearchUsesItsIndexes(t *testing.T) {
	s, _ := newStore(t)
	for want, q := range map[string]SearchQuery{
		"certificate_name":   {Keys: map[cert.Purpose]string{cert.User: "alice"}, Limit: 10},
		"PRIMARY KEY (name":  {SAN: "www.example.org", Limit: 10},
		"certificate_caller": {Caller: "hr", Limit: 10},
		"INTEGER PRIMARY":    {State: StateRevoked, Limit: 10},
	} {
		text, args := q.statement()
		steps := strings.Join(plan(t, s, text, args...), "; ")
		if !strings.Contains(steps, strings.Replace(want, "PRIMARY KEY (name", "san USING PRIMARY KEY (name", 1)) {
			t.Errorf("%+v: %s", q, steps)
		}
	}
	found, next, err := s.Search(context.Background(), SearchQuery{Limit: 10})
	if err != nil || len(found) != 0 || next != 0 {
		t.Errorf("%v %d %v", found, next, err)
	}
}
