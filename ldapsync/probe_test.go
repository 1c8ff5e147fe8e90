package ldapsync

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// whole is everything that a server holds, with its own attributes: who changed what, and when.
func (s *slapd) whole() string {
	s.t.Helper()
	return s.tool("", "ldapsearch", append(s.as(admin), "-LLL", "-b", base, "(objectClass=*)", "*", "+")...)
}

func wantProbed(t *testing.T, c LDAPConfig, want map[cert.Purpose]error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	probed := openLDAP(t, c).Probe(ctx)
	if len(probed) != len(want) {
		t.Errorf("%v", probed)
	}
	for _, p := range probed {
		if expected, ok := want[p.Purpose]; !ok || !errors.Is(p.Err, expected) || (p.Err == nil) != (expected == nil) || p.URL != c.URLs[0] {
			t.Errorf("%q at %s: %v, want %v", p.Purpose, p.URL, p.Err, expected)
		}
	}
}

// Whatever is wrong with a server is told apart, and asking it changes nothing there.
func TestProbe(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	s.addCert(aliceLDAP, testCert(t, "Alice", 1))
	before := s.whole()
	good := s.config()
	fine := map[cert.Purpose]error{cert.User: nil, cert.Server: nil}
	wantProbed(t, good, fine)
	external := LDAPConfig{URLs: []string{"ldap://" + s.plain}, CA: s.ca, ClientCert: s.cert, ClientKey: s.key, Places: DefaultPlaces(base)}
	wantProbed(t, external, fine)
	if after := s.whole(); after != before {
		t.Errorf("it left something behind:\n%s\nbefore:\n%s", after, before)
	}

	wrong := t.TempDir() + "/password"
	writeFile(t, wrong, []byte("wrong horse"))
	if err := os.Chmod(wrong, 0o400); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir() + "/ca.pem"
	newTestCA(t, other)
	for name, b := range map[string]struct {
		breaks func(c *LDAPConfig)
		want   map[cert.Purpose]error
	}{
		"password": {func(c *LDAPConfig) { c.PasswordFile = wrong }, map[cert.Purpose]error{"": ErrBind}},
		"no file":  {func(c *LDAPConfig) { c.PasswordFile = wrong + "s" }, map[cert.Purpose]error{"": ErrBind}},
		"CA":       {func(c *LDAPConfig) { c.CA = other }, map[cert.Purpose]error{"": ErrTLS}},
		"StartTLS": {func(c *LDAPConfig) { c.CA, c.URLs = other, external.URLs }, map[cert.Purpose]error{"": ErrTLS}},
		"base": {func(c *LDAPConfig) { c.Places = DefaultPlaces("ou=nowhere," + base) },
			map[cert.Purpose]error{cert.User: ErrNoBase, cert.Server: ErrNoBase}},
		"nobody": {func(c *LDAPConfig) {
			c.Places = map[cert.Purpose]Place{cert.User: {"ou=people," + base, "(&(objectClass=device)(cn={cn}))"}, cert.Server: c.Places[cert.Server]}
		}, map[cert.Purpose]error{cert.User: ErrNothing, cert.Server: nil}},
	} {
		c := good
		b.breaks(&c)
		t.Run(name, func(t *testing.T) { wantProbed(t, c, b.want) })
	}

	// The server's own side is broken one thing after the other.
	const database = "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\n"
	s.modify("cn=config", database+"replace: olcReadOnly\nolcReadOnly: TRUE\n")
	wantProbed(t, good, map[cert.Purpose]error{cert.User: ErrNotWriter, cert.Server: ErrNotWriter})
	s.modify("cn=config", database+"replace: olcReadOnly\nolcReadOnly: FALSE\n")
	s.modify("cn=config", database+"delete: olcAccess\nolcAccess: {1}\n") // what is for hosts
	wantProbed(t, good, map[cert.Purpose]error{cert.User: nil, cert.Server: ErrMayNot})
	s.modify("cn=config", database+"add: olcAccess\nolcAccess: {0}to dn.subtree=\"ou=people,dc=example,dc=org\" attrs=entryUUID by * none\n")
	wantProbed(t, good, map[cert.Purpose]error{cert.User: ErrNoUUID, cert.Server: ErrMayNot})
	if after := s.whole(); after != before {
		t.Errorf("it left something behind:\n%s\nbefore:\n%s", after, before)
	}
}

// A server that says nothing costs no more than the time of a connection, or what the caller has left.
func TestProbeOfASilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	password := t.TempDir() + "/password"
	writeFile(t, password, []byte("horse"))
	if err := os.Chmod(password, 0o400); err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	d := openLDAP(t, LDAPConfig{URLs: []string{"ldaps://" + address, "ldap://" + address}, BindDN: service, PasswordFile: password, Places: DefaultPlaces(base)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	probed := d.Probe(ctx)
	if took := time.Since(start); took > 4*time.Second || len(probed) != 2 || probed[0].Err == nil || probed[1].Err == nil {
		t.Errorf("%s: %v", took, probed)
	}
}
