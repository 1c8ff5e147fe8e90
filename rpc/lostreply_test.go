package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/rpc/xmlrpc"
	"github.com/chancery-ca/chancery/store"
)

// lossy is a line to the service that loses a tenth of the answers: at the first octet, in the middle, or by
// ending as soon as the call has gone, whatever the service makes of that.
type lossy struct {
	net.Conn
	lost   *atomic.Int64
	called atomic.Bool // and nothing of the answer has come
	cut    atomic.Bool
}

var errLost = errors.New("the line was cut")

func (l *lossy) Write(b []byte) (int, error) {
	l.called.Store(true)
	n, err := l.Conn.Write(b)
	if rand.IntN(30) == 0 {
		l.lose()
	}
	return n, err
}

func (l *lossy) lose() {
	if !l.cut.Swap(true) {
		l.lost.Add(1)
		_ = l.Close()
	}
}

func (l *lossy) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.cut.Load() {
		return 0, errLost
	}
	if n == 0 || !l.called.Swap(false) {
		return n, err
	}
	switch rand.IntN(30) {
	case 0:
		l.lose()
		return 0, errLost
	case 1:
		l.lose()
		return n / 2, nil
	}
	return n, err
}

// held is what a caller keeps of an answer.
type held struct{ code, serial, certificate, password, pkcs12 string }

// persistent is a caller that asks until it has an answer, now over one codec, now over the other.
type persistent struct {
	*world
	http *http.Client
	lost atomic.Int64
}

func (w *world) persistent() *persistent {
	w.Helper()
	p := &persistent{world: w}
	dialer := tls.Dialer{Config: w.clientTLS(w.caller("provisioning"))}
	t := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		return &lossy{Conn: conn, lost: &p.lost}, err
	}}
	w.Cleanup(t.CloseIdleConnections)
	p.http = &http.Client{Transport: t, Timeout: time.Minute}
	return p
}

func (p *persistent) once(params object, xml bool) (held, error) {
	path, kind := "/rpc", "application/json"
	body, err := json.Marshal(object{"jsonrpc": "2.0", "id": 1, "method": "ca.issue", "params": params})
	if xml {
		path, kind = "/RPC2", "text/xml"
		body, err = xmlrpc.EncodeCall(xmlrpc.Call{Method: "ca.issue", Params: []any{params}})
	}
	if err != nil {
		return held{}, err
	}
	response, err := p.http.Post(p.url+path, kind, bytes.NewReader(body))
	if err != nil {
		return held{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return held{}, err
	}
	return heldOf(text, xml)
}

func heldOf(text []byte, xml bool) (held, error) {
	var d map[string]any
	if xml {
		value, err := xmlrpc.DecodeResponse(text)
		if err != nil {
			return held{}, err
		}
		d = value.([]any)[2].(map[string]any)
		if packed, ok := d["pkcs12"].([]byte); ok {
			d["pkcs12"] = base64.StdEncoding.EncodeToString(packed)
		}
	} else {
		var reply struct{ Result client.Answer }
		if err := errors.Join(json.Unmarshal(text, &reply), json.Unmarshal(reply.Result.Detail, &d)); err != nil {
			return held{}, err
		}
	}
	word := func(key string) string { s, _ := d[key].(string); return s }
	return held{word("code"), word("serial"), word("certificate"), word("password"), word("pkcs12")}, nil
}

// until asks until a whole answer comes.
func (p *persistent) until(params object, n int) (h held, err error) {
	for range 100 {
		n++
		if h, err = p.once(params, n%2 == 0); err == nil && h.code != codeUnknownOutcome {
			return h, nil
		}
	}
	return h, err
}

// hire has n people hired by callers at the same time, each of whom asks until it has its answer, and some
// once more over the other codec. It gives the serial number of each.
func (p *persistent) hire(n int) []string {
	p.Helper()
	serials := make([]string, n)
	var next atomic.Int64
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !p.Failed(); i = int(next.Add(1)) - 1 {
				params := object{"purpose": "user", "cn": fmt.Sprintf("user-%d", i), "request_id": soakID(i)}
				h, err := p.until(params, i)
				if err != nil || h.code != "issued" || h.password == "" || h.pkcs12 == "" {
					p.Errorf("%s: %q, %v", soakID(i), h.code, err)
					return
				}
				serials[i] = h.serial
				if i%8 != 0 {
					continue
				}
				for xml := range 2 {
					if again, err := p.until(params, xml); err != nil || again != h {
						p.Errorf("%s again: %+v, %v; want %+v", soakID(i), again, err, h)
					}
				}
			}
		})
	}
	callers.Wait()
	return serials
}

func soakID(i int) string { return fmt.Sprintf("soak-%d", i) }

// loseReplies hires n people over a line that loses a tenth of the answers, and wants one certificate for
// each: in the answers, in the books and in the key room.
func (w *world) loseReplies(n int) {
	w.Helper()
	p := w.persistent()
	signed, live := w.signatures(), w.live()
	serials := p.hire(n)
	if w.Failed() {
		return
	}
	if got := w.signatures() - signed; got != int64(n) {
		w.Errorf("the key room signed %d certificates for %d requests", got, n)
	}
	if got := w.live() - live; got != int64(n) {
		w.Errorf("the books hold %d more certificates after %d requests", got, n)
	}
	seen := make(map[string]bool)
	for i, serial := range serials {
		request, found, err := w.store.Request(context.Background(), "provisioning", soakID(i))
		if err != nil || !found || string(request.Serial) != serial || seen[serial] {
			w.Fatalf("%s has %s in the books, %v; the answer said %s", soakID(i), request.Serial, err, serial)
		}
		seen[serial] = true
	}
	if lost := p.lost.Load(); n > 500 && lost < int64(n)/20 {
		w.Errorf("only %d answers were lost", lost)
	}
	w.Logf("%d requests, %d answers lost", n, p.lost.Load())
}

func (w *world) live() int64 {
	w.Helper()
	counts, err := w.store.Counts(context.Background())
	w.must(err)
	if open := counts.Certificates[store.StateOpen]; open != 0 {
		w.Errorf("%d intents are open", open)
	}
	return counts.Certificates[store.StateLive]
}

// TestLostReplies: whatever the line loses, a request gets one certificate.
func TestLostReplies(t *testing.T) {
	newWorld(t).loseReplies(2000)
}

// BenchmarkLostReplies is the same with as many requests as one has the time for: a million take an hour or
// two and some gigabytes.
//
//	go test ./rpc -run '^$' -bench LostReplies -benchtime 1000000x -timeout 24h
func BenchmarkLostReplies(b *testing.B) {
	site := filepath.Join(b.TempDir(), "site")
	for _, c := range []*exec.Cmd{
		exec.Command("cp", "-a", filepath.Join(build(b), "site"), site),
		exec.Command("sed", "-i", `s/"certificates_per_\(hour\|day\)": [0-9]*/"certificates_per_\1": 1000000000/`, filepath.Join(site, "keyroom.json")),
	} {
		if err := quiet(c); err != nil {
			b.Fatal(err)
		}
	}
	w := newWorldIn(b, site)
	b.ResetTimer()
	w.loseReplies(b.N)
}

// secretsGone asks again for what the key room does not open any more, in the order of its reasons.
func secretsGone(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	r.open(nil)
	alice, bob := user("alice", "request_id", "one"), user("bob", "request_id", "two")
	r.ask("ca.issue", alice, "issued")
	r.ask("ca.issue", alice, "issued")
	r.ask("ca.issue", bob, "issued")
	r.drift = 25*time.Hour + 2*time.Minute // the window is over, and the key still there
	r.open(nil)
	if d := r.ask("ca.issue", alice, "issued.secrets_gone"); d["certificate"] == "" || d["pkcs12"] != nil || d["password"] != nil {
		t.Errorf("%v", d)
	}
	r.drift = 0
	r.closed()
	r.must(os.Remove(filepath.Join(r.dir, "keyroom", "delivery.keys")))
	r.open(nil)
	r.ask("ca.issue", bob, "issued.secrets_gone")
	r.ask("ca.issue", user("carol", "request_id", "three"), "issued")
	r.ask("ca.issue", user("carol", "request_id", "three"), "issued")
}
