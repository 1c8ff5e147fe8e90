package site_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/site"
	"github.com/chancery-ca/chancery/store"
)

func TestSeverity(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		code string
		left time.Duration
		want site.Severity
	}{
		{"expiry.service", 30*day + time.Second, site.SeverityFine}, {"expiry.service", 30 * day, site.SeverityInfo},
		{"expiry.caller", 14 * day, site.SeverityWarning}, {"expiry.issuer", 7*day + 1, site.SeverityWarning},
		{"expiry.root", 7 * day, site.SeverityCritical}, {"expiry.caller", -365 * day, site.SeverityCritical},
		{"expiry.root_crl", 90*day + 1, site.SeverityFine}, {"expiry.root_crl", 90 * day, site.SeverityInfo},
		{"expiry.root_crl", 30 * day, site.SeverityWarning}, {"expiry.root_crl", 7 * day, site.SeverityCritical},
		{"expiry.list", 3*day + 1, site.SeverityFine}, {"expiry.list", 3 * day, site.SeverityWarning},
		{"expiry.list", day, site.SeverityCritical}, {"expiry.list", -1, site.SeverityCritical},
	} {
		d := site.Deadline{Code: c.code, NotAfter: now.Add(c.left)}
		if got := d.Severity(now); got != c.want {
			t.Errorf("%s with %s left is %q, want %q", c.code, c.left, got, c.want)
		}
	}
}

// endOf is what openssl says of a certificate's or a list's end.
func endOf(t *testing.T, kind, file string) string {
	t.Helper()
	field := map[string]string{"x509": "-enddate", "crl": "-nextupdate"}[kind]
	_, end, _ := strings.Cut(strings.TrimSpace(run(t, "openssl", kind, "-in", file, "-noout", field)), "=")
	return end
}

func TestDeadlines(t *testing.T) {
	folder := copyOf(t, worlds(t).night)
	run(t, "git", "clone", "-q", filepath.Join(folder, "config.git"), filepath.Join(folder, "pulled"))
	at := func(name ...string) string { return filepath.Join(append([]string{folder}, name...)...) }
	run(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", at("corp.key"), "-out", at("corp.pem"), "-days", "99", "-subj", "/CN=Corp")
	files("echo 'foreign_cas: [{name: corp, file: corp.pem}]' >> chancery.yaml")(t, folder)
	want := map[string]string{
		"expiry.service localhost":   endOf(t, "x509", at("secrets", "server.pem")),
		"expiry.caller provisioning": endOf(t, "x509", at("callers", "provisioning.pem")),
		"expiry.foreign corp":        endOf(t, "x509", at("corp.pem")),
		"expiry.root root":           endOf(t, "x509", at("trust", "root.pem")),
		"expiry.root_crl root":       endOf(t, "crl", at("keyroom", "root.crl.pem")),
	}
	for _, issuer := range []string{"users", "servers", "callers"} {
		want["expiry.issuer "+issuer] = endOf(t, "x509", at("keyroom", issuer+".pem"))
		want["expiry.list "+issuer] = endOf(t, "crl", at("pulled", "pki", issuer+".crl.pem"))
	}
	s, err := store.OpenReader(context.Background(), at("state", "store.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := site.Deadlines(context.Background(), config(t, folder), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		key := d.Code + " " + d.Subject
		if end := d.NotAfter.UTC().Format("Jan _2 15:04:05 2006 GMT"); end != want[key] {
			t.Errorf("%s ends %q, openssl says %q", key, end, want[key])
		}
		if delete(want, key); d.Fix == "" {
			t.Errorf("%s: nothing to do", key)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}
