package rpc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// oracle decides as docs/CONFIG.md says, by other means than the service: the number of the first grant that allows
// a question, or 0.
func oracle(grants []Grant, q Question) int {
	like := func(patterns []string, s string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			star := `[^.]*`
			if p == "*" {
				star = `.*`
			}
			return regexp.MustCompile(`(?i)^` + strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, star) + `$`).MatchString(s)
		})
	}
	below := func(domains []string, s string) bool {
		return len(domains) > 0 && regexp.MustCompile(`(^|\.)(`+strings.ReplaceAll(strings.Join(domains, "|"), ".", `\.`)+`)$`).MatchString(s)
	}
	names := func(g Grant) bool {
		hosts := slices.Clone(q.SANs.DNS)
		if q.Purpose == "server" {
			hosts = append(hosts, q.CN)
		}
		for _, h := range hosts {
			if !like(g.Names, h) || len(g.Domains) > 0 && !below(g.Domains, h) {
				return false
			}
		}
		for _, m := range q.SANs.Email {
			if !below(g.Domains, strings.Split(m, "@")[1]) {
				return false
			}
		}
		for _, ip := range q.SANs.IP {
			if !slices.ContainsFunc(g.Networks, func(n string) bool {
				_, network, err := net.ParseCIDR(n)
				return err == nil && network.Contains(net.ParseIP(ip))
			}) {
				return false
			}
		}
		return true
	}
	for i, g := range grants {
		if !slices.Contains(g.Methods, q.Method) || !slices.Contains(g.Purposes, cert.Purpose(q.Purpose)) {
			continue
		}
		if q.Method == "ca.chain" || like(g.Names, q.CN) && names(g) {
			return i + 1
		}
	}
	return 0
}

// some gives 1 to most of all.
func some[T any](r *rand.Rand, most int, all ...T) []T {
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.IntN(most)]
}

func genGrant(r *rand.Rand) Grant {
	g := Grant{
		Methods:  some(r, 6, Methods()...),
		Purposes: some(r, 3, cert.Purposes()...),
		Names:    some(r, 2, "*", "a*", "*b", "W*.example.org", "*.example.org", "www.example.*", "*.b.example.org", "*.*.*", "hr", "web*"),
	}
	if r.IntN(2) == 0 {
		g.Domains = some(r, 2, "example.org", "b.example.org", "example.net", "ample.org")
	}
	if r.IntN(2) == 0 {
		g.Networks = some(r, 2, "192.0.2.0/29", "192.0.0.0/16", "2001:db8::/32", "0.0.0.0/0")
	}
	return g
}

// genConfig makes callers whose grants all matter.
func genConfig(r *rand.Rand, callers int) Config {
	var c Config
	for len(c.Callers) < callers {
		one := Caller{Name: fmt.Sprintf("caller-%d", len(c.Callers)), PerSecond: 1e6}
		for range r.IntN(4) {
			one.Grants = append(one.Grants, genGrant(r))
		}
		if _, err := NewPolicy(Config{Callers: []Caller{one}}); err == nil {
			c.Callers = append(c.Callers, one)
		}
	}
	return c
}

// issuedNames are those of the certificates that there are; their SANs are canonical.
func issuedNames() []Question {
	return []Question{
		{Purpose: "user", CN: "alice", SANs: cert.SANs{Email: []string{"alice@b.example.org", "alice@example.org"}}},
		{Purpose: "user", CN: "Bob"},
		{Purpose: "user", CN: "web1", SANs: cert.SANs{Email: []string{"web@example.org"}}},
		{Purpose: "server", CN: "www.example.org", SANs: cert.SANs{DNS: []string{"www.example.org"}, IP: []string{"192.0.2.7"}}},
		{Purpose: "server", CN: "a.b.example.org", SANs: cert.SANs{DNS: []string{"a.b.example.org", "web.example.org"}}},
		{Purpose: "server", CN: "web.example.org", SANs: cert.SANs{DNS: []string{"web.example.org"}}},
		{Purpose: "caller", CN: "hr"},
		{Purpose: "caller", CN: "web1"},
	}
}

// questions is the matrix of methods, purposes and names for a caller.
func questions(caller string) (all []Question) {
	ask := func(method string, q Question) {
		q.Caller, q.Method = caller, method
		if method != "ca.issue" && method != "ca.renew" {
			q.SANs = cert.SANs{}
		}
		all = append(all, q)
	}
	for _, q := range issuedNames() {
		for _, method := range Methods() {
			if method != "ca.chain" {
				ask(method, q)
			}
		}
	}
	for _, p := range cert.Purposes() {
		ask("ca.chain", Question{Purpose: string(p)})
	}
	for _, q := range []Question{
		{Purpose: "user", CN: "ALICE", SANs: cert.SANs{Email: []string{"a@evilexample.org"}}},
		{Purpose: "user", CN: "ab", SANs: cert.SANs{Email: []string{"a@example.net"}}},
		{Purpose: "user", CN: "a.b.example.org"},
		{Purpose: "server", CN: "www.example.net", SANs: cert.SANs{IP: []string{"192.0.2.8", "2001:db8::1"}}},
		{Purpose: "server", CN: "example.org", SANs: cert.SANs{IP: []string{"192.0.3.1"}}},
		{Purpose: "server", CN: "web.example.org", SANs: cert.SANs{DNS: []string{"www.example.net"}}},
		{Purpose: "server", CN: "web.b.example.org", SANs: cert.SANs{DNS: []string{"x.y.b.example.org"}}},
		{Purpose: "caller", CN: "ab"},
	} {
		ask("ca.issue", q)
	}
	return all
}

// TestExplainedMatrix compares what Explain and WhoCould say with the oracle, for many configurations.
func TestExplainedMatrix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	decided := make(map[bool]int)
	for range 30 {
		conf := genConfig(r, 3)
		p, err := NewPolicy(conf)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range conf.Callers {
			for _, q := range questions(c.Name) {
				want := ""
				if n := oracle(c.Grants, q); n > 0 {
					want = fmt.Sprintf("%s/%d", c.Name, n)
				}
				decided[want != ""]++
				d, err := p.Explain(q)
				if err != nil || d.Rule != want {
					t.Fatalf("%+v: %+v %v, want %q of %+v", q, d, err, want, c.Grants)
				}
				could, err := p.WhoCould(q)
				first := slices.IndexFunc(could, func(one Permission) bool { return one.Caller == c.Name })
				if err != nil || (first >= 0) != (want != "") || first >= 0 && could[first].Rule != want {
					t.Fatalf("%+v: %+v %v, want %q of %+v", q, could, err, want, c.Grants)
				}
			}
		}
	}
	if decided[true] < 500 || decided[false] < 500 {
		t.Errorf("allowed and not: %v", decided)
	}
}

// TestCoveredMatrix: a grant that is refused because of those before it would never have been the first that allows.
func TestCoveredMatrix(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	refused := 0
	for range 1500 {
		grants := []Grant{genGrant(r), genGrant(r), genGrant(r)}
		grants[2].Methods, grants[2].Purposes = grants[2].Methods[:1], grants[2].Purposes[:1]
		_, err := NewPolicy(Config{Callers: []Caller{{Name: "c", Grants: grants}}})
		var at *ConfigError
		if !errors.As(err, &at) || at.Key != "callers[0].grants[2]" {
			continue
		}
		refused++
		for _, q := range questions("c") {
			if oracle(grants, q) == 3 {
				t.Fatalf("%v, but %+v is allowed by the last of %+v", err, q, grants)
			}
		}
	}
	if refused < 30 {
		t.Errorf("only %d were refused", refused)
	}
}

// TestServedMatrix compares what a running service does with the oracle.
func TestServedMatrix(t *testing.T) {
	conf := genConfig(rand.New(rand.NewPCG(3, 4)), 6)
	w := newWorld(t, func(o *Options) { o.Config = conf })
	for _, q := range issuedNames() {
		w.certificate(cert.Purpose(q.Purpose), q.CN, q.SANs)
	}
	decided := make(map[bool]int)
	for _, c := range conf.Callers {
		own := w.client(w.caller(c.Name))
		for _, q := range questions(c.Name) {
			want := oracle(c.Grants, q) > 0
			if q.Method == "ca.retire" { // of all purposes at once; web1 has two
				want = slices.ContainsFunc(issuedNames(), func(same Question) bool {
					return same.CN == q.CN && oracle(c.Grants, Question{Method: q.Method, Purpose: same.Purpose, CN: q.CN}) > 0
				}) || oracle(c.Grants, Question{Method: q.Method, Purpose: "user", CN: q.CN}) > 0
			}
			decided[want]++
			if got, said := w.served(own, q); got != want {
				t.Errorf("%+v: %v, want %v of %+v: %s", q, got, want, c.Grants, said)
			}
		}
	}
	if decided[true] < 50 || decided[false] < 50 {
		t.Errorf("allowed and not: %v", decided)
	}
}

// served asks the service, and tells whether its grants let the caller.
func (w *world) served(c *client.Client, q Question) (bool, string) {
	w.Helper()
	params := object{"purpose": q.Purpose, "cn": q.CN, "plan": true}
	switch q.Method {
	case "ca.issue":
		params["sans"] = q.SANs
	case "ca.retire":
		delete(params, "purpose")
	case "ca.status":
		params = object{"cn": q.CN}
	case "ca.find":
		delete(params, "plan")
	case "ca.expiring":
		params = object{"purpose": q.Purpose, "within_days": expiringMaxDays, "limit": maxPage}
	case "ca.chain":
		params = object{"purpose": q.Purpose}
	}
	var a client.Answer
	w.must(c.Call(w.Context(), q.Method, params, &a))
	d := detail(w, a)
	if !slices.Contains([]string{"ca.status", "ca.find", "ca.expiring"}, q.Method) || !a.OK {
		return d["code"] != "policy.denied", a.Msg
	}
	// These leave out what they may not tell.
	return slices.ContainsFunc(d["certificates"].([]any), func(one any) bool {
		m := one.(map[string]any)
		return m["cn"] == q.CN && m["purpose"] == q.Purpose
	}), a.Msg
}
