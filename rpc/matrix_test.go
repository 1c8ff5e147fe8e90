package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
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
			if !like(ownNames(g.Names, q.Caller), h) || len(g.Domains) > 0 && !below(g.Domains, h) {
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
		if q.Method == "ca.chain" || like(ownNames(g.Names, q.Caller), q.CN) && names(g) && bounded(g, q) {
			return i + 1
		}
	}
	return 0
}

func ownNames(patterns []string, caller string) []string {
	return strings.Split(strings.ReplaceAll(strings.Join(patterns, " "), "{caller}", caller), " ")
}

// bounded decides what is left when methods, purposes and names are right.
func bounded(g Grant, q Question) bool {
	makes, gives, kind, reason := strings.HasSuffix(q.Method, "ew") || strings.HasSuffix(q.Method, "ssue"), false, q.KeyType, q.Reason
	if kind == "" {
		kind = "P-256"
	}
	switch q.Method {
	case "ca.revoke":
		gives = true
		if reason == "" {
			reason = "unspecified"
		}
	case "ca.retire":
		gives = true
		if reason == "" {
			reason = "cessationOfOperation"
		}
	}
	in := func(list, s string) bool {
		return list == "[]" || strings.Contains(strings.Trim(list, "[]")+" ", s+" ")
	}
	switch {
	case g.Own && q.Owner != "" && q.Owner != q.Caller,
		makes && !in(fmt.Sprint(g.KeyTypes), kind),
		makes && g.MaxDays > 0 && q.ValidDays > g.MaxDays,
		gives && !in(fmt.Sprint(g.Reasons), reason),
		g.Max > 0 && q.Certificates > g.Max:
		return false
	}
	return true
}

// some gives 1 to most of all.
func some[T any](r *rand.Rand, most int, all ...T) []T {
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.IntN(most)]
}

// genGrant makes a grant of which all may matter, as long as no other stands before it.
func genGrant(r *rand.Rand, change ...func(*Grant)) Grant {
	for {
		g := anyGrant(r)
		for _, c := range change {
			c(&g)
		}
		if _, err := NewPolicy(Config{Callers: []Caller{{Name: "caller-0", Grants: []Grant{g}}}}); err == nil {
			return g
		}
	}
}

func anyGrant(r *rand.Rand) Grant {
	g := Grant{
		Methods:  some(r, 6, Methods()...),
		Purposes: some(r, 3, cert.Purposes()...),
		Names:    some(r, 2, "*", "a*", "*b", "W*.example.org", "*.example.org", "www.example.*", "*.b.example.org", "*.*.*", "hr", "web*", "{caller}"),
	}
	genBounds(r, &g)
	if r.IntN(2) == 0 {
		g.Domains = some(r, 2, "example.org", "b.example.org", "example.net", "ample.org")
	}
	if slices.Contains(g.Purposes, cert.Server) && r.IntN(2) == 0 {
		g.Networks = some(r, 2, "192.0.2.0/29", "192.0.0.0/16", "2001:db8::/32", "0.0.0.0/0")
	}
	return g
}

// genBounds gives a grant some of the bounds that its methods have.
func genBounds(r *rand.Rand, g *Grant) {
	has := func(methods ...string) bool {
		return r.IntN(3) == 0 && slices.ContainsFunc(g.Methods, func(m string) bool { return slices.Contains(methods, m) })
	}
	if has("ca.issue", "ca.renew") {
		g.KeyTypes = some(r, 4, cert.SubjectKeyTypes()...)
	}
	if has("ca.issue", "ca.renew") {
		g.MaxDays = some(r, 1, 10, 30, 90, 200)[0]
	}
	if has("ca.revoke", "ca.retire") {
		g.Reasons = some(r, 3, "unspecified", "keyCompromise", "cessationOfOperation", "certificateHold")
	}
	if has("ca.revoke", "ca.retire", "ca.hold", "ca.release") {
		g.Max = some(r, 1, 1, 2, 5)[0]
	}
	if has("ca.issue", "ca.revoke") {
		g.PerHour = 1_000_000
	}
	g.Own = r.IntN(3) == 0 && !slices.Contains(g.Methods, "ca.issue") && !slices.Contains(g.Methods, "ca.chain")
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

// bounds is the matrix of what else a method's calls can be about, apart from names.
func bounds(q Question) (all []Question) {
	all = []Question{q}
	times := func(vary func(q Question) []Question) {
		var more []Question
		for _, q := range all {
			more = append(more, vary(q)...)
		}
		all = append(all, more...)
	}
	if q.Method != "ca.issue" && q.Method != "ca.chain" {
		times(func(q Question) []Question {
			mine, others := q, q
			mine.Owner, others.Owner = q.Caller, "somebody"
			return []Question{mine, others}
		})
	}
	switch q.Method {
	case "ca.issue", "ca.renew":
		times(func(q Question) []Question {
			ec, rsa := q, q
			ec.KeyType, rsa.KeyType = "P-384", "RSA-3072"
			return []Question{ec, rsa}
		})
		times(func(q Question) []Question {
			short, long := q, q
			short.ValidDays, long.ValidDays = 30, 91
			return []Question{short, long}
		})
	case "ca.revoke", "ca.retire":
		times(func(q Question) []Question {
			key, over := q, q
			key.Reason, over.Reason = "keyCompromise", "cessationOfOperation"
			return []Question{key, over}
		})
	}
	if slices.Contains([]string{"ca.revoke", "ca.retire", "ca.hold", "ca.release"}, q.Method) {
		times(func(q Question) []Question {
			two, many := q, q
			two.Certificates, many.Certificates = 2, 6
			return []Question{two, many}
		})
	}
	return all
}

// questions is the matrix of methods, purposes, names and bounds for a caller.
func questions(caller string) (all []Question) {
	ask := func(method string, q Question) {
		q.Caller, q.Method = caller, method
		if method != "ca.issue" && method != "ca.renew" {
			q.SANs = cert.SANs{}
		}
		all = append(all, bounds(q)...)
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
				asked := q // who-could takes what is left out for what hinders nobody
				if q.Method == "ca.issue" || q.Method == "ca.renew" {
					asked.KeyType = cmp.Or(q.KeyType, "P-256")
				}
				asked.Reason = map[string]string{"ca.revoke": cmp.Or(q.Reason, "unspecified"), "ca.retire": cmp.Or(q.Reason, "cessationOfOperation")}[q.Method]
				could, err := p.WhoCould(asked)
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
		grants := []Grant{genGrant(r), genGrant(r), genGrant(r, func(g *Grant) { g.Methods, g.Purposes = g.Methods[:1], g.Purposes[:1] })}
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
