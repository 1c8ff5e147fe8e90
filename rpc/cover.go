package rpc

import (
	"net/netip"
	"slices"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// coveredBy gives the rules that leave a grant nothing to allow; none if it may matter. A call has one method and
// one purpose, so each pair can be covered by another rule.
func (g *grant) coveredBy(earlier []grant) (rules []string) {
	for _, method := range g.methods {
		for _, purpose := range g.purposes {
			i := slices.IndexFunc(earlier, func(e grant) bool { return e.covers(g, method, purpose) })
			if i < 0 {
				return nil
			}
			if !slices.Contains(rules, earlier[i].rule) {
				rules = append(rules, earlier[i].rule)
			}
		}
	}
	return rules
}

// covers tells whether a grant certainly allows every call of a method and purpose that another allows.
func (g *grant) covers(other *grant, method string, purpose cert.Purpose) bool {
	if !slices.Contains(g.methods, method) || !slices.Contains(g.purposes, purpose) {
		return false
	}
	if method == chainMethod {
		return true
	}
	if !g.boundsCover(other, method) || !every(other.names, g.names, name.Covers) {
		return false
	}
	within := every(other.domains, g.domains, func(domain, in string) bool { return name.InDomain(in, domain) })
	switch purpose {
	case cert.User: // without domains it has no mail address
		return within || !withNames(method)
	case cert.Server: // without domains it has any host name; its common name is one for every method
		hosts := len(g.domains) == 0 || len(other.domains) > 0 && within
		networks := every(other.networks, g.networks, func(n, in netip.Prefix) bool { return n.Bits() <= in.Bits() && n.Contains(in.Addr()) })
		return hosts && (networks || !withNames(method))
	}
	return true
}

// every tells whether each of the narrow ones is covered by one of the wide.
func every[T any](narrow, wide []T, covers func(wide, narrow T) bool) bool {
	return !slices.ContainsFunc(narrow, func(n T) bool {
		return !slices.ContainsFunc(wide, func(w T) bool { return covers(w, n) })
	})
}
