package gitrepo

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A server that lets us push says so, one that does not says that, and neither has anything new afterwards.
func TestProbe(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		h := s.open(t)
		for _, state := range []string{"empty", "with a branch"} {
			before := git(t, s.path, "for-each-ref") + git(t, s.path, "count-objects", "-v")
			clock, err := h.Probe(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", state, err)
			}
			if off := time.Since(clock).Abs(); strings.HasPrefix(s.url, "https") && off > 3*time.Second || strings.HasPrefix(s.url, "ssh") && !clock.IsZero() {
				t.Errorf("%s: the server's clock says %s", state, clock)
			}
			if after := git(t, s.path, "for-each-ref") + git(t, s.path, "count-objects", "-v"); after != before {
				t.Errorf("%s: before\n%s\nafter\n%s", state, before, after)
			}
			publish(t, h, Files{"users.crl": []byte(state)})
		}
		if err := os.Rename(s.path, s.path+".gone"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Probe(t.Context()); err == nil {
			t.Error("there is no repository, and we may push to it")
		}
	})
	t.Run("https, reading only", func(t *testing.T) {
		s := overTLS(t, newBare(t), nil)
		git(t, s.path, "config", "http.receivepack", "false")
		if _, err := s.open(t).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%v", err)
		}
		if _, _, err := s.open(t).Fetch(t.Context()); err != nil {
			t.Errorf("reading it: %v", err)
		}
	})
	t.Run("another clock", func(t *testing.T) {
		s := overTLS(t, newBare(t), func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", "Sat, 01 Jan 2000 00:00:00 GMT")
				next.ServeHTTP(w, r)
			})
		})
		if clock, err := s.open(t).Probe(t.Context()); err != nil || clock.Year() != 2000 {
			t.Errorf("%v %v", clock, err)
		}
	})
}
