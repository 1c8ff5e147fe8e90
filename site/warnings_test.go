package site

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestAlarmsAreToldOnce: a deadline that comes nearer day by day is told of at each threshold, once, and
// when it has gone.
func TestAlarmsAreToldOnce(t *testing.T) {
	core, logged := observer.New(zap.DebugLevel)
	a := &warnings{log: zap.New(core), told: make(map[string]Severity)}
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	end := now.AddDate(0, 0, 40)
	all := []Deadline{
		{codeExpiryCaller, "provisioning", end, "renew it"}, {codeExpiryCaller, "other", end.AddDate(1, 0, 0), "renew it"},
		{codeExpiryRootList, "root", end.AddDate(0, 0, 20), "sign one"},
	}
	for range 3 * 42 * 24 {
		a.tell(now, all)
		now = now.Add(20 * time.Minute)
	}
	all[0].NotAfter = now.AddDate(1, 0, 0)
	a.tell(now, all)
	var got []string
	for _, e := range logged.All() {
		m := e.ContextMap()
		got = append(got, strings.Join([]string{e.Level.String(), m["code"].(string), m["subject"].(string), m["severity"].(string)}, " "))
		if left := m["days_left"].(int64); m["severity"] == "warning" && left != 14 && left != 30 {
			t.Errorf("%v days are left at the warning", left)
		}
		if m["severity"] != "" && m["fix"] == "" {
			t.Errorf("nothing to do: %v", m)
		}
	}
	want := []string{
		"info expiry.root_crl root info", "info expiry.caller provisioning info", "warn expiry.caller provisioning warning",
		"warn expiry.root_crl root warning", "error expiry.caller provisioning critical", "info expiry.caller provisioning ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	logged.TakeAll()
	for _, err := range []error{errors.New("one"), errors.New("one"), nil, errors.New("one"), errors.New("two")} {
		a.unread(err)
	}
	if n := logged.Len(); n != 3 {
		t.Errorf("what cannot be read is told %d times", n)
	}
}
