package bench_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

const (
	callTime = 1500 * time.Millisecond
	bodyTime = 300 * time.Millisecond
)

// reportCalls measures what a call costs that asks for next to nothing, and what the worst bodies cost.
func reportCalls(b *testing.B, r *report, s *installation) {
	rows := [][]string{{"", "callers", "per s", "p50 ms", "p99 ms", "daemon us", "CPU us", "bare CPU us", "x bare", "p99/p50"}}
	for _, w := range []codec{jsonCodec(), xmlCodec()} {
		bare := s.bare(b, w)
		for _, callers := range []int{1, 8, 32} {
			rows = append(rows, s.whoami(b, w, bare, callers, true))
		}
		rows = append(rows, s.whoami(b, w, bare, 8, false))
	}
	r.section("ca.whoami over mutual TLS", []string{
		"Beside a server of net/http with the same certificates, which reads the body and gives the same answer and",
		"nothing else: no codec, no caller looked up in the books, and in the callers' own process. CPU is of both ends.",
	}, rows)
	s.reportBodies(b, r)
}

func (s *installation) whoami(b *testing.B, w codec, bare string, callers int, keep bool) []string {
	title := w.name + ", kept alive"
	if !keep {
		title = w.name + ", new connections"
	}
	ask := func(url string) (load, time.Duration) {
		own := ownCPU(b)
		l := s.load(b, callers, until(time.Now().Add(callTime)), func(c *client) error {
			c = &client{c.http, url}
			_, err := c.call(w, "ca.whoami", map[string]any{})
			if !keep {
				c.http.CloseIdleConnections()
			}
			return err
		})
		return l, (ownCPU(b)-own)/time.Duration(l.n) + l.cpu()
	}
	_, floor := ask(bare)
	l, cpu := ask(s.url)
	return []string{
		title, fmt.Sprint(callers), fmt.Sprintf("%.0f", l.rate()), l.quantile(0.5), l.quantile(0.99), l.each(l.daemon), micro(cpu), micro(floor),
		times(cpu, floor), fmt.Sprintf("%.1f", ratio(quantile(l.waits, 0.99), quantile(l.waits, 0.5))),
	}
}

// bare starts a server that gives every caller the same answer, and gives its URL.
func (s *installation) bare(b *testing.B, w codec) string {
	answer := got(s.client(b, 1).call(w, "ca.whoami", map[string]any{}))(b)
	clients := s.tls(b)
	own := got(tls.LoadX509KeyPair(s.path("secrets", "server.pem"), s.path("secrets", "server.key")))(b)
	config := &tls.Config{
		Certificates: []tls.Certificate{own}, ClientCAs: clients.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(rw http.ResponseWriter, rq *http.Request) {
		_, _ = io.Copy(io.Discard, rq.Body)
		_, _ = rw.Write(answer)
	})}
	l := got(tls.Listen("tcp", "127.0.0.1:0", config))(b)
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().(*net.TCPAddr).AddrPort().String()
}

// reportBodies sends bodies of the greatest size, each of another shape, and shows the dearest.
func (s *installation) reportBodies(b *testing.B, r *report) {
	rows := [][]string{{"", "per s", "daemon us", "KiB allocated"}}
	var slowest time.Duration
	var biggest float64
	for _, w := range []codec{jsonCodec(), xmlCodec()} {
		bodies := worstJSON()
		if w.path == xmlCodec().path {
			bodies = worstXML()
		}
		for _, shape := range slices.Sorted(maps.Keys(bodies)) {
			body := []byte(bodies[shape])
			before := s.allocated(b)
			l := s.load(b, 1, until(time.Now().Add(bodyTime)), func(c *client) error { return c.send(w, body) })
			each := (s.allocated(b) - before) / float64(l.n)
			rows = append(rows, []string{w.name + ", " + shape, fmt.Sprintf("%.0f", l.rate()), l.each(l.daemon), fmt.Sprintf("%.0f", each/1024)})
			slowest, biggest = max(slowest, l.daemon/time.Duration(l.n)), max(biggest, each)
		}
	}
	r.section("the worst bodies of 64 KiB", []string{
		"From one caller whose certificate is good, all refused. CPU and allocations are of the whole request: TLS,",
		"the look at who calls, the body, the answer.",
	}, rows)
	r.target("worst body of 64 KiB: CPU of a request", float64(slowest)/float64(time.Millisecond), 5, " ms")
	r.target("worst body of 64 KiB: allocated by a request", biggest/(1<<20), 1, " MiB")
}

// send sends a body that is not taken.
func (c *client) send(w codec, body []byte) error {
	response, err := c.http.Post(c.url+w.path, w.kind, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && bytes.Contains(answer, w.done) {
		err = fmt.Errorf("this was taken: %s", body)
	}
	return err
}

// allocated is how many octets the daemon has allocated since it started.
func (s *installation) allocated(b *testing.B) float64 {
	response := got(http.Get(s.health))(b)
	defer response.Body.Close()
	found := regexp.MustCompile(`(?m)^go_memstats_alloc_bytes_total (\S+)$`).FindSubmatch(got(io.ReadAll(response.Body))(b))
	if found == nil {
		b.Fatal("the metrics have no go_memstats_alloc_bytes_total")
	}
	return got(strconv.ParseFloat(string(found[1]), 64))(b)
}

// filled repeats a text between two others until the greatest body is full.
func filled(head, text, tail string) string {
	return head + strings.Repeat(text, (xmlrpc.MaxBody-len(head)-len(tail))/len(text)) + tail
}

func worstXML() map[string]string {
	const head, tail = "<?xml version='1.0'?><methodCall><methodName>ca.whoami</methodName><params>", "</params></methodCall>"
	open, end := head+"<param><value>", "</value></param>"+tail
	var members strings.Builder
	for n := range 256 {
		fmt.Fprintf(&members, "<member><name>m%d%s</name><value>x</value></member>", n, strings.Repeat("n", 180))
	}
	return map[string]string{
		"array of numbers":  open + "<array><data>" + strings.Repeat("<value><i4>1</i4></value>", 2000) + "</data></array>" + end,
		"array of nothing":  filled(open+"<array><data>", "<value/>", "</data></array>"+end),
		"too many elements": filled(open, "<a/>", end),
		"members":           open + "<struct>" + members.String() + "</struct>" + end,
		"references":        filled(open, "&amp;", end),
		"characters":        filled(open, "&#65;", end),
		"CDATA":             filled(open, "<![CDATA[]]>", end),
		"comments":          filled(head, "<!---->", tail),
		"instructions":      filled(head, "<?a?>", tail),
		"base64":            filled(open+"<base64>", "QUFB", "</base64>"+end),
		"base64 in lines":   filled(open+"<base64>", "Q\n", "</base64>"+end),
		"white space":       filled(head, " \n", tail),
		"a long name":       filled("<", "a", "/>"),
		"depth":             filled("", "<a>", ""),
		"text":              filled(open, "\u00e9", end),
		"attributes":        filled("<?xml version='1.0'?><methodCall", " a='b'", "/>"),
	}
}

func worstJSON() map[string]string {
	const head, tail = `{"jsonrpc":"2.0","id":1,"method":"ca.whoami","params":`, "}"
	var members strings.Builder
	for n := 0; members.Len() < xmlrpc.MaxBody-200; n++ {
		fmt.Fprintf(&members, `"m%d":1,`, n)
	}
	list := func(value string) string { return filled(head+"["+value, ","+value, "]"+tail) }
	// As many values as are read at all.
	few := func(values int, value string) string {
		return head + "[" + value + strings.Repeat(","+value, 4000/values-1) + "]" + tail
	}
	return map[string]string{
		"big numbers":            list("2147483648"),
		"long numbers":           list("1234567890123456"),
		"fractions":              list("0.5"),
		"short texts":            list(`"0123456789ab"`),
		"texts with an escape":   list(`"\u00e9"`),
		"pairs of surrogates":    list(`"\ud83d\ude00"`),
		"deep arrays":            few(15, strings.Repeat("[", 15)+strings.Repeat("]", 15)),
		"objects with a member":  few(3, `{"a":1}`),
		"objects in objects":     few(7, `{"a":{"a":{"a":1}}}`),
		"objects with 9 members": few(19, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`),
		"array of numbers":       filled(head+"[0", ",1", "]"+tail),
		"array of objects":       filled(head+"[{}", ",{}", "]"+tail),
		"array of texts":         filled(head+`[""`, `,""`, "]"+tail),
		"members":                head + "{" + strings.TrimSuffix(members.String(), ",") + "}" + tail,
		"depth":                  filled(head, "[", ""),
		"escapes":                filled(head+`{"a":"`, `\u00e9`, `"}`+tail),
		"a long number":          filled(head+"[", "9", "]"+tail),
		"white space":            filled(head+"{", " ", "}x"+tail),
		"text":                   filled(head+`{"a":"`, "\u00e9", `"}`+tail),
	}
}
