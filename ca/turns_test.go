package ca

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestTurns: whoever has much to wait for lets another one in after each of its own, and who gives up takes nothing
// along.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := newTurns(1)
		if err := places.take(t.Context(), "greedy"); err != nil {
			t.Fatal(err)
		}
		var served []string
		wait := func(ctx context.Context, caller string) {
			go func() {
				if err := places.take(ctx, caller); err == nil {
					served = append(served, caller)
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		for range 100 {
			wait(t.Context(), "greedy")
		}
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, "gone")
		for range 2 {
			wait(t.Context(), "modest")
		}
		wait(ctx, "greedy")
		cancel()
		synctest.Wait()
		for i, want := range []string{"greedy", "modest", "greedy", "modest", "greedy", "greedy"} {
			places.give()
			if synctest.Wait(); len(served) != i+1 || served[i] != want {
				t.Fatalf("served %v; want %s next", served, want)
			}
		}
		for range 97 {
			places.give()
			synctest.Wait()
		}
		if len(served) != 102 || places.free != 1 || len(places.order)+len(places.waiting) != 0 {
			t.Errorf("%d served, %d places free, %v waiting", len(served), places.free, places.waiting)
		}
	})
}
