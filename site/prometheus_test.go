package site_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const prometheusFiles = "../deploy/prometheus"

// TestPrometheus: a Prometheus that is set up as deploy/prometheus says scrapes the service, takes the rules,
// and finds what the alerts and the dashboard ask for.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	run(t, "promtool", "check", "rules", filepath.Join(prometheusFiles, "chancery.rules.yml"))
	run(t, "promtool", "test", "rules", filepath.Join(prometheusFiles, "chancery.rules.test.yml"))

	m := newMonitored(t, worlds(t).night)
	if err := callAll(m.dir, issue("user", "ivan"), revoke("ivan", "superseded")); err != nil {
		t.Fatal(err)
	}
	if refused, err := ask(m.dir, issue("server", "shop.example.net")); err != nil || refused.OK {
		t.Fatal(refused, err)
	}
	api := startPrometheus(t, m)
	query := func(expr string) (result []struct{ Metric map[string]string }) {
		t.Helper()
		var answer struct {
			Status, Error string
			Data          struct{ Result json.RawMessage }
		}
		out, err := exec.Command("curl", "-s", "--data-urlencode", "query="+expr, api+"/api/v1/query").Output()
		if err != nil || json.Unmarshal(out, &answer) != nil || answer.Status != "success" {
			t.Errorf("%s: %v\n%s", expr, err, out)
			return nil
		}
		if err := json.Unmarshal(answer.Data.Result, &result); err != nil {
			t.Errorf("%s: %v\n%s", expr, err, out)
		}
		return result
	}
	eventually(t, func() bool {
		return len(query(`chancery_ready == 1`)) == 1 && len(query(`rate(chancery_ready[1m])`)) == 1
	})

	asked := 0
	for from, exprs := range map[string][]string{"dashboard": dashboardExprs(t), "rules": ruleExprs(t)} {
		for _, expr := range exprs {
			asked++
			expr = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(expr)
			query(expr)
			for _, name := range metricNames(expr) {
				// Strangers have labels only once there was one.
				if found := query(name); len(found) == 0 && name != "chancery_strangers_total" {
					t.Errorf("%s: %s: there is no %s", from, expr, name)
				}
			}
		}
	}
	if asked < 30 {
		t.Errorf("only %d expressions", asked)
	}

	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, State, LastError string }
			}
		}
	}
	eventually(t, func() bool {
		out := run(t, "curl", "-s", api+"/api/v1/rules")
		return json.Unmarshal([]byte(out), &rules) == nil && !strings.Contains(out, `"health":"unknown"`)
	})
	for _, r := range rules.Data.Groups[0].Rules {
		if r.Health != "ok" || r.State == "firing" {
			t.Errorf("%+v", r)
		}
	}
}

// startPrometheus runs a server with the configuration in the README, but for the address and the rhythm.
func startPrometheus(t *testing.T, m *monitored) (api string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(prometheusFiles, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(readme)
	rules, err := filepath.Abs(filepath.Join(prometheusFiles, "chancery.rules.yml"))
	if err != nil || block == nil {
		t.Fatal(err)
	}
	text := "global: {evaluation_interval: 1s}\n" + strings.NewReplacer(
		"127.0.0.1:9443", strings.TrimPrefix(m.url, "http://"), "15s", "1s", "chancery.rules.yml", rules).Replace(string(block[1]))
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p, err := launch("Server is ready", nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=info")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return "http://" + address
}

// dashboardExprs are all that the dashboard asks for.
func dashboardExprs(t *testing.T) (exprs []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prometheusFiles, "chancery.dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels      []struct{ Targets []struct{ Expr string } }
		Annotations struct{ List []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	for _, a := range dashboard.Annotations.List {
		exprs = append(exprs, a.Expr)
	}
	return exprs
}

// ruleExprs are all that the alerts ask for. Each alert names a page that there is.
func ruleExprs(t *testing.T) (exprs []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prometheusFiles, "chancery.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, r := range file.Groups[0].Rules {
		exprs = append(exprs, r.Expr)
		path, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		page, err := os.ReadFile(filepath.Join("..", path))
		if err != nil || anchor != "" && !strings.HasPrefix(anchor, "{{") && !anchors(string(page))[anchor] {
			t.Errorf("%s: there is no %s: %v", r.Alert, r.Annotations["runbook_url"], err)
		}
	}
	return exprs
}

// anchors are what links to the headings of a page are called: lower case, without punctuation.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		words := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		found[strings.ReplaceAll(words, " ", "-")] = true
	}
	return found
}

// metricNames are the words of an expression that are ours.
func metricNames(expr string) []string {
	expr = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(expr, "")
	return regexp.MustCompile(`\b(chancery|x509|process|go)_\w+`).FindAllString(expr, -1)
}
