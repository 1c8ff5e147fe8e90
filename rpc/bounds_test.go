package rpc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
)

// TestBoundsRefused: a bound that bounds nothing, and one that cannot be, are wrong at their key.
func TestBoundsRefused(t *testing.T) {
	const issue, revoke = `methods: [ca.issue, ca.chain], purposes: [user], names: ["*"]`, `methods: [ca.revoke, ca.status], purposes: [server], names: ["*"]`
	for _, c := range []struct{ grant, key, says string }{
		{issue + ", key_types: [P-512]", "key_types[0]", `key type "P-512"`},
		{issue + ", key_types: []", "key_types", "empty"},
		{issue + ", max_days: 826", "max_days", "want 1 to 825"},
		{issue + ", max_days: -1", "max_days", "want 1 to 825"},
		{issue + ", per_hour: -1", "per_hour", "want 1 to 1000000"},
		{issue + ", reasons: [keyCompromise]", "reasons", "cannot matter for ca.issue, ca.chain"},
		{issue + ", max: 3", "max", "cannot matter"},
		{issue + ", own: true", "own", "and ca.issue is not"},
		{issue + ", valid_days: 3", "", "unknown field"},
		{revoke + ", key_types: [P-256]", "key_types", "cannot matter"},
		{revoke + ", max_days: 3", "max_days", "cannot matter"},
		{revoke + ", reasons: [boredom]", "reasons[0]", `reason "boredom"`},
		{revoke + ", reasons: []", "reasons", "empty"},
		{revoke + ", max: 1001", "max", "want 1 to 1000"},
		{`methods: [ca.find], purposes: [user], names: ["*"], per_hour: 3`, "per_hour", "cannot matter"},
		{`methods: [ca.find], purposes: [server], names: ["{caller}"]`, "names[0]", `"{caller}" matches no name`},
		{`methods: [ca.find], purposes: [user], names: ["{caller}.x"]`, "names[0]", "only where it is the whole pattern"},
	} {
		var conf Config
		err := yaml.UnmarshalWithOptions([]byte("callers: [{name: a, grants: [{"+c.grant+"}]}]"), &conf, yaml.Strict())
		if err == nil {
			_, err = NewPolicy(conf)
		}
		var at *ConfigError
		if err == nil || !strings.Contains(err.Error(), c.says) || c.key != "" && (!errors.As(err, &at) || at.Key != "callers[0].grants[0]."+c.key) {
			t.Errorf("%s: %v, want %s at %s", c.grant, err, c.says, c.key)
		}
	}
}

const boundPolicy = `
callers:
  - name: hr
    grants:
      - {methods: [ca.issue], purposes: [user], names: ["*"], key_types: [P-384, RSA-3072], max_days: 30}
      - {methods: [ca.issue, ca.renew], purposes: [caller], names: ["{caller}"]}
      - {methods: [ca.revoke, ca.retire, ca.hold], purposes: [user], names: ["*"], reasons: [keyCompromise, cessationOfOperation], max: 2}
      - {methods: [ca.renew, ca.release, ca.status], purposes: [user], names: ["*"], own: true}
`

// TestBoundsExplained wants each bound to say no by its name, with what it would allow.
func TestBoundsExplained(t *testing.T) {
	p := policyOf(t, boundPolicy)
	alice := func(method string, change ...func(*Question)) Question {
		q := Question{Caller: "hr", Method: method, Purpose: "user", CN: "alice"}
		for _, c := range change {
			c(&q)
		}
		return q
	}
	kind := func(k string) func(*Question) { return func(q *Question) { q.KeyType = k } }
	days := func(n int) func(*Question) { return func(q *Question) { q.ValidDays = n } }
	why := func(r string) func(*Question) { return func(q *Question) { q.Reason = r } }
	hits := func(n int) func(*Question) { return func(q *Question) { q.Certificates = n } }
	owner := func(o string) func(*Question) { return func(q *Question) { q.Owner = o } }
	for _, c := range []struct {
		q              Question
		rule, at, says string
	}{
		{alice("ca.issue", kind("P-384")), "hr/1", "", ""},
		{alice("ca.issue", kind("P-384"), days(30)), "hr/1", "", ""},
		{alice("ca.issue", kind("P-384"), days(31)), "", "days", "rule hr/1 allows ca.issue for the purpose user, but not 31 days, at most 30;"},
		{alice("ca.issue"), "", "key_type", "but not a key of the type P-256, only P-384, RSA-3072;"},
		{alice("ca.revoke", why("keyCompromise"), hits(2)), "hr/3", "", ""},
		{alice("ca.revoke", why("keyCompromise"), hits(3)), "", "max", "but not 3 certificates in one call, at most 2;"},
		{alice("ca.revoke"), "", "reason", "but not the reason unspecified, only keyCompromise, cessationOfOperation;"},
		{alice("ca.retire"), "hr/3", "", ""},
		{alice("ca.hold", hits(2)), "hr/3", "", ""},
		{alice("ca.release", hits(9)), "hr/4", "", ""},
		{alice("ca.renew", owner("hr"), days(800)), "hr/4", "", ""},
		{alice("ca.renew", owner("helpdesk")), "", "owner", "but not what another caller asked for;"},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "caller", CN: "hr"}, "hr/2", "", ""},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "caller", CN: "hr2"}, "", "name", `but not the name "hr2"`},
	} {
		d, err := p.Explain(c.q)
		if err != nil || d.Rule != c.rule || !strings.Contains(d.Reason, c.says) {
			t.Errorf("%+v: %+v %v, want %q %s", c.q, d, err, c.rule, c.says)
			continue
		}
		if c.at != "" && !slices.ContainsFunc(d.Grants, func(v Verdict) bool { return v.Fails == c.at }) {
			t.Errorf("%+v: %+v, want one to stop at %s", c.q, d.Grants, c.at)
		}
	}
	for key, q := range map[string]Question{
		"key_type": alice("ca.revoke", kind("P-256")), "valid_days": alice("ca.issue", days(-1)), "reason": alice("ca.hold", why("keyCompromise")),
		"owner": alice("ca.issue", owner("hr")), "certificates": alice("ca.status", hits(1)),
	} {
		var at *ConfigError
		if _, err := p.Explain(q); !errors.As(err, &at) || at.Key != key {
			t.Errorf("%+v: %v, want %s", q, err, key)
		}
	}
	could, err := p.WhoCould(Question{Purpose: "user", CN: "bob", KeyType: "P-256", Owner: "helpdesk"})
	if err != nil || fmt.Sprint(could) != "[{hr ca.hold hr/3} {hr ca.retire hr/3} {hr ca.revoke hr/3}]" {
		t.Errorf("%v %v", could, err)
	}
}

// TestBoundsCover: a bound leaves the grants behind it something to allow.
func TestBoundsCover(t *testing.T) {
	const first = `{methods: [ca.issue, ca.revoke, ca.hold, ca.status, ca.chain], purposes: [user], names: ["*"], key_types: [P-256, P-384], max_days: 30, reasons: [superseded], max: 5%s}`
	for _, c := range []struct {
		rate, last string
		covered    bool
	}{
		{"", `{methods: [ca.issue], purposes: [user], names: [bob]}`, false},
		{"", `{methods: [ca.issue], purposes: [user], names: [bob], key_types: [P-384], max_days: 30}`, true},
		{"", `{methods: [ca.issue], purposes: [user], names: [bob], key_types: [RSA-2048], max_days: 30}`, false},
		{"", `{methods: [ca.issue], purposes: [user], names: [bob], key_types: [P-384], max_days: 31}`, false},
		{"", `{methods: [ca.issue], purposes: [user], names: [bob], key_types: [P-384]}`, false},
		{"", `{methods: [ca.revoke], purposes: [user], names: [bob], reasons: [superseded], max: 5}`, true},
		{"", `{methods: [ca.revoke], purposes: [user], names: [bob], reasons: [superseded, keyCompromise], max: 5}`, false},
		{"", `{methods: [ca.revoke], purposes: [user], names: [bob], reasons: [superseded]}`, false},
		{"", `{methods: [ca.hold], purposes: [user], names: [bob], max: 1}`, true},
		{"", `{methods: [ca.hold], purposes: [user], names: [bob], max: 6}`, false},
		{"", `{methods: [ca.hold], purposes: [user], names: [bob], max: 1, own: true, per_hour: 3}`, true},
		{"", `{methods: [ca.status], purposes: [user], names: [bob], own: true}`, true},
		{", per_hour: 9", `{methods: [ca.hold], purposes: [user], names: [bob], max: 1, per_hour: 3}`, false},
		{", per_hour: 9", `{methods: [ca.status], purposes: [user], names: [bob]}`, true},
		{"", `{methods: [ca.chain], purposes: [user]}`, true},
	} {
		var conf Config
		text := "callers: [{name: a, grants: [" + fmt.Sprintf(first, c.rate) + ", " + c.last + "]}]"
		if err := yaml.UnmarshalWithOptions([]byte(text), &conf, yaml.Strict()); err != nil {
			t.Fatal(err)
		}
		if _, err := NewPolicy(conf); (err != nil) != c.covered || err != nil && !strings.Contains(err.Error(), "allows already") {
			t.Errorf("%s: %v", c.last, err)
		}
	}
	policyOf(t, `callers: [{name: a, grants: [
		{methods: [ca.status], purposes: [user], names: ["*"], own: true}, {methods: [ca.status], purposes: [user], names: [bob]}]}]`)
}

// bound is a world with one caller and its grants, and that caller.
func bound(t *testing.T, grants ...Grant) asking {
	conf := Config{Callers: []Caller{{Name: "provisioning", PerSecond: 1e6, Grants: grants}}}
	w := newWorld(t, func(o *Options) { o.Config = conf })
	return w.asking(nil)
}

func everyUser(methods ...string) Grant {
	return Grant{Methods: methods, Purposes: []cert.Purpose{cert.User}, Names: []string{"*"}}
}

// TestHourlyServed: what a grant allows an hour is spent by what is changed, and by nothing else.
func TestHourlyServed(t *testing.T) {
	g := everyUser("ca.issue", "ca.renew", "ca.revoke", "ca.status")
	g.PerHour = 3
	a := bound(t, g)
	one := user("alice", "request_id", "one")
	a.ask("ca.issue", one, "issued")
	for range 5 {
		a.ask("ca.issue", one, "issued")
		a.ask("ca.issue", user("bob", "plan", true), "plan.issue")
		a.ask("ca.issue", user("bob", "valid_days", 900), "validity.days")
		a.ask("ca.revoke", object{"cn": "bob"}, "certificate.unknown")
		a.ask("ca.revoke", object{"cn": "alice", "plan": true}, "plan.revoke")
	}
	two := object{"cn": "alice", "request_id": "two"}
	a.ask("ca.renew", two, "issued")
	a.ask("ca.revoke", object{"cn": "alice", "request_id": "three"}, "revoked")
	bob := user("bob", "request_id", "four")
	from := a.head()
	a.ask("ca.issue", bob, "policy.rate")
	if _, r := a.refusal(from); r.Code != "policy.rate" || r.CN != "bob" || !strings.Contains(r.Reason, "rule provisioning/1 allows 3 calls an hour") {
		t.Errorf("%+v", r)
	}
	a.ask("ca.revoke", object{"cn": "carol"}, "certificate.unknown")
	// What is done is answered again, and what is only looked at is not counted.
	a.ask("ca.issue", one, "issued")
	a.ask("ca.renew", two, "issued")
	a.ask("ca.revoke", object{"cn": "alice", "request_id": "three"}, "revoked")
	a.ask("ca.status", object{"cn": "alice"}, "status")
	a.offset.Store(int64(21 * time.Minute))
	a.ask("ca.issue", bob, "issued")
	a.ask("ca.issue", user("carol"), "policy.rate")
}

// TestRateOfTheNext: what one grant has spent, another may still allow; and a reload gives nothing back, unless the
// grant is another one.
func TestRateOfTheNext(t *testing.T) {
	few, all := everyUser("ca.issue"), everyUser("ca.issue", "ca.chain")
	few.PerHour, all.PerHour = 1, 2
	a := bound(t, few, all)
	var rules []string
	for _, cn := range []string{"a1", "a2", "a3"} {
		from := a.head()
		a.ask("ca.issue", user(cn), "issued")
		rules = append(rules, a.since(from)[0].Event.(*audit.IssueIntent).Rule)
	}
	if fmt.Sprint(rules) != "[provisioning/1 provisioning/2 provisioning/2]" {
		t.Error(rules)
	}
	a.ask("ca.issue", user("b1"), "policy.rate")
	conf := Config{Callers: []Caller{{Name: "provisioning", PerSecond: 1e6, Grants: []Grant{everyUser("ca.status"), few, all}}}}
	a.apply(conf, false)
	a.ask("ca.issue", user("b2"), "policy.rate")
	conf.Callers[0].Grants[1].PerHour = 2
	a.apply(conf, false)
	a.ask("ca.issue", user("b3"), "issued")
}

// TestRateOfEqualGrants: two equal grants are two bounds, also after a reload.
func TestRateOfEqualGrants(t *testing.T) {
	few := everyUser("ca.issue")
	few.PerHour = 2
	a := bound(t, few, few)
	a.ask("ca.issue", user("a1"), "issued")
	a.apply(Config{Callers: []Caller{{Name: "provisioning", PerSecond: 1e6, Grants: []Grant{few, few}}}}, false)
	for _, cn := range []string{"a2", "a3", "a4"} {
		a.ask("ca.issue", user(cn), "issued")
	}
	a.ask("ca.issue", user("a5"), "policy.rate")
}

// TestRateOfTheNextRevocation: the rule that a revocation spends is the one of its plan, and the one on the log.
func TestRateOfTheNextRevocation(t *testing.T) {
	few, all := everyUser("ca.revoke"), everyUser("ca.revoke", "ca.issue")
	few.PerHour, all.PerHour = 1, 20
	a := bound(t, few, all)
	var rules []string
	for _, cn := range []string{"a1", "a2"} {
		a.ask("ca.issue", user(cn), "issued")
		from := a.head()
		a.ask("ca.revoke", object{"cn": cn, "plan": true}, "plan.revoke")
		a.ask("ca.revoke", object{"cn": cn, "planned": from}, "revoked")
		rules = append(rules, a.since(from)[1].Event.(*audit.RevokeDone).Rule)
	}
	if fmt.Sprint(rules) != "[provisioning/1 provisioning/2]" {
		t.Error(rules)
	}
}

// TestHourly fills up evenly, and never beyond what it holds.
func TestHourly(t *testing.T) {
	h := &hourly{most: 2, left: 2}
	start := time.Now()
	taken := func(after time.Duration) (n int) {
		for h.take(start.Add(after)) {
			n++
		}
		return n
	}
	got := []int{taken(0), taken(29 * time.Minute), taken(30 * time.Minute), taken(25 * time.Hour), taken(time.Hour)}
	if fmt.Sprint(got) != "[2 0 1 2 0]" {
		t.Error(got)
	}
}

// TestBoundsServed: the bounds hold against what is really asked: the CSR's key, the validity without a wish for
// one, and how many certificates a name has.
func TestBoundsServed(t *testing.T) {
	issue, revoke := everyUser("ca.issue", "ca.renew"), everyUser("ca.revoke", "ca.hold")
	issue.KeyTypes, issue.MaxDays = []cert.KeyType{cert.P256}, 20
	revoke.Reasons, revoke.Max = []string{"keyCompromise"}, 1
	a := bound(t, issue, revoke)
	key, err := cert.GenerateKey(rand.Reader, cert.P384)
	a.must(err)
	csr, err := profile.MakeCSR(rand.Reader, key, "alice")
	a.must(err)
	for _, method := range []string{"ca.issue", "ca.renew"} {
		with := func(more object) object {
			all := user("alice")
			maps.Copy(all, more)
			return all
		}
		for _, c := range []struct {
			params object
			says   string
		}{
			{object{"csr": csr}, "not a key of the type P-384, only P-256"},
			{object{"key_type": "RSA-2048"}, "not a key of the type RSA-2048, only P-256"},
			{object{"valid_days": 21}, "not 21 days, at most 20"},
		} {
			if d := a.ask(method, with(c.params), "policy.denied"); !strings.Contains(fmt.Sprint(d["msg"]), c.says) {
				t.Errorf("%s: %v", method, d["msg"])
			}
		}
		a.ask(method, with(object{"csr": csr[:40]}), "csr.malformed")
		for _, days := range []int{0, 20, 7} {
			d := a.ask(method, with(object{"valid_days": days, "request_id": fmt.Sprint(method, days)[3:]}), "issued")
			begins, err := time.Parse(time.RFC3339, fmt.Sprint(d["not_before"]))
			a.must(err)
			ends, err := time.Parse(time.RFC3339, fmt.Sprint(d["not_after"]))
			a.must(err)
			if want := map[int]int{0: 20, 20: 20, 7: 7}[days]; ends.Sub(begins) != time.Duration(want)*day-time.Second {
				t.Errorf("%d days: %v", days, ends.Sub(begins))
			}
		}
	}
	a.ask("ca.revoke", object{"cn": "alice", "reason": "keyCompromise"}, "policy.denied")
	a.ask("ca.hold", object{"cn": "alice"}, "policy.denied")
	serial := a.ask("ca.issue", user("bob"), "issued")["serial"]
	// The certificate may be seen, so that it is told what is wrong with the reason.
	if d := a.ask("ca.revoke", object{"serial": serial}, "policy.denied"); !strings.Contains(fmt.Sprint(d["msg"]), "not the reason unspecified, only keyCompromise") {
		t.Error(d["msg"])
	}
	from := a.head()
	a.ask("ca.revoke", object{"serial": serial, "reason": "keyCompromise"}, "revoked")
	if e := a.since(from)[0].Event.(*audit.RevokeDone); e.Method != "ca.revoke" || e.Rule != "provisioning/2" {
		t.Errorf("%+v", e)
	}
}

// TestOwn: of what others asked for, a caller learns and changes nothing.
func TestOwn(t *testing.T) {
	own := everyUser("ca.renew", "ca.revoke", "ca.status", "ca.find", "ca.expiring")
	own.Own = true
	a := bound(t, own, everyUser("ca.issue"))
	mine := a.ask("ca.issue", user("alice"), "issued")["serial"]
	foreign := cert.SerialOf(a.certificate(cert.User, "alice", cert.SANs{}).Leaf.SerialNumber)
	a.certificate(cert.User, "bob", cert.SANs{})
	from := a.head()
	for _, c := range []struct {
		method string
		params object
	}{
		{"ca.revoke", object{"serial": string(foreign)}}, {"ca.renew", object{"serial": string(foreign)}},
		{"ca.revoke", object{"cn": "bob"}}, {"ca.renew", object{"cn": "bob"}},
	} {
		known, unknown := a.ask(c.method, c.params, "certificate.unknown"), object{}
		for k := range c.params {
			unknown[k] = map[string]string{"cn": "nobody", "serial": "7f00"}[k]
		}
		if other := a.ask(c.method, unknown, "certificate.unknown"); known["msg"] != other["msg"] {
			t.Errorf("%s: %v, and for what is not there %v", c.method, known["msg"], other["msg"])
		}
	}
	for i, l := range a.since(from) {
		if r := l.Event.(*audit.RequestRefused); strings.Contains(r.Reason, "another caller") != (i%2 == 0) {
			t.Errorf("%+v", r)
		}
	}
	for _, method := range []string{"ca.status", "ca.find", "ca.expiring"} {
		params := object{"cn": "alice"}
		if method == "ca.expiring" {
			params = object{"within_days": 800}
		}
		found := a.tell(method, params)["certificates"].([]any)
		if len(found) != 1 || found[0].(map[string]any)["serial"] != mine {
			t.Errorf("%s: %v", method, found)
		}
	}
	superseded := func() (all []any) {
		for _, c := range a.tell("ca.expiring", object{"within_days": 800})["certificates"].([]any) {
			all = append(all, c.(map[string]any)["superseded"])
		}
		return all
	}
	if got := superseded(); fmt.Sprint(got) != "[false]" {
		t.Errorf("beside a later one of another caller: %v", got)
	}
	next := a.ask("ca.issue", user("alice", "valid_days", 500), "issued")["serial"]
	if got := superseded(); fmt.Sprint(got) != "[true false]" {
		t.Errorf("with a successor: %v", got)
	}
	a.ask("ca.revoke", object{"serial": next}, "revoked")
	hit := a.ask("ca.revoke", object{"cn": "alice"}, "revoked")["revoked"].([]any)
	if len(hit) != 1 || hit[0].(map[string]any)["serial"] != mine {
		t.Errorf("%v", hit)
	}
}
