package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/site"
)

// TestTerminalOfOthersTexts: a daemon that is taken, an LDAP server's message or the name of a file writes
// nothing on a terminal but text, and no line that looks like one of ours.
func TestTerminalOfOthersTexts(t *testing.T) {
	const evil = "x\x1b]0;owned\a\x1b[2J\r\u009b31m\u202etxt\nnothing is wrong"
	text, err := json.Marshal(map[string]any{
		"code": "found", "request_id": evil, "next": "", "notice": evil, "revoked": []any{map[string]any{"serial": evil, "cn": evil, "purpose": evil}},
		"crl":          []any{map[string]any{"issuer": evil, "number": evil, "state": evil, "commit": evil}},
		"certificates": []any{map[string]any{"serial": evil, "cn": evil, "purpose": evil, "state": evil, "directory": map[string]any{"state": evil}}},
		"chains":       []any{map[string]any{"purpose": evil, "issuer": evil, "chain": evil}},
		"plan":         map[string]any{"rule": evil, "key_type": evil, "renews": evil, "attribute": evil, "sans": map[string]any{"dns": []any{evil}}},
		"serial":       evil, "cn": evil, "issuer": evil, "password": evil, "directory": map[string]any{"state": evil, "entry": evil},
	})
	if err != nil {
		t.Fatal(err)
	}
	taken := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			ID int64 `json:"id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": call.ID, "result": client.Answer{OK: true, Msg: evil, Detail: text}}); err != nil {
			t.Error(err)
		}
	}))
	defer taken.Close()
	var out bytes.Buffer
	asked := func() service {
		return service{rpc: client.New(taken.URL, taken.Client().Transport.(*http.Transport).TLSClientConfig), output: "table"}
	}
	answer, err := func() (client.Answer, error) { s := asked(); return s.ask(t.Context(), "ca.status", nil, "") }()
	if err != nil {
		t.Fatal(err)
	}
	s, issue, revoke := asked(), issueOptions{service: asked()}, revokeOptions{service: asked(), done: "revoked"}
	finding := site.Finding{Code: "owed", Severity: site.SeverityWarning, Subject: evil, Reason: evil, Fix: evil}
	for what, print := range map[string]func() error{
		"notice":   func() error { s.showNotice(&out, answer); return nil },
		"status":   func() error { return s.printStatus(&out, answer) },
		"chain":    func() error { return s.printChains(&out, answer, nil) },
		"issue":    func() error { return issue.print(&out, answer, issued{Serial: evil, Password: evil}, issueFiles{}) },
		"plan":     func() error { return issue.printPlan(&out, answer) },
		"revoke":   func() error { return revoke.print(&out, answer) },
		"expiring": func() error { return printExpiring(&out, []json.RawMessage{text}, time.Now()) },
		"doctor": func() error {
			_ = printDoctor(&out, site.DoctorReport{Findings: []site.Finding{finding}}, "table")
			return nil
		},
		"fsck": func() error {
			_ = printFsck(&out, site.FsckReport{Findings: []site.Finding{finding}}, "table")
			return nil
		},
		"json": func() error {
			if err := writeJSON(&out, map[string]string{"cn": evil + "\U000e0001"}); err != nil {
				return err
			}
			var back map[string]string
			if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["cn"] != evil+"\U000e0001" || strings.Contains(out.String(), "\U000e0001") {
				t.Errorf("%q, %v", out.String(), err)
			}
			return nil
		},
		"whoami": func() error { return printRows(&out, evil, [][2]string{{evil, evil}}) },
		"callers": func() error {
			return printCallers(&out, []site.CallerEntry{{Name: evil, Certificates: []site.CallerCertificate{{Serial: evil, State: evil}}}})
		},
		"backup": func() error {
			return printManifest(&out, "whole", site.Manifest{LeftOut: []string{evil}, Log: site.Position{Root: evil}}, "table")
		},
	} {
		out.Reset()
		if err := print(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if strings.ContainsAny(out.String(), "\x1b\a\r\u009b\u202e") || !strings.Contains(out.String(), `x\u001b]0;owned\u0007`) {
			t.Errorf("%s writes %q", what, out.String())
		}
		if what != "chain" && strings.Contains(out.String(), "\nnothing is wrong") {
			t.Errorf("%s writes a line that is not its own: %q", what, out.String())
		}
	}
	// The last word of the program, which nothing of the above is.
	built := filepath.Join(t.TempDir(), "chancery")
	if text, err := exec.Command("go", "build", "-o", built, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	said, _ := exec.Command(built, "doctor", "no\x1b[2Jwhere").CombinedOutput()
	if bytes.ContainsAny(said, "\x1b") || !bytes.Contains(said, []byte(`no\u001b[2Jwhere`)) {
		t.Errorf("an error: %q", said)
	}
}
