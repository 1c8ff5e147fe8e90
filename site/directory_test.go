package site_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/site"
)

const ldapConfig = `  url: ldaps://ldap.example.org
  base: dc=example,dc=org
  ca: tls/ca.pem
  client_cert: tls/client.pem
  client_key: tls/client.key
`

func withDirectory(text string) string {
	return strings.Replace(wholeConfig, "  url: ldif:directory.ldif\n  base: dc=example,dc=org\n", text, 1)
}

func TestConfigLDAP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := load(t, dir, withDirectory(ldapConfig))
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{c.Directory.CA: "ca.pem", c.Directory.ClientCert: "client.pem", c.Directory.ClientKey: "client.key"} {
		if got != filepath.Join(dir, "tls", want) {
			t.Errorf("%s, want tls/%s", got, want)
		}
	}
	const simple = "  bind_dn: cn=chancery,dc=example,dc=org\n  password_file: secrets/ldap\n"
	for what, text := range map[string]string{
		"simple bind":     "  url: ldap://ldap.example.org\n  base: dc=example,dc=org\n" + simple,
		"a socket":        "  url: ldapi:///run/slapd/ldapi\n  base: dc=example,dc=org\n",
		"several servers": strings.Replace(ldapConfig, "url: ldaps://ldap.example.org", "urls: [ldaps://a.example.org, ldap://b.example.org:1389]", 1),
		"bases and filters": "  url: ldapi:///run/slapd/ldapi\n  user:\n    base: ou=staff,o=example\n    filter: (uid={cn})\n" +
			"  server:\n    base: ou=machines,o=example\n    filter: (&(objectClass=ipHost)(cn={cn}))\n",
	} {
		if _, err := load(t, t.TempDir(), withDirectory(text)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, c := range map[string]struct{ text, want string }{
		"both urls":       {ldapConfig + "  urls: [ldaps://b.example.org]\n", "url and base are needed"},
		"one base":        {"  url: ldapi:///x\n  user:\n    base: o=example\n", "url and base are needed"},
		"no credentials":  {"  url: ldaps://ldap.example.org\n  base: o=example\n", "want a client certificate"},
		"half of a bind":  {ldapConfig + "  bind_dn: o=example\n", "go together"},
		"half of a key":   {strings.Replace(ldapConfig, "  client_key: tls/client.key\n", "", 1), "go together"},
		"creating":        {ldapConfig + "  create: true\n", "directory.create is for a file"},
		"a file with CAs": {"  url: ldif:d.ldif\n  base: o=example\n  ca: x\n", "the other keys are for LDAP"},
		"a file in urls":  {"  urls: [\"ldif:d.ldif\"]\n  base: o=example\n" + simple, "want ldaps://host"},
		"a filter":        {ldapConfig + "  user:\n    filter: (cn=*)\n", "want {cn} in it"},
		"unknown key":     {ldapConfig + "  start_tls: false\n", "start_tls"},
	} {
		if _, err := load(t, t.TempDir(), withDirectory(c.text)); !errors.Is(err, site.ErrConfig) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q\n%v", what, c.want, err)
		}
	}
}
