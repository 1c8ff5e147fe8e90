package rpc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// checkMatters refuses what no call can be allowed by: whoever wrote it thinks that it matters.
func (g *grant) checkMatters() *ConfigError {
	for _, check := range []func() *ConfigError{g.checkKeys, g.checkFit, g.checkPurposes, g.checkDomains, g.checkTwice} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// has tells whether a grant is for a purpose and for some method that a condition is true of.
func (g *grant) has(purpose cert.Purpose, of func(method string) bool) bool {
	return slices.Contains(g.purposes, purpose) && slices.ContainsFunc(g.methods, of)
}

// ofName tells whether a method concerns names.
func ofName(method string) bool { return method != chainMethod }

// checkKeys looks at what is never asked about.
func (g *grant) checkKeys() *ConfigError {
	for _, k := range []struct {
		key    string
		values int
		asked  bool
		where  string
	}{
		{"names", len(g.names), slices.ContainsFunc(g.methods, ofName), "any method but " + chainMethod},
		{"domains", len(g.domains), g.has(cert.Server, ofName) || g.has(cert.User, withNames), "servers, and for users with ca.issue or ca.renew"},
		{"networks", len(g.networks), g.has(cert.Server, withNames), "servers with ca.issue or ca.renew"},
	} {
		if k.values > 0 && !k.asked {
			return wrongAt(k.key, "%s cannot matter for %s of the purposes %v, only for %s; leave it out", k.key, strings.Join(g.methods, ", "), g.purposes, k.where)
		}
	}
	return nil
}

// checkFit looks for patterns and networks in which nothing can be.
func (g *grant) checkFit() *ConfigError {
	for i, pattern := range g.names {
		if slices.ContainsFunc(g.purposes, func(p cert.Purpose) bool { return g.only(pattern).canName(p) }) || g.canAdd(pattern) {
			continue
		}
		key, written := fmt.Sprintf("names[%d]", i), g.conf.Names[i]
		if len(g.domains) > 0 && name.MatchableHost(pattern) && g.has(cert.Server, ofName) {
			return wrongAt(key, "names: %.60q matches no host name in the domains %s; leave it out, or add its domain", written, strings.Join(g.domains, ", "))
		}
		return wrongAt(key, "names: %.60q matches no name that a certificate of the purposes %v can have", written, g.purposes)
	}
	for i, n := range g.networks {
		if !name.MatchableNetwork(n) {
			return wrongAt(fmt.Sprintf("networks[%d]", i), "networks: no address in %s can be in a certificate; leave it out", n)
		}
	}
	return nil
}

// only is the grant with no other pattern.
func (g *grant) only(pattern string) *grant {
	one := *g
	one.names = []string{pattern}
	return &one
}

// canName tells whether a certificate of a purpose can have a common name that the grant allows.
func (g *grant) canName(p cert.Purpose) bool {
	if p == cert.Server {
		return slices.ContainsFunc(g.hosts(), func(h hosts) bool { return name.Matchable(p, h.pattern) })
	}
	return slices.ContainsFunc(g.names, func(n string) bool { return name.Matchable(p, n) })
}

// canAdd tells whether a server can have a further host name that a pattern allows.
func (g *grant) canAdd(pattern string) bool {
	return g.has(cert.Server, withNames) && len(g.only(pattern).hosts()) > 0
}

// checkPurposes looks for purposes of which no name is allowed.
func (g *grant) checkPurposes() *ConfigError {
	for i, p := range g.purposes {
		if slices.Contains(g.methods, chainMethod) || g.canName(p) {
			continue
		}
		return wrongAt(fmt.Sprintf("purposes[%d]", i), "purposes: names and domains leave no common name for the purpose %s; leave it out", p)
	}
	return nil
}

// checkDomains looks for domains in which nothing is allowed; where users are, a mail address can be in any.
func (g *grant) checkDomains() *ConfigError {
	for i, d := range g.domains {
		if !g.has(cert.User, withNames) && !slices.ContainsFunc(g.names, func(n string) bool { return len(hostsIn(n, d)) > 0 }) {
			return wrongAt(fmt.Sprintf("domains[%d]", i), "domains: no host name that names allow is in %s; leave it out, or add a pattern", d)
		}
	}
	return nil
}

// checkTwice looks for what another one in the same list allows already.
func (g *grant) checkTwice() *ConfigError {
	domains := func(i, by int) bool { return name.InDomain(g.domains[i], g.domains[by]) }
	networks := func(i, by int) bool { return inNetwork(g.networks[i], g.networks[by]) }
	for _, list := range []struct {
		key    string
		values []string
		find   func(values []string) (i, by int)
	}{
		{"methods", g.methods, twice}, {"purposes", texts(g.purposes), twice}, {"names", g.conf.Names, func([]string) (i, by int) { return name.Pointless(g.names) }},
		{"domains", g.domains, within(domains)}, {"networks", g.conf.Networks, within(networks)},
		{"key_types", texts(g.conf.KeyTypes), twice}, {"reasons", g.conf.Reasons, twice},
	} {
		if i, by := list.find(list.values); i >= 0 {
			return wrongAt(fmt.Sprintf("%s[%d]", list.key, i), "%s: %.60q is allowed by %.60q already; leave it out", list.key, list.values[i], list.values[by])
		}
	}
	return nil
}

func twice(values []string) (i, by int) {
	return within(func(i, by int) bool { return values[i] == values[by] })(values)
}

// within finds the first value that is in another one, and that; of two that are the same the later.
func within(in func(i, by int) bool) func(values []string) (i, by int) {
	return func(values []string) (int, int) {
		for i := range values {
			for by := range values {
				if i != by && in(i, by) && (by < i || !in(by, i)) {
					return i, by
				}
			}
		}
		return -1, -1
	}
}
