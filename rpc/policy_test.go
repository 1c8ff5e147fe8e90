package rpc

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/ca/cert"
)

func policyOf(t *testing.T, text string) *Policy {
	t.Helper()
	var conf Config
	if err := yaml.UnmarshalWithOptions([]byte(text), &conf, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	p, err := NewPolicy(conf)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const somePolicy = `
callers:
  - name: hr
    grants:
      - {methods: [ca.revoke], purposes: [user], names: ["*"]}
      - {methods: [ca.issue, ca.renew], purposes: [server], names: ["*.example.org"], networks: [192.0.2.0/24]}
      - {methods: [ca.issue], purposes: [user], names: ["a*"]}
      - {methods: [ca.issue], purposes: [user], names: ["*"], domains: [example.org]}
      - {methods: [ca.chain], purposes: [caller]}
  - name: none
`

// TestPolicyExplain wants the decision, and of each grant where it stops.
func TestPolicyExplain(t *testing.T) {
	p := policyOf(t, somePolicy)
	for _, c := range []struct {
		q    Question
		want string // the rule, or the code
		at   []string
	}{
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: "Bob"}, "hr/4", []string{"method", "purpose", "name", "", "method"}},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: "ALICE"}, "hr/3", []string{"method", "purpose", "", "", "method"}},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: "Alice", SANs: cert.SANs{Email: []string{"a@example.org"}}}, "hr/4", []string{"method", "purpose", "sans", "", "method"}},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: "Alice", SANs: cert.SANs{Email: []string{"a@example.com"}}}, "policy.denied", []string{"method", "purpose", "sans", "sans", "method"}},
		{Question{Caller: "hr", Method: "ca.renew", Purpose: "server", CN: "WWW.example.org", SANs: cert.SANs{IP: []string{"192.0.2.1"}}}, "hr/2", []string{"method", "", "method", "method", "method"}},
		{Question{Caller: "hr", Method: "ca.renew", Purpose: "server", CN: "www.example.org", SANs: cert.SANs{DNS: []string{"www.example.com"}}}, "policy.denied", []string{"method", "sans", "method", "method", "method"}},
		{Question{Caller: "hr", Method: "ca.revoke", Purpose: "user", CN: "bob"}, "hr/1", []string{"", "method", "method", "method", "method"}},
		{Question{Caller: "hr", Method: "ca.chain", Purpose: "caller", CN: ""}, "hr/5", []string{"method", "method", "method", "method", ""}},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: "a,b"}, "name.characters", nil},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: "bob", SANs: cert.SANs{DNS: []string{"bob.example.org"}}}, "name.san_type", nil},
		{Question{Caller: "hr", Method: "ca.revoke", Purpose: "server", CN: "www"}, "name.single_label", nil},
		{Question{Caller: "none", Method: "ca.issue", Purpose: "user", CN: "bob"}, "policy.denied", nil},
	} {
		d, err := p.Explain(c.q)
		if err != nil {
			t.Errorf("%+v: %v", c.q, err)
			continue
		}
		var at []string
		for i, v := range d.Grants {
			at = append(at, v.Fails)
			if v.Allowed != (v.Fails == "") || v.Allowed != (v.Reason == "") || v.Rule != p.callers["hr"].grants[i].rule {
				t.Errorf("%+v: %+v", c.q, v)
			}
		}
		if d.Rule+d.Code != c.want || d.Allowed != (d.Rule != "") || d.Allowed != (d.Reason == "") || !slices.Equal(at, c.at) {
			t.Errorf("%+v: %+v, want %s, stopping at %q", c.q, d, c.want, c.at)
		}
	}
}

// TestPolicyQuestions: what no caller could ask is told by its key.
func TestPolicyQuestions(t *testing.T) {
	p := policyOf(t, somePolicy)
	for _, c := range []struct {
		q         Question
		key, says string
	}{
		{Question{Caller: "helpdesk", Method: "ca.issue", Purpose: "user", CN: "bob"}, "caller", `there is no caller "helpdesk"; there are: hr, none`},
		{Question{Caller: "hr", Method: "ca.whoami", Purpose: "user", CN: "bob"}, "method", `method "ca.whoami": want one of ca.chain,`},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "smtp", CN: "bob"}, "purpose", "smtp"},
		{Question{Caller: "hr", Method: "ca.issue", Purpose: "user", CN: ""}, "cn", "cn is needed for ca.issue"},
		{Question{Caller: "hr", Method: "ca.chain", Purpose: "user", CN: "bob"}, "cn", "ca.chain is about a purpose"},
		{Question{Caller: "hr", Method: "ca.revoke", Purpose: "user", CN: "bob", SANs: cert.SANs{Email: []string{"b@example.org"}}}, "sans", "leave further names out"},
	} {
		_, err := p.Explain(c.q)
		var at *ConfigError
		if !errors.As(err, &at) || at.Key != c.key || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %s: %s", c.q, err, c.key, c.says)
		}
	}
}

// TestPolicyWhoCould wants everybody who could, and by which rules.
func TestPolicyWhoCould(t *testing.T) {
	p := policyOf(t, somePolicy+`    grants: [{methods: [ca.find, ca.issue], purposes: [user], names: [bob]}]`)
	mail := cert.SANs{Email: []string{"bob@example.org"}}
	for _, c := range []struct {
		q    Question
		want string
	}{
		{Question{Purpose: "user", CN: "Bob"}, "hr/4 ca.issue, hr/1 ca.revoke, none/1 ca.find, none/1 ca.issue"},
		{Question{Purpose: "user", CN: "alice", Method: "ca.issue"}, "hr/3 ca.issue, hr/4 ca.issue"},
		{Question{Purpose: "user", CN: "bob", SANs: mail}, "hr/4 ca.issue, hr/1 ca.revoke, none/1 ca.find"},
		{Question{Purpose: "user", CN: "bob", Method: "ca.find"}, "none/1 ca.find"},
		{Question{Purpose: "caller", Method: "ca.chain"}, "hr/5 ca.chain"},
		{Question{Purpose: "caller", CN: "bob"}, ""},
		{Question{Purpose: "user", CN: "a,b"}, "name.characters: cn"},
		{Question{Purpose: "server", CN: "www.example.org", SANs: mail}, "name.san_type: sans.email"},
		{Question{Purpose: "user"}, "cn is needed"},
		{Question{Purpose: "user", CN: "bob", Method: "ca.find", SANs: mail}, "leave further names out"},
		{Question{CN: "bob"}, "purpose"},
	} {
		could, err := p.WhoCould(c.q)
		var got []string
		for _, one := range could {
			got = append(got, one.Rule+" "+one.Method)
			if !strings.HasPrefix(one.Rule, one.Caller+"/") {
				t.Errorf("%+v", one)
			}
		}
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || c.want == "" {
				t.Errorf("%+v: %v, want %s", c.q, err, c.want)
			}
		} else if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%+v: %s, want %s", c.q, s, c.want)
		}
	}
}
