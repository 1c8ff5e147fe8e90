package keyroom

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// inMemory keeps the delivery keys where a sync takes no time.
func inMemory(t *testing.T) func(*Config) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return func(c *Config) { c.DeliveryFolder = dir }
}

// TestDeliveryClockJumps puts the room's clock forward and back, at random too: no key lives longer than its
// time, there never are many, and there always is one.
func TestDeliveryClockJumps(t *testing.T) {
	h := newHall(t, inMemory(t))
	p := h.send("alice")
	h.clock.step(-10 * 365 * 24 * time.Hour)
	if h.current() != p.to {
		t.Error("a clock put back makes a new key")
	}
	h.restart()
	// The clock goes back again and again by what it went on: real hours go by all the same.
	for n := range 100 {
		h.clock.step(30 * time.Minute)
		h.keep()
		h.clock.step(-30 * time.Minute)
		h.keep()
		if keys := h.inRoom(); (keys[0].public == p.to) != (n < 50) {
			t.Fatalf("after %d half hours there are %d keys, the first %v", n+1, len(keys), keys[0].public == p.to)
		}
	}
	if public, _ := h.onDisk(); strings.Contains(strings.Join(public, " "), p.to) {
		t.Error("the first key is in the file")
	}
	h.clock.step(10 * 365 * 24 * time.Hour)
	q := h.send("bob")
	h.clock.step(time.Minute)
	h.keep()
	const long = 250 * 365 * 24 * time.Hour // four of them are longer than a Duration
	for range 4 {
		h.clock.step(long)
	}
	h.keep()
	for range 4 {
		h.clock.step(-long)
	}
	if got := h.collect(q); got != "open.gone" {
		t.Errorf("after a jump of a thousand years and back: %s", got)
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		step := time.Duration(random.Int64N(int64(40*time.Hour))) - 20*time.Hour
		if random.IntN(50) == 0 {
			step *= 100_000
		}
		h.clock.step(step)
		if random.IntN(2) == 0 {
			h.keep()
		}
		now := h.current()
		if keys := h.inRoom(); now == "" || len(keys) > 30 || keys[0].age > h.room.delivery.lifetime() || keys[0].age < 0 {
			t.Fatalf("seed %d: %d keys, the oldest %s old", seed, len(keys), keys[0].age)
		}
	}
}

// TestDeliveryAtMost: with the longest window there are as many keys as it has hours.
func TestDeliveryAtMost(t *testing.T) {
	hours := maxDeliveryHours
	h := newHall(t, inMemory(t), func(c *Config) { c.DeliveryHours = &hours })
	p := h.send("alice")
	for range 10 * 200 {
		h.clock.step(6 * time.Minute)
		h.keep()
	}
	public, _ := h.onDisk()
	if len(public) < maxDeliveryHours || len(public) > maxDeliveryHours+5 || strings.Contains(strings.Join(public, " "), p.to) {
		t.Errorf("%d keys", len(public))
	}
}
