package ldapsync

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca/cert"
)

// saysWhy wants the cause in what is owed, which is what an operator reads.
func (o *office) saysWhy(why string) {
	o.t.Helper()
	if debts := o.debts(); len(debts) != 1 || !strings.Contains(debts[0].LastError, why) {
		o.t.Errorf("want one debt because of %q: %+v", why, debts)
	}
}

// The schema does not allow what is owed: the debt says so, other names are published meanwhile, and it
// is paid when the schema allows it.
func TestLDAPSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	o := newOfficeOf(t, openHasty(t, s.config()))
	serial, der := o.issue(cert.User, "Alice", "")
	o.pay(1)
	// The class wants a certificate, and this is the last one.
	class := "dn: " + aliceLDAP + "\nchangetype: modify\n%s: objectClass\nobjectClass: strongAuthenticationUser\n"
	s.modify(admin, strings.Replace(class, "%s", "add", 1))
	o.revoke(serial)
	_, host := o.issue(cert.Server, "www.example.org", "")
	_, err := o.PayOnce(context.Background())
	o.wantFailure(codeRefused, err)
	o.saysWhy("Object Class Violation")
	s.wantHeld(aliceLDAP, der)
	s.wantHeld(hostLDAP, host)
	s.modify(admin, strings.Replace(class, "%s", "delete", 1))
	o.offset.Add(int64(lastRetry))
	o.pay(1)
	s.wantHeld(aliceLDAP)
	o.clean()
}

// The server becomes read-only, as one does that is copied or whose disk is full.
func TestLDAPReadOnly(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	o := newOfficeOf(t, openHasty(t, s.config()))
	readOnly := func(is string) {
		s.modify("cn=config", "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nreplace: olcReadOnly\nolcReadOnly: "+is+"\n")
	}
	readOnly("TRUE")
	_, der := o.issue(cert.User, "Alice", "")
	_, err := o.PayOnce(context.Background())
	o.wantFailure(codeRefused, err)
	o.saysWhy("operation restricted")
	readOnly("FALSE")
	o.offset.Add(int64(lastRetry))
	o.pay(1)
	s.wantHeld(aliceLDAP, der)
	o.clean()
}

// The entry is deleted between the search and the change, and loaded again later as it was.
func TestLDAPDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	p := newProxy(t, s)
	o := newOfficeOf(t, openHasty(t, p.config()))
	_, der := o.issue(cert.User, "Alice", findLDAP(t, openHasty(t, s.config()), cert.User, "Alice").Entry)
	backup := s.tool("", sbin(t, "slapcat"), "-n1", "-F", s.dir+"/config", "-a", "(cn=Alice)")
	var once sync.Once
	p.before = func(request []byte) {
		if bytes.Contains(request, der) {
			once.Do(func() { s.tool("", "ldapdelete", append(s.as(admin), aliceLDAP)...) })
		}
	}
	_, err := o.PayOnce(context.Background())
	o.wantFailure(codeNoEntry, err)
	s.stop()
	s.tool("", sbin(t, "slapadd"), "-n1", "-F", s.dir+"/config", "-l", s.write("alice.ldif", backup))
	s.start()
	findsAgain(t, o.Directory.(*LDAP))
	o.offset.Add(int64(lastRetry))
	o.pay(1)
	s.wantHeld(aliceLDAP, der)
	o.clean()
}

// The password is changed while we are connected, and the server ends the connection. What is owed stays
// owed with the cause until the file has the new password.
func TestLDAPPasswordChanges(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	p := newProxy(t, s)
	d := openHasty(t, p.config())
	o := newOfficeOf(t, d)
	serial, der := o.issue(cert.User, "Alice", "")
	o.pay(1)
	s.wantHeld(aliceLDAP, der)
	s.setPassword("battery staple")
	p.cut()
	o.revoke(serial)
	_, err := o.PayOnce(context.Background())
	if err == nil {
		t.Fatal("paid with the old password")
	}
	o.eventually("the cause is told", func() bool {
		o.offset.Add(int64(lastRetry))
		_, _ = o.PayOnce(context.Background())
		debts := o.debts()
		return len(debts) == 1 && strings.Contains(debts[0].LastError, "Invalid Credentials") && strings.Contains(debts[0].LastError, s.password)
	})
	if n := o.logged.FilterField(zap.String("code", codeDown)).Len(); n == 0 {
		t.Error(o.logged.All())
	}
	s.wantHeld(aliceLDAP, der)
	writeFile(t, s.password, []byte("battery staple\n"))
	findsAgain(t, d)
	o.offset.Add(int64(lastRetry))
	o.pay(1)
	s.wantHeld(aliceLDAP)
	o.clean()
}

// The server says that it made the change, and is put back from a copy that does not have it: the
// connection is another one, and the sweep that it calls for puts it right.
func TestLDAPPutBack(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	d := openHasty(t, s.config())
	o := newOfficeOf(t, d)
	serial, der := o.issue(cert.User, "Alice", "")
	o.pay(1)
	copied := s.tool("", sbin(t, "slapcat"), "-n1", "-F", s.dir+"/config")
	o.revoke(serial)
	_, host := o.issue(cert.Server, "www.example.org", "")
	o.pay(2)
	s.wantHeld(aliceLDAP)
	s.stop()
	s.tool("", "sh", "-c", "rm "+s.dir+"/data/*")
	s.tool("", sbin(t, "slapadd"), "-n1", "-F", s.dir+"/config", "-l", s.write("copy.ldif", copied))
	s.start()
	s.wantHeld(aliceLDAP, der)
	findsAgain(t, d)
	select {
	case <-d.Reconnected():
	default:
		t.Error("nobody was told of the new connection")
	}
	if n, err := o.Sweep(context.Background()); n != 2 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	s.wantHeld(aliceLDAP)
	s.wantHeld(hostLDAP, host)
	o.clean()
}
