package bench_test

import (
	"fmt"
	"testing"
	"time"
)

const stageTime = 4 * time.Second

// reportIssues measures whole issues, how they stay the same as certificates become many, and the
// memory that they leave behind.
func reportIssues(b *testing.B, r *report, s *installation, y *yardstick) {
	time.Sleep(time.Second)
	r.noteMemory(b, s, "idle")
	s.warm(b)
	r.noteFlat(b, s, y, "")

	rows := [][]string{{"", "callers", "per s", "p50 ms", "p99 ms", "daemon us", "key room us", "CPU us", "parts us", "CPU/parts", "p99/p50"}}
	csr := ownCSR(b)
	worst, tail := make(map[int]float64), 0.0 // by the number of callers; with 32 of them
	for _, brings := range []bool{false, true} {
		for _, w := range []codec{jsonCodec(), xmlCodec()} {
			for _, callers := range []int{1, 8, 32} {
				row, over, spread := s.stage(b, y, w, callers, csr, brings)
				rows = append(rows, row)
				if !brings {
					worst[callers] = max(worst[callers], over)
				}
				if callers == 32 {
					tail = max(tail, spread)
				}
			}
		}
	}
	r.section("full ca.issue over keep-alive mutual TLS", []string{
		"The installation has no directory: the LDIF file of chancery init is written as a whole with every",
		"change and would be all that is seen. CPU is of both processes; the callers share their cores.",
		"Parts are measured again right before each row. With one caller nothing is shared: three commits and",
		"a batch of the key room for each certificate, a sync each.",
	}, rows)
	for _, callers := range []int{8, 32} {
		r.target(fmt.Sprintf("full issue, %d callers: CPU over its parts", callers), worst[callers], 1.25, "x")
	}
	r.target("full issue, 32 callers: p99 over p50", tail, 2.5, "x")
	s.fill(b, 10_000)
	time.Sleep(time.Second)
	when := fmt.Sprintf("after %d issues", s.issued)
	r.target("both processes, resident, "+when, r.noteMemory(b, s, when), 80, " MiB")
	r.noteFlat(b, s, y, "")
}

func (s *installation) stage(b *testing.B, y *yardstick, w codec, callers int, csr []byte, brings bool) (row []string, over, spread float64) {
	sums := y.now(b)
	title, floor := w.name+", key and PKCS#12", sums.issue
	if brings {
		title, floor = w.name+", caller's CSR", sums.csr
	} else {
		csr = nil
	}
	l := s.issue(b, w, callers, until(time.Now().Add(stageTime)), csr)
	over, spread = ratio(l.cpu(), floor), ratio(quantile(l.waits, 0.99), quantile(l.waits, 0.5))
	return []string{
		title, fmt.Sprint(callers), fmt.Sprintf("%.0f", l.rate()), l.quantile(0.5), l.quantile(0.99), l.each(l.daemon), l.each(l.room),
		micro(l.cpu()), micro(floor), fmt.Sprintf("%.2fx", over),
		fmt.Sprintf("%.1f", spread),
	}, over, spread
}

// fill issues until there are as many certificates.
func (s *installation) fill(b *testing.B, certificates int) {
	if missing := certificates - s.issued; missing > 0 {
		s.issue(b, jsonCodec(), 8, func(n int64) bool { return n <= int64(missing) }, nil)
	}
}
