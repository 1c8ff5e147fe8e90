package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// BenchmarkUpdate gives the rate of whole changes (an intent: certificate row, request row, leaf and
// nodes) at 1, 8 and 32 callers, with few rows and with 100,000. x-floor is over one caller, whose
// every change has its own commit, on the same database right before. CPU time tells more than rates
// where the machine is shared.
func BenchmarkUpdate(b *testing.B) {
	at := 1_000_000 // each certificate of the run has its own number
	for _, s := range []*Store{benchStore(b, 0), benchStore(b, 100_000)} {
		rows, _ := s.Head()
		for _, callers := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("leaves=%d/callers=%d", rows, callers), func(b *testing.B) {
				floor := rate(b, s, 1, 500, at)
				at += 500
				commits, cpu := s.commits.Load(), cpuTime(b)
				b.ResetTimer()
				r := rate(b, s, callers, b.N, at)
				at += b.N
				b.ReportMetric(r, "updates/s")
				b.ReportMetric(r/floor, "x-floor")
				b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-us/update")
				b.ReportMetric(float64(b.N)/float64(s.commits.Load()-commits), "updates/commit")
			})
		}
	}
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rate runs n updates by so many callers, and gives updates a second.
func rate(b *testing.B, s *Store, callers, n, first int) float64 {
	var at atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range callers {
		wg.Go(func() {
			for i := at.Add(1) - 1; i < int64(n); i = at.Add(1) - 1 {
				if _, err := s.Update(context.Background(), who, reserve(certificate(first+int(i)))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(begin).Seconds()
}

func benchStore(b *testing.B, rows int) *Store {
	b.Helper()
	s, err := Create(context.Background(), filepath.Join(b.TempDir(), "bench.db"), func() time.Time { return epoch }, who, opened())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	for from := 0; from < rows; from += 1000 {
		err := s.run(context.Background(), &job{change: func(tx *Tx) error {
			for n := from; n < from+1000; n++ {
				c := certificate(n)
				if err := tx.Reserve(c); err != nil {
					return err
				}
				if err := tx.append(who, audit.Event(intentOf(c))); err != nil {
					return err
				}
				tx.index++
			}
			return nil
		}})
		if err != nil {
			b.Fatal(err)
		}
	}
	return s
}
