package ldapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

func testCert(t *testing.T, cn string, serial int64) []byte {
	t.Helper()
	return selfSigned(t, cn, serial, time.Now().Add(time.Hour))
}

// Every way to reach the server publishes and retracts, and leaves what others wrote.
func TestLDAPPublish(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	foreign := testCert(t, "Alice at another CA", 99)
	external := LDAPConfig{CA: s.ca, ClientCert: s.cert, ClientKey: s.key, Places: DefaultPlaces(base)}
	simple := s.config()
	ways := map[string]LDAPConfig{}
	for url, c := range map[string]LDAPConfig{
		"ldaps://" + s.secure: external, "ldap://" + s.plain: external,
		"ldaps://" + strings.Replace(s.secure, "127.0.0.1", "localhost", 1): simple, "ldap://" + s.plain + "/": simple,
		s.ldapi(): simple, "ldapi://" + s.dir + "/socket": simple,
	} {
		c.URLs = []string{url}
		ways[url] = c
	}
	s.addCert(aliceLDAP, foreign)
	// Over a socket, SASL EXTERNAL is the user that the process runs as.
	peer := fmt.Sprintf("gidNumber=%d[+]uidNumber=%d,cn=peercred,cn=external,cn=auth", os.Getgid(), os.Getuid())
	s.modify("cn=config", "dn: cn=config\nchangetype: modify\nadd: olcAuthzRegexp\nolcAuthzRegexp: \"^"+peer+"$\" \""+service+"\"\n")
	external.URLs = []string{s.ldapi() + "/"}
	ways["peer"] = external
	number := int64(0)
	for url, c := range ways {
		d := openLDAP(t, c)
		number++
		first, second := testCert(t, "Alice", number), testCert(t, "Alice", 100+number)
		before := s.entry(aliceLDAP)
		alice := findLDAP(t, d, cert.User, "ALICE") // cn is compared without case
		if want := string(before.values("entryUUID")[0]); alice.Entry != want {
			t.Errorf("%s: found %s, want %s", url, alice.Entry, want)
		}
		applyLDAP(t, d, alice, [][]byte{first, first}, [][]byte{second})
		applyLDAP(t, d, alice, [][]byte{first}, nil) // it is there
		s.wantHeld(aliceLDAP, foreign, first)
		checkOpenSSL(t, s.entry(aliceLDAP).values(published)[1], fmt.Sprintf("serial=%02X", number))
		applyLDAP(t, d, alice, [][]byte{second}, [][]byte{first})
		s.wantHeld(aliceLDAP, foreign, second)
		if have, err := d.Read(context.Background(), alice); err != nil || len(have) != 2 || !contains(have, foreign) || !contains(have, second) {
			t.Errorf("%s: read %d values, %v", url, len(have), err)
		}
		applyLDAP(t, d, alice, nil, [][]byte{second, first})
		applyLDAP(t, d, alice, nil, [][]byte{second}) // it is gone
		if after := s.entry(aliceLDAP); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the entry was\n%v\nand is\n%v", url, before, after)
		}
	}
}

func (s *slapd) addCert(dn string, der []byte) {
	s.t.Helper()
	line := string(writeLine(published, der, "\n"))
	s.modify(admin, "dn: "+dn+"\nchangetype: modify\nadd: "+published+"\n"+line)
}

// The class that allows certificates is added where it is needed, once, and stays.
func TestLDAPObjectClass(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openLDAP(t, s.config())
	host := findLDAP(t, d, cert.Server, "www.example.org")
	der, next := testCert(t, "www.example.org", 1), testCert(t, "www.example.org", 2)
	applyLDAP(t, d, host, nil, [][]byte{der})
	if got := s.classes(hostLDAP); got != "device" {
		t.Errorf("nothing to add, and the classes are %s", got)
	}
	applyLDAP(t, d, host, [][]byte{der}, nil)
	applyLDAP(t, d, host, [][]byte{next}, [][]byte{der})
	s.wantHeld(hostLDAP, next)
	if got := s.classes(hostLDAP); got != "device pkiUser" {
		t.Errorf("the classes are %s", got)
	}
	alice := findLDAP(t, d, cert.User, "Alice")
	applyLDAP(t, d, alice, [][]byte{testCert(t, "Alice", 3)}, nil)
	if got := s.classes(aliceLDAP); got != "inetOrgPerson" {
		t.Errorf("the classes are %s", got)
	}
}

func TestLDAPFind(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openLDAP(t, s.config())
	find := func(purpose cert.Purpose, cn string) error {
		_, err := d.Find(context.Background(), purpose, name.Name{Text: cn, Key: strings.ToLower(cn)})
		return err
	}
	for _, cn := range []string{"Nobody", "*", "A*", "Alice)(cn=*", "x)(|(cn=Alice", `\41lice`, "Alice\x00", "(", ")", "{cn}"} {
		if err := find(cert.User, cn); !errors.Is(err, ErrNoEntry) {
			t.Errorf("%q: %v", cn, err)
		}
	}
	if err := find(cert.User, "twice"); !errors.Is(err, ErrManyEntries) || !strings.Contains(err.Error(), "uid=twice,") {
		t.Error(err)
	}
	if err := find(cert.Server, "Alice"); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
	if err := find(cert.Caller, "Alice"); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}

	// A referral is not followed, and what is behind it may be the name that was asked for.
	s.modify(admin, "dn: ou=far,ou=people,"+base+"\nobjectClass: referral\nobjectClass: extensibleObject\nou: far\nref: ldap://127.0.0.1:1/ou=far,ou=people,"+base+"\n", "-a")
	c := s.config()
	c.BindDN, c.PasswordFile = admin, s.dir+"/admin"
	writeFile(t, c.PasswordFile, []byte("admin"))
	d = openLDAP(t, c)
	if err := find(cert.User, "Nobody"); err == nil || failureCode(err) != codeDown || !strings.Contains(err.Error(), "refers to \"ldap://127.0.0.1:1/") {
		t.Errorf("referred elsewhere: %v", err)
	}

	// A base that is not there says nothing of a name.
	c.Places = DefaultPlaces("dc=elsewhere")
	d = openLDAP(t, c)
	if err := find(cert.User, "Alice"); err == nil || failureCode(err) != codeDown {
		t.Error(err)
	}
}

// The entry is known by its identifier: a new name does not matter, and a new entry of the name does.
func TestLDAPRenamedAndMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openLDAP(t, s.config())
	der := testCert(t, "Alice", 1)
	alice := findLDAP(t, d, cert.User, "Alice")
	s.tool("", "ldapmodrdn", append(s.as(admin), "-r", aliceLDAP, "cn=Alice Married")...)
	newDN := "cn=Alice Married,ou=people," + base
	s.modify(admin, "dn: "+aliceLDAP+"\nobjectClass: inetOrgPerson\ncn: Alice\nsn: Other\n", "-a")
	applyLDAP(t, d, alice, [][]byte{der}, nil)
	s.wantHeld(newDN, der)
	s.wantHeld(aliceLDAP)

	s.tool("", "ldapdelete", append(s.as(admin), newDN)...)
	s.modify(admin, "dn: "+newDN+"\nobjectClass: inetOrgPerson\ncn: Alice Married\nsn: Other\n", "-a")
	if err := d.Apply(context.Background(), alice, [][]byte{der}, nil); !errors.Is(err, ErrNoEntry) {
		t.Errorf("the entry was deleted, and publishing to it says %v", err)
	}
	if _, err := d.Read(context.Background(), alice); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
	s.wantHeld(newDN)
}

// Between the search and the change, the DN goes over to another entry.
func TestLDAPTakesTheNameOver(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	var once sync.Once
	p := newProxy(t, s)
	der := testCert(t, "Alice", 1)
	p.before = func(request []byte) {
		if bytes.Contains(request, der) {
			once.Do(func() {
				s.tool("", "ldapmodrdn", append(s.as(admin), "-r", aliceLDAP, "cn=Former")...)
				s.modify(admin, "dn: "+aliceLDAP+"\nobjectClass: inetOrgPerson\ncn: Alice\nsn: Other\n", "-a")
			})
		}
	}
	d := openLDAP(t, p.config())
	alice := findLDAP(t, d, cert.User, "Alice")
	applyLDAP(t, d, alice, [][]byte{der}, nil)
	s.wantHeld("cn=Former,ou=people,"+base, der)
	s.wantHeld(aliceLDAP)
}

// What the server declines is told from what it could not do.
func TestLDAPRefuses(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openLDAP(t, s.config())
	ctx := context.Background()
	alice := findLDAP(t, d, cert.User, "Alice")
	der := testCert(t, "Alice", 1)
	for what, bad := range map[string][]byte{"garbage": []byte("garbage"), "a tail": append(bytes.Clone(der), 0), "PEM": []byte("-----BEGIN CERTIFICATE-----"), "nothing": {}} {
		if err := d.Apply(ctx, alice, [][]byte{bad}, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.wantHeld(aliceLDAP)

	// slapd compares the issuer and the serial number: it would take another certificate for ours.
	forged := testCert(t, "Alice", 1)
	s.addCert(aliceLDAP, forged)
	if err := d.Apply(ctx, alice, [][]byte{der}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("another value of this issuer and serial: %v", err)
	}
	applyLDAP(t, d, alice, nil, [][]byte{der})
	s.wantHeld(aliceLDAP, forged)
	revoked := testCert(t, "Alice", 7)
	applyLDAP(t, d, alice, [][]byte{revoked}, nil)
	if err := d.Apply(ctx, alice, [][]byte{der}, [][]byte{revoked}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	s.wantHeld(aliceLDAP, forged) // what cannot be added keeps nothing

	// The schema wants a certificate on this entry.
	s.modify(admin, "dn: "+aliceLDAP+"\nchangetype: modify\nadd: objectClass\nobjectClass: strongAuthenticationUser\n")
	if err := d.Apply(ctx, alice, nil, [][]byte{forged}); !errors.Is(err, ErrRefused) {
		t.Errorf("the last value of a required attribute: %v", err)
	}

	s.modify("cn=config", "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\ndelete: olcAccess\nolcAccess: {0}\n")
	if err := d.Apply(ctx, alice, [][]byte{testCert(t, "Alice", 2)}, nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "Insufficient Access") {
		t.Errorf("without the right: %v", err)
	}
}

// The rules of deploy/ldap allow what the tests above do, and this they do not.
func TestLDAPRights(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	change := func(dn, what string) string { return "dn: " + dn + "\nchangetype: modify\n" + what + "\n" }
	value := string(writeLine(published, testCert(t, "x", 1), "\n"))
	s.modify(service, change(hostLDAP, "add: objectClass\nobjectClass: pkiUser\n-\nadd: userCertificate;binary\n"+value))
	for what, ldif := range map[string]string{
		"another attribute":        change(aliceLDAP, "replace: mail\nmail: mallory@example.org"),
		"the name":                 change(aliceLDAP, "add: cn\ncn: Mallory"),
		"a password":               change(aliceLDAP, "replace: userPassword\nuserPassword: x"),
		"another class":            change(hostLDAP, "add: objectClass\nobjectClass: simpleSecurityObject\n-\nadd: userPassword\nuserPassword: x"),
		"taking the class away":    change(hostLDAP, "delete: userCertificate;binary\n-\ndelete: objectClass\nobjectClass: pkiUser"),
		"its own entry":            change(service, "replace: userPassword\nuserPassword: x"),
		"certificates elsewhere":   change(service, "add: objectClass\nobjectClass: pkiUser\n-\nadd: userCertificate;binary\n"+value),
		"deleting an entry":        "dn: " + aliceLDAP + "\nchangetype: delete\n",
		"making an entry":          "dn: cn=Mallory,ou=people," + base + "\nchangetype: add\nobjectClass: inetOrgPerson\ncn: Mallory\nsn: x\n",
		"giving an entry a name":   "dn: " + aliceLDAP + "\nchangetype: modrdn\nnewrdn: cn=Mallory\ndeleteoldrdn: 0\n",
		"changing the rules":       change("olcDatabase={1}mdb,cn=config", "delete: olcAccess"),
		"the certificate's parent": change("ou=people,"+base, "add: description\ndescription: x"),
	} {
		out, err := s.try(ldif, "ldapmodify", s.as(service)...)
		if err == nil || !strings.Contains(out, "Insufficient access (50)") && !strings.Contains(out, "no write access") {
			t.Errorf("%s: %v %s", what, err, out)
		}
	}
	if out := s.tool("", "ldapsearch", append(s.as(service), "-LLL", "-b", "ou=people,"+base, "(cn=Alice)")...); strings.Contains(out, "mail") || !strings.Contains(out, "cn: Alice") {
		t.Errorf("the account reads %s", out)
	}
}

// Many at once share the connection.
func TestLDAPConcurrent(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	var people strings.Builder
	for i := range 100 {
		fmt.Fprintf(&people, "dn: cn=person %[1]d,ou=people,%[2]s\nobjectClass: inetOrgPerson\ncn: person %[1]d\nsn: x\n\n", i, base)
	}
	s.modify(admin, people.String(), "-a")
	d := openLDAP(t, s.config())
	certs := make([][]byte, 100)
	var work sync.WaitGroup
	for i := range certs {
		cn := fmt.Sprintf("person %d", i)
		certs[i] = testCert(t, cn, int64(i+1))
		work.Go(func() {
			n := name.Name{Text: cn, Key: cn}
			id, err := d.Find(context.Background(), cert.User, n)
			if err == nil {
				err = d.Apply(context.Background(), Target{cert.User, n, id}, [][]byte{certs[i]}, nil)
			}
			if err != nil {
				t.Error(cn, err)
			}
		})
	}
	work.Wait()
	for i := 0; i < 100; i += 11 {
		s.wantHeld(fmt.Sprintf("cn=person %d,ou=people,%s", i, base), certs[i])
	}
	if n := len(d.slots); n != 0 {
		t.Errorf("%d slots are still taken", n)
	}
}

func TestLDAPConfigRefused(t *testing.T) {
	t.Parallel()
	good := LDAPConfig{URLs: []string{"ldaps://ldap.example.org"}, BindDN: service, PasswordFile: "/x", Places: DefaultPlaces(base)}
	if _, err := OpenLDAP(good); err != nil {
		t.Fatal(err)
	}
	place := func(base, filter string) func(*LDAPConfig) {
		return func(c *LDAPConfig) { c.Places = map[cert.Purpose]Place{cert.User: {base, filter}} }
	}
	for what, spoil := range map[string]func(*LDAPConfig){
		"no address":        func(c *LDAPConfig) { c.URLs = nil },
		"http":              func(c *LDAPConfig) { c.URLs = []string{"https://ldap.example.org"} },
		"no host":           func(c *LDAPConfig) { c.URLs = []string{"ldaps:///"} },
		"a DN":              func(c *LDAPConfig) { c.URLs = []string{"ldaps://ldap.example.org/dc=example"} },
		"a query":           func(c *LDAPConfig) { c.URLs = []string{"ldaps://ldap.example.org?cn"} },
		"a secret":          func(c *LDAPConfig) { c.URLs = []string{"ldaps://a:b@ldap.example.org"} },
		"no socket":         func(c *LDAPConfig) { c.URLs = []string{"ldapi://"} },
		"a relative socket": func(c *LDAPConfig) { c.URLs = []string{"ldapi://run%2Fldapi"} },
		"no credentials":    func(c *LDAPConfig) { c.BindDN, c.PasswordFile = "", "" },
		"no password":       func(c *LDAPConfig) { c.PasswordFile = "" },
		"no name":           func(c *LDAPConfig) { c.BindDN = "" },
		"no client key":     func(c *LDAPConfig) { c.ClientCert = "/x" },
		"no base":           place("", "(cn={cn})"),
		"a bad base":        place("people", "(cn={cn})"),
		"no mark":           place(base, "(objectClass=*)"),
		"a bad filter":      place(base, "(cn={cn}"),
	} {
		c := good
		spoil(&c)
		if _, err := OpenLDAP(c); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}
