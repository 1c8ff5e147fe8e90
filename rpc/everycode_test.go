package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/store"
)

// TestEveryCode: a caller can get every code of the table, and the answer is of the kind that the table says.
func TestEveryCode(t *testing.T) {
	seen := new(sync.Map)
	registerDislike()
	t.Run("all", func(t *testing.T) {
		for what, provoke := range map[string]func(*testing.T, *sync.Map){
			"as asked": refusedAsAsked, "books": refusedByBooks, "revoked": refusedAsRevoked, "time": refusedByTime, "secrets": secretsGone, "directory": refusedByDirectory,
			"constraint": refusedByConstraint, "lint": refusedByLint, "limits": refusedByLimits, "rate": refusedByRate, "unsigned": refusedUnsigned, "setup": refusedBySetup,
			"clock": refusedByClock, "others": refusedByOthers, "trouble": refusedInTrouble, "old copy": refusedAsOldCopy, "multicall": refusedInMulticall,
		} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				provoke(t, seen)
			})
		}
	})
	for _, c := range codeKinds() {
		if _, ok := seen.Load(c.code); !ok {
			t.Errorf("%s is in codeKinds, and nothing here provokes it", c.code)
		}
	}
}

// asking is a caller who notes the codes of its answers.
type asking struct {
	*world
	client *client.Client
	seen   *sync.Map
}

func (w *world) asking(seen *sync.Map) asking {
	w.Helper()
	w.payLists()
	return asking{w, w.client(w.caller("provisioning")), seen}
}

// ask makes a call, which has to be answered with a code, and checks that the answer is of its kind.
func (a asking) ask(method string, params object, want string) map[string]any {
	a.Helper()
	d := a.tell(method, params)
	if d["code"] != want {
		a.Errorf("%s %.200v: %v (%v), want %s", method, params, d["code"], d["msg"], want)
	}
	return d
}

// tell makes a call and gives the details of its answer, and msg.
func (a asking) tell(method string, params object) map[string]any {
	a.Helper()
	var got client.Answer
	a.must(a.client.Call(context.Background(), method, params, &got))
	d := detail(a, got)
	code, _ := d["code"].(string)
	if a.seen != nil {
		a.seen.Store(code, true)
	}
	kind := kindOf(code)
	_, recorded := d["log_index"]
	if got.OK != (kind == isAnswer) || got.Msg == "" || !got.OK && recorded != (kind == isRefusal || kind == isNow) {
		a.Errorf("%s is no %s: ok %v, on the log %v, %q", code, kind, got.OK, recorded, got.Msg)
	}
	d["msg"] = got.Msg
	return d
}

// trouble is ask for what is not the caller's doing, and so not on the log as its refusal.
func (a asking) trouble(params object, want string) {
	a.Helper()
	if d := a.ask("ca.issue", params, want); d["log_index"] != nil {
		a.Errorf("%s is recorded as a refusal", want)
	}
}

// again makes the call that was refused for now, once what was in its way is gone.
func (a asking) again(params object) {
	a.Helper()
	a.ask("ca.issue", params, "issued")
}

func user(cn string, more ...any) object {
	o := object{"purpose": "user", "cn": cn}
	for i := 0; i < len(more); i += 2 {
		o[more[i].(string)] = more[i+1]
	}
	return o
}

func host(cn string, dns ...any) object {
	return object{"purpose": "server", "cn": cn, "sans": object{"dns": append([]any{}, dns...)}}
}

func refusedAsAsked(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	good := a.csr(key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}})
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	a.must(err)
	password := a.csr(key, &x509.CertificateRequest{Attributes: []pkix.AttributeTypeAndValueSET{{ //nolint:staticcheck // the attribute is what is tested
		Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, Value: [][]pkix.AttributeTypeAndValue{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "x"}}},
	}}})
	even := a.spoiled(func(k *rsa.PublicKey) { k.N = new(big.Int).Sub(k.N, big.NewInt(1)) })
	hosts := []any{}
	for i := range 33 {
		hosts = append(hosts, fmt.Sprintf("h%d.example.org", i))
	}
	for _, c := range []struct {
		method string
		params object
		code   string
	}{
		{"ca.whoami", object{}, "whoami"},
		{"ca.chain", object{}, "chain"},
		{"ca.status", object{"cn": "alice"}, "status"},
		{"ca.find", object{}, "find"},
		{"ca.expiring", object{}, "expiring"},
		{"ca.issue", host("www.example.com"), "policy.denied"},
		{"ca.revoke", object{}, "selection"},
		{"ca.issue", object{"purpose": "emperor", "cn": "alice"}, "purpose.unknown"},
		{"ca.revoke", object{"cn": "alice", "reason": "boredom"}, "reason.unknown"},
		{"ca.revoke", object{"serial": "xyz"}, "serial.malformed"},
		{"ca.issue", user("alice", "request_id", "a b"), "request_id.malformed"},
		{"ca.revoke", object{"cn": "alice", "max": 1001}, "revoke.max"},
		{"ca.expiring", object{"within_days": 826}, "expiring.window"},
		{"ca.find", object{"state": "good"}, "find.state"},
		{"ca.find", object{"ends_from": "tomorrow"}, "find.day"},
		{"ca.find", object{"limit": 1001}, "page.limit"},
		{"ca.find", object{"after": "x"}, "page.after"},
		{"ca.issue", user("alice", "valid_days", 826), "validity.days"},
		{"ca.issue", user(""), "name.empty"},
		{"ca.issue", user(strings.Repeat("a", 65)), "name.too_long"},
		{"ca.issue", user("alice\nbob"), "name.control"},
		{"ca.issue", user("al\u00adice"), "name.invisible"},
		{"ca.issue", user(" alice"), "name.space"},
		{"ca.issue", user("\u0430lice"), "name.mixed_scripts"},
		{"ca.issue", user("../alice"), "name.characters"},
		{"ca.issue", user("*"), "name.wildcard"},
		{"ca.issue", host("a_b.example.org"), "name.underscore"},
		{"ca.issue", host("192.0.2.1"), "name.ip_as_dns"},
		{"ca.issue", host("a..example.org"), "name.label"},
		{"ca.issue", host("xn--a.example.org"), "name.alabel"},
		{"ca.issue", host("www"), "name.single_label"},
		{"ca.issue", user("root"), "name.reserved"},
		{"ca.issue", user("alice", "sans", object{"uri": []any{"http://example.org"}}), "name.san_type"},
		{"ca.issue", host("www.example.org", hosts...), "name.san_count"},
		{"ca.issue", user("alice", "sans", object{"email": []any{"nobody"}}), "name.san"},
		{"ca.issue", user("alice", "csr", []byte("hello")), "csr.malformed"},
		{"ca.issue", user("alice", "csr", password), "csr.attributes"},
		{"ca.issue", user("alice", "csr", forged), "csr.signature"},
		{"ca.issue", user("bob", "csr", good), "csr.other_name"},
		{"ca.issue", user("alice", "key_type", "P-521"), "key.type"},
		{"ca.issue", user("alice", "csr", a.csr(small, &x509.CertificateRequest{})), "key.rsa_size"},
		{"ca.issue", user("alice", "csr", a.exponentOne()), "key.rsa_exponent"},
		{"ca.issue", user("alice", "csr", even), "key.weak"},
		{"ca.revoke", object{"serial": "7f"}, "certificate.unknown"},
	} {
		a.ask(c.method, c.params, c.code)
	}
}

func refusedByBooks(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	plan := a.ask("ca.issue", user("alice", "plan", true), "plan.issue")["log_index"]
	a.ask("ca.issue", user("bob", "planned", plan), "plan.unknown")
	a.ask("ca.issue", user("alice", "request_id", "one"), "issued")
	a.ask("ca.issue", user("bob", "request_id", "one"), "request_id.other_request")
	a.ask("ca.issue", user("alice", "valid_days", 7), "issued")
	a.ask("ca.issue", user("alice", "valid_days", 7), "request.repeated")
	a.ask("ca.revoke", object{"cn": "alice", "max": 1}, "revoke.too_many")
	plan = a.ask("ca.revoke", object{"cn": "alice", "plan": true}, "plan.revoke")["log_index"]
	a.ask("ca.issue", user("alice", "request_id", "two"), "issued")
	a.ask("ca.revoke", object{"cn": "alice", "planned": plan}, "plan.changed")
	a.ask("ca.hold", object{"cn": "alice", "plan": true}, "plan.hold")
	a.ask("ca.hold", object{"cn": "alice"}, "held")
	a.ask("ca.release", object{"cn": "alice", "plan": true}, "plan.release")
	a.ask("ca.release", object{"cn": "alice"}, "released")
}

func refusedAsRevoked(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	a.ask("ca.issue", user("alice"), "issued")
	a.ask("ca.revoke", object{"cn": "alice", "plan": true}, "plan.revoke")
	a.ask("ca.revoke", object{"cn": "alice"}, "revoked")
	a.ask("ca.release", object{"cn": "alice"}, "certificate.not_held")
	a.ask("ca.revoke", object{"cn": "alice"}, "already.revoked")
	a.ask("ca.renew", object{"cn": "alice"}, "certificate.revoked")
	a.ask("ca.issue", user("bob"), "issued")
	a.ask("ca.retire", object{"cn": "bob", "plan": true}, "plan.retire")
	a.ask("ca.retire", object{"cn": "bob"}, "retired")
}

func refusedByTime(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	alice := user("alice", "request_id", "one")
	a.ask("ca.issue", alice, "issued")
	a.drift.Store(int64(26 * time.Hour))
	_, err := a.authority.ForgetSecrets(t.Context())
	a.must(err)
	a.ask("ca.issue", alice, "issued.secrets_gone")
	a.drift.Store(int64(400 * day))
	a.ask("ca.revoke", object{"cn": "alice"}, "certificate.expired")
	chain, err := a.authority.Chain(cert.User)
	a.must(err)
	issuer, err := x509.ParseCertificate(chain.Certificates[0])
	a.must(err)
	a.drift.Store(int64(time.Until(issuer.NotAfter) - 100*day))
	a.ask("ca.issue", user("bob", "valid_days", 101), "validity.issuer")
}

// directory is one that says what it is told to.
type directory struct{ err atomic.Pointer[error] }

func (d *directory) Find(context.Context, cert.Purpose, name.Name) (string, error) {
	if err := d.err.Load(); err != nil {
		return "", *err
	}
	return "entry", nil
}

func refusedByDirectory(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	dir := new(directory)
	a.authorise(dir)
	alice := user("alice", "request_id", "one")
	for code, err := range map[string]error{"directory.no_entry": ca.ErrNoEntry, "directory.many_entries": ca.ErrManyEntries} {
		dir.err.Store(&err)
		a.ask("ca.issue", alice, code)
	}
	dir.err.Store(nil)
	a.again(alice)
}

// authorise gives the server an authority with what the key room says now, and a directory.
func (a asking) authorise(d ca.Directory) {
	a.Helper()
	authority, err := ca.New(ca.Options{Store: a.store, Signer: a.signer, Directory: d, Rand: rand.Reader})
	a.must(err)
	a.server.authority = authority
}

func refusedByConstraint(t *testing.T, seen *sync.Map) {
	site := t.TempDir()
	if err := quiet(exec.Command(filepath.Join(build(t), "chancery-keyroom"), "init", "--dir", site, "--org", "Example",
		"--domain", "example.net", "--host", "localhost", "--network", "127.0.0.0/8")); err != nil {
		t.Fatal(err)
	}
	a := newWorldIn(t, site).asking(seen)
	a.ask("ca.issue", host("www.example.org"), "san.constraint")
}

// dislike is a lint that finds an error in the certificates of one name.
type dislike struct{}

func (dislike) CheckApplies(c *zx509.Certificate) bool { return c.Subject.CommonName == "disliked" }

func (dislike) Execute(*zx509.Certificate) *lint.LintResult {
	return &lint.LintResult{Status: lint.Error}
}

func registerDislike() {
	const of = "e_of_this_test"
	if lint.GlobalRegistry().CertificateLints().ByName(of) != nil {
		return // the test is made twice
	}
	lint.RegisterCertificateLint(&lint.CertificateLint{
		LintMetadata: lint.LintMetadata{Name: of, Description: "one name", Citation: "none", Source: lint.Community, EffectiveDate: time.Unix(0, 0)},
		Lint:         func() lint.CertificateLintInterface { return dislike{} },
	})
}

func refusedByLint(t *testing.T, seen *sync.Map) {
	a := newWorld(t).asking(seen)
	a.ask("ca.issue", user("disliked"), "lint.failed")
	a.ask("ca.issue", user("alice"), "issued")
}

// everyone changes the settings of each issuer.
func everyone(edit func(*keyroom.IssuerConfig)) func(*keyroom.Config) {
	return func(c *keyroom.Config) {
		for i := range c.Issuers {
			edit(&c.Issuers[i])
		}
	}
}

func refusedByLimits(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	mail := user("alice", "sans", object{"email": []any{"alice@example.org"}}, "request_id", "one")
	for _, c := range []struct {
		code string
		edit func(*keyroom.Config)
	}{
		{"keyroom.rate.hour", func(c *keyroom.Config) { c.PerHour = 1 }},
		{"keyroom.rate.day", func(c *keyroom.Config) { c.PerDay = 1 }},
		{"keyroom.policy.name", everyone(func(i *keyroom.IssuerConfig) { i.Domains = []string{"example.net"} })},
		{"keyroom.policy.validity", everyone(func(i *keyroom.IssuerConfig) { i.MaxValidityDays = 1 })},
		{"keyroom.policy.purpose", everyone(func(i *keyroom.IssuerConfig) { i.Purposes = []cert.Purpose{cert.Caller} })},
		{"keyroom.tbs.mismatch", everyone(func(i *keyroom.IssuerConfig) { i.CRLURL = "http://crl.example.org/crl" })},
		{"keyroom.intent.issuer", func(c *keyroom.Config) {
			c.Issuers = slices.DeleteFunc(c.Issuers, func(i keyroom.IssuerConfig) bool { return i.Purposes[0] == cert.User })
		}},
	} {
		r.open(c.edit)
		r.ask("ca.issue", mail, c.code)
	}
	r.open(nil)
	r.again(mail)
}

func refusedByRate(t *testing.T, seen *sync.Map) {
	conf := testConfig()
	conf.Callers[0].Grants[0].PerHour = 1
	a := newWorld(t, func(o *Options) { o.Config = conf }).asking(seen)
	a.ask("ca.issue", user("alice"), "issued")
	bob := user("bob", "request_id", "one")
	a.ask("ca.issue", bob, "policy.rate")
	a.offset.Store(int64(time.Hour))
	a.again(bob)
}

func refusedBySetup(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	for code, edit := range map[string]func(*keyroom.IssuerConfig){
		"purpose.issuer": func(i *keyroom.IssuerConfig) {
			i.Purposes = []cert.Purpose{map[cert.Purpose]cert.Purpose{cert.User: cert.Server, cert.Server: cert.User, cert.Caller: cert.Caller}[i.Purposes[0]]}
		},
		"crl.url": func(i *keyroom.IssuerConfig) { i.CRLURL = "https://crl.example.org/crl" },
	} {
		r.open(everyone(edit))
		_, err := r.signer.Checkpoint(t.Context()) // the room is another one: the daemon takes that up as it asks
		r.must(err)
		r.authorise(nil)
		r.ask("ca.issue", user("alice"), code)
	}
}

func refusedByClock(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	alice := user("alice", "request_id", "one")
	r.drift = 3 * time.Minute
	r.open(nil)
	r.ask("ca.issue", alice, "keyroom.intent.late")
	r.drift = 2 * time.Hour
	r.open(nil)
	r.ask("ca.issue", alice, "keyroom.intent.not_before")
	r.drift = 0
	r.open(nil)
	r.again(alice)
}

func refusedByOthers(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	// Another program gives the certificate up while the daemon asks for it.
	var once sync.Once
	r.on = func(b *signer.Batch) {
		once.Do(func() {
			other := *b
			other.Calls = []signer.Call{{Kind: signer.Settle, Index: b.Calls[0].Index}}
			if _, err := r.Handle(other); err != nil {
				r.Error(err)
			}
		})
	}
	r.open(nil)
	r.ask("ca.issue", user("alice", "request_id", "one"), "keyroom.serial.voided")
	r.again(user("alice", "request_id", "one"))

	// A daemon of a later release.
	r.on = func(b *signer.Batch) {
		tree, err := r.store.Tree(context.Background(), b.From)
		if err != nil {
			r.Error(err)
			return
		}
		for i := range b.Leaves {
			b.Leaves[i] = []byte(strings.Replace(string(b.Leaves[i]), "issue.intent", "issue.future", 1))
			tree.Append(b.Leaves[i])
		}
		root := tree.Root()
		b.Root = hex.EncodeToString(root[:])
	}
	r.open(nil)
	r.ask("ca.issue", user("erin"), "keyroom.leaf.not_canonical")
}

func refusedInTrouble(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	alice := user("alice", "request_id", "one")
	journal := filepath.Join(r.dir, "keyroom", "journal")
	// The leaves come before the call, so that the key room has to read the intent from its disk, which fails.
	var once sync.Once
	r.on = func(b *signer.Batch) {
		once.Do(func() {
			before := *b
			before.Calls = nil
			if _, err := r.Handle(before); err != nil {
				r.Error(err)
			}
			r.flip(journal)
		})
	}
	r.open(nil)
	r.ask("ca.issue", alice, "keyroom.room.failed")
	r.flip(journal)
	r.again(alice)

	bob := user("bob", "request_id", "two")
	r.cut.Store(true)
	r.trouble(bob, "outcome.unknown")
	r.cut.Store(false)
	r.again(bob)

	r.closed()
	carol := user("carol", "request_id", "three")
	r.tell("ca.issue", user("dave")) // on the line that there was
	r.trouble(carol, "keyroom.unreachable")
	r.open(nil)
	r.again(carol)

	// The key room reads more than the books hold, which then grow beside it.
	_, err := r.signer.Checkpoint(t.Context())
	r.must(err)
	tree, err := r.store.Tree(t.Context(), r.head())
	r.must(err)
	at := tree.Root()
	b := signer.Batch{From: tree.Size(), FromRoot: hex.EncodeToString(at[:])}
	for range 3 {
		leaf, err := audit.Encode(audit.Leaf{Time: time.Now(), Actor: operator, Event: &audit.ServiceStopped{}})
		r.must(err)
		b.Leaves = append(b.Leaves, leaf)
		tree.Append(leaf)
	}
	at = tree.Root()
	b.Root = hex.EncodeToString(at[:])
	r.closed()
	r.open(nil)
	reply, err := r.Handle(b)
	if r.must(err); reply.Refused != nil || reply.Stale {
		t.Fatalf("%+v", reply)
	}
	r.trouble(user("dora"), "store.behind")
	for range 2 {
		_, err := r.store.Update(t.Context(), operator, func(*store.Tx) (audit.Event, error) { return &audit.ServiceStopped{}, nil })
		r.must(err)
	}
	r.trouble(user("erin"), "store.fork")
}

func refusedAsOldCopy(t *testing.T, seen *sync.Map) {
	r := newRoom(t, seen)
	r.closed()
	state, kept := filepath.Join(r.dir, "keyroom"), filepath.Join(t.TempDir(), "keyroom")
	r.must(exec.Command("cp", "-a", state, kept).Run()) // with the modes of the keys
	r.open(nil)
	r.ask("ca.issue", user("alice"), "issued")
	r.closed()
	r.must(os.RemoveAll(state))
	r.must(exec.Command("cp", "-a", kept, state).Run())
	r.open(nil)
	r.trouble(user("bob"), "keyroom.behind")
}
