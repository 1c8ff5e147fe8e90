package main

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

// check runs the program in this process, and checks that text and JSON say the same.
func check(t *testing.T, wantExit int, wantCode string, args []string) *verdict {
	t.Helper()
	var text, object, warnings bytes.Buffer
	exit := run(args, &text, &warnings, noon)
	if again := run(append(args, "--json"), &object, &warnings, noon); again != exit {
		t.Errorf("exit code %d, with --json %d", exit, again)
	}
	var v verdict
	decoder := json.NewDecoder(&object)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil || decoder.More() {
		t.Fatalf("not one JSON object: %v", err)
	}
	if exit != wantExit || v.Code != wantCode || v.Accepted != (exit == 0) {
		t.Errorf("exit code %d and %q, want %d and %q: %s", exit, v.Code, wantExit, wantCode, v.Reason)
	}
	begin := map[int]string{accepted: "accepted", refused: "refused " + v.Code, unreadable: "not judged " + v.Code}[exit]
	if line := text.String(); line != begin+": "+v.Reason+"\n" || strings.Count(line, "\n") != 1 {
		t.Errorf("%q is not one line that says the same as %q", line, v.Reason)
	}
	if strings.Count(warnings.String(), "\n") != len(v.Warnings) {
		t.Errorf("%q are not %d warnings", warnings.String(), len(v.Warnings))
	}
	return &v
}

func TestFileByItself(t *testing.T) {
	root := newCA(t, cert.P384, "Root", nil)
	users, servers := newCA(t, cert.P256, "Users", root), newCA(t, cert.RSA2048, "Servers", root)
	impostor := newCA(t, cert.P256, "Users", nil)
	impostor.cert.SubjectKeyId = users.cert.SubjectKeyId
	u, s, r := users.list(t, 7, revoked(1, cert.KeyCompromise, 1001)), servers.list(t, 5), root.list(t, 3)
	good := bundle(u, s, r)
	one := len(bundle(u))
	names := extended([]byte("\x30\x0f\xa0\x0d\xa0\x0b\x86\x09http://x/"), 2, 5, 29, 28)
	for name, c := range map[string]struct {
		code string
		file []byte
	}{
		"good":                       {codeFirst, good},
		"empty":                      {list.NoLists, []byte{}},
		"a web page":                 {list.Garbage, []byte("<!DOCTYPE html><title>404 Not Found</title>\n")},
		"zeros":                      {list.Garbage, make([]byte, len(good))},
		"a Git LFS pointer":          {list.Garbage, []byte("version https://git-lfs.github.com/spec/v1\n")},
		"a merge conflict":           {list.Garbage, append([]byte("<<<<<<< HEAD\n"), good...)},
		"CR LF":                      {list.BadBlock, bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))},
		"certificates":               {list.BadBlock, trust(users, servers, root)},
		"a key":                      {list.BadBlock, []byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")},
		"cut in a block":             {list.Truncated, good[:one+100]},
		"cut between the blocks":     {list.Missing, good[:one]},
		"cut in the last line":       {list.Truncated, good[:len(good)-1]},
		"octets after":               {list.Garbage, append(bytes.Clone(good), 0)},
		"octets after a list":        {list.Trailing, bundle(append(bytes.Clone(u), 0), s, r)},
		"a list cut":                 {list.Truncated, bundle(u[:len(u)-1], s, r)},
		"an altered entry":           {list.BadSignature, bundle(altered(u, bytes.Index(u, []byte{0x02, 0x02, 0x03, 0xe9})+3), s, r)},
		"an altered signature":       {list.BadSignature, bundle(u, altered(s, len(s)-1), r)},
		"an impostor's":              {list.BadSignature, bundle(impostor.list(t, 8), s, r)},
		"without the root's":         {list.Missing, bundle(u, s)},
		"without one issuer's":       {list.Missing, bundle(u, r)},
		"root first":                 {list.BadOrder, bundle(r, u, s)},
		"issuers exchanged":          {list.BadOrder, bundle(s, u, r)},
		"another CA's":               {list.UnknownIssuer, bundle(u, s, newCA(t, cert.P256, "Other", nil).list(t, 1), r)},
		"two lists of one issuer":    {list.DuplicateIssuer, bundle(u, users.list(t, 8), s, r)},
		"a delta":                    {list.Delta, bundle(users.list(t, 8, extended([]byte{2, 1, 7}, 2, 5, 29, 27)), s, r)},
		"a distribution point":       {list.Scoped, bundle(users.list(t, 8, names), s, r)},
		"an unknown critical":        {list.Critical, bundle(users.list(t, 8, extended([]byte{5, 0}, 1, 2, 3)), s, r)},
		"one serial number twice":    {list.DuplicateEntry, bundle(users.list(t, 8, revoked(1, cert.KeyCompromise, 1001, 1001)), s, r)},
		"expired":                    {list.Expired, bundle(users.list(t, 8, during(-48, 0)), s, r)},
		"the root's expired":         {list.Expired, bundle(u, s, root.list(t, 3, during(-48, -1)))},
		"of tomorrow":                {list.Future, bundle(users.list(t, 8, during(24, 48)), s, r)},
		"a single list for a bundle": {list.Missing, u},
	} {
		t.Run(name, func(t *testing.T) {
			exit := refused
			if c.code == codeFirst {
				exit = accepted
			}
			h := newHost(t, trust(users, servers, root), c.file, nil)
			check(t, exit, c.code, h.args())
		})
	}
}

// A single list is judged like a bundle of one.
func TestSingleList(t *testing.T) {
	root := newCA(t, cert.P256, "Root", nil)
	users := newCA(t, cert.P256, "Users", root)
	u := users.list(t, 7)
	for name, c := range map[string]struct {
		exit            int
		code            string
		file, installed []byte
	}{
		"DER":            {accepted, codeFirst, u, nil},
		"PEM":            {accepted, codeFirst, bundle(u), nil},
		"over PEM":       {accepted, codeAccepted, users.list(t, 8), bundle(u)},
		"the same":       {accepted, codeUnchanged, u, u},
		"cut":            {refused, list.Truncated, u[:len(u)-1], nil},
		"an octet after": {refused, list.Trailing, append(bytes.Clone(u), '\n'), nil},
		"forged":         {refused, list.BadSignature, altered(u, len(u)-1), nil},
		"older":          {refused, list.NotNewer, users.list(t, 6), u},
		"another's":      {refused, list.UnknownIssuer, root.list(t, 7), nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, trust(users), c.file, c.installed)
			check(t, c.exit, c.code, h.args("--installed", h.path("installed")))
		})
	}
}

func TestFileThatReplaces(t *testing.T) {
	root := newCA(t, cert.P256, "Root", nil)
	users := newCA(t, cert.P256, "Users", root)
	former := newCA(t, cert.P256, "Users", root)
	r := root.list(t, 3)
	listOf := func(number int64, edits ...func(*x509.RevocationList)) []byte {
		return bundle(users.list(t, number, edits...), r)
	}
	yesterday := revoked(1, cert.Superseded, 1001)
	installed := listOf(7, yesterday)
	forged := users.list(t, 7)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		exit           int
		code           string
		installed, new []byte
		left           int
		warnings       int
	}{
		"one more":                           {accepted, codeAccepted, installed, listOf(8, yesterday, revoked(0, cert.KeyCompromise, 1002)), 0, 0},
		"numbers skipped":                    {accepted, codeAccepted, installed, listOf(70, yesterday), 0, 0},
		"unchanged":                          {accepted, codeUnchanged, installed, bytes.Clone(installed), 0, 0},
		"first":                              {accepted, codeFirst, nil, installed, 0, 0},
		"installed has expired":              {accepted, codeAccepted, listOf(7, yesterday, during(-48, -1)), listOf(8, yesterday), 0, 0},
		"number falls":                       {refused, list.NotNewer, installed, listOf(6, yesterday), 0, 0},
		"the root's number falls":            {refused, list.NotNewer, installed, bundle(users.list(t, 8, yesterday), root.list(t, 2)), 0, 0},
		"same number, other list":            {refused, codeSameNumber, installed, listOf(7, yesterday, revoked(0, cert.KeyCompromise, 1002)), 0, 0},
		"an entry left":                      {refused, list.Dropped, installed, listOf(8), 0, 0},
		"an entry left in a week":            {refused, list.Dropped, listOf(7, revoked(7, cert.Superseded, 1001)), listOf(8), 0, 0},
		"an entry left later":                {accepted, codeAccepted, listOf(7, revoked(8, cert.Superseded, 1001)), listOf(8), 1, 1},
		"an entry left while the host slept": {accepted, codeAccepted, listOf(7, revoked(8, cert.Superseded, 1001), during(-8*24, -24)), listOf(8), 1, 1},
		"a hold was released":                {accepted, codeAccepted, listOf(7, revoked(1, cert.CertificateHold, 1001)), listOf(8), 1, 1},
		"a hold became final":                {accepted, codeAccepted, listOf(7, revoked(1, cert.CertificateHold, 1001)), listOf(8, yesterday), 0, 0},
		"a date moved":                       {refused, list.DateChanged, installed, listOf(8, revoked(0, cert.Superseded, 1001)), 0, 0},
		"a reason grew worse":                {accepted, codeAccepted, installed, listOf(8, revoked(1, cert.KeyCompromise, 1001)), 0, 0},
		"a reason was weakened":              {refused, list.ReasonChanged, installed, listOf(8, revoked(1, cert.CertificateHold, 1001)), 0, 0},
		"a new CA":                           {accepted, codeAccepted, bundle(users.list(t, 7)), listOf(8), 0, 1},
		"a CA that is gone":                  {accepted, codeAccepted, bundle(newCA(t, cert.P256, "Old", root).list(t, 9), users.list(t, 7), r), listOf(8), 0, 0},
		"late":                               {accepted, codeAccepted, installed, listOf(8, yesterday, during(-9, 1)), 0, 1},
		"installed is empty":                 {refused, codeInstalled, []byte{}, installed, 0, 0},
		"installed is cut":                   {refused, codeInstalled, installed[:len(installed)-9], installed, 0, 0},
		"installed is forged":                {refused, codeInstalled, bundle(forged, r), installed, 0, 0},
		"installed by another key":           {refused, codeInstalled, bundle(former.list(t, 7), r), installed, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, trust(users, root), c.new, c.installed)
			v := check(t, c.exit, c.code, h.args("--installed", h.path("installed")))
			left := 0
			for _, l := range v.Lists {
				left += l.Left
			}
			if left != c.left || len(v.Warnings) != c.warnings {
				t.Errorf("%d entries left, warnings %q; want %d and %d", left, v.Warnings, c.left, c.warnings)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	users := newCA(t, cert.P256, "Users", nil)
	good, chain := bundle(users.list(t, 7)), trust(users)
	unlabelled := bytes.ReplaceAll(chain, []byte("CERTIFICATE"), []byte("X509 CERTIFICATE"))
	cut := append(bytes.Clone(chain), "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"...)
	for name, c := range map[string]struct {
		code        string
		trust, file []byte
		more        string // --installed
	}{
		"nothing to check":      {codeUnreadable, chain, nil, "absent"},
		"installed is a folder": {codeUnreadable, chain, good, "."},
		"no trust":              {codeTrust, nil, good, "absent"},
		"empty trust":           {codeTrust, []byte{}, good, "absent"},
		"lists for trust":       {codeTrust, good, good, "absent"},
		"another label":         {codeTrust, unlabelled, good, "absent"},
		"a broken certificate":  {codeTrust, cut, good, "absent"},
		"one name twice":        {codeTrust, append(trust(newCA(t, cert.P256, "Users", nil)), chain...), good, "absent"},
		"endless trust":         {codeTrust, make([]byte, maxTrust+1), good, "absent"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, c.trust, c.file, nil)
			check(t, unreadable, c.code, h.args("--installed", h.path(c.more)))
		})
	}
}

func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":                   {},
		"no trust":                  {"new"},
		"no file":                   {"--trust", "chain.pem"},
		"two files":                 {"new", "other", "--trust", "chain.pem"},
		"an unknown flag":           {"new", "--force", "--trust", "chain.pem"},
		"an empty --installed":      {"new", "--installed", "", "--trust", "chain.pem"},
		"--installed with no value": {"new", "--trust", "chain.pem", "--installed"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, problems bytes.Buffer
			if exit := run(args, &out, &problems, noon); exit != badUsage || out.Len() > 0 || problems.Len() == 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q", exit, &out, &problems)
			}
		})
	}
	var help, problems bytes.Buffer
	if exit := run([]string{"--help"}, &help, &problems, noon); exit != accepted || problems.Len() > 0 || !strings.Contains(help.String(), "-installed FILE") {
		t.Errorf("exit code %d, help %q", exit, &help)
	}
}

// full is a stream that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// A verdict that is not written must not look like acceptance.
func TestVerdictThatCannotBeWritten(t *testing.T) {
	users := newCA(t, cert.P256, "Users", nil)
	h := newHost(t, trust(users), bundle(users.list(t, 7)), nil)
	var problems bytes.Buffer
	for _, more := range [][]string{nil, {"--json"}} {
		if exit := run(h.args(more...), full{}, &problems, noon); exit != unreadable {
			t.Errorf("exit code %d", exit)
		}
	}
}

// The program as it is released: static, its exit codes those of the process, and its verdict on lists
// that openssl wrote.
func TestProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "crlcheck")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	code, err := elf.Open(program)
	must(t, err)
	defer code.Close()
	for _, p := range code.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	dir := t.TempDir()
	sh := exec.Command("sh", "-euc", madeByOpenSSL)
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	for _, c := range []struct {
		exit int
		says string
		args string
	}{
		{accepted, "accepted: nothing to compare with: ", "2.pem --trust ca.pem"},
		{accepted, "accepted: ", "2.pem --installed 1.pem --trust ca.pem"},
		{refused, "refused list.not_newer: ", "1.pem --installed 2.pem --trust ca.pem"},
		{refused, "refused list.unknown_issuer: ", "2.pem --trust other.pem"},
		{badUsage, "", "2.pem"},
		{unreadable, "not judged file.unreadable: ", "3.pem --trust ca.pem"},
	} {
		cmd := exec.Command(program, strings.Fields(c.args)...)
		cmd.Dir = dir
		out, err := cmd.Output()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) {
			t.Fatal(err)
		}
		if exit := cmd.ProcessState.ExitCode(); exit != c.exit || !strings.HasPrefix(string(out), c.says) {
			t.Errorf("crlcheck %s: exit code %d: %s", c.args, exit, out)
		}
	}
}

const madeByOpenSSL = `
cat >conf <<EOF
[ca]
default_ca = ca
[ca]
database = index
crlnumber = number
default_md = sha256
default_crl_days = 7
crl_extensions = crl
[crl]
authorityKeyIdentifier = keyid:always
[req]
distinguished_name = dn
x509_extensions = v3
[dn]
[v3]
subjectKeyIdentifier = hash
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
EOF
for name in ca other; do
	openssl req -x509 -config conf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -subj "/O=Example/CN=$name" -out $name.pem
done
: >index
echo 01 >number
for n in 1 2; do
	openssl ca -config conf -gencrl -cert ca.pem -keyfile ca.key -out $n.pem
done
`
