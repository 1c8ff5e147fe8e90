package rpc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// wish is what a call needs a grant for. What is left zero is not asked about.
type wish struct {
	method   string
	purpose  cert.Purpose
	name     name.Name
	existing bool   // it is about a certificate that there is
	owner    string // the caller that asked for that one
	sans     cert.SANs
	keyType  cert.KeyType
	days     int
	reason   string
	hits     int // certificates
}

// How far a grant goes along with a wish. The one that goes furthest is named in a refusal.
const (
	otherMethod = iota
	otherPurpose
	otherName
	otherOwner
	otherSAN
	otherKeyType
	otherDays
	otherReason
	otherMax
	allowed
)

// stopsAtOwner tells whether a grant goes along as far as whose the certificate is.
func stopsAtOwner(step int) bool { return step == otherOwner }

// stopsAtTerms tells whether a grant covers the certificate and all of its names, and not what is asked of it.
func stopsAtTerms(step int) bool {
	return slices.Contains([]int{otherKeyType, otherDays, otherReason, otherMax}, step)
}

// steps are what a grant stops at, as it is called outside.
var steps = [...]string{"method", "purpose", "name", "owner", "sans", "key_type", "days", "reason", "max"}

// allow gives the first grant that allows all of a wish, one with calls left in this hour before one without, or
// the refusal.
func (c *caller) allow(w wish) (*grant, error) {
	closest, why := -1, fmt.Sprintf("caller %s has no grants", c.name)
	var spent *grant
	for i := range c.grants {
		g := &c.grants[i]
		how, reason := g.judge(w)
		switch {
		case how == allowed && (g.hourly == nil || !changes(w.method) || g.hourly.has(c.now())):
			return g, nil
		case how == allowed && spent == nil:
			spent = g
		case how > closest:
			closest, why = how, reason
		}
	}
	if spent != nil {
		return spent, nil
	}
	if closest == otherMethod {
		why = fmt.Sprintf("no rule allows %s; %s", w.method, why)
	}
	no := refuse("policy.denied", "%s; ask the operator of the CA for a grant, or ask for something else", why)
	no.stops = max(closest, otherMethod)
	return nil, no
}

func (g *grant) judge(w wish) (how int, reason string) {
	if !slices.Contains(g.methods, w.method) {
		return otherMethod, fmt.Sprintf("rule %s allows %s", g.rule, strings.Join(g.methods, ", "))
	}
	if w.purpose == "" {
		return allowed, ""
	}
	if !slices.Contains(g.purposes, w.purpose) {
		return otherPurpose, fmt.Sprintf("rule %s allows %s, but not for the purpose %s", g.rule, w.method, w.purpose)
	}
	if w.name.Key == "" {
		return allowed, ""
	}
	how, bad := g.within(w)
	if how == allowed {
		return allowed, ""
	}
	return how, fmt.Sprintf("rule %s allows %s for the purpose %s, but not %s", g.rule, w.method, w.purpose, bad)
}

// within judges what a grant of the right method and purpose says of the rest, and names what it does not allow.
func (g *grant) within(w wish) (how int, bad string) {
	if !g.matches(w.name.Key) {
		return otherName, fmt.Sprintf("the name %q", w.name.Text)
	}
	if g.conf.Own && w.existing && w.owner != g.holder {
		return otherOwner, "what another caller asked for"
	}
	if bad := g.outside(w); bad != "" {
		return otherSAN, bad
	}
	return g.beyond(w)
}

func (g *grant) matches(key string) bool {
	return slices.ContainsFunc(g.names, func(pattern string) bool { return name.Match(pattern, key) })
}

func (g *grant) inDomains(host string) bool {
	return slices.ContainsFunc(g.domains, func(d string) bool { return name.InDomain(host, d) })
}

// outside names the first host name, mail address or IP address that the grant does not allow.
func (g *grant) outside(w wish) string {
	hosts := w.sans.DNS
	if w.purpose == cert.Server {
		hosts = append([]string{w.name.Text}, hosts...)
	}
	for _, h := range hosts {
		if !g.matches(h) || len(g.domains) > 0 && !g.inDomains(h) {
			return fmt.Sprintf("the host name %q", h)
		}
	}
	for _, m := range w.sans.Email {
		if !g.inDomains(m[strings.LastIndexByte(m, '@')+1:]) {
			return fmt.Sprintf("the mail address %q, which is in none of its domains", m)
		}
	}
	for _, text := range w.sans.IP {
		ip, err := netip.ParseAddr(text)
		if err != nil || !slices.ContainsFunc(g.networks, func(n netip.Prefix) bool { return n.Contains(ip) }) {
			return fmt.Sprintf("the address %q, which is in none of its networks", text)
		}
	}
	if len(w.sans.URI) > 0 {
		return "a URI"
	}
	return ""
}
