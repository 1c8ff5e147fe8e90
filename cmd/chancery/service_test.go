package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// TestExitCodes holds every way a call can end against the codes that docs/RPC.md promises, and checks that
// the call is made again only where nothing is settled.
func TestExitCodes(t *testing.T) {
	s := service{url: "https://ca/rpc"}
	no := func(code string) client.Answer {
		return client.Answer{Msg: "what to do", Detail: json.RawMessage(`{"code":"` + code + `"}`)}
	}
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for what, c := range map[string]struct {
		answer client.Answer
		err    error
		asked  bool
		code   int
		again  bool
	}{
		"a refusal":                      {answer: no("policy.denied"), code: exitRefused},
		"the key room refuses":           {answer: no("keyroom.rate.hour"), code: exitRefused},
		"unknown":                        {answer: no("outcome.unknown"), code: exitUnknown, again: true},
		"no key room":                    {answer: no("keyroom.unreachable"), code: exitUnknown, again: true},
		"an old store":                   {answer: no("store.behind"), code: exitIntegrity},
		"another store":                  {answer: no("store.fork"), code: exitIntegrity},
		"an old key room":                {answer: no("keyroom.behind"), code: exitIntegrity},
		"not an answer":                  {answer: client.Answer{}, code: exitUnknown, again: true},
		"wrong parameters":               {err: &client.Fault{Code: -32602}, code: exitUsage},
		"no such method":                 {err: &client.Fault{Code: -32601}, code: exitUsage},
		"too long":                       {err: &client.Fault{Code: -32600}, code: exitUsage},
		"an internal error":              {err: &client.Fault{Code: -32603}, code: exitUnknown, again: true},
		"too many calls":                 {err: &client.Fault{Code: 4290}, code: exitUnknown, again: true},
		"not a caller any more":          {err: &client.Fault{Code: 4010}, code: exitRefused},
		"no caller, after a cut call":    {err: &client.Fault{Code: 4010}, asked: true, code: exitUnknown, again: true},
		"no grant, after a cut call":     {answer: no("policy.denied"), asked: true, code: exitUnknown, again: true},
		"refused, after a cut call":      {answer: no("name.space"), asked: true, code: exitRefused},
		"cut":                            {err: io.ErrUnexpectedEOF, code: exitUnknown, again: true},
		"nobody there":                   {err: dial, code: exitUnknown},
		"nobody there, after a cut call": {err: dial, asked: true, code: exitUnknown, again: true},
		"an alert":                       {err: &net.OpError{Op: "remote error", Err: errors.New("bad certificate")}, code: exitUnknown},
	} {
		verdict, again := s.judge(c.answer, c.err, c.asked)
		if exitCode(verdict) != c.code || again != c.again {
			t.Errorf("%s: exit code %d, again %v: %v", what, exitCode(verdict), again, verdict)
		}
		if c.err == nil && c.answer.Msg != "" && !strings.Contains(verdict.Error(), c.answer.Msg) {
			t.Errorf("%s: %v does not say what the service did", what, verdict)
		}
	}
}

// TestExpiredCaller: whoever forgot to renew is told so at once, and by the file.
func TestExpiredCaller(t *testing.T) {
	dir := t.TempDir()
	s := service{cert: filepath.Join(dir, "c.pem"), key: filepath.Join(dir, "c.key"), trust: filepath.Join(dir, "c.pem")}
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{s.cert: {Type: "CERTIFICATE", Bytes: der}, s.key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.tls(); err == nil || !strings.Contains(err.Error(), "c.pem expired at 20") {
		t.Error(err)
	}
}

// TestSameCommand has a shell read the command that asks again.
func TestSameCommand(t *testing.T) {
	old := os.Args
	t.Cleanup(func() { os.Args = old })
	for _, args := range [][]string{
		{"echo", "issue", "--purpose", "user", "carol d", "--out", `it's "$(here)" *`, "--", "-x", ""},
		{"echo", "issue", "--request-id", "id-1", "Zoë"},
		{"echo", "issue", "--request-id=id-1", "a\nb"},
	} {
		os.Args = args
		line := sameCommand("id-1")
		out, err := exec.Command("sh", "-c", strings.Replace(line, "echo", `printf '%s|'`, 1)).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		want := strings.Join(args[1:], "|") + "|"
		if !strings.Contains(want, "id-1") {
			want = strings.Replace(want, "issue|", "issue|--request-id|id-1|", 1)
		}
		if string(out) != want {
			t.Errorf("a shell reads %s as %q, want %q", line, out, want)
		}
	}
}
