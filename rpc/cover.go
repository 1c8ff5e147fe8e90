package rpc

import (
	"net/netip"
	"slices"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// coveredBy gives the rules that leave a grant nothing to allow; none if it may matter.
func (g *grant) coveredBy(earlier []grant) (rules []string) {
	for part := range g.parts {
		i := slices.IndexFunc(earlier, func(e grant) bool { return e.covers(part) })
		if i < 0 {
			return nil
		}
		if !slices.Contains(rules, earlier[i].rule) {
			rules = append(rules, earlier[i].rule)
		}
	}
	return rules
}

// parts yields grants that together allow what one allows, of which each can be covered by another rule: a call has
// one method, purpose, common name, type of key and reason. Its further names all have to be in the same rule.
func (g *grant) parts(yield func(*grant) bool) {
	for _, method := range g.methods {
		for _, purpose := range g.purposes {
			one := *g
			one.methods, one.purposes = []string{method}, []cert.Purpose{purpose}
			if !one.named(yield) {
				return
			}
		}
	}
}

// named yields those of one method and purpose.
func (g *grant) named(yield func(*grant) bool) bool {
	method, purpose := g.methods[0], g.purposes[0]
	if method == chainMethod || purpose == cert.Server && withNames(method) {
		return method != chainMethod && !g.canName(purpose) || g.bounded(yield)
	}
	if purpose != cert.Server {
		return eachOf(g.names, func(n string) bool {
			return !name.Matchable(purpose, n) || g.only(n).bounded(yield)
		})
	}
	return eachOf(g.hosts(), func(h hosts) bool {
		one := g.only(h.pattern)
		one.domains = h.domains()
		return !name.Matchable(purpose, h.pattern) || one.bounded(yield)
	})
}

// bounded yields those of one method, purpose and common name.
func (g *grant) bounded(yield func(*grant) bool) bool {
	switch method := g.methods[0]; {
	case withNames(method):
		types := g.conf.KeyTypes
		if types == nil {
			types = cert.SubjectKeyTypes()
		}
		return eachOf(types, func(t cert.KeyType) bool {
			one := *g
			one.conf.KeyTypes = []cert.KeyType{t}
			return yield(&one)
		})
	case withReason(method):
		reasons := g.conf.Reasons
		if reasons == nil {
			reasons = valuesOf("reasons")
		}
		return eachOf(reasons, func(r string) bool {
			one := *g
			one.conf.Reasons = []string{r}
			return yield(&one)
		})
	}
	return yield(g)
}

// eachOf goes through a list as long as it may.
func eachOf[T any](list []T, goOn func(T) bool) bool {
	return !slices.ContainsFunc(list, func(one T) bool { return !goOn(one) })
}

// covers tells whether a grant certainly allows every call that a part of another allows.
func (g *grant) covers(part *grant) bool {
	method, purpose := part.methods[0], part.purposes[0]
	if !slices.Contains(g.methods, method) || !slices.Contains(g.purposes, purpose) {
		return false
	}
	if method == chainMethod {
		return true
	}
	if !g.boundsCover(part, method) {
		return false
	}
	if purpose == cert.Server {
		networks := every(part.networks, g.networks, func(n, in netip.Prefix) bool { return inNetwork(in, n) })
		return eachOf(part.hosts(), g.coversHosts) && (networks || !withNames(method))
	}
	// Without domains nobody has a mail address.
	mail := every(part.domains, g.domains, func(domain, in string) bool { return name.InDomain(in, domain) })
	return every(part.names, g.names, name.Covers) && (mail || purpose != cert.User || !withNames(method))
}

func inNetwork(n, of netip.Prefix) bool { return of.Bits() <= n.Bits() && of.Contains(n.Addr()) }

// every tells whether each of the narrow ones is covered by one of the wide.
func every[T any](narrow, wide []T, covers func(wide, narrow T) bool) bool {
	return eachOf(narrow, func(n T) bool {
		return slices.ContainsFunc(wide, func(w T) bool { return covers(w, n) })
	})
}

// hosts are host names that a pattern fits. Only those of "*" have a domain: any other pattern says it itself.
type hosts struct{ pattern, domain string }

func (h hosts) domains() []string {
	if h.domain == "" {
		return nil
	}
	return []string{h.domain}
}

// hosts gives the host names that the names and the domains of a grant both allow, and that there can be.
func (g *grant) hosts() (all []hosts) {
	for _, n := range g.names {
		if len(g.domains) == 0 && name.MatchableHost(n) {
			all = append(all, hosts{n, ""})
		}
		for _, d := range g.domains {
			all = append(all, hostsIn(n, d)...)
		}
	}
	return all
}

// hostsIn gives those of one pattern in one domain, if there can be any.
func hostsIn(pattern, domain string) []hosts {
	narrow, some := name.Narrow(pattern, domain)
	switch {
	case !some || !name.MatchableHost(narrow):
		return nil
	case narrow == "*":
		return []hosts{{narrow, domain}}
	}
	return []hosts{{narrow, ""}}
}

func (g *grant) coversHosts(h hosts) bool {
	within := len(g.domains) == 0 || slices.ContainsFunc(g.domains, func(d string) bool {
		return name.InDomain(h.pattern, d) || name.InDomain(h.domain, d)
	})
	return within && slices.ContainsFunc(g.names, func(n string) bool { return name.Covers(n, h.pattern) })
}
