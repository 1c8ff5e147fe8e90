package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers every call with what answer makes of its id.
func service(t *testing.T, answer func(w http.ResponseWriter, id int64)) (*Client, *httptest.Server) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c call
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil || c.Version != "2.0" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%+v: %v", c, err)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		answer(w, c.ID)
	}))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := New(s.URL+"/rpc", &tls.Config{RootCAs: roots})
	t.Cleanup(c.Close)
	return c, s
}

func TestAnswer(t *testing.T) {
	peers := make(map[string]bool)
	var mu sync.Mutex
	c, s := service(t, func(w http.ResponseWriter, id int64) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{"ok":true,"msg":"m","detail":{"code":"issued"}}}`, id)
	})
	s.Config.Handler = watch(s.Config.Handler, func(peer string) {
		mu.Lock()
		defer mu.Unlock()
		peers[peer] = true
	})
	for range 5 {
		var a Answer
		if err := c.Call(t.Context(), "ca.issue", map[string]any{"cn": "alice"}, &a); err != nil || !a.OK || a.Msg != "m" || string(a.Detail) != `{"code":"issued"}` {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if len(peers) != 1 {
		t.Errorf("five calls took %d connections", len(peers))
	}
}

func watch(h http.Handler, see func(string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r.RemoteAddr)
		h.ServeHTTP(w, r)
	})
}

func TestFault(t *testing.T) {
	c, _ := service(t, func(w http.ResponseWriter, id int64) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":null,"error":{"code":4010,"message":"who are you"}}`)
	})
	var f *Fault
	if err := c.Call(t.Context(), "ca.issue", nil, new(Answer)); !errors.As(err, &f) || f.Code != 4010 || f.Message != "who are you" {
		t.Error(err)
	}
}

func TestBadAnswers(t *testing.T) {
	for what, answer := range map[string]func(w http.ResponseWriter, id int64){
		"another id": func(w http.ResponseWriter, id int64) { fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{}}`, id+1) },
		"no result":  func(w http.ResponseWriter, id int64) { fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d}`, id) },
		"no JSON":    func(w http.ResponseWriter, id int64) { fmt.Fprint(w, "hello") },
		"wrong type": func(w http.ResponseWriter, id int64) { fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":[]}`, id) },
		"an error page": func(w http.ResponseWriter, id int64) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{}}`, id)
		},
		"a page": func(w http.ResponseWriter, id int64) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{}}`, id)
		},
		"elsewhere": func(w http.ResponseWriter, id int64) {
			w.Header().Set("Location", "https://127.0.0.1:1/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"too much": func(w http.ResponseWriter, id int64) {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{"msg":"%s"}}`, id, strings.Repeat("x", maxResponse))
		},
	} {
		c, _ := service(t, answer)
		err := c.Call(t.Context(), "ca.issue", nil, new(Answer))
		var f *Fault
		if err == nil || errors.As(err, &f) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
