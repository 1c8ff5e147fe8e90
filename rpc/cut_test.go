package rpc

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

// cutLine is a connection of which only so many octets come once a call has been made.
type cutLine struct {
	net.Conn
	left   int
	called bool
}

func (l *cutLine) Read(b []byte) (int, error) {
	if !l.called {
		return l.Conn.Read(b)
	}
	if l.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := l.Conn.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// cutAfter makes a call and gives the answer if all of it comes in so many octets of the line, and nothing otherwise.
func (w *world) cutAfter(octets int, config *tls.Config, c rawCall) string {
	raw, err := (&net.Dialer{}).DialContext(w.Context(), "tcp", strings.TrimPrefix(w.url, "https://"))
	if err != nil {
		w.Error(err)
		return ""
	}
	line := &cutLine{Conn: raw, left: octets}
	conn := tls.Client(line, config)
	defer conn.Close()
	if err := conn.HandshakeContext(w.Context()); err != nil {
		w.Error(err)
		return ""
	}
	line.called = true
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: ca\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		c.path, c.kind, len(c.body), c.body); err != nil {
		w.Error(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

type rawCall struct{ path, kind, body string }

// TestAnswerCutAtEveryOctet: wherever the line breaks, and over both codecs at once, the request has one certificate,
// and whoever asks again gets it.
func TestAnswerCutAtEveryOctet(t *testing.T) {
	w := newWorld(t)
	config := w.clientTLS(w.caller("provisioning"))
	config.ServerName = "127.0.0.1"
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	w.must(err)
	csr := base64.StdEncoding.EncodeToString(w.csr(key, &x509.CertificateRequest{}))
	signed := w.signatures()
	calls := []rawCall{
		{"/rpc", "application/json", fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"ca.issue","params":{"purpose":"user","cn":"alice","request_id":"one","csr":%q}}`, csr)},
		{"/RPC2", "text/xml", xmlCall("ca.issue", xmlParam(xmlMember("purpose", "user")+xmlMember("cn", "alice")+xmlMember("request_id", "one")+xmlMember("csr", csr)))},
	}
	// What the server sends right after the handshake comes before the answer. Each round breaks both lines.
	var came [2]string
	for octets := 0; came[0] == "" || came[1] == ""; octets++ {
		if octets > 1<<14 {
			t.Fatal("no answer is whole")
		}
		var both sync.WaitGroup
		for i, c := range calls {
			if came[i] == "" {
				both.Go(func() { came[i] = w.cutAfter(octets, config, c) })
			}
		}
		both.Wait()
		if n := w.signatures() - signed; n > 1 {
			t.Fatalf("%d certificates when the answers broke after %d octets", n, octets)
		}
	}
	_, serial, found := strings.Cut(came[0], `"serial":"`)
	if serial, _, _ = strings.Cut(serial, `"`); !found || !strings.Contains(came[1], serial) {
		t.Errorf("the answers are\n%s\n%s", came[0], came[1])
	}
}
