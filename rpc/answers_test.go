package rpc

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
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
						_, err = tx.Complete(serial, []byte("der"))
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
