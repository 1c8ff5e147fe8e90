package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
)

const refusals = 8 // certificates that are revoked while a web server watches

// reportConsumer follows a revocation to the web server that refuses the client: nginx, and the script
// of deploy/consumer, run as soon as the list is in git. A timer would add its interval.
func reportConsumer(b *testing.B, r *report, s *installation) {
	h := newHost(b, s)
	names := []string{"call to list in git", "pull, check, install, reload", "reload to first refusal", "call to refusal"}
	parts := make([][]time.Duration, len(names))
	for n := range refusals {
		who := h.person(b, n)
		if code := h.status(b, who); code != http.StatusOK {
			b.Fatalf("a good certificate gets %d", code)
		}
		begin := time.Now()
		_, err := h.client.call(jsonCodec(), "ca.revoke", map[string]any{"cn": fmt.Sprintf("guest-%d", n), "purpose": "user"})
		must(b, err)
		answered := time.Now()
		h.pull(b)
		pulled := time.Now()
		for h.status(b, who) == http.StatusOK {
			if time.Since(pulled) > time.Minute {
				b.Fatal("nginx still lets a revoked certificate in")
			}
			time.Sleep(time.Millisecond)
		}
		refused := time.Now()
		for i, d := range []time.Duration{answered.Sub(begin), pulled.Sub(answered), refused.Sub(pulled), refused.Sub(begin)} {
			parts[i] = append(parts[i], d)
		}
	}
	rows := [][]string{{"", "p50 ms", "worst ms"}}
	for i, waits := range parts {
		slices.Sort(waits)
		rows = append(rows, []string{names[i], milli(quantile(waits, 0.5)), milli(waits[len(waits)-1])})
	}
	r.section("revoke until nginx refuses the client", []string{
		fmt.Sprintf("%d certificates in turn. deploy/consumer's script runs as soon as ca.revoke has answered, which is when the", refusals),
		"list is in git. An old worker of nginx may serve until it ends: the last part is a new connection each time.",
	}, rows)
	r.target("revoke until nginx refuses, the worst", float64(parts[len(parts)-1][refusals-1])/float64(time.Second), 10, " s")
}

// host is one with nginx that pulls lists.
type host struct {
	*installation
	dir, address string
	client       *client
	roots        *x509.CertPool
}

func newHost(b *testing.B, s *installation) *host {
	h := &host{installation: s, dir: b.TempDir(), address: freeAddress(b), client: s.client(b, 1), roots: s.tls(b).RootCAs}
	build := exec.Command("go", "build", "-trimpath", "-o", s.bin, "../cmd/crlcheck")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	quietly(b, build)
	must(b, os.Mkdir(filepath.Join(h.dir, "run"), 0o755))
	h.write(b, "chain.pem", string(got(os.ReadFile(s.path("trust", "chain.pem")))(b)))
	own := h.enrol(b, "server", "www.example.org")
	h.write(b, "www.pem", pemOf(b, own))
	adapted := strings.ReplaceAll(string(got(os.ReadFile("../deploy/consumer/nginx-clients.conf"))(b)), "/etc/nginx/pki", h.dir)
	issuer := got(x509.ParseCertificate(h.enrol(b, "user", "first-guest").Certificate[0]))(b).Issuer.String()
	if !strings.Contains(adapted, issuer) {
		adapted = strings.Replace(adapted, "CN=Example Users CA G1,O=Example", issuer, 1)
	}
	temporary := ""
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += fmt.Sprintf("%s_temp_path run/%s;\n", name, name)
	}
	h.write(b, "nginx.conf", fmt.Sprintf(`daemon off;
pid nginx.pid;
error_log error.log notice;
events {}
http {
access_log off;
%sserver {
listen %s ssl;
server_name www.example.org;
ssl_certificate www.pem;
ssl_certificate_key www.pem;
%s
location / { return 200 "hello\n"; }
}
}
`, temporary, h.address, adapted))
	nginx := "/usr/sbin/nginx -p " + h.dir + " -c nginx.conf"
	common := fmt.Sprintf("REPOSITORY=%s\nTRUST=%s\nINSTALL=%s\nSTATE=%s\nCRLCHECK=%s\nALLOWED_SIGNERS=%s\n", s.path("config.git"), h.path("chain.pem"),
		h.path("bundle.crl.pem"), h.path("state"), filepath.Join(s.bin, "crlcheck"), s.path("trust", "allowed_signers"))
	h.write(b, "pull.conf", common+"TEST=true\nRELOAD=true\n")
	h.pull(b)
	h.write(b, "pull.conf", common+fmt.Sprintf("TEST='%s -t -q'\nRELOAD='%s -s reload'\n", nginx, nginx))
	server := exec.Command("/usr/sbin/nginx", "-p", h.dir, "-c", "nginx.conf")
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(b, server.Start())
	b.Cleanup(func() { _ = server.Process.Signal(syscall.SIGTERM); _ = server.Wait() })
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", h.address); err == nil {
			must(b, c.Close())
			return h
		} else if time.Since(begin) > 30*time.Second {
			b.Fatal(err)
		}
	}
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) write(b *testing.B, name, content string) {
	must(b, os.WriteFile(h.path(name), []byte(content), 0o600))
}

func (h *host) pull(b *testing.B) {
	b.Helper()
	quietly(b, exec.Command("sh", "../deploy/consumer/pull-crl.sh", h.path("pull.conf")))
}

func (h *host) person(b *testing.B, n int) tls.Certificate {
	return h.enrol(b, "user", fmt.Sprintf("guest-%d", n))
}

// enrol gets one certificate, for a key that is made here.
func enrol(b *testing.B, c *client, purpose, cn string) tls.Certificate {
	key := got(cert.GenerateKey(rand.Reader, cert.P256))(b)
	answer := got(c.call(jsonCodec(), "ca.issue", map[string]any{"purpose": purpose, "cn": cn, "csr": got(profile.MakeCSR(rand.Reader, key, ""))(b)}))(b)
	var reply struct {
		Result struct {
			Detail struct{ Certificate string }
		}
	}
	must(b, json.Unmarshal(answer, &reply))
	block, _ := pem.Decode([]byte(reply.Result.Detail.Certificate))
	if block == nil {
		b.Fatalf("no certificate in %s", answer)
	}
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// enrol gets one certificate with its chain.
func (h *host) enrol(b *testing.B, purpose, cn string) tls.Certificate {
	own := enrol(b, h.client, purpose, cn)
	chain := got(os.ReadFile(h.path("chain.pem")))(b)
	issuer := got(x509.ParseCertificate(own.Certificate[0]))(b).RawIssuer
	for block, chain := pem.Decode(chain); block != nil; block, chain = pem.Decode(chain) {
		if string(got(x509.ParseCertificate(block.Bytes))(b).RawSubject) == string(issuer) {
			own.Certificate = append(own.Certificate, block.Bytes)
		}
	}
	return own
}

func pemOf(b *testing.B, c tls.Certificate) string {
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key := got(x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey)))(b)
	return string(append(text, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})...))
}

// status asks nginx over a connection of its own.
func (h *host) status(b *testing.B, who tls.Certificate) int {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{who}, RootCAs: h.roots, ServerName: "www.example.org", MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", h.address)
		},
	}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://www.example.org/")
	if errors.Is(err, syscall.ECONNRESET) {
		return http.StatusOK // a worker that ends has judged nothing
	}
	must(b, err)
	must(b, response.Body.Close())
	return response.StatusCode
}
