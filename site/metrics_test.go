package site_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMetrics: what is counted is what was done, what is shown is what openssl and sqlite read, and
// nothing that a caller wrote is in it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	before := m.samples(t)
	calls := []call{
		issue("user", "mallory"), issue("user", "mallory"), // the same request id: one certificate
		issue("server", "shop.example.org"), revoke("mallory", "keyCompromise"),
	}
	if err := callAll(m.dir, calls...); err != nil {
		t.Fatal(err)
	}
	refused, err := ask(m.dir, issue("server", "shop.example.net"))
	if err != nil || refused.OK {
		t.Fatalf("%+v %v", refused, err)
	}
	var code struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(refused.Detail, &code); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(m.dir, call{"no.such\"method", nil}); err == nil {
		t.Error("there is no such method")
	}
	eventually(t, func() bool { return m.samples(t)[`x509_crl_number{filename="users.crl"}`] == 2 })
	after := m.samples(t)
	for name, want := range map[string]float64{
		`chancery_certificates_issued_total{purpose="user"}`:                                    1,
		`chancery_certificates_issued_total{purpose="server"}`:                                  1,
		`chancery_certificates_issued_total{purpose="caller"}`:                                  0,
		`chancery_certificates_revoked_total{reason="keyCompromise"}`:                           1,
		`chancery_key_operations_total{key="users",result="signed"}`:                            2,
		`chancery_key_operations_total{key="servers",result="signed"}`:                          1,
		`chancery_key_operations_total{key="log",result="signed"}`:                              1,
		`chancery_policy_denials_total{rule="` + code.Code + `"}`:                               1,
		`chancery_rpc_requests_total{method="ca.issue",result="ok",transport="jsonrpc"}`:        3,
		`chancery_rpc_requests_total{method="ca.issue",result="refused",transport="jsonrpc"}`:   1,
		`chancery_rpc_requests_total{method="none",result="misunderstood",transport="jsonrpc"}`: 1,
		`chancery_rpc_duration_seconds_count{method="ca.issue"}`:                                4,
		`chancery_store_errors_total`:                                                           0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s rose by %v, want %v", name, got, want)
		}
	}
	if size := python(t, m.dir, `print(c.execute("SELECT count(*) FROM leaf").fetchone()[0])`); size != fmt.Sprint(after["chancery_audit_tree_size"]) {
		t.Errorf("%s leaves, and the metric says %v", size, after["chancery_audit_tree_size"])
	}
	if at := after["chancery_audit_last_checkpoint_timestamp_seconds"]; time.Since(time.Unix(int64(at), 0)) > time.Minute {
		t.Errorf("the last checkpoint was at %v", at)
	}
	for _, name := range []string{"root", "users", "servers", "callers"} {
		shown := func(metric, file string) string {
			return time.Unix(int64(after[metric+`{filename="`+file+`"}`]), 0).UTC().Format("2006-01-02 15:04:05Z")
		}
		read := run(t, "sh", "-c", `git --git-dir "$1/config.git" show main:pki/ca/"$2".pem | openssl x509 -noout -enddate -dateopt iso_8601
			git --git-dir "$1/config.git" show main:pki/"$2".crl.pem | openssl crl -noout -lastupdate -nextupdate -dateopt iso_8601`, "sh", m.dir, name)
		want := "notAfter=" + shown("x509_cert_not_after", name+".pem") + "\nlastUpdate=" + shown("x509_crl_this_update", name+".crl") +
			"\nnextUpdate=" + shown("x509_crl_next_update", name+".crl") + "\n"
		if read != want || after[`x509_crl_stale{filename="`+name+`.crl"}`] != 0 {
			t.Errorf("openssl reads\n%s\nthe metrics say\n%s", read, want)
		}
	}
	_, text := m.curl(t, "/metrics")
	_, verbose := m.curl(t, "/readyz?verbose")
	for _, theirs := range []string{"mallory", "shop.example", "such", "provisioning", "issue-", "127.0.0.1"} {
		if strings.Contains(text+verbose, theirs) {
			t.Errorf("%q is to be read there", theirs)
		}
	}
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = strings.NewReader(text)
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// TestEveryCodeIsAnAlarm: a code that the daemon's loops log is in the registry, so that it is in /readyz,
// in the metric and in the runbook as well.
func TestEveryCodeIsAnAlarm(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	known := make(map[string]bool)
	for name := range m.samples(t) {
		if code, ok := strings.CutPrefix(name, `chancery_alarm{code="`); ok {
			known[strings.TrimSuffix(code, `"}`)] = true
		}
	}
	runbook, err := os.ReadFile("../docs/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	for code := range known {
		if anchor := strings.ReplaceAll(code, ".", ""); !anchors(string(runbook))[anchor] {
			t.Errorf("docs/RUNBOOK.md does not say what to do about %s", code)
		}
	}
	logged := make(map[string]string)
	constant := regexp.MustCompile(`\bcode[A-Z]\w*\s*=\s*"([a-z]+\.[a-z_]+)"`)
	literal := regexp.MustCompile(`zap\.String\("code", "([^"]+)"\)`)
	for _, dir := range []string{"../crl", "../ldapsync", "."} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, found := range append(constant.FindAllSubmatch(text, -1), literal.FindAllSubmatch(text, -1)...) {
				logged[string(found[1])] = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(logged) < 20 || len(known) < len(logged) {
		t.Errorf("%d codes in the sources, %d alarms", len(logged), len(known))
	}
	for code, path := range logged {
		if !known[code] {
			t.Errorf("%s logs %s, which is no alarm: give it a row in alarmKinds", path, code)
		}
	}
}

// TestHostileMonitors: what nobody honest does at the listener is bounded, and neither the RPC nor an
// honest monitor notices.
func TestHostileMonitors(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	address := strings.TrimPrefix(m.url, "http://")
	for name, c := range map[string]struct {
		args   []string
		page   string
		status int
	}{
		"POST":             {[]string{"-d", "x=1"}, "/livez", 405},
		"DELETE":           {[]string{"-X", "DELETE"}, "/metrics", 405},
		"HEAD":             {[]string{"-I"}, "/readyz", 405},
		"another page":     {nil, "/debug/pprof/", 404},
		"no page":          {nil, "/", 404},
		"huge header":      {[]string{"-H", "X: " + strings.Repeat("x", 20<<10)}, "/livez", 431},
		"huge query":       {nil, "/livez?" + strings.Repeat("x", 20<<10), 431},
		"odd query":        {nil, "/readyz?verbose=%zz&%00", 200},
		"odd Accept":       {[]string{"-H", "Accept: \x01\xff"}, "/readyz", 400},
		"a body with GET":  {[]string{"-X", "GET", "-d", strings.Repeat("y", 100<<10)}, "/livez", 200},
		"another protocol": {[]string{"--http2-prior-knowledge"}, "/livez", 0},
	} {
		if c.status == 0 {
			if err := exec.Command("curl", append(c.args, "-s", "-m", "10", m.url+c.page)...).Run(); err == nil {
				t.Errorf("%s: it is answered", name)
			}
			continue
		}
		if status, body := m.curl(t, c.page, c.args...); status != c.status {
			t.Errorf("%s: %d, want %d\n%s", name, status, c.status, body)
		}
	}

	descriptors := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.daemon.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	idle := descriptors()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	most := 0
	for i := range 1000 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		if i%2 == 0 {
			fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-") // and never any more
		}
		if i%100 == 99 {
			most = max(most, descriptors())
			begun := time.Now()
			if err := callAll(m.dir, issue("user", fmt.Sprintf("under-load-%d", i))); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("a call took %s", took)
			}
			if status, _ := m.curl(t, "/readyz"); status != 200 {
				t.Errorf("an honest monitor gets %d", status)
			}
		}
	}
	if most > idle+80 {
		t.Errorf("%d descriptors, and %d before", most, idle)
	}
	eventually(t, func() bool { return descriptors() <= idle+8 }) // the slow ones are hung up on
	if status, _ := m.curl(t, "/livez"); status != 200 {
		t.Errorf("afterwards %d", status)
	}
}

// TestHealthPortTaken: a listener that was asked for and is not there is an error at the start.
func TestHealthPortTaken(t *testing.T) {
	t.Parallel()
	m := newMonitored(t, worlds(t).night)
	m.daemon.kill()
	taken, err := net.Listen("tcp", strings.TrimPrefix(m.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p, err := launch("ready https://", nil, filepath.Join(bin(t), "chanceryd"), "--config", filepath.Join(m.dir, "chancery.yaml"))
	if err == nil {
		p.kill()
	}
	if err == nil || !strings.Contains(p.String(), "listening for health") || !strings.Contains(p.String(), "address already in use") {
		t.Errorf("%v\n%s", err, p)
	}
}
