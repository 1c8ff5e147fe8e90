package rpc

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/rpc/client"
)

// TestHTTP: everything that is no call gets its status, and a record, since the caller is known.
func TestHTTP(t *testing.T) {
	w := newWorld(t)
	h := w.browser(w.caller("provisioning"))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write([]byte(listMethods))
	w.must(errors.Join(err, z.Close()))
	for _, c := range []struct {
		method, path string
		header       []string
		body         string
		status       int
		code         string
	}{
		{"GET", "/RPC2", nil, "", 405, "http.method"},
		{"PUT", "/rpc", []string{"Content-Type", "application/json"}, listMethods, 405, "http.method"},
		{"OPTIONS", "/rpc", nil, "", 405, "http.method"},
		{"GET", "/", nil, "", 404, "http.path"},
		{"POST", "/rpc/", []string{"Content-Type", "application/json"}, listMethods, 404, "http.path"},
		{"POST", "/RPC2/../rpc", []string{"Content-Type", "application/json"}, listMethods, 404, "http.path"},
		{"POST", "/rpc", []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, zipped.String(), 415, "http.encoding"},
		{"POST", "/rpc", []string{"Content-Type", "text/xml"}, listMethods, 415, "http.type"},
		{"POST", "/rpc", nil, listMethods, 415, "http.type"},
		{"POST", "/RPC2", []string{"Content-Type", "application/x-www-form-urlencoded"}, "a=b", 415, "http.type"},
		{"POST", "/rpc", []string{"Content-Type", `application/json; charset="utf-8"`}, listMethods, 200, ""},
		{"POST", "/RPC2", []string{"Content-Type", "application/xml"}, xmlCall("system.listMethods", ""), 200, ""},
		{"POST", "/RPC2", []string{"Content-Type", "text/xml;charset=utf-8"}, xmlCall("system.listMethods", ""), 200, ""},
	} {
		from := w.head()
		r, err := http.NewRequestWithContext(t.Context(), c.method, w.url+c.path, strings.NewReader(c.body))
		w.must(err)
		for i := 0; i < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
		}
		status, text := w.do(h, r)
		if status != c.status {
			t.Errorf("%s %s %v: HTTP %d %s, want %d", c.method, c.path, c.header, status, text, c.status)
		}
		if c.code == "" {
			continue
		}
		if _, leaf := w.refusal(from); leaf.Code != c.code || !strings.Contains(text, leaf.Reason) {
			t.Errorf("%s %s %v: the log says %+v", c.method, c.path, c.header, leaf)
		}
	}
}

// TestRawHTTP: what the HTTP server turns away by itself is counted.
func TestRawHTTP(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	for what, says := range map[string]string{
		"nonsense":     "hello\r\n\r\n",
		"long header":  "POST /rpc HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"two lengths":  "POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
		"odd encoding": "POST /rpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"no host":      "POST /rpc HTTP/1.1\r\n\r\n",
	} {
		before := w.strangers()["http.malformed"]
		c, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), w.clientTLS(own))
		w.must(err)
		_, err = c.Write([]byte(says))
		w.must(err)
		line, _ := bufio.NewReader(c).ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 4") && !strings.HasPrefix(line, "HTTP/1.1 5") {
			t.Errorf("%s: %q", what, line)
		}
		w.must(c.Close())
		w.counted("http.malformed", before+1)
	}
	if w.tlsVersion(own, tls.VersionTLS12) == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

func (w *world) tlsVersion(own tls.Certificate, version uint16) error {
	config := w.clientTLS(own)
	config.MaxVersion = version
	c := client.New(w.url+"/rpc", config)
	defer c.Close()
	return c.Call(w.Context(), "system.listMethods", nil, new([]string))
}

func TestTLS12ByOption(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MinTLS12 = true })
	own := w.caller("provisioning")
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if err := w.tlsVersion(own, v); err != nil {
			t.Errorf("%s: %v", tls.VersionName(v), err)
		}
	}
	if w.tlsVersion(own, tls.VersionTLS11) == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// TestNoResumption: a client that would resume its session is given nothing to do it with.
func TestNoResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		w := newWorld(t, func(o *Options) { o.MinTLS12 = true })
		config := w.clientTLS(w.caller("provisioning"))
		config.MaxVersion, config.ClientSessionCache = version, noTickets{t}
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		for range 3 {
			response, err := h.Post(w.url+"/rpc", "application/json", strings.NewReader(listMethods))
			w.must(err)
			_, err = io.Copy(io.Discard, response.Body)
			w.must(errors.Join(err, response.Body.Close()))
			if response.TLS.DidResume {
				t.Errorf("%s: a session was resumed", tls.VersionName(version))
			}
		}
	}
}

// noTickets is a client's cache that must stay empty.
type noTickets struct{ *testing.T }

func (n noTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (n noTickets) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		n.Error("the server gave a session ticket")
	}
}

// TestSlow: a body that never ends does not hold a caller's answer, nor the stop of the server.
func TestSlow(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	c, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), w.clientTLS(own))
	w.must(err)
	_, err = fmt.Fprintf(c, "POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	w.must(err)
	w.must(c.CloseWrite())
	line, _ := bufio.NewReader(c).ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("%q", line)
	}
	w.must(c.Close())
	var code string
	for _, l := range w.since(0) {
		if r, ok := l.Event.(*audit.RequestRefused); ok {
			code += r.Code
		}
	}
	if code != "http.body" {
		t.Errorf("the log says %q", code)
	}
}

// TestCurl: a caller with nothing but a shell.
func TestCurl(t *testing.T) {
	w := newWorld(t)
	certFile, keyFile := w.files(w.caller("provisioning"))
	base := []string{"curl", "-sS", "--cacert", filepath.Join(w.dir, "root.pem"), "--cert", certFile, "--key", keyFile}
	call := func(body string, more ...string) string {
		return string(w.tool([]byte(body), append(append(base, "-H", "Content-Type: application/json", "--data-binary", "@-"), more...)...))
	}
	out := call(`{"jsonrpc":"2.0","id":1,"method":"ca.issue","params":{"purpose":"user","cn":"alice","plan":true}}`, w.url+"/rpc")
	if !strings.Contains(out, `"ok":true`) || !strings.Contains(out, `"code":"plan.issue"`) {
		t.Errorf("%s", out)
	}
	if out := call("", w.url+"/nowhere", "-w", "%{http_code} %{http_version}"); !strings.Contains(out, "404 1.1") {
		t.Errorf("%s", out)
	}
	big := w.write("big", strings.Repeat(" ", 10<<20))
	out = string(w.tool(nil, append(base, "-H", "Content-Type: text/xml", "--data-binary", "@"+big, w.url+"/RPC2")...))
	if !strings.Contains(out, "<int>-32600</int>") || !strings.Contains(out, "the body is longer than 65536 bytes") {
		t.Errorf("%s", out)
	}
	w.must(os.Remove(big))
}

// TestStop: calls under way are finished, idle connections do not hold the server, and what was counted
// is on the log.
func TestStop(t *testing.T) {
	w := newWorld(t)
	own := w.caller("provisioning")
	started, release := make(chan struct{}), make(chan struct{})
	o := w.options()
	s, err := New(o)
	w.must(err)
	s.methods["system.wait"] = row{name: "system.wait", call: func(context.Context, *request, []any) (any, error) {
		close(started)
		<-release
		return "done", nil
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	url := "https://" + l.Addr().String() + "/rpc"
	knock, err := net.Dial("tcp", l.Addr().String())
	w.must(err)
	_, err = knock.Write([]byte("GET /\r\n"))
	w.must(errors.Join(err, knock.Close()))
	c := client.New(url, w.clientTLS(own))
	defer c.Close()
	got := make(chan error, 1)
	go func() {
		var text string
		err := c.Call(context.Background(), "system.wait", nil, &text)
		if err == nil && text != "done" {
			err = errors.New(text)
		}
		got <- err
	}()
	<-started
	stop()
	select {
	case err := <-ended:
		t.Fatalf("it ended before its call: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it takes connections after its end")
		_ = conn.Close()
	}
	close(release)
	w.must(<-got)
	w.must(<-ended)
	last := w.since(w.head() - 1)[0].Event
	if e, ok := last.(*audit.StrangersTurnedAway); !ok || e.Cause != "tls.not_tls" || e.Count != 1 {
		t.Errorf("the last leaf is %+v", last)
	}
}

func (w *world) options() Options {
	return Options{
		Authority: w.authority, Store: w.store, Config: testConfig(), CallersCA: w.server.callersCA,
		TLSCertificate: func() tls.Certificate { return w.tls }, Log: w.server.log, Now: w.now, Rand: rand.Reader,
	}
}
