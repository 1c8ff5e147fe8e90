package rpc

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

func methods() []string { return []string{"ca.chain", "ca.issue", "ca.revoke", "ca.status"} }

func TestConfigRefused(t *testing.T) {
	grant := "grants: [{methods: [ca.issue], purposes: [user], names: ['*']}]"
	for _, c := range []struct{ what, text, says string }{
		{"no name", "callers: [{" + grant + "}]", "name.empty"},
		{"no caller's name", "callers: [{name: 'A B', " + grant + "}]", "callers[0]"},
		{"twice", "callers: [{name: a}, {name: a}]", "callers[1]: a is there twice"},
		{"unknown method", "callers: [{name: a, grants: [{methods: [ca.renew], purposes: [user], names: ['*']}]}]", `"ca.renew"`},
		{"system method", "callers: [{name: a, grants: [{methods: [system.methodHelp], purposes: [user], names: ['*']}]}]", `"system.methodHelp"`},
		{"no method", "callers: [{name: a, grants: [{purposes: [user], names: ['*']}]}]", "methods and purposes are needed"},
		{"unknown purpose", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [smtp], names: ['*']}]}]", `"smtp"`},
		{"no purpose", "callers: [{name: a, grants: [{methods: [ca.issue], names: ['*']}]}]", "methods and purposes are needed"},
		{"no names", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [user]}]}]", "names are needed"},
		{"empty pattern", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [user], names: ['']}]}]", "empty pattern"},
		{"domain with a dot", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [user], names: ['*'], domains: [.example.org]}]}]", "domains: "},
		{"upper-case domain", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [user], names: ['*'], domains: [Example.org]}]}]", `as "example.org"`},
		{"address", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [server], names: ['*'], networks: [192.0.2.1]}]}]", "networks: "},
		{"host bits", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [server], names: ['*'], networks: [192.0.2.1/24]}]}]", "networks: "},
		{"name of nobody", "callers: [{name: a, grants: [{methods: [ca.issue], purposes: [user, server], names: ['b*', 'a,b']}]}]", `callers[0].grants[0].names[1]: caller a: grants[0]: names: "a,b" matches no name`},
		{"the same grant twice", "callers: [{name: a, " + strings.Replace(grant, "}]", "}, {methods: [ca.issue], purposes: [user], names: [bob]}]", 1) + "}]", "callers[0].grants[1]: caller a: grants[1]: a/1 allows already all that it allows"},
		{"rate", "callers: [{name: a, per_second: -1}]", "per_second"},
		{"no number", "callers: [{name: a, per_second: .nan}]", "per_second"},
	} {
		var conf Config
		if err := yaml.UnmarshalWithOptions([]byte(c.text), &conf, yaml.Strict()); err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		_, err := newCallers(conf, methods(), time.Now)
		var at *ConfigError
		if !errors.As(err, &at) || !strings.Contains(at.Key+": "+err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
}

// TestCovered: a grant is refused only where what stands before it allows all of it.
func TestCovered(t *testing.T) {
	const (
		people  = `{methods: [ca.issue, ca.revoke], purposes: [user], names: ["*"], domains: [example.org]}`
		servers = `{methods: [ca.issue, ca.status, ca.chain], purposes: [server], names: ["*.example.org"], domains: [example.org], networks: [192.0.2.0/24]}`
	)
	for _, c := range []struct {
		last  string
		rules string
	}{
		{`{methods: [ca.issue], purposes: [user], names: [bob]}`, "a/1"},
		{`{methods: [ca.issue], purposes: [user], names: ["*"], domains: [mail.example.org]}`, "a/1"},
		{`{methods: [ca.issue], purposes: [user], names: ["*"], domains: [mail.example.org, example.net]}`, ""},
		{`{methods: [ca.revoke], purposes: [user], names: ["*"]}`, "a/1"},
		{`{methods: [ca.issue, ca.hold], purposes: [user], names: [bob]}`, ""},
		{`{methods: [ca.issue], purposes: [user, caller], names: [bob]}`, ""},
		{`{methods: [ca.issue], purposes: [user, server], names: [www.example.org], domains: [example.org]}`, "a/1 and a/2"},
		{`{methods: [ca.issue], purposes: [server], names: [www.example.org]}`, "a/2"}, // it has the domain in it
		{`{methods: [ca.issue], purposes: [server], names: [www.example.org, www.example.net]}`, ""},
		{`{methods: [ca.issue], purposes: [server], names: ["*"], domains: [example.org]}`, ""},
		{`{methods: [ca.issue], purposes: [server], names: ["w*.example.org"], domains: [www.example.org], networks: [192.0.2.128/25]}`, "a/2"},
		{`{methods: [ca.issue], purposes: [server], names: ["w*.example.org"], domains: [example.org], networks: [192.0.2.0/23]}`, ""},
		{`{methods: [ca.issue], purposes: [server], names: ["w*.example.org"], domains: [example.org], networks: ["2001:db8::/32"]}`, ""},
		{`{methods: [ca.status], purposes: [server], names: [www.example.org]}`, "a/2"},
		{`{methods: [ca.status], purposes: [server], names: ["*"], domains: [example.org]}`, ""}, // example.org itself
		{`{methods: [ca.issue], purposes: [server], names: ["w*x.example.org"]}`, "a/2"},
		{`{methods: [ca.chain], purposes: [server]}`, "a/2"},
		{`{methods: [ca.chain], purposes: [user]}`, ""},
	} {
		var conf Config
		if err := yaml.UnmarshalWithOptions([]byte("callers: [{name: a, grants: ["+people+", "+servers+", "+c.last+"]}]"), &conf, yaml.Strict()); err != nil {
			t.Fatal(err)
		}
		_, err := NewPolicy(conf)
		var at *ConfigError
		if c.rules == "" && err != nil || c.rules != "" && (!errors.As(err, &at) || at.Key != "callers[0].grants[2]" || !strings.Contains(err.Error(), ": "+c.rules+" allows already")) {
			t.Errorf("%s: %v, want %q", c.last, err, c.rules)
		}
	}
}

// TestCoveredTogether: several grants can leave a later one nothing, where each call that it allows is in one of them.
func TestCoveredTogether(t *testing.T) {
	for _, c := range []struct {
		earlier, last, rules string
	}{
		{`{M: [ca.issue], P: [user], names: ["a*"]}, {M: [ca.issue], P: [user], names: ["b*"]}`, `{M: [ca.issue], P: [user], names: [a1, b1]}`, "a/1 and a/2"},
		{`{M: [ca.issue], P: [user], names: ["a*"]}, {M: [ca.issue], P: [user], names: ["b*"]}`, `{M: [ca.issue], P: [user], names: [a1, c1]}`, ""},
		{`{M: [ca.issue], P: [user], names: ["a*"]}`, `{M: [ca.issue], P: [user], names: ["ab*"]}`, "a/1"},
		{`{M: [ca.issue], P: [user], names: ["a*b"]}`, `{M: [ca.issue], P: [user], names: ["a*"]}`, ""},
		{`{M: [ca.issue], P: [caller], names: ["{caller}"]}`, `{M: [ca.issue], P: [caller], names: ["a"]}`, "a/1"},
		{`{M: [ca.issue], P: [caller], names: ["a*"]}`, `{M: [ca.issue], P: [caller], names: ["{caller}"]}`, "a/1"},
		{`{M: [ca.issue], P: [caller], names: ["b*"]}`, `{M: [ca.issue], P: [caller], names: ["{caller}"]}`, ""},
		// A certificate of both host names is in neither.
		{`{M: [ca.issue], P: [server], names: [a.x.org]}, {M: [ca.issue], P: [server], names: [b.x.org]}`, `{M: [ca.issue], P: [server], names: [a.x.org, b.x.org]}`, ""},
		{`{M: [ca.hold], P: [server], names: [a.x.org]}, {M: [ca.hold], P: [server], names: [b.x.org]}`, `{M: [ca.hold], P: [server], names: [a.x.org, b.x.org]}`, "a/1 and a/2"},
		{`{M: [ca.hold], P: [server], names: ["*"], domains: [x.org]}, {M: [ca.hold], P: [server], names: ["*"], domains: [y.org]}`, `{M: [ca.hold], P: [server], names: ["*"], domains: [a.x.org, y.org]}`, "a/1 and a/2"},
		{`{M: [ca.hold], P: [server], names: ["*"], domains: [x.org]}`, `{M: [ca.hold], P: [server], names: ["*.*"]}`, ""},
		{`{M: [ca.hold], P: [server], names: ["*.a.org"]}`, `{M: [ca.hold], P: [server], names: ["*"], domains: [a.org]}`, ""},
		// So are two mail addresses.
		{`{M: [ca.issue], P: [user], names: ["*"], domains: [x.org]}, {M: [ca.issue], P: [user], names: ["*"], domains: [y.org]}`, `{M: [ca.issue], P: [user], names: [b], domains: [x.org, y.org]}`, ""},
		{`{M: [ca.issue], P: [server], names: ["*"], networks: [10.1.0.0/16]}, {M: [ca.issue], P: [server], names: ["*"], networks: [10.2.0.0/16]}`, `{M: [ca.issue], P: [server], names: [b.org], networks: [10.1.1.0/24, 10.2.1.0/24]}`, ""},
		{`{M: [ca.issue], P: [user], names: ["*"], key_types: [P-256]}, {M: [ca.issue], P: [user], names: ["*"], key_types: [P-384]}`, `{M: [ca.issue], P: [user], names: [b], key_types: [P-384, P-256]}`, "a/2 and a/1"},
		{`{M: [ca.issue], P: [user], names: ["*"], key_types: [P-256]}, {M: [ca.issue], P: [user], names: ["*"], key_types: [P-384]}`, `{M: [ca.issue], P: [user], names: [b]}`, ""},
		{`{M: [ca.revoke], P: [user], names: ["*"], reasons: [keyCompromise]}, {M: [ca.revoke], P: [user], names: ["*"], reasons: [superseded], max: 3}`, `{M: [ca.revoke], P: [user], names: [b], reasons: [superseded, keyCompromise], max: 3}`, "a/2 and a/1"},
		{`{M: [ca.revoke], P: [user], names: ["*"], reasons: [keyCompromise]}, {M: [ca.revoke], P: [user], names: ["*"], reasons: [superseded], max: 3}`, `{M: [ca.revoke], P: [user], names: [b], reasons: [superseded, keyCompromise], max: 4}`, ""},
	} {
		err := checked(t, c.earlier+", "+c.last)
		if (err == nil) != (c.rules == "") || err != nil && !strings.Contains(err.Error(), ": "+c.rules+" allows already") {
			t.Errorf("%s, then %s: %v, want %q", c.earlier, c.last, err, c.rules)
		}
	}
}

// checked makes a policy of the grants of a caller a; M and P are the methods and the purposes.
func checked(t *testing.T, grants string) error {
	t.Helper()
	var conf Config
	text := strings.NewReplacer("M:", "methods:", "P:", "purposes:").Replace(grants)
	if err := yaml.UnmarshalWithOptions([]byte("callers: [{name: a, grants: ["+text+"]}]"), &conf, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	_, err := NewPolicy(conf)
	return err
}

// TestMatters: what no call can be allowed by is refused at its key, with what to do, and what is almost like it is not.
func TestMatters(t *testing.T) {
	long := strings.Repeat("a", 30) + "." + strings.Repeat("b", 40) + ".org"
	for _, c := range []struct{ grant, key, says string }{
		{`{M: [ca.issue], P: [server], names: ["*.example.com"], domains: [example.org]}`, "names[0]", `matches no host name in the domains example.org; leave it out, or add its domain`},
		{`{M: [ca.issue], P: [server], names: ["*.example.com", "*.example.org"], domains: [example.org]}`, "names[0]", ""},
		{`{M: [ca.issue], P: [server], names: ["*.example.org"], domains: [example.org, example.com]}`, "domains[1]", "add a pattern"},
		{`{M: [ca.issue], P: [server, user], names: ["*.example.org"], domains: [example.org, example.com]}`, "", ""},
		{`{M: [ca.hold], P: [server, user], names: ["*.example.org"], domains: [example.org, example.com]}`, "domains[1]", ""},
		{`{M: [ca.issue], P: [server, user], names: ["*.example.com"], domains: [example.org]}`, "purposes[0]", "leave no common name for the purpose server; leave it out"},
		{`{M: [ca.issue], P: [server], names: ["*.*.example.org"], domains: [a.example.org]}`, "", ""},
		{`{M: [ca.issue], P: [server], names: ["*.*.org"], domains: [b.example.org]}`, "", ""},
		{`{M: [ca.issue], P: [server], names: ["*.org"], domains: [b.example.org]}`, "names[0]", "no host name in the domains"},
		{`{M: [ca.issue], P: [user], names: ["*", "alice"]}`, "names[1]", `"alice" is allowed by "*" already; leave it out`},
		{`{M: [ca.issue], P: [user], names: ["al*e", "a*"]}`, "names[0]", `by "a*" already`},
		{`{M: [ca.issue], P: [caller], names: ["a*", "{caller}"]}`, "names[1]", `"{caller}" is allowed by "a*" already`},
		{`{M: [ca.issue], P: [user], names: ["a*", "*b"]}`, "", ""},
		{`{M: [ca.issue], P: [user], names: ["*"], domains: [example.org, a.example.org]}`, "domains[1]", "already"},
		{`{M: [ca.issue], P: [server], names: ["*"], networks: [10.1.0.0/16, 10.0.0.0/8]}`, "networks[0]", `"10.1.0.0/16" is allowed by "10.0.0.0/8" already`},
		{`{M: [ca.issue, ca.issue], P: [user], names: ["*"]}`, "methods[1]", "already"},
		{`{M: [ca.issue], P: [user, caller, user], names: ["*"]}`, "purposes[2]", "already"},
		{`{M: [ca.issue], P: [user], names: ["*"], key_types: [P-256, P-256]}`, "key_types[1]", "already"},
		{`{M: [ca.revoke], P: [user], names: ["*"], reasons: [superseded, superseded]}`, "reasons[1]", "already"},
		{`{M: [ca.issue], P: [user, caller], names: ["*"], networks: [10.0.0.0/8]}`, "networks", "only for servers with ca.issue or ca.renew; leave it out"},
		{`{M: [ca.status, ca.revoke, ca.chain], P: [server], names: ["*"], networks: [10.0.0.0/8]}`, "networks", ""},
		{`{M: [ca.renew], P: [server, user], names: ["*"], networks: [10.0.0.0/8]}`, "", ""},
		{`{M: [ca.issue], P: [caller], names: ["*"], domains: [example.org]}`, "domains", "domains cannot matter for ca.issue of the purposes [caller]"},
		{`{M: [ca.revoke], P: [user, caller], names: ["*"], domains: [example.org]}`, "domains", ""},
		{`{M: [ca.revoke], P: [server, caller], names: ["*"], domains: [example.org]}`, "", ""},
		{`{M: [ca.chain], P: [server], domains: [example.org]}`, "domains", ""},
		{`{M: [ca.chain], P: [server], names: ["*"]}`, "names", "only for any method but ca.chain; leave it out"},
		{`{M: [ca.issue], P: [server], names: ["*"], networks: [10.0.0.0/8, 224.0.0.0/4]}`, "networks[1]", "no address in 224.0.0.0/4 can be in a certificate"},
		{`{M: [ca.issue], P: [server], names: ["*"], networks: ["::ffff:10.0.0.0/104"]}`, "networks[0]", ""},
		{`{M: [ca.issue], P: [server], names: ["*"], networks: ["0.0.0.0/0", "::/0"]}`, "", ""},
		{`{M: [ca.issue], P: [user], names: [` + strings.Repeat("b", 64) + `]}`, "", ""},
		{`{M: [ca.issue], P: [user], names: [` + strings.Repeat("b", 65) + `]}`, "names[0]", "matches no name"},
		{`{M: [ca.issue], P: [server], names: ["*.org", ` + long + `]}`, "", ""}, // as a further name
		{`{M: [ca.issue], P: [server], names: [` + long + `]}`, "purposes[0]", "no common name"},
		{`{M: [ca.revoke], P: [server], names: ["*.org", ` + long + `]}`, "names[1]", "matches no name"},
		{`{M: [ca.issue], P: [user, server], names: ["a*"]}`, "purposes[1]", ""},
		{`{M: [ca.issue, ca.chain], P: [user, server], names: ["a*"]}`, "", ""},
	} {
		err := checked(t, c.grant)
		var at *ConfigError
		switch {
		case c.key == "" && err != nil:
			t.Errorf("%s: %v", c.grant, err)
		case c.key != "" && (!errors.As(err, &at) || at.Key != "callers[0].grants[0]."+c.key || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %q at %s", c.grant, err, c.says, c.key)
		}
	}
}

func TestGrants(t *testing.T) {
	var conf Config
	err := yaml.UnmarshalWithOptions([]byte(`
callers:
  - name: hr
    grants:
      - {methods: [ca.issue, ca.revoke], purposes: [user], names: ["*"], domains: [example.org]}
      - {methods: [ca.issue], purposes: [server], names: ["*.example.org", "*.a.example.org"], domains: [a.example.org], networks: [192.0.2.0/24, "2001:db8::/32"]}
      - {methods: [ca.status], purposes: [server], names: ["www.example.org"]}
      - {methods: [ca.issue], purposes: [user], names: ["ab*"], domains: [example.net]}
      - {methods: [ca.chain], purposes: [caller]}
  - name: none
`), &conf, yaml.Strict())
	if err != nil {
		t.Fatal(err)
	}
	callers, err := newCallers(conf, methods(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		caller, method string
		purpose        cert.Purpose
		cn             string
		sans           cert.SANs
		says           string // the rule, or what the refusal says
	}{
		{"hr", "ca.issue", cert.User, "Alice", cert.SANs{}, "hr/1"},
		{"hr", "ca.issue", cert.User, "Alice", cert.SANs{Email: []string{"alice@example.org"}}, "hr/1"},
		{"hr", "ca.issue", cert.User, "Alice", cert.SANs{Email: []string{"alice@mail.example.org"}}, "hr/1"},
		{"hr", "ca.issue", cert.User, "Alice", cert.SANs{Email: []string{"alice@evilexample.org"}}, `rule hr/1 allows ca.issue for the purpose user, but not the mail address "alice@evilexample.org"`},
		{"hr", "ca.issue", cert.User, "abel", cert.SANs{Email: []string{"abel@example.com"}}, `not the mail address`},
		{"hr", "ca.revoke", cert.User, "ALICE", cert.SANs{}, "hr/1"},
		{"hr", "ca.revoke", cert.Server, "www.example.org", cert.SANs{}, "rule hr/1 allows ca.revoke, but not for the purpose server"},
		{"hr", "ca.issue", cert.Server, "www.a.example.org", cert.SANs{}, "hr/2"},
		{"hr", "ca.issue", cert.Server, "a.example.org", cert.SANs{}, "hr/2"},
		{"hr", "ca.issue", cert.Server, "www.example.org", cert.SANs{}, `not the host name "www.example.org"`},
		{"hr", "ca.issue", cert.Server, "www.a.example.org", cert.SANs{DNS: []string{"www.b.example.org"}}, `not the host name "www.b.example.org"`},
		{"hr", "ca.issue", cert.Server, "www.a.example.org", cert.SANs{DNS: []string{"x.y.a.example.org"}}, `not the host name "x.y.a.example.org"`},
		{"hr", "ca.issue", cert.Server, "www.a.example.org", cert.SANs{IP: []string{"192.0.2.7", "2001:db8::7"}}, "hr/2"},
		{"hr", "ca.issue", cert.Server, "www.a.example.org", cert.SANs{IP: []string{"198.51.100.7"}}, `not the address "198.51.100.7"`},
		{"hr", "ca.issue", cert.Server, "www.example.com", cert.SANs{}, `not the name "www.example.com"`},
		{"hr", "ca.status", cert.Server, "www.example.org", cert.SANs{}, "hr/3"},
		{"hr", "ca.status", cert.User, "Alice", cert.SANs{}, "rule hr/3 allows ca.status, but not for the purpose user"},
		{"hr", "ca.chain", cert.Caller, "", cert.SANs{}, "hr/5"},
		{"hr", "ca.issue", cert.Caller, "hr", cert.SANs{}, "but not for the purpose caller"},
		{"none", "ca.issue", cert.User, "Alice", cert.SANs{}, "caller none has no grants"},
	} {
		var n name.Name
		if c.cn != "" {
			if n, err = name.Canonical(c.purpose, c.cn); err != nil {
				t.Fatal(err)
			}
		}
		rule := ""
		g, err := callers[c.caller].allow(wish{method: c.method, purpose: c.purpose, name: n, sans: c.sans})
		if err == nil {
			rule = g.rule
		}
		if err != nil && (rule != "" || explain(err).code != "policy.denied") {
			t.Errorf("%s %q: %q and %v", c.method, c.cn, rule, err)
		}
		if err == nil && rule != c.says || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s for %s %q %v: %q %v, want %q", c.method, c.purpose, c.cn, c.sans, rule, err, c.says)
		}
	}
}
