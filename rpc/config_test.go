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
		{`{methods: [ca.revoke], purposes: [user], names: ["*"], domains: [example.net]}`, "a/1"},
		{`{methods: [ca.issue, ca.hold], purposes: [user], names: [bob]}`, ""},
		{`{methods: [ca.issue], purposes: [user, caller], names: [bob]}`, ""},
		{`{methods: [ca.issue], purposes: [user, server], names: [www.example.org], domains: [example.org]}`, "a/1 and a/2"},
		{`{methods: [ca.issue], purposes: [server], names: [www.example.org]}`, ""}, // another host name's domain does not matter
		{`{methods: [ca.issue], purposes: [server], names: ["*"], domains: [example.org]}`, ""},
		{`{methods: [ca.issue], purposes: [server], names: ["w*.example.org"], domains: [www.example.org], networks: [192.0.2.128/25]}`, "a/2"},
		{`{methods: [ca.issue], purposes: [server], names: ["w*.example.org"], domains: [example.org], networks: [192.0.2.0/23]}`, ""},
		{`{methods: [ca.issue], purposes: [server], names: ["w*.example.org"], domains: [example.org], networks: ["2001:db8::/32"]}`, ""},
		{`{methods: [ca.status], purposes: [server], names: [www.example.org]}`, ""},
		{`{methods: [ca.status], purposes: [server], names: ["*.example.org"], domains: [example.org], networks: [198.51.100.0/24]}`, "a/2"},
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
