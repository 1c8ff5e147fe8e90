package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Every purpose and kind of key, read back by openssl.
func TestIssueKinds(t *testing.T) {
	w := newWorld(t)
	names := map[cert.Purpose]string{cert.User: "Zoë Example", cert.Server: "www.example.org", cert.Caller: "provisioning"}
	usage := map[cert.Purpose]string{
		cert.User: "TLS Web Client Authentication", cert.Server: "TLS Web Server Authentication", cert.Caller: "TLS Web Client Authentication",
	}
	algorithm := map[cert.KeyType]string{
		cert.P256: "NIST CURVE: P-256", cert.P384: "NIST CURVE: P-384", cert.RSA2048: "Public-Key: (2048 bit)", cert.RSA3072: "Public-Key: (3072 bit)",
	}
	for _, p := range cert.Purposes() {
		for _, kind := range cert.SubjectKeyTypes() {
			t.Run(string(p)+" "+string(kind), func(t *testing.T) {
				from := w.head()
				r := w.request(p, names[p])
				r.KeyType = kind
				issued, err := w.authority.Issue(t.Context(), call(string(p)+string(kind), "x"), r)
				if err != nil {
					t.Fatal(err)
				}
				text := w.tool(asPEM(issued.Certificate), "openssl", "x509", "-noout", "-text", "-nameopt", "utf8,-esc_msb", "-serial")
				serial := "serial=" + strings.ToUpper(string(issued.Serial))
				for _, want := range []string{usage[p], algorithm[kind], "CN=" + names[p], serial, "CA:FALSE"} {
					if !strings.Contains(text, want) {
						t.Errorf("openssl does not show %q:\n%s", want, text)
					}
				}
				w.verify(issued)
				w.unpack(issued)
				if got := w.types(from); got != "issue.intent issue.done issue.answering" {
					t.Errorf("the log says %s", got)
				}
				if events := w.events(from); events[0].(*audit.IssueIntent).KeyType != kind || !events[2].(*audit.IssueAnswering).Secrets {
					t.Errorf("the log says %+v", events)
				}
				if issued.LogIndex != from || issued.Directory.State != "none" || issued.Code != "issued" {
					t.Errorf("the answer says %+v", issued)
				}
			})
		}
	}
}

// verify has openssl verify a certificate against its chain.
func (w *world) verify(i *Issued) {
	w.Helper()
	leaf, above, root := w.write("leaf.pem", asPEM(i.Certificate)), w.write("above.pem", asPEM(i.Chain[0])), w.write("root.pem", asPEM(i.Chain[1]))
	w.tool(nil, "openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", above, leaf)
}

// unpack has openssl open the PKCS#12 and checks that the key in it is the certificate's.
func (w *world) unpack(i *Issued) {
	w.Helper()
	packed := w.write("packed.p12", i.PKCS12)
	pass := "pass:" + i.Password
	if all := w.tool(nil, "openssl", "pkcs12", "-in", packed, "-passin", pass, "-nokeys"); strings.Count(all, "BEGIN CERTIFICATE") != 3 {
		w.Errorf("the PKCS#12 does not hold three certificates:\n%s", all)
	}
	key := w.tool(nil, "openssl", "pkcs12", "-in", packed, "-passin", pass, "-nocerts", "-nodes")
	ofKey := w.tool([]byte(key), "openssl", "pkey", "-pubout")
	if ofCert := w.tool(asPEM(i.Certificate), "openssl", "x509", "-noout", "-pubkey"); ofKey != ofCert {
		w.Errorf("the key is not that of the certificate:\n%s\n%s", ofKey, ofCert)
	}
}

// When the key room is asked, the intent is durable and nothing is signed yet.
func TestIntentComesFirst(t *testing.T) {
	w := newWorld(t)
	asked := false
	w.wire.on(signer.SignCert, func() action {
		asked = true
		if n := w.room.Hello().State.Certificates; n != 0 {
			t.Errorf("%d certificates are signed before the key room was asked", n)
		}
		if got := w.types(w.head() - 1); got != "issue.intent" || w.count(store.StateOpen) != 1 {
			t.Errorf("the log ends with %s when the key room is asked", got)
		}
		return pass
	})
	w.issue("one", "Alice")
	if n := w.room.Hello().State.Certificates; n != 1 || !asked {
		t.Errorf("%d certificates are signed", n)
	}
}

// same fails the test if two answers differ in anything that a caller keeps.
func (w *world) same(a, b *Issued) {
	w.Helper()
	if a.Serial != b.Serial || a.LogIndex != b.LogIndex || a.Password != b.Password || a.Fingerprint != b.Fingerprint ||
		!bytes.Equal(a.Certificate, b.Certificate) || !bytes.Equal(a.PKCS12, b.PKCS12) || !a.NotAfter.Equal(b.NotAfter) {
		w.Errorf("the answers differ:\n%+v\n%+v", a, b)
	}
}

func TestSameAnswerAgain(t *testing.T) {
	for _, kind := range []cert.KeyType{cert.P256, cert.RSA2048} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			r := w.request(cert.User, "Alice")
			r.KeyType = kind
			ask := func() *Issued {
				issued, err := w.authority.Issue(t.Context(), call("one", "x"), r)
				w.must(err)
				return issued
			}
			first := ask()
			from := w.head()
			w.same(first, ask())
			if got := w.types(from); got != "issue.redelivered issue.answering" {
				t.Errorf("the log says %s", got)
			}
			w.restart()
			w.same(first, ask())
			if n := w.room.Hello().State.Certificates; n != 1 {
				t.Errorf("%d certificates are signed", n)
			}
		})
	}
}

func TestOtherBody(t *testing.T) {
	w := newWorld(t)
	w.issue("one", "Alice")
	from := w.head()
	for _, plan := range []bool{false, true} {
		c := call("one", "another")
		c.Plan = plan
		_, err := w.authority.Issue(t.Context(), c, w.request(cert.User, "Bob"))
		if r := refusalOf(t, err); r.Code != "request_id.other_request" {
			t.Errorf("refused with %v", r)
		}
	}
	_, err := w.authority.Revoke(t.Context(), call("one", "Alice"), RevokeRequest{})
	if r := refusalOf(t, err); r.Code != "request_id.other_request" {
		t.Errorf("refused with %v", r)
	}
	other := call("one", "another")
	other.Who.Name = "somebody"
	if _, err := w.authority.Issue(t.Context(), other, w.request(cert.User, "Bob")); err != nil {
		t.Errorf("the same id of another caller: %v", err)
	}
	if got := w.types(from); got != "issue.intent issue.done issue.answering" {
		t.Errorf("the log says %s", got)
	}
}

func TestConcurrentCallsWithOneID(t *testing.T) {
	w := newWorld(t)
	r := w.request(cert.User, "Alice")
	answers := make([]*Issued, 32)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = w.authority.Issue(t.Context(), call("one", "x"), r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, a := range answers[1:] {
		w.same(answers[0], a)
	}
	if n := w.room.Hello().State.Certificates; n != 1 {
		t.Errorf("%d certificates are signed", n)
	}
}

func TestConcurrentCallsWithoutID(t *testing.T) {
	w := newWorld(t)
	r := w.request(cert.User, "Alice")
	var mu sync.Mutex
	var made []*Issued
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			c := call(fmt.Sprint("call-", i), "x")
			c.Made = true
			issued, err := w.authority.Issue(t.Context(), c, r)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made = append(made, issued)
			} else if refusalOf(t, err).Code != "request.repeated" {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(made) != 1 {
		t.Errorf("%d certificates for one request", len(made))
	}
}

func TestRepeatedWithoutID(t *testing.T) {
	w := newWorld(t)
	r := w.request(cert.User, "Alice")
	made := 0
	ask := func(id string, plan bool) (*Issued, error) {
		c := call(id, "x")
		if id == "" {
			made++
			c.RequestID, c.Made = fmt.Sprint("call-", made), true
		}
		c.Plan = plan
		return w.authority.Issue(t.Context(), c, r)
	}
	first, err := ask("", false)
	w.must(err)
	from := w.head()
	for _, plan := range []bool{false, true} {
		_, err = ask("", plan)
		if r := refusalOf(t, err); r.Code != "request.repeated" || r.Prior != first.RequestID {
			t.Errorf("refused with %+v; the first id is %s", r, first.RequestID)
		}
	}
	if w.head() != from {
		t.Errorf("the log says %s", w.types(from))
	}
	again, err := ask(first.RequestID, false)
	w.must(err)
	w.same(first, again)
	second, err := ask("call-of-my-own", false) // an id, whatever it looks like
	w.must(err)
	if second.Serial == first.Serial {
		t.Error("another id got the same certificate")
	}
	w.clock.step(repeatWindow + time.Minute)
	if _, err := ask("", false); err != nil {
		t.Errorf("after the window: %v", err)
	}
}

// A refusal by the key room is passed on, and leaves nothing open.
func TestRoomRefuses(t *testing.T) {
	for code, edit := range map[string]func(*keyroom.Config){
		"policy.name": func(c *keyroom.Config) { c.Issuers[0].Domains = []string{"example.org"} },
		"rate.hour":   func(c *keyroom.Config) { c.PerHour = 1 },
	} {
		t.Run(code, func(t *testing.T) {
			w := newWorld(t, edit)
			w.issue("zero", "Bob")
			from := w.head()
			r := w.request(cert.User, "Alice")
			r.SANs.Email = []string{"alice@example.com"}
			_, err := w.authority.Issue(t.Context(), call("one", "x"), r)
			if refusal, ok := err.(*signer.Refusal); !ok || refusal.Code != code {
				t.Fatalf("%v; want %s by the key room", err, code)
			}
			if got := w.types(from); got != "issue.intent issue.abandoned" {
				t.Errorf("the log says %s", got)
			}
			if e := w.events(from)[1].(*audit.IssueAbandoned); e.Why != code || w.room.Hello().State.Voided != 1 || w.count(store.StateOpen) != 0 {
				t.Errorf("abandoned as %+v, voided %d", e, w.room.Hello().State.Voided)
			}
			// The id is free again, for another request too.
			w.clock.step(2 * time.Hour)
			w.issue("one", "Carol")
		})
	}
}

func TestDirectory(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	ask := func(id string) (*Issued, error) {
		return w.authority.Issue(t.Context(), call(id, id), w.request(cert.User, "Alice"))
	}
	for code, answer := range map[string]error{"directory.no_entry": ErrNoEntry, "directory.many_entries": ErrManyEntries} {
		w.directory.find = func(context.Context, name.Name) (string, error) { return "", answer }
		from := w.head()
		_, err := ask("none")
		if r := refusalOf(t, err); r.Code != code || w.head() != from {
			t.Errorf("refused with %v; want %s", r, code)
		}
	}
	t.Run("down", func(t *testing.T) {
		w.directory.find = func(ctx context.Context, _ name.Name) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
		start := time.Now()
		issued, err := ask("down")
		w.must(err)
		if issued.Directory != (Publication{State: "pending"}) || time.Since(start) > directoryAsk+publishWait+3*time.Second {
			t.Errorf("after %s: %+v", time.Since(start), issued.Directory)
		}
		w.payDirectory()
	})
	t.Run("up", func(t *testing.T) {
		w.directory.find = func(context.Context, name.Name) (string, error) { return "entry-7", nil }
		var paying sync.WaitGroup
		paying.Go(w.payDirectory)
		from := w.head()
		issued, err := ask("up")
		w.must(err)
		paying.Wait()
		if issued.Directory != (Publication{"published", "entry-7"}) {
			t.Errorf("%+v", issued.Directory)
		}
		if got := w.types(from); got != "issue.intent issue.done directory.published issue.answering" {
			t.Errorf("the log says %s", got)
		}
		if e := w.events(from)[0].(*audit.IssueIntent); e.Entry != "entry-7" {
			t.Errorf("the intent names the entry %q", e.Entry)
		}
	})
	if issued, err := w.authority.Issue(t.Context(), call("caller", "x"), w.request(cert.Caller, "robot")); err != nil || issued.Directory.State != "none" {
		t.Errorf("a caller is not published: %+v, %v", issued, err)
	}
}

func TestPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.withDirectory()
	go w.payDirectory()
	first := w.issue("one", "Alice")
	before, state := w.head(), w.room.Hello().State
	c := call("two", "x")
	c.Plan = true
	plan, err := w.authority.Issue(t.Context(), c, w.request(cert.User, "Bob"))
	w.must(err)
	if plan.Code != "plan.issue" || plan.Directory != (Publication{"pending", "entry-1"}) || plan.NotAfter.IsZero() || plan.Serial != "" || plan.PKCS12 != nil {
		t.Errorf("the plan says %+v", plan)
	}
	c = call("one", "Alice")
	c.Plan = true
	again, err := w.authority.Issue(t.Context(), c, w.request(cert.User, "Alice"))
	w.must(err)
	if again.Serial != first.Serial || again.LogIndex != first.LogIndex || again.PKCS12 != nil {
		t.Errorf("the plan of what is done says %+v", again)
	}
	if w.head() != before || w.room.Hello().State.Sequence != state.Sequence || w.count(store.StateOpen) != 0 {
		t.Errorf("a plan did %s", w.types(before))
	}
	if _, found, err := w.store.Request(t.Context(), alice.Name, "two"); found || err != nil {
		t.Errorf("a plan spent its request id: %v", err)
	}
}

func TestValidity(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorld(t, func(c *keyroom.Config) { c.Issuers[1].MaxValidityDays = 10 })
	ask := func(p cert.Purpose, cn string, days int) (*Issued, error) {
		r := w.request(p, cn)
		r.ValidDays = days
		return w.authority.Issue(t.Context(), call(cn+time.Duration(days).String(), "x"), r)
	}
	length := func(i *Issued, err error) time.Duration {
		t.Helper()
		w.must(err)
		c := w.parse(i.Certificate)
		if !c.NotAfter.Equal(i.NotAfter) || !c.NotBefore.Equal(i.NotBefore) {
			t.Errorf("the answer and the certificate disagree: %+v", i)
		}
		return c.NotAfter.Sub(c.NotBefore) + time.Second
	}
	if got := length(ask(cert.User, "Alice", 0)); got != profile.DefaultValidity(cert.User) {
		t.Errorf("by default valid for %s", got)
	}
	if got := length(ask(cert.User, "Alice", 30)); got != 30*day {
		t.Errorf("30 days are %s", got)
	}
	if got := length(ask(cert.Server, "www.example.org", 0)); got != 10*day {
		t.Errorf("by default valid for %s; the key room signs 10 days", got)
	}
	from := w.head()
	if _, err := ask(cert.Server, "www.example.org", 11); refusalOf(t, err).Code != "validity.days" {
		t.Error(err)
	}
	code := func(err error) string {
		if r, ok := err.(*profile.Refusal); ok {
			return r.Code
		}
		return ""
	}
	for _, days := range []int{-1, int(profile.MaxValidity(cert.User)/day) + 1} {
		if _, err := ask(cert.User, "Alice", days); err == nil || code(err) != "validity.days" && refusalOf(t, err).Code != "validity.days" {
			t.Errorf("%d days: %v", days, err)
		}
	}
	issuer := w.authority.issuers[cert.User].cert
	w.clock.step(time.Until(issuer.NotAfter) - 20*day)
	if _, err := ask(cert.User, "Bob", 21); code(err) != "validity.issuer" {
		t.Errorf("beyond the issuer's end: %v", err)
	}
	if w.head() != from {
		t.Errorf("refusals did %s", w.types(from))
	}
	late, err := ask(cert.User, "Bob", 0)
	w.must(err)
	if !late.NotAfter.Equal(issuer.NotAfter) {
		t.Errorf("valid until %s, the issuer until %s", late.NotAfter, issuer.NotAfter)
	}
}

// What only the subject may have is nowhere on the disk, and what is sealed is.
func TestSecretsAreNotKept(t *testing.T) {
	w := newWorld(t)
	issued := w.issue("one", "Alice")
	w.same(issued, w.issue("one", "Alice"))
	key, _, _, err := pkcs12.DecodeChain(issued.PKCS12, issued.Password)
	w.must(err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	w.must(err)
	scalar, err := key.(*ecdsa.PrivateKey).Bytes()
	w.must(err)
	canaries := map[string][]byte{
		"the password": []byte(issued.Password), "the PKCS#8 key": encoded, "the key": scalar, "the PKCS#12": issued.PKCS12[len(issued.PKCS12)/2:],
	}
	look := func() (found []string) {
		w.must(filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			for what, canary := range canaries {
				if bytes.Contains(content, canary) {
					found = append(found, what+" in "+path)
				}
			}
			return err
		}))
		return found
	}
	if found := look(); len(found) > 0 {
		t.Errorf("found %v", found)
	}
	canaries["what is sealed"] = w.certificate(issued.Serial).Sealed
	if len(look()) == 0 {
		t.Error("the search does not even find what is sealed")
	}
	dropped, err := w.authority.ForgetSecrets(t.Context())
	if err != nil || dropped != 0 {
		t.Errorf("forgot %d at once: %v", dropped, err)
	}
	w.clock.step(25 * time.Hour)
	if dropped, err = w.authority.ForgetSecrets(t.Context()); err != nil || dropped != 1 {
		t.Errorf("forgot %d: %v", dropped, err)
	}
	if found := look(); len(found) > 0 {
		t.Errorf("found %v", found)
	}
	from := w.head()
	again := w.issue("one", "Alice")
	if again.Code != "issued.secrets_gone" || again.PKCS12 != nil || again.Password != "" || again.Serial != issued.Serial || !bytes.Equal(again.Certificate, issued.Certificate) {
		t.Errorf("the answer says %+v", again)
	}
	if got := w.types(from); got != "issue.answering" || w.events(from)[0].(*audit.IssueAnswering).Secrets {
		t.Errorf("the log says %s", got)
	}
}

// TestDeliveryHours: a retry gets the secrets for as long as the key room is told, and never after.
func TestDeliveryHours(t *testing.T) {
	for hours, kept := range map[int]bool{0: false, 1: true} {
		t.Run(fmt.Sprint(hours), func(t *testing.T) {
			w := newWorld(t, func(c *keyroom.Config) { c.DeliveryHours = &hours })
			first := w.issue("one", "Alice")
			if first.Code != "issued" || first.PKCS12 == nil || first.Password == "" {
				t.Fatalf("the answer says %s", first.Code)
			}
			if sealed := w.certificate(first.Serial).Sealed; (sealed != nil) != kept {
				t.Errorf("the store holds %d sealed octets", len(sealed))
			}
			if again := w.issue("one", "Alice"); (again.Code == "issued" && bytes.Equal(again.PKCS12, first.PKCS12)) != kept {
				t.Errorf("at once, a retry gives %s", again.Code)
			}
			w.clock.step(time.Hour + time.Minute)
			if _, err := w.authority.ForgetSecrets(t.Context()); err != nil {
				t.Fatal(err)
			}
			again := w.issue("one", "Alice")
			if again.Code != "issued.secrets_gone" || again.PKCS12 != nil || again.Password != "" || again.Serial != first.Serial {
				t.Errorf("after an hour, a retry gives %s", again.Code)
			}
		})
	}
}
