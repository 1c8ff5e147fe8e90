package bench_test

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// noteMemory adds what both processes hold at the moment.
func (r *report) noteMemory(b *testing.B, s *installation, when string) (both float64) {
	daemon, daemonPeak := memory(b, s.daemon)
	room, roomPeak := memory(b, s.room)
	r.memory = append(r.memory, []string{
		when, fmt.Sprintf("%.1f", daemon), fmt.Sprintf("%.1f", room), fmt.Sprintf("%.1f", daemon+room),
		fmt.Sprintf("%.1f", daemonPeak+roomPeak),
	})
	r.most = max(r.most, daemon+room)
	return daemon + room
}

func (r *report) closeMemory() {
	r.section("memory, MiB resident", []string{"peak is the sum of the highest of each process since it started"},
		append([][]string{{"", "daemon", "key room", "both", "peak"}}, r.memory...))
	r.target("both processes, resident, at the most above", r.most, 80, " MiB")
}

const flatIssues = 1500

// noteFlat adds what an issue costs at the moment, beside its parts.
func (r *report) noteFlat(b *testing.B, s *installation, y *yardstick, more string) {
	before := y.now(b).issue
	at := s.issued
	l := s.issue(b, jsonCodec(), 8, func(n int64) bool { return n <= flatIssues }, nil)
	parts := (before + y.now(b).issue) / 2
	over := ratio(l.cpu(), parts)
	r.flat = append(r.flat, []string{
		fmt.Sprintf("%d%s", at, more), l.each(l.daemon), l.each(l.room), micro(l.cpu()), micro(parts), fmt.Sprintf("%.2fx", over),
	})
	r.overs = append(r.overs, over)
}

func (r *report) closeFlat() {
	r.section(fmt.Sprintf("an issue as certificates become many, 8 callers, %d issues", flatIssues), nil,
		append([][]string{{"certificates before", "daemon us", "key room us", "CPU us", "parts us", "CPU/parts"}}, r.flat...))
	r.target("issue with the most certificates over the first", r.overs[len(r.overs)-1]/r.overs[0], 1.15, "x")
}

// reportPreloaded puts many more certificates into the books and on the log, as others would have
// left them there, and measures once more. The key room reads their leaves but did not sign them.
func reportPreloaded(b *testing.B, r *report, s *installation, y *yardstick) {
	const rows = 100_000
	s.stop(b)
	st := got(store.Open(context.Background(), s.path("state", "store.db"), time.Now))(b)
	var next atomic.Int64
	var writers sync.WaitGroup
	for range 64 {
		writers.Go(func() {
			for n := next.Add(1); n <= rows; n = next.Add(1) {
				c := certificate(n)
				enter(b, st, c)
				complete(b, st, c)
			}
		})
	}
	writers.Wait()
	must(b, st.Close())
	s.start(b)
	s.warm(b)
	r.noteMemory(b, s, "restarted, 100,000 more in the books")
	r.noteFlat(b, s, y, " and 100,000 preloaded")
	s.stop(b)
	multiply(b, s.path("state", "store.db"))
	s.start(b)
	s.warm(b)
	r.noteMemory(b, s, "restarted, a million more in the books")
	r.noteFlat(b, s, y, " and 1,000,000 preloaded")
	r.closeFlat()
	r.closeMemory()
}

// multiply puts nine more of each preloaded certificate into the books, and none on the log: their intents are from
// before it began.
func multiply(b *testing.B, path string) {
	db := got(sql.Open("sqlite", path))(b)
	defer db.Close()
	of := map[string]string{
		"intent": "-(k << 24) - intent", "serial": "'6' || k || substr(serial, 3)", "cn": "cn || '-' || k",
		"name": "name || '-' || k", "request_id": "request_id || '-' || k", "id": "id || '-' || k",
	}
	for table, which := range map[string]string{"certificate": "request_id", "request": "id"} {
		var names, values []string
		rows := got(db.Query("SELECT name FROM pragma_table_info(?)", table))(b)
		for rows.Next() {
			var name string
			must(b, rows.Scan(&name))
			names, values = append(names, name), append(values, cmp.Or(of[name], name))
		}
		must(b, rows.Err())
		got(db.Exec(fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %[1]s, (SELECT value AS k FROM json_each('[1,2,3,4,5,6,7,8,9]')) WHERE %[4]s LIKE 'row-%%'",
			table, strings.Join(names, ", "), strings.Join(values, ", "), which)))(b)
	}
}

func complete(b *testing.B, s *store.Store, c store.Certificate) {
	der := bytes.Repeat([]byte("d"), 600)
	_, err := s.Update(context.Background(), audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
		_, _, err := tx.Complete(c.Serial, der)
		return &audit.IssueDone{Serial: c.Serial, Fingerprint: cert.FingerprintOf(der)}, err
	})
	if err != nil {
		b.Error(err)
	}
}
