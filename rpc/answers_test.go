package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/rpc/xmlrpc"
	"github.com/chancery-ca/chancery/store"
)

// fill puts certificates of a name into the books, as long as anything in them can be.
func (w *world) fill(n int, cn string, revoked bool) {
	w.Helper()
	named, err := name.Canonical(cert.User, cn)
	w.must(err)
	chain, err := w.authority.Chain(cert.User)
	w.must(err)
	failed := make(chan error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			serial, err := cert.NewSerial(w.server.rand)
			if err == nil {
				_, err = w.store.Update(w.Context(), operator, func(tx *store.Tx) (audit.Event, error) {
					err := tx.Reserve(store.Certificate{
						Serial: serial, Issuer: chain.Issuer, Purpose: cert.User, CN: named.Text, Key: named.Key, KeyType: cert.P256,
						Caller: strings.Repeat("c", 63), RequestID: strings.Repeat("r", 128-32) + string(serial), NotBefore: tx.Now(),
						NotAfter: tx.Now().Add(100*day + time.Duration(i)*time.Second), Deadline: tx.Now(), Entry: strings.Repeat("e", 36),
					})
					if err == nil {
						_, _, err = tx.Complete(serial, []byte("der"))
					}
					if err == nil && revoked {
						_, err = tx.Revoke(serial, tx.Now(), cert.CessationOfOperation)
					}
					return &audit.ServiceStopped{}, err
				})
			}
			failed <- err
		})
	}
	all.Wait()
	for range n {
		w.must(<-failed)
	}
}

// published says of the list of the users' issuer that it is in git, under the longest names that there are.
func (w *world) published() {
	w.Helper()
	chain, err := w.authority.Chain(cert.User)
	w.must(err)
	number := strings.Repeat("9", 48)
	_, err = w.store.Update(w.Context(), operator, func(tx *store.Tx) (audit.Event, error) {
		if err := tx.PutList(store.List{Issuer: chain.Issuer, Number: number}); err != nil {
			return nil, err
		}
		return &audit.ServiceStopped{}, tx.ListPublished(chain.Issuer, number, strings.Repeat("c", 40), tx.Now())
	})
	w.must(err)
}

// both makes a call by each codec, which must not end in a fault, and gives what came of it by XML-RPC.
func (w *world) both(h *http.Client, method string, params ...any) any {
	w.Helper()
	request, err := xmlrpc.EncodeCall(xmlrpc.Call{Method: method, Params: params})
	w.must(err)
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, asJSON(w, params))
	answers := make(map[string][]byte)
	for path, text := range map[string]string{"/RPC2": string(request), "/rpc": body} {
		kind := map[string]string{"/RPC2": "text/xml", "/rpc": "application/json"}[path]
		response, err := h.Post(w.url+path, kind, strings.NewReader(text))
		w.must(err)
		answers[path], err = io.ReadAll(response.Body)
		w.must(err)
		w.must(response.Body.Close())
		if n := len(answers[path]); n > xmlrpc.MaxResponse {
			w.Errorf("%s %s: an answer of %d octets", path, method, n)
		}
	}
	value, err := xmlrpc.DecodeResponse(answers["/RPC2"])
	if err != nil {
		w.Fatalf("%s: %v", method, err)
	}
	if !bytes.HasPrefix(answers["/rpc"], []byte(`{"id":1,"jsonrpc":"2.0","result":`)) {
		w.Fatalf("%s: %.300s", method, answers["/rpc"])
	}
	return value
}

// TestLargestAnswers: what a caller may ask for fits into an answer of either codec, or comes in pages that
// are complete.
func TestLargestAnswers(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	asking{w, nil, nil}.authorise(new(directory))
	w.published()
	live, gone := strings.Repeat("\U00020000", 64), strings.Repeat("\U00020001", 64)
	w.fill(maxRevoke, live, false)
	w.fill(maxRevoke, gone, true)
	h := w.browser(w.caller("provisioning"))
	for _, c := range []struct {
		method string
		params object
		member string
		want   int
	}{
		{"ca.find", object{"cn": gone, "limit": maxPage}, "certificates", maxRevoke},
		{"ca.find", object{"cn": live, "limit": maxPage}, "certificates", maxRevoke},
		{"ca.find", object{"state": "live", "limit": maxPage}, "certificates", maxRevoke},
		{"ca.expiring", object{"limit": maxPage, "within_days": expiringMaxDays}, "certificates", maxRevoke},
		{"ca.status", object{"cn": gone}, "certificates", maxStatus},
		{"ca.retire", object{"cn": live, "plan": true}, "retired", maxRevoke},
		{"ca.revoke", object{"cn": live, "plan": true, "max": maxRevoke}, "revoked", maxRevoke},
		{"ca.hold", object{"cn": live, "plan": true, "max": maxRevoke}, "held", maxRevoke},
		{"ca.hold", object{"cn": live, "max": maxRevoke, "request_id": "hold"}, "held", maxRevoke},
		{"ca.release", object{"cn": live, "plan": true, "max": maxRevoke}, "released", maxRevoke},
		{"ca.release", object{"cn": live, "max": maxRevoke, "request_id": "release"}, "released", maxRevoke},
		{"ca.retire", object{"cn": live, "request_id": "retire"}, "retired", maxRevoke},
	} {
		var serials []string
		for page := 1; ; page++ {
			a := w.both(h, c.method, c.params).([]any)
			d := a[2].(map[string]any)
			if a[0] != true {
				t.Fatalf("%s: %v %v", c.method, a[1], d["code"])
			}
			for _, one := range d[c.member].([]any) {
				serials = append(serials, one.(map[string]any)["serial"].(string))
			}
			if d["next"] == nil {
				t.Logf("%s: %d in %d pages", c.method, len(serials), page)
				break
			}
			c.params["after"] = d["next"]
		}
		slices.Sort(serials)
		if n := len(slices.Compact(serials)); n != c.want {
			t.Errorf("%s: %d different certificates, want %d", c.method, n, c.want)
		}
	}
}

// several makes a multicall, and gives the code of each answer, or the number of each fault.
func (a asking) several(calls ...any) (codes []string, details []map[string]any) {
	a.Helper()
	var results []struct {
		Result json.RawMessage `json:"result"`
		Error  *client.Fault
	}
	a.must(a.client.Call(context.Background(), "system.multicall", calls, &results))
	for _, r := range results {
		if r.Error != nil {
			codes, details = append(codes, strconv.Itoa(r.Error.Code)), append(details, nil)
			continue
		}
		var got client.Answer
		a.must(json.Unmarshal(r.Result, &got))
		d := detail(a, got)
		code, _ := d["code"].(string)
		if kind := kindOf(code); got.OK != (kind == isAnswer) {
			a.Errorf("%s is no %s: ok %v, %q", code, kind, got.OK, got.Msg)
		}
		if a.seen != nil {
			a.seen.Store(code, true)
		}
		codes, details = append(codes, code), append(details, d)
	}
	return codes, details
}

func inside(method string, params object) object {
	return object{"methodName": method, "params": []any{params}}
}

// refusedInMulticall: the results of a multicall share one answer. What has no space in it is told so, and what would
// change something is then not begun.
func refusedInMulticall(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	asking{a.world, nil, nil}.authorise(new(directory))
	a.published()
	gone := strings.Repeat("\U00020001", 64)
	a.fill(maxPage, gone, true)
	a.ask("ca.issue", user("alice", "request_id", "a1"), "issued")

	page := func(limit int) object { return inside("ca.find", object{"cn": gone, "limit": limit}) }
	status := inside("ca.status", object{"cn": gone})
	from := a.head()
	codes, details := a.several(page(690), status, status, inside("ca.issue", user("bob", "request_id", "b1")), page(maxPage))
	if got := strings.Join(codes, " "); got != "find status 4130 issued find" {
		t.Fatal(got)
	}
	first, last := details[0]["certificates"].([]any), details[4]["certificates"].([]any)
	if len(first) != 690 || len(last) < 5 || len(last) > 100 || details[4]["next"] == nil {
		t.Errorf("pages of %d and %d, and then %v", len(first), len(last), details[4]["next"])
	}
	if r, ok := a.since(from)[0].Event.(*audit.RequestRefused); !ok || r.Code != "answer.large" || r.Method != "ca.status" {
		t.Errorf("the log says %+v", r)
	}

	from = a.head()
	carol := user("carol", "request_id", "c1")
	codes, details = a.several(page(maxPage), inside("ca.issue", carol), inside("ca.retire", object{"cn": "alice", "request_id": "a2"}), inside("ca.find", object{}))
	if got := strings.Join(codes, " "); got != "find multicall.answer multicall.answer multicall.answer" {
		t.Fatal(got)
	}
	if details[1]["request_id"] != "c1" || details[1]["log_index"] == nil || a.head() != from+3 {
		t.Errorf("%v, and %d leaves", details[1], a.head()-from)
	}
	a.again(carol)
	a.ask("ca.retire", object{"cn": "alice", "request_id": "a2"}, "retired")

	asking{a.world, nil, nil}.authorise(&slowly{Duration: 300 * time.Millisecond})
	a.server.callTime = leastTime + 200*time.Millisecond
	from = a.head()
	dave := user("dave", "request_id", "d1")
	codes, details = a.several(inside("ca.issue", user("dora", "request_id", "d0")), inside("ca.issue", dave))
	if got := strings.Join(codes, " "); got != "issued multicall.time" {
		t.Fatal(got)
	}
	if d := details[1]; d["request_id"] != "d1" || d["log_index"] != float64(a.head()-1) || a.head() != from+4 {
		t.Errorf("%v, and %d leaves", d, a.head()-from)
	}
	a.again(dave)
}

// slowly is a directory that takes its time.
type slowly struct {
	directory
	time.Duration
}

func (s *slowly) Find(ctx context.Context, p cert.Purpose, n name.Name) (string, error) {
	time.Sleep(s.Duration)
	return s.directory.Find(ctx, p, n)
}

// TestMulticallRevokes: while git takes nothing, every revocation of a multicall is durable after one wait for it.
func TestMulticallRevokes(t *testing.T) {
	w := newWorld(t)
	var calls []any
	for range maxCalls {
		serial := string(serialOf(w.certificate(cert.User, "alice", cert.SANs{})))
		calls = append(calls, inside("ca.revoke", object{"serial": serial}))
	}
	begun := time.Now()
	codes, details := asking{w, w.client(w.caller("provisioning")), nil}.several(calls...)
	if took := time.Since(begun); took < publishTime || took > 2*publishTime {
		t.Errorf("it took %v", took)
	}
	for i, d := range details {
		if codes[i] != "revoked" || d["crl"].([]any)[0].(map[string]any)["state"] != "pending" {
			t.Errorf("%d: %s %v", i, codes[i], d)
		}
	}
	found, err := w.store.Find(t.Context(), store.Query{States: []store.State{store.StateRevoked}})
	if w.must(err); len(found) != maxCalls {
		t.Errorf("%d are revoked", len(found))
	}
}

// unread sends a call on a connection of its own, and reads nothing of the answer.
func (w *world) unread(config *tls.Config, path, kind, body string) net.Conn {
	w.Helper()
	tcp, err := net.Dial("tcp", strings.TrimPrefix(w.url, "https://"))
	w.must(err)
	w.must(tcp.(*net.TCPConn).SetReadBuffer(4 << 10))
	c := tls.Client(tcp, config)
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, kind, len(body), body)
	w.must(err)
	return c
}

// patience sets how long a call waits for a place.
func (w *world) patience(d time.Duration) {
	w.server.shelf.mu.Lock()
	defer w.server.shelf.mu.Unlock()
	w.server.shelf.patience = d
}

// TestAnswersHeld: large answers that a caller does not read keep it from asking for more of them, and from nothing
// else, and keep nobody else.
func TestAnswersHeld(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Config.Callers[1].PerSecond = 1e6 })
	w.fill(maxPage, strings.Repeat("a", 64), true)
	own := w.caller("reader")
	config := w.clientTLS(own)
	config.ServerName = "127.0.0.1"
	const large = `{"jsonrpc":"2.0","id":1,"method":"ca.find","params":{"limit":1000}}`
	var held []net.Conn
	for range maxHeldOne>>20 + maxWaitOne {
		held = append(held, w.unread(config, "/rpc", "application/json", large))
	}
	rightWithin(t, 6*placeTime, func() string { // those who wait come first
		w.server.shelf.mu.Lock()
		defer w.server.shelf.mu.Unlock()
		if n, waiting := w.server.shelf.held["reader"], w.server.shelf.waiting["reader"]; n < maxHeldOne-8<<20 || waiting == 0 {
			return fmt.Sprintf("%d octets are held, and %d calls wait", n, waiting)
		}
		return ""
	})
	w.patience(10 * time.Millisecond)
	c := w.client(own)
	var a client.Answer
	params := object{"limit": maxPage}
	f, ok := c.Call(t.Context(), "ca.find", params, &a).(*client.Fault)
	if !ok || f.Code != codeTooMany || !strings.Contains(f.Message, "not read") {
		t.Fatalf("%v %v", f, a.Msg)
	}
	w.must(c.Call(t.Context(), "ca.whoami", object{}, &a))
	w.must(w.client(w.caller("provisioning")).Call(t.Context(), "ca.find", params, &a))
	for _, one := range held {
		w.must(one.(*tls.Conn).NetConn().Close())
	}
	w.patience(6 * placeTime) // those who wait come before
	if err := c.Call(t.Context(), "ca.find", params, &a); err != nil || !a.OK {
		t.Error(err, a.Msg)
	}
	rightWithin(t, 6*placeTime, func() string { // those who wait come first
		w.server.shelf.mu.Lock()
		defer w.server.shelf.mu.Unlock()
		if s := w.server.shelf; s.total+s.held["reader"]+s.held["provisioning"]+s.waits != 0 {
			return fmt.Sprintf("%+v", s.held)
		}
		return ""
	})
	w.must(w.server.crowd.flush(t.Context(), w.now().Add(time.Hour)))
	for _, l := range w.since(0) {
		if r, ok := l.Event.(*audit.RequestRefused); ok && (r.Code != answersHeld || l.Actor.Name != "reader" || r.Count < 1) {
			t.Errorf("the log says %+v", r)
		}
	}
}

// greedy are callers who ask for all that they can get.
func greedy() []string { return []string{"greedy", "greedier", "greediest"} }

// largeAnswers: the heaviest multicalls of several callers by both codecs, on nearly as many connections as each may
// have, and nothing of the answers is read.
func largeAnswers(t *testing.T, s *siege) {
	const patience = 2 * time.Second
	s.patience(patience)
	s.fill(1100, strings.Repeat("a", 64), true)
	calls := slices.Repeat([]any{inside("ca.find", object{"limit": maxPage})}, maxCalls)
	asXML, err := xmlrpc.EncodeCall(xmlrpc.Call{Method: multicallName, Params: []any{calls}})
	s.must(err)
	inJSON := `{"jsonrpc":"2.0","id":1,"method":"system.multicall","params":[` + asJSON(t, calls) + `]}`
	var held []net.Conn
	for _, name := range greedy() {
		config := s.clientTLS(s.caller(name))
		config.ServerName = "127.0.0.1"
		for range (maxPerCaller - 6) / 2 {
			held = append(held, s.unread(config, "/RPC2", "text/xml", string(asXML)), s.unread(config, "/rpc", "application/json", inJSON))
		}
	}
	s.goOn(20)
	time.Sleep(2 * patience)
	for _, c := range held {
		_ = c.(*tls.Conn).NetConn().Close()
	}
}
