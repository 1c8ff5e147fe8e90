package bench_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// codec is one of the two ways to ask. done stands in every answer that is ok.
type codec struct {
	name, path, kind string
	done             []byte
	encode           func(method string, params map[string]any) ([]byte, error)
}

func jsonCodec() codec {
	return codec{"JSON-RPC", "/rpc", "application/json", []byte(`"ok":true`), func(method string, params map[string]any) ([]byte, error) {
		return json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	}}
}

func xmlCodec() codec {
	return codec{"XML-RPC", "/RPC2", "text/xml", []byte("<boolean>1</boolean>"), func(method string, params map[string]any) ([]byte, error) {
		return xmlrpc.EncodeCall(xmlrpc.Call{Method: method, Params: []any{params}})
	}}
}

// client keeps its connections alive, one for each caller at a time.
type client struct {
	http *http.Client
	url  string
}

func (s *installation) client(b *testing.B, callers int) *client {
	t := &http.Transport{TLSClientConfig: s.tls(b), MaxConnsPerHost: callers, MaxIdleConnsPerHost: callers, DisableCompression: true}
	b.Cleanup(t.CloseIdleConnections)
	return &client{&http.Client{Transport: t}, s.url}
}

func (c *client) call(w codec, method string, params map[string]any) ([]byte, error) {
	body, err := w.encode(method, params)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Post(c.url+w.path, w.kind, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && !bytes.Contains(answer, w.done) {
		err = fmt.Errorf("%s was not done: %s", method, answer)
	}
	return answer, err
}

// load is what a number of callers got in a while, each asking again as soon as it was answered.
type load struct {
	n            int
	wall         time.Duration
	waits        []time.Duration // sorted
	daemon, room time.Duration   // CPU
}

func (l load) rate() float64               { return float64(l.n) / l.wall.Seconds() }
func (l load) cpu() time.Duration          { return (l.daemon + l.room) / time.Duration(l.n) }
func (l load) each(d time.Duration) string { return micro(d / time.Duration(l.n)) }
func (l load) quantile(q float64) string   { return milli(quantile(l.waits, q)) }
func (s *installation) next() int64        { return atomic.AddInt64(&s.calls, 1) }
func (s *installation) warm(b *testing.B) {
	s.issue(b, jsonCodec(), 8, func(n int64) bool { return n < 100 }, nil)
}
func until(end time.Time) func(n int64) bool {
	return func(int64) bool { return time.Now().Before(end) }
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

// issue has callers ask for certificates for as long as more says. With a CSR the CA makes no key.
func (s *installation) issue(b *testing.B, w codec, callers int, more func(n int64) bool, csr []byte) load {
	b.Helper()
	l := s.load(b, callers, more, func(c *client) error {
		n := s.next()
		params := map[string]any{
			"purpose": "user", "cn": name(n), "request_id": fmt.Sprintf("issue-%d", n),
			"sans": map[string]any{"email": []any{fmt.Sprintf("user-%d@example.org", n)}},
		}
		if csr != nil {
			params["csr"] = csr
		}
		_, err := c.call(w, "ca.issue", params)
		return err
	})
	s.issued += l.n
	return l
}

// sameName is how many certificates get one name, so that they can be revoked with one call.
const sameName = 100

func name(n int64) string { return fmt.Sprintf("user-%d", n/sameName) }

// ownCSR is a request without a subject, which fits every name.
func ownCSR(b *testing.B) []byte {
	return got(profile.MakeCSR(rand.Reader, got(cert.GenerateKey(rand.Reader, cert.P256))(b), ""))(b)
}

func (s *installation) load(b *testing.B, callers int, more func(n int64) bool, do func(c *client) error) load {
	b.Helper()
	c := s.client(b, callers)
	daemon, room := s.cpu(b)
	l := drive(b, callers, more, func() error { return do(c) })
	c.http.CloseIdleConnections() // one caller may hold so many
	l.daemon, l.room = s.cpu(b)
	l.daemon, l.room = l.daemon-daemon, l.room-room
	return l
}

// drive has callers do something again and again for as long as more says.
func drive(b *testing.B, callers int, more func(n int64) bool, do func() error) load {
	b.Helper()
	var l load
	var mu sync.Mutex
	var group sync.WaitGroup
	var asked atomic.Int64
	begin := time.Now()
	for range callers {
		group.Go(func() {
			var waits []time.Duration
			for more(asked.Add(1)) && !b.Failed() {
				at := time.Now()
				if err := do(); err != nil {
					b.Error(err)
				}
				waits = append(waits, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			l.waits = append(l.waits, waits...)
		})
	}
	group.Wait()
	if b.Failed() {
		b.FailNow()
	}
	l.wall, l.n = time.Since(begin), len(l.waits)
	slices.Sort(l.waits)
	return l
}
