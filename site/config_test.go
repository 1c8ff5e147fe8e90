package site_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/site"
)

const wholeConfig = `listen: 127.0.0.1:8443
keyroom: run/socket
state: /var/lib/chancery
secrets: ../secrets
trust: ./trust/
directory:
  url: ldif:directory.ldif
  base: dc=example,dc=org
git:
  repository: config.git
  branch: main
  folder: pki
callers:
  - name: hr
    grants:
      - methods: [ca.issue]
        purposes: [user]
        names: ["*"]
`

func load(t *testing.T, dir, text string) (site.Config, error) {
	t.Helper()
	path := filepath.Join(dir, site.ConfigName)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return site.LoadConfig(path)
}

func TestConfigPaths(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "50% of #1? ä")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, dir, wholeConfig)
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.KeyRoom: "/run/socket", c.Secrets: "/../secrets", c.Trust: "/trust", c.Git.Repository: "/config.git", c.Path: "/" + site.ConfigName,
		c.StorePath(): "",
	} {
		if want == "" {
			want = "/var/lib/chancery/store.db"
		} else {
			want = filepath.Clean(dir + want)
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if sum := run(t, "sha256sum", c.Path); !strings.HasPrefix(strings.TrimPrefix(sum, `\`), c.SHA256+" ") {
		t.Errorf("%s, not %s", sum, c.SHA256)
	}
	// The working folder says nothing.
	link := filepath.Join(t.TempDir(), "etc")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if c, err := site.LoadConfig(filepath.Join(link, site.ConfigName)); err != nil || c.Trust != filepath.Join(link, "trust") {
		t.Errorf("%v %s", err, c.Trust)
	}
}

func TestConfigDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "50% of #1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	escaped := "ldif://" + filepath.Dir(dir) + "/50%25%20of%20%231/"
	for form, want := range map[string]string{
		"ldif:directory.ldif": escaped + "directory.ldif", "ldif:a/../b.ldif": escaped + "b.ldif",
		"ldif:///srv/d.ldif": "ldif:///srv/d.ldif", "ldif:/srv/d.ldif": "ldif:///srv/d.ldif",
		"ldif:": "", "ldif://host/d.ldif": "", "ldif://": "", "ldap://ldap.example.org": "", "d.ldif": "", "ldif:///d?x": "", "ldif:///d#x": "", `"ldif:///%zz"`: "",
	} {
		c, err := load(t, dir, strings.Replace(wholeConfig, "ldif:directory.ldif", form, 1))
		switch {
		case want == "" && (!errors.Is(err, site.ErrConfig) || !strings.Contains(err.Error(), "directory")):
			t.Errorf("%s: %v %+v", form, err, c.Directory)
		case want != "" && (err != nil || c.Directory.URL != want):
			t.Errorf("%s: %v, %s, want %s", form, err, c.Directory.URL, want)
		}
	}
	if c, err := load(t, dir, regexp.MustCompile(`(?m)^directory:\n(  .*\n)*`).ReplaceAllString(wholeConfig, "")); err != nil || c.Directory != nil {
		t.Errorf("%v %+v", err, c.Directory)
	}
}

// TestConfigRefused: what is wrong is named, with its place where it has one, and pointed at.
func TestConfigRefused(t *testing.T) {
	t.Parallel()
	replace := func(old, new string) string {
		if !strings.Contains(wholeConfig, old) {
			t.Fatalf("%q is not in the configuration", old)
		}
		return strings.Replace(wholeConfig, old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":           {wholeConfig + "listn: x\n", `(?s)\[19:1\].*"listn".*> 19 \| listn: x\n +\^`},
		"unknown key below":     {replace("  base:", "  bse:"), `(?s)\[8:3\].*"bse".*>  8 \|   bse: .*\n +\^`},
		"unknown key in a list": {replace("purposes:", "purpose:"), `(?s)\[17:9\].*"purpose".*\^`},
		"key twice":             {wholeConfig + "state: elsewhere\n", `(?s)\[19:1\].*"state" already.*\^`},
		"wrong type":            {replace("state: /var/lib/chancery", "state: [a, b]"), `(?s)\[3:8\].*\^`},
		"wrong type below":      {replace("  base: dc=example,dc=org", "  base: x\n  create: perhaps"), `(?s)\[9:11\].*bool.*\^`},
		"a list is a scalar":    {replace("[user]", "user"), `(?s)\[17:19\].*\^`},
		"tab":                   {replace("  folder", "\tfolder"), `(?s)\[1[12]:\d+\].*\^`},
		"not closed":            {replace("[user]", "[user"), `(?s)\[\d+:\d+\].*\^`},
		"anchor":                {replace("state: /var", "state: &a /var"), `(?s)\[3:8\] anchors and aliases.*\^`},
		"alias":                 {replace("trust: ./trust/", "trust: *a"), `(?s)\[5:8\] anchors and aliases.*\^`},
		"merge":                 {replace("git:\n", "git:\n  <<: *x\n"), `(?s)\[10:\d+\] anchors and aliases.*\^`},
		"two documents":         {wholeConfig + "---\n" + wholeConfig, `2 documents; want one`},
		"empty":                 {"", `is empty|is missing`},
		"only comments":         {"# nothing\n", `is empty|is missing`},
		"a scalar":              {"hello\n", `(?s)\[1:1\].*\^`},
		"a list":                {"- listen\n", `(?s)\[1:1\].*\^`},
		"cut before callers":    {wholeConfig[:strings.Index(wholeConfig, "callers:")], "callers is missing"},
		"deep in brackets":      {wholeConfig + "x: " + strings.Repeat("[", 100), "nested more than 64 deep"},
		"deep in braces":        {wholeConfig + "x: " + strings.Repeat("{a: ", 100), "nested more than 64 deep"},
		"deep in dashes":        {wholeConfig + "x:\n" + strings.Repeat("- ", 100_000), "line 20 has 200000 octets; at most 16384"},
		"deep in keys":          {wholeConfig + strings.Repeat("? ", 100_000), "has 200000 octets; at most 16384"},
		"deep in lines":         {wholeConfig + "x:\n" + strings.Repeat("[\n", 100_000), "nested more than 64 deep"},
		"huge":                  {wholeConfig + strings.Repeat("# comment\n", 200_000), `it has more than 262144 octets`},
		"no listen":             {replace("listen: 127.0.0.1:8443\n", ""), `listen is missing`},
		"no keyroom":            {replace("keyroom: run/socket\n", ""), `keyroom is missing`},
		"no state":              {replace("state: /var/lib/chancery\n", ""), `state is missing`},
		"empty secrets":         {replace("secrets: ../secrets", "secrets:"), `secrets is missing`},
		"no trust":              {replace("trust: ./trust/\n", ""), `trust is missing`},
		"no repository":         {replace("  repository: config.git\n", ""), `either url or repository is needed`},
		"no branch":             {replace("  branch: main\n", ""), `git.branch is missing`},
		"no folder":             {replace("  folder: pki\n", ""), `git.folder is missing`},
		"no url":                {replace("  url: ldif:directory.ldif\n", ""), `directory: url and base are needed`},
		"no base":               {replace("  base: dc=example,dc=org\n", ""), `directory: url and base are needed`},
		"bad base":              {replace("dc=example,dc=org", "example"), `directory base`},
		"no port":               {replace("127.0.0.1:8443", "127.0.0.1"), `listen: want HOST:PORT`},
		"port 0":                {replace(":8443", ":0"), `listen: "0" is not a port`},
		"port of letters":       {replace(":8443", ":https"), `listen: "https" is not a port`},
		"port too high":         {replace(":8443", ":65536"), `listen: "65536" is not a port`},
		"health outside":        {wholeConfig + "health: 0.0.0.0:9443\n", `health: 0.0.0.0:9443 is not a loopback address.*want 127.0.0.1:PORT`},
		"health by name":        {wholeConfig + "health: localhost:9443\n", `health: localhost:9443 is not a loopback address`},
		"health without a port": {wholeConfig + "health: 127.0.0.1\n", `health: want HOST:PORT`},
		"health at the RPC":     {wholeConfig + "health: 127.0.0.1:8443\n", `health: the RPC listens there`},
		"health in the network": {wholeConfig + "health: '[::ffff:192.0.2.1]:9443'\n", `is not a loopback address`},
		"not UTF-8":             {replace("main", "ma\xffin"), `not text in UTF-8`},
		"NUL":                   {replace("main", "ma\x00in"), `not text in UTF-8`},
	} {
		_, err := load(t, t.TempDir(), c.text)
		if !errors.Is(err, site.ErrConfig) || !regexp.MustCompile(c.want).MatchString(err.Error()) {
			t.Errorf("%s: want %s\n%v", name, c.want, err)
		}
	}
	dir := t.TempDir()
	for name, want := range map[string]string{"nothing": "chancery init makes an installation", ".": "is a directory"} {
		if _, err := site.LoadConfig(filepath.Join(dir, name)); !errors.Is(err, site.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
