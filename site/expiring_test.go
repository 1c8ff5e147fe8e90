package site_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestExpiringCommand: people get a table and programs one object, over all pages; and the exit codes are
// those of every command that asks the service.
func TestExpiringCommand(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	serve(t, dir, func() error {
		for n, days := range []int{9, 5, 200, 7} {
			cn := []string{"frank", "grace", "grace", "heidi"}[n]
			c := call{"ca.issue", map[string]any{"purpose": "user", "cn": cn, "valid_days": days, "request_id": fmt.Sprint("short-", n)}}
			if err := callAll(dir, c); err != nil {
				return err
			}
		}
		code, out, said := chancery(t, "expiring", "--dir", dir, "--within", "8", "--purpose", "user")
		lines := strings.Split(out, "\n")
		if code != 0 || len(lines) != 5 || !strings.Contains(lines[1], "grace") || !strings.HasSuffix(lines[1], "live") ||
			!strings.Contains(lines[2], "heidi") || !strings.HasSuffix(lines[2], "none") || lines[3] != "2 certificates" {
			t.Errorf("exit code %d\n%s%s", code, out, said)
		}
		trust := filepath.Join(dir, "trust", "root.pem")
		caller := filepath.Join(dir, "callers", "provisioning")
		code, out, said = chancery(t, "expiring", "--url", "https://"+config(t, dir).Listen, "--cert", caller+".pem", "--key", caller+".key", "--trust", trust,
			"--within", "825", "-o", "json")
		var all struct {
			Certificates []struct {
				CN string `json:"cn"`
			} `json:"certificates"`
		}
		var names []string
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Errorf("%v: %s%s", err, out, said)
		}
		for _, c := range all.Certificates {
			names = append(names, c.CN)
		}
		if got := strings.Join(names, " "); code != 0 || got != "grace heidi frank www.example.org grace alice" {
			t.Errorf("exit code %d, %s", code, got)
		}
		if code, _, said := chancery(t, "expiring", "--dir", dir, "--within", "826"); code != 1 || !strings.Contains(said, "want 1 to 825") {
			t.Errorf("exit code %d, %s", code, said)
		}
		if code, _, said := chancery(t, "expiring", "--dir", dir, "--purpose", "caller"); code != 1 || !strings.Contains(said, "policy.denied") {
			t.Errorf("exit code %d, %s", code, said)
		}
		return nil
	})
	if code, _, said := chancery(t, "expiring", "--dir", dir); code != 3 {
		t.Errorf("without the service: exit code %d, %s", code, said)
	}
}
