package rpc

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/rpc/client"
)

// ending are the names of what ca.expiring tells, and whether each is superseded.
func (w *world) ending(c *client.Client, params object) (names []string, pages int) {
	w.Helper()
	return w.paged(c, "ca.expiring", params, func(m map[string]any) string { return fmt.Sprintf("%s:%v", m["cn"], m["superseded"]) })
}

func TestExpiring(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	boss, reader, nothing := w.client(w.caller("provisioning")), w.client(w.caller("reader")), w.client(w.caller("nothing"))
	for i, one := range []struct {
		purpose, cn string
		days        int
	}{
		{"user", "bob", 20}, {"user", "alice", 10}, {"user", "anna", 5}, {"user", "anna", 200},
		{"server", "www.example.org", 15}, {"user", "late", 100}, {"user", "gone", 7},
	} {
		var a client.Answer
		w.must(boss.Call(t.Context(), "ca.issue", object{"purpose": one.purpose, "cn": one.cn, "valid_days": one.days, "request_id": fmt.Sprint("e", i)}, &a))
		if !a.OK {
			t.Fatal(a.Msg)
		}
	}
	var a client.Answer
	w.must(boss.Call(t.Context(), "ca.revoke", object{"cn": "gone"}, &a))

	const month = "anna:true alice:false www.example.org:false bob:false"
	for _, c := range []struct {
		who    *client.Client
		params object
		want   string
		pages  int
	}{
		{boss, object{}, month, 1},
		{boss, object{"limit": 1}, month, 4},
		{boss, object{"limit": 3, "within_days": 100}, month + " late:false", 2},
		{boss, object{"purpose": "server"}, "www.example.org:false", 1},
		{boss, object{"within_days": 8}, "anna:true", 1},
		{reader, object{}, "anna:true alice:false", 1},           // its grant: users, a*
		{reader, object{"limit": 1}, "anna:true alice:false", 2}, // and no page ends at what it may not see
	} {
		params := asJSON(t, c.params)
		got, pages := w.ending(c.who, c.params)
		if strings.Join(got, " ") != c.want || pages < c.pages || pages > c.pages+1 {
			t.Errorf("%s: %v in %d pages, want %s in %d", params, got, pages, c.want, c.pages)
		}
	}
	for _, c := range []struct {
		who    *client.Client
		params object
		code   string
	}{
		{nothing, object{}, "policy.denied"},
		{reader, object{"purpose": "server"}, "policy.denied"},
		{boss, object{"purpose": "smtp"}, "purpose.unknown"},
		{boss, object{"within_days": 826}, "expiring.window"},
		{boss, object{"within_days": -1}, "expiring.window"},
		{boss, object{"limit": 1001}, "page.limit"},
		{boss, object{"after": "7f"}, "page.after"},
		{boss, object{"after": "99999999999999999999.1"}, "page.after"},
	} {
		from := w.head()
		w.must(c.who.Call(t.Context(), "ca.expiring", c.params, &a))
		if code := detail(t, a)["code"]; a.OK || code != c.code {
			t.Errorf("%v: %v, want %s", c.params, code, c.code)
		}
		if _, r := w.refusal(from); r.Code != c.code || r.Method != "ca.expiring" {
			t.Errorf("%v: the log says %+v", c.params, r)
		}
	}
}

// TestCallerRenewsItself: with a grant for its own name a caller gets its next certificate while it has
// one, both open the door until one ends, and every answer warns when the end is near.
func TestCallerRenewsItself(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Config.Callers = append(o.Config.Callers, Caller{Name: "renewer", Grants: []Grant{
			{Methods: []string{"ca.issue", "ca.revoke"}, Purposes: []cert.Purpose{cert.Caller}, Names: []string{"renewer"}},
		}})
	})
	old := w.caller("renewer")
	first := w.client(old)
	ask := func(c *client.Client, params object) (client.Answer, map[string]any) {
		t.Helper()
		var a client.Answer
		w.must(c.Call(t.Context(), "ca.issue", params, &a))
		return a, detail(t, a)
	}
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	w.must(err)
	csr, err := profile.MakeCSR(rand.Reader, key, "renewer")
	w.must(err)
	params := object{"purpose": "caller", "cn": "renewer", "csr": asText(csr), "valid_days": 397, "request_id": "renew-1"}
	a, d := ask(first, params)
	if !a.OK || d["notice"] != nil {
		t.Fatalf("%s %s", a.Msg, a.Detail)
	}
	if a, d := ask(first, object{"purpose": "caller", "cn": "provisioning"}); a.OK || d["code"] != "policy.denied" {
		t.Fatalf("another caller's name: %s %s", a.Msg, a.Detail)
	}
	block, _ := pem.Decode([]byte(d["certificate"].(string)))
	leaf, err := x509.ParseCertificate(block.Bytes)
	w.must(err)
	next := tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key, Leaf: leaf}
	second := w.client(next)
	if w.setDays(335); old.Leaf.NotAfter.Sub(w.now()) > 30*24*time.Hour {
		t.Fatalf("the old one ends at %s", old.Leaf.NotAfter)
	}
	a, d = ask(first, params) // a retry, over the connection of the old one
	want := "your certificate ends on " + old.Leaf.NotAfter.UTC().Format("2006-01-02")
	if text, _ := d["notice"].(string); !a.OK || !strings.HasPrefix(text, want) {
		t.Errorf("%s %s", a.Msg, a.Detail)
	}
	if _, d = ask(first, object{"purpose": "user", "cn": "eve"}); d["notice"] == nil || d["code"] != "policy.denied" {
		t.Errorf("a refusal does not warn: %v", d)
	}
	if a, d = ask(second, params); !a.OK || d["notice"] != nil || d["serial"] != string(serialOf(next)) {
		t.Errorf("the new one: %s %s", a.Msg, a.Detail)
	}
	w.setDays(366)
	if number, _ := w.list(w.browser(next)); number != 0 {
		t.Errorf("the new one after the old one's end: %d", number)
	}
	var late client.Answer
	if err := w.client(old).Call(t.Context(), "ca.issue", params, &late); err == nil {
		t.Errorf("the old one after its end: %+v", late)
	}
}

// setDays moves the server's clock so many days ahead of the real one.
func (w *world) setDays(n int) { w.offset.Store(int64(n) * int64(24*time.Hour)) }

func asText(csr []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
}
