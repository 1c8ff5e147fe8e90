package rpc

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/rpc/client"
)

func without(c Config, caller string) Config {
	var kept Config
	for _, one := range c.Callers {
		if one.Name != caller {
			kept.Callers = append(kept.Callers, one)
		}
	}
	return kept
}

func (w *world) apply(c Config, tls12 bool) {
	w.Helper()
	apply, err := w.server.Prepare(c, tls12)
	w.must(err)
	apply()
}

const statusOfAlice = `{"jsonrpc":"2.0","id":1,"method":"ca.status","params":{"cn":"alice"}}`

// TestRulesChange: what is prepared changes nothing until it is applied, and then everything that begins, on
// connections that are open too.
func TestRulesChange(t *testing.T) {
	w := newWorld(t)
	reader := w.caller("reader")
	own := w.browser(reader)
	ask := func() string {
		t.Helper()
		status, text := w.post(own, "/rpc", "application/json", strings.NewReader(statusOfAlice))
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
		return text
	}
	if text := ask(); !strings.Contains(text, `"ok":true`) {
		t.Fatal(text)
	}
	narrow := testConfig()
	narrow.Callers[1].Grants[0].Methods = []string{"ca.revoke"}
	apply, err := w.server.Prepare(narrow, false)
	w.must(err)
	if text := ask(); !strings.Contains(text, `"ok":true`) {
		t.Error(text)
	}
	apply()
	if text := ask(); !strings.Contains(text, "policy.denied") {
		t.Error(text)
	}
	bad := testConfig()
	bad.Callers[1].Grants[0].Methods = []string{"ca.everything"}
	var at *ConfigError
	if _, err := w.server.Prepare(bad, false); !errors.As(err, &at) || at.Key != "callers[1].grants[0].methods[0]" {
		t.Errorf("%v %+v", err, at)
	}
	if text := ask(); !strings.Contains(text, "policy.denied") {
		t.Error(text)
	}
	w.apply(without(testConfig(), "reader"), false)
	if text := ask(); !strings.Contains(text, "caller.unknown") {
		t.Error(text)
	}
	if _, err := own.Post(w.url+"/rpc", "application/json", strings.NewReader(statusOfAlice)); err == nil { //nolint:bodyclose // there is none
		t.Error("who was taken out has made another connection")
	}
	w.apply(testConfig(), false)
	if text := ask(); !strings.Contains(text, `"ok":true`) {
		t.Error(text)
	}
}

// TestRulesKeepRates: a reload is no new burst, unless the rate is another one.
func TestRulesKeepRates(t *testing.T) {
	stopped := time.Now().Add(time.Minute) // nothing is regained
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return stopped } })
	slow := w.browser(w.caller("slow"))
	count := func() (answered int) {
		t.Helper()
		for range 5 {
			if _, text := w.post(slow, "/rpc", "application/json", strings.NewReader(statusOfAlice)); strings.Contains(text, `"ok":true`) {
				answered++
			}
		}
		return answered
	}
	if n := count(); n != 2 {
		t.Errorf("%d calls of 5 were answered", n)
	}
	w.apply(testConfig(), false)
	if n := count(); n != 0 {
		t.Errorf("%d calls of 5 were answered after a reload", n)
	}
	faster := testConfig()
	faster.Callers[2].PerSecond = 50
	w.apply(faster, false)
	if n := count(); n != 5 {
		t.Errorf("%d calls of 5 were answered at another rate", n)
	}
}

// TestRulesOfTLS: the version that is accepted is that of the moment.
func TestRulesOfTLS(t *testing.T) {
	w := newWorld(t)
	old := w.clientTLS(w.caller("reader"))
	old.MaxVersion = tls.VersionTLS12
	old.ServerName = "127.0.0.1"
	for _, allowed := range []bool{false, true, false} {
		w.apply(testConfig(), allowed)
		c, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), old)
		if (err == nil) != allowed {
			t.Errorf("TLS 1.2, which is allowed: %v: %v", allowed, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	var network *net.OpError
	if _, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), old); !errors.As(err, &network) {
		t.Errorf("%v", err)
	}
}

// TestRulesUnderLoad: while rules alternate, every call gets an answer by one of them.
func TestRulesUnderLoad(t *testing.T) {
	w := newWorld(t)
	narrow := testConfig()
	narrow.Callers[0].Grants = narrow.Callers[0].Grants[1:]
	own := w.caller("provisioning")
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		c := w.client(own)
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				var answer client.Answer
				err := c.Call(t.Context(), "ca.status", map[string]any{"cn": "alice"}, &answer)
				if err != nil || !answer.OK && detail(t, answer)["code"] != "policy.denied" {
					t.Errorf("%v %+v", err, answer)
					return
				}
			}
		})
	}
	for n := range 100 {
		w.apply([]Config{testConfig(), narrow}[n%2], n%3 == 0)
	}
	close(done)
	callers.Wait()
}
