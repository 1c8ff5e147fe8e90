package site_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-ca/chancery/site"
)

// TestConfigPointsAt: what is wrong in its meaning has a place too, and a caret below it.
func TestConfigPointsAt(t *testing.T) {
	t.Parallel()
	const ldap = "  url: ldaps://a.example.org\n  base: dc=example,dc=org\n  bind_dn: cn=x\n  password_file: p\n"
	file := "  url: ldif:directory.ldif\n  base: dc=example,dc=org\n"
	for name, c := range map[string]struct{ old, new, key, place string }{
		"listen":                 {"127.0.0.1:8443", "127.0.0.1", "listen", "1:9"},
		"no branch":              {"  branch: main\n", "", "git.branch", "9:1"},
		"no git":                 {"git:\n  repository: config.git\n  branch: main\n  folder: pki\n", "", "git.branch", ""},
		"empty folder":           {"folder: pki", "folder:", "git.folder", "12:3"},
		"git url":                {"repository: config.git", "url: http://a/b", "git.url", "10:8"},
		"git access":             {"repository: config.git", "url: https://a/b\n  username: x", "git", "9:1"},
		"file's address":         {"ldif:directory.ldif", "ldif://host/x", "directory.url", "7:8"},
		"file's base":            {"dc=example,dc=org", "example", "directory.base", "8:9"},
		"servers' base":          {file, strings.Replace(ldap, "dc=example,dc=org", "example", 1), "directory.base", "8:9"},
		"people's base":          {file, ldap + "  user:\n    base: example\n", "directory.user.base", "12:11"},
		"filter":                 {file, ldap + "  server: {filter: (cn=x)}\n", "directory.server.filter", "11:20"},
		"second address":         {file, strings.Replace(ldap, "url: ldaps://a.example.org", "urls: [ldaps://a, ldaps://]", 1), "directory.urls[1]", "7:21"},
		"the one address":        {file, strings.Replace(ldap, "ldaps://a.example.org", "ldaps://", 1), "directory.url", "7:8"},
		"create in LDAP":         {file, ldap + "  create: true\n", "directory.create", "11:11"},
		"caller's name":          {"name: hr", "name: H R", "callers[0].name", "14:11"},
		"caller's rate":          {"name: hr", "name: hr\n    per_second: -1", "callers[0].per_second", "15:17"},
		"method":                 {"[ca.issue]", "[ca.issue, ca.isue]", "callers[0].grants[0].methods[1]", "16:29"},
		"no method":              {"[ca.issue]", "[]", "callers[0].grants[0].methods", "16:9"},
		"purpose":                {"[user]", "[smtp]", "callers[0].grants[0].purposes[0]", "17:20"},
		"no names":               {"        names: [\"*\"]\n", "", "callers[0].grants[0].names", "16:9"},
		"empty pattern":          {`["*"]`, `["*", ""]`, "callers[0].grants[0].names[1]", "18:22"},
		"domain":                 {`["*"]`, "[\"*\"]\n        domains:\n          - Example.org", "callers[0].grants[0].domains[0]", "20:13"},
		"network":                {`["*"]`, "[\"*\"]\n        networks: [192.0.2.1/24]", "callers[0].grants[0].networks[0]", "19:20"},
		"caller's key":           {"name: hr", "name: hr\n    credentials: [{spki: 0f}]", "callers[0].credentials[0].spki", "15:26"},
		"caller's issuer":        {"name: hr", "name: hr\n    credentials:\n      - issuer: hr\n        subject: CN=hr", "callers[0].credentials[0].issuer", "16:17"},
		"no subject":             {"name: hr", "name: hr\n    credentials:\n      - issuer: CN=x", "callers[0].credentials[0].subject", "16:9"},
		"no credentials":         {"name: hr", "name: hr\n    credentials: []", "callers[0].credentials", "15:5"},
		"credentials of nothing": {"name: hr", "name: hr\n    credentials:", "callers[0].credentials", "15:5"},
		"unsigned":               {"name: hr", "name: hr\n    signing_keys:", "callers[0].signing_keys", "15:5"},
		"no signing keys":        {"name: hr", "name: hr\n    signing_keys: []", "callers[0].signing_keys", "15:5"},
		"no rate":                {"name: hr", "name: hr\n    per_second: 0", "callers[0].per_second", "15:17"},
		"no hour":                {`["*"]`, "[\"*\"]\n        per_hour: 0", "callers[0].grants[0].per_hour", "19:19"},
		"no days":                {`["*"]`, "[\"*\"]\n        max_days: 0", "callers[0].grants[0].max_days", "19:19"},
		"no most":                {`["*"]`, "[\"*\"]\n        max: 0", "callers[0].grants[0].max", "19:14"},
		"no type":                {`["*"]`, "[\"*\"]\n        key_types: null", "callers[0].grants[0].key_types", "19:9"},
		"no reason":              {`["*"]`, "[\"*\"]\n        reasons: null", "callers[0].grants[0].reasons", "19:9"},
		"no domain":              {`["*"]`, "[\"*\"]\n        domains: []", "callers[0].grants[0].domains", "19:9"},
		"domains of nothing":     {`["*"]`, "[\"*\"]\n        domains: null", "callers[0].grants[0].domains", "19:9"},
		"no network":             {`["*"]`, "[\"*\"]\n        networks: []", "callers[0].grants[0].networks", "19:9"},
		"networks of nothing":    {`["*"]`, "[\"*\"]\n        networks: ~", "callers[0].grants[0].networks", "19:9"},
		"directory of nothing":   {"directory:\n" + file + "", "directory:\n", "directory", "6:1"},
		"health of nothing":      {"callers:", "health:\ncallers:", "health", "13:1"},
		"foreign CA":             {"callers:", "foreign_cas: [{name: corp}]\ncallers:", "foreign_cas[0].file", "13:16"},
		"foreign CA's name":      {"callers:", "foreign_cas: [{name: C, file: x}]\ncallers:", "foreign_cas[0].name", "13:22"},
		"public credential":      {"./trust/", "credential:trust", "trust", "5:8"},
		"hostile key":            {"trust: ./trust/", "\"a.b[0]'\": 1\ntrust: ./trust/", "", "5:1"},
	} {
		if !strings.Contains(wholeConfig, c.old) {
			t.Fatalf("%s: %q is not in the configuration", name, c.old)
		}
		text := strings.Replace(wholeConfig, c.old, c.new, 1)
		_, err := load(t, t.TempDir(), text)
		var found site.Problems
		if !errors.As(err, &found) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := found[0]
		place := ""
		if p.Line > 0 {
			place = fmt.Sprintf("%d:%d", p.Line, p.Column)
		}
		if p.Key != c.key || place != c.place {
			t.Errorf("%s: %q at %q, want %q at %q\n%v", name, p.Key, place, c.key, c.place, err)
		}
		// The caret is below the column of the line.
		lines := strings.Split(p.Excerpt, "\n")
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, ">") })
		if c.place == "" {
			continue
		}
		if at < 0 || strings.Index(lines[at+1], "^") != strings.Index(lines[at], "|")+1+p.Column {
			t.Errorf("%s:\n%s", name, p.Excerpt)
		}
		if line := strings.Split(text, "\n")[p.Line-1]; !strings.HasSuffix(lines[at], "| "+line) {
			t.Errorf("%s: line %q\n%s", name, line, p.Excerpt)
		}
	}
}

// TestConfigTellsAll: what does not hang together is told at once.
func TestConfigTellsAll(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("127.0.0.1:8443", "nowhere", "  branch: main\n", "", "[ca.issue]", "[ca.x]", "[user]", "[user]\n        domains: [X]",
		"  base: dc=example,dc=org\n", "").Replace(wholeConfig) + "  - name: hr\n"
	_, err := load(t, t.TempDir(), text)
	var found site.Problems
	errors.As(err, &found)
	var keys []string
	for _, p := range found {
		keys = append(keys, p.Key)
	}
	want := []string{"listen", "git.branch", "callers[0].grants[0].methods[0]", "callers[1].name", "directory"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("%s\n%v", diff, err)
	}
}

// Public keys of RFC 8032 section 7.1, tests 1 and 2.
const (
	signingKey      = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	otherSigningKey = "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
)

// TestConfigCheck spoils what a configuration names, and asks the program.
func TestConfigCheck(t *testing.T) {
	t.Parallel()
	if code, stdout, stderr := chancery(t, "config", "check", worlds(t).day); code != 0 || !strings.HasPrefix(stdout, "clean: ") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	ldap := `sed -i 's,url: ldif:.*,url: ldaps://ldap.example.org\n  ca: trust/root.pem\n  bind_dn: cn=chancery\n  password_file: secrets/ldap,; /create:/d' chancery.yaml; `
	ssh := `sed -i 's,repository: .*,url: ssh://git@git.example.org/x\n  ssh_key: secrets/deploy\n  known_hosts: trust/hosts,' chancery.yaml; ssh-keygen -q -t ed25519 -N "" -f secrets/deploy; cp secrets/deploy.pub trust/hosts; `
	for name, c := range map[string]struct{ spoil, file, key, want string }{
		"no store":           {"rm state/store.db", "chancery.yaml", "state", "no such file"},
		"no log key":         {"rm trust/log.pub", "chancery.yaml", "trust", "no such file"},
		"another log key":    {"chmod u+w trust/log.pub; echo x > trust/log.pub", "chancery.yaml", "trust", "malformed verifier"},
		"no key":             {"rm -f secrets/server.key", "chancery.yaml", "secrets", "server.key"},
		"key for all":        {"chmod 444 secrets/server.key", "chancery.yaml", "secrets", "open to everybody (mode 0444)"},
		"another key":        {"cp -f callers/provisioning.key secrets/server.key; chmod 400 secrets/server.key", "chancery.yaml", "secrets", "private key does not match"},
		"no commit key":      {"chmod u+w secrets/git_signing.key; echo x > secrets/git_signing.key", "chancery.yaml", "secrets", "git_signing.key"},
		"no repository":      {"rm -r config.git", "chancery.yaml", "git", "not a git repository"},
		"no directory":       {"rm directory.ldif", "chancery.yaml", "directory.url", "no such file"},
		"no LDAP password":   {ldap, "chancery.yaml", "directory.password_file", "no such file"},
		"empty password":     {ldap + "touch secrets/ldap; chmod 400 secrets/ldap", "chancery.yaml", "directory", "is empty"},
		"password for all":   {ldap + "echo x > secrets/ldap; chmod 404 secrets/ldap", "chancery.yaml", "directory.password_file", "open to everybody"},
		"no foreign CA":      {"echo 'foreign_cas: [{name: corp, file: trust/corp.pem}]' >> chancery.yaml", "chancery.yaml", "foreign_cas[0].file", "no such file"},
		"two foreign CAs":    {"echo 'foreign_cas: [{name: corp, file: trust/chain.pem}]' >> chancery.yaml", "chancery.yaml", "foreign_cas[0].file", "certificates: want that of the CA"},
		"our root, foreign":  {"echo 'foreign_cas: [{name: corp, file: trust/root.pem}]' >> chancery.yaml", "chancery.yaml", "foreign_cas[0].file", "a CA of this installation"},
		"a CA of nobody":     {`sed -i 's/- name: provisioning/&\n    credentials: [{issuer: CN=x, subject: CN=x}]/' chancery.yaml`, "chancery.yaml", "callers[0].credentials[0].issuer", `there is no CA "CN=x"; there are: "CN=`},
		"a CA that is none":  {ldap + "echo x > secrets/ldap; chmod 400 secrets/ldap; rm trust/root.pem; echo x > trust/root.pem", "chancery.yaml", "directory.ca", "holds no certificate"},
		"a folder":           {ldap + "mkdir -m 700 secrets/ldap", "chancery.yaml", "directory.password_file", "is not a file"},
		"no deploy key":      {ssh + "rm secrets/deploy", "chancery.yaml", "git.ssh_key", "no such file"},
		"not a deploy key":   {ssh + "echo x > secrets/deploy", "chancery.yaml", "git", "no key found"},
		"host is not known":  {ssh + "echo > trust/hosts", "chancery.yaml", "git", "no key of git.example.org"},
		"room: no signer":    {`sed -i 's,- name: provisioning,&\n    signing_keys: [` + signingKey + `],' chancery.yaml`, "keyroom.json", "", "signing_keys of caller provisioning are missing here"},
		"room: no caller":    {`sed -i 's,"issuers","callers": [{"name": "provisionin"\, "signing_keys": ["` + signingKey + `"]}]\, &,' keyroom.json`, "keyroom.json", "", "signing_keys of caller provisionin are not in chancery.yaml"},
		"room: other signer": {`sed -i 's,- name: provisioning,&\n    signing_keys: [` + signingKey + `],' chancery.yaml; sed -i 's,"issuers","callers": [{"name": "provisioning"\, "signing_keys": ["` + otherSigningKey + `"]}]\, &,' keyroom.json`, "keyroom.json", "", "signing_keys of caller provisioning are other ones than in chancery.yaml"},
		"room: bad name":     {`sed -i 's,"issuers","callers": [{"name": "HR"\, "signing_keys": ["` + signingKey + `"]}]\, &,' keyroom.json`, "keyroom.json", "callers[0]", `caller "HR"`},
		"room: member":       {`sed -i 's/"room"/"rooom"/' keyroom.json`, "keyroom.json", "rooom", `there is no member "rooom"`},
		"room: issuer":       {`sed -i 's/"servers"/"users"/' keyroom.json`, "keyroom.json", "issuers[1].id", "repeated"},
		"room: type":         {`sed -i 's/"certificates_per_day": [0-9]*/"certificates_per_day": "many"/' keyroom.json`, "keyroom.json", "certificates_per_day", "it is a JSON string; want int64"},
		"room: not JSON":     {"echo >> keyroom.json; echo '}' >> keyroom.json", "keyroom.json", "", "something stands behind"},
		"room: twice":        {`sed -i '0,/"state"/s//"socket": "x",\n"state"/' keyroom.json`, "keyroom.json", "socket", "there twice"},
		"room: passphrase":   {"chmod 444 secrets/keyroom.passphrase", "keyroom.json", "", "others than its owner may use it"},
		"room: another one":  {"chmod u+w secrets/keyroom.passphrase; echo x > secrets/keyroom.passphrase", "keyroom.json", "", "log.key"},
		"room: a key":        {"cp keyroom/users.key keyroom/servers.key", "keyroom.json", "", "does not belong to its certificate"},
		"room: no journal":   {"rm keyroom/journal", "keyroom.json", "", "journal"},
		"room: no file":      {"rm keyroom.json", "keyroom.json", "", "no such file"},
		"no file":            {"rm chancery.yaml", "chancery.yaml", "", "chancery init makes"},
		"room: a credential": {`sed -i 's,"secrets/keyroom.passphrase","credential:room",' keyroom.json`, "keyroom.json", "passphrase_file", "$CREDENTIALS_DIRECTORY is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, worlds(t).day)
			files(c.spoil)(t, dir)
			before := run(t, "sh", "-c", "cd "+dir+" && find . -type f | sort | xargs sha256sum")
			code, stdout, _ := chancery(t, "config", "check", dir, "--output", "json")
			var report site.ConfigReport
			if err := json.Unmarshal([]byte(stdout), &report); err != nil {
				t.Fatalf("%v\n%s", err, stdout)
			}
			if code != 2 || len(report.Problems) != 1 {
				t.Fatalf("exit code %d\n%s", code, stdout)
			}
			p := report.Problems[0]
			if filepath.Base(p.File) != c.file || p.Key != c.key || !strings.Contains(p.Reason, c.want) {
				t.Errorf("want %s of %s: %s\n%s", c.key, c.file, c.want, stdout)
			}
			if c.key != "" && (p.Line == 0 || !strings.Contains(p.Excerpt, "^")) {
				t.Errorf("it has no place\n%s", stdout)
			}
			if after := run(t, "sh", "-c", "cd "+dir+" && find . -type f | sort | xargs sha256sum"); after != before {
				t.Errorf("something was changed\n%s", cmp.Diff(before, after))
			}
			if _, text, _ := chancery(t, "config", "check", dir); !strings.Contains(text, p.Reason) {
				t.Errorf("the table does not say so\n%s", text)
			}
		})
	}
}

// TestConfigShow: what is shown is a configuration that means the same, and no secret is in it.
func TestConfigShow(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	files(`sed -i 's|url: ldif:.*|urls: [ldaps://a.example.org, ldaps://b.example.org]\n  bind_dn: cn=chancery\n  password_file: secrets/ldap|; /create:/d' chancery.yaml
		echo open sesame > secrets/ldap
		echo 'foreign_cas: [{name: corp, file: trust/corp.pem}]' >> chancery.yaml
		sed -i 's/- name: provisioning/&\n    credentials: [{spki: "0101010101010101010101010101010101010101010101010101010101010101"}, {issuer: CN=x, subject: CN=y}]/' chancery.yaml`)(t, dir)
	code, stdout, stderr := chancery(t, "config", "show", dir, "--origin")
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, want := range []string{
		`(?m)^tls12 +false +default$`, `(?m)^callers\[0\].per_second +100 +default$`, `(?m)^directory.urls +\[ldaps://a.example.org ldaps://b.example.org\] +\S+/chancery.yaml:10:3$`,
		`(?m)^directory.user.base +ou=people,dc=example,dc=org +default$`, `(?m)^git.branch +main +\S+/chancery.yaml:18:11$`,
		`(?m)^callers\[0\].credentials\[1\].subject +CN=y +\S+`, `(?m)^foreign_cas\[0\].file +/\S+/trust/corp.pem +\S+`,
		`(?m)^directory.password_file +/\S+/secrets/ldap +\S+:12:18$`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("no %s in\n%s", want, stdout)
		}
	}
	code, text, stderr := chancery(t, "config", "show", filepath.Join(dir, site.ConfigName), "--output", "yaml", "--origin")
	if code != 0 || strings.Contains(text+stdout, "sesame") {
		t.Fatalf("%s\n%s", text, stderr)
	}
	again, err := load(t, t.TempDir(), text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	first := config(t, dir)
	first.Path, first.SHA256, again.Path, again.SHA256 = "", "", "", ""
	first.Callers[0].PerSecond = 100
	first.Directory.User, first.Directory.Server = again.Directory.User, again.Directory.Server
	if diff := cmp.Diff(first, again, cmp.AllowUnexported(site.Config{})); diff != "" {
		t.Error(diff)
	}
	// Each default is the one that the reference tells.
	settings, err := site.ShowConfig(filepath.Join(dir, site.ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	index := regexp.MustCompile(`\[\d+\]`)
	for _, s := range settings.All {
		value, _, _ := strings.Cut(fmt.Sprint(s.Value), ",")
		if s.Origin == "default" && !slices.ContainsFunc(site.References(), func(r site.Reference) bool {
			return r.File == site.ConfigName && r.Key == index.ReplaceAllString(s.Key, "[]") && strings.Contains(r.Needed, value)
		}) {
			t.Errorf("docs/CONFIG.md does not say that %s is %v by default", s.Key, s.Value)
		}
	}
}

// TestConfigNeeded leaves each key out that docs/CONFIG.md says is needed.
func TestConfigNeeded(t *testing.T) {
	t.Parallel()
	n := 0
	whole := wholeConfig + "foreign_cas:\n  - name: corp\n    file: corp.pem\n"
	for _, r := range site.References() {
		name := r.Key[strings.LastIndexAny(r.Key, ".]")+1:]
		if r.File != site.ConfigName || r.Needed != "yes" {
			continue
		}
		n++
		if r.Key == "callers" {
			if _, err := load(t, t.TempDir(), wholeConfig[:strings.Index(wholeConfig, "callers:")]); err == nil || !strings.Contains(err.Error(), "callers is missing") {
				t.Errorf("half a file: %v", err)
			}
			continue
		}
		text := regexp.MustCompile(`(?m)^( *(?:- )?)`+name+`: .*$`).ReplaceAllStringFunc(whole, func(line string) string {
			if strings.Contains(line, "- ") {
				return line[:strings.Index(line, "- ")+2] + "zzz: 1"
			}
			return ""
		})
		_, err := load(t, t.TempDir(), strings.Replace(text, "- zzz: 1\n    grants:", "- grants:", 1))
		if text == whole || err == nil {
			t.Errorf("%s: %v", r.Key, err)
		}
	}
	if n < 8 {
		t.Errorf("only %d keys are needed", n)
	}
}

// TestCredentials: systemd's credentials are found, and their modes are its business.
func TestCredentials(t *testing.T) {
	dir := copyOf(t, worlds(t).night)
	given := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", given)
	files(`for f in secrets/*; do cp "$f" "`+given+`/own_${f##*/}"; done; mv "`+given+`/own_keyroom.passphrase" "`+given+`/room"; rm -rf secrets
		chmod 440 "`+given+`"/*
		sed -i 's,^secrets: .*,secrets: credential:own,' chancery.yaml
		sed -i 's,"secrets/keyroom.passphrase","credential:room",' keyroom.json`)(t, dir)
	if code, stdout, stderr := chancery(t, "config", "check", dir); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	serve(t, dir, func() error { return callAll(dir, issue("user", "erin")) })
	code, text, stderr := chancery(t, "config", "show", dir, "-o", "yaml")
	if code != 0 || !strings.Contains(text, "secrets: credential:own\n") {
		t.Errorf("%s%s", text, stderr)
	}
	if err := os.Chmod(filepath.Join(given, "room"), 0o444); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := chancery(t, "config", "check", dir); code != 2 || !strings.Contains(stdout, "chmod 0400") {
		t.Errorf("a passphrase that everybody can read: exit code %d\n%s", code, stdout)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if code, _, stderr := chancery(t, "up", dir); code != 2 || !strings.Contains(stderr, "[5:10] secrets: credential:own: $CREDENTIALS_DIRECTORY is not set") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

// FuzzConfig: whatever is in the file, it is refused with a place that is in it, or shown as a configuration
// that is accepted too.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		wholeConfig, "listen: [", "a: &b c\n", "git:\n- x\n", "callers:\n  - {name: x, grants: [{}]}\n", strings.Replace(wholeConfig, "name: hr", "name: hr\n    credentials: [{issuer: 'CN=a,O=\\20', subject: \"CN=\\\\,\"}]", 1), "? a\n: b\n", "\"a.b\": {c: d}\n", "'': 1\n",
		strings.Replace(wholeConfig, "./trust/", "|\n  trust\n", 1), strings.Replace(wholeConfig, "main", "!!str main", 1),
		strings.Replace(wholeConfig, "callers:", "callers: # who\n  # may", 1), strings.ReplaceAll(wholeConfig, "\n", "\r\n"),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		_, err := load(t, dir, text)
		if err == nil {
			settings, err := site.ShowConfig(filepath.Join(dir, site.ConfigName))
			if err != nil {
				t.Fatal(err)
			}
			shown, err := settings.YAML(true)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := load(t, dir, string(shown)); err != nil {
				t.Fatalf("%v\n%s", err, shown)
			}
			return
		}
		var found site.Problems
		if !errors.As(err, &found) || len(found) == 0 {
			t.Fatal(err)
		}
		for _, p := range found {
			if p.Line < 0 || p.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+1 || p.Reason == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}
