package rpc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/time/rate"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// Config says who may call, and what for. A caller that is not in it is a stranger, whatever
// certificate it holds.
type Config struct {
	Callers []Caller `yaml:"callers"`
}

// Caller is one client of the RPC. Its name is the common name of its certificates, never given to
// anybody else.
type Caller struct {
	Name      string  `yaml:"name"`
	Grants    []Grant `yaml:"grants"`     // none: only the system methods
	PerSecond float64 `yaml:"per_second"` // calls, on average, with twice as many at once; 0: 100
}

// Grant allows methods for purposes and names. A call needs one grant that allows all of it; in the log
// the n-th grant of a caller, from 1, is called "<caller>/<n>".
//
// A common name, and each host name of a server, must match a pattern of Names, as name.Match reads
// them. A server's host names must also be in one of Domains, if there are any; a mail address always
// must. A server's IP addresses must be in one of Networks. Whether ca.revoke, ca.status and ca.expiring
// concern a certificate is decided by its purpose and common name alone, so that what was issued under another
// grant can still be revoked.
type Grant struct {
	Methods  []string       `yaml:"methods"` // of ca.*; the system methods need no grant
	Purposes []cert.Purpose `yaml:"purposes"`
	Names    []string       `yaml:"names"`    // "*" is every name; needed for any method but ca.chain
	Domains  []string       `yaml:"domains"`  // none: any host name that Names allow, and no mail address
	Networks []string       `yaml:"networks"` // as 192.0.2.0/24; none: no IP address
}

const defaultPerSecond = 100

// caller is a configured caller.
type caller struct {
	name   string
	grants []grant
	limit  *rate.Limiter
}

type grant struct {
	rule     string
	methods  []string
	purposes []cert.Purpose
	names    []string
	domains  []string
	networks []netip.Prefix
}

// newCallers checks the configuration. granted are the methods that a grant can allow.
func newCallers(c Config, granted []string) (map[string]*caller, error) {
	callers := make(map[string]*caller)
	for i, conf := range c.Callers {
		if n, err := name.Canonical(cert.Caller, conf.Name); err != nil {
			return nil, fmt.Errorf("callers[%d]: %w", i, err)
		} else if n.Text != conf.Name {
			return nil, fmt.Errorf("callers[%d]: want the name as %q", i, n.Text)
		}
		if callers[conf.Name] != nil {
			return nil, fmt.Errorf("callers[%d]: %s is there twice", i, conf.Name)
		}
		one, err := newCaller(conf, granted)
		if err != nil {
			return nil, fmt.Errorf("caller %s: %w", conf.Name, err)
		}
		callers[conf.Name] = one
	}
	return callers, nil
}

func newCaller(conf Caller, granted []string) (*caller, error) {
	perSecond := conf.PerSecond
	if perSecond == 0 {
		perSecond = defaultPerSecond
	}
	if !(perSecond > 0 && perSecond <= 1e6) {
		return nil, fmt.Errorf("per_second %v: want a rate up to 1000000", conf.PerSecond)
	}
	c := &caller{name: conf.Name, limit: rate.NewLimiter(rate.Limit(perSecond), max(1, int(2*perSecond)))}
	for i, g := range conf.Grants {
		one, err := newGrant(g, granted)
		if err != nil {
			return nil, fmt.Errorf("grants[%d]: %w", i, err)
		}
		one.rule = fmt.Sprintf("%s/%d", conf.Name, i+1)
		c.grants = append(c.grants, one)
	}
	return c, nil
}

func newGrant(conf Grant, granted []string) (grant, error) {
	g := grant{methods: conf.Methods, purposes: conf.Purposes, names: conf.Names, domains: conf.Domains}
	if len(conf.Methods) == 0 || len(conf.Purposes) == 0 {
		return g, errors.New("methods and purposes are needed: a grant without them allows nothing")
	}
	named := false
	for _, m := range conf.Methods {
		if !slices.Contains(granted, m) {
			return g, fmt.Errorf("method %.60q: want some of %v", m, granted)
		}
		named = named || m != chainMethod
	}
	for _, p := range conf.Purposes {
		if _, err := cert.ParsePurpose(string(p)); err != nil {
			return g, err
		}
	}
	if named && len(conf.Names) == 0 {
		return g, errors.New(`names are needed: "*" allows every name`)
	}
	if slices.Contains(conf.Names, "") {
		return g, errors.New("names: an empty pattern matches nothing")
	}
	for _, d := range conf.Domains {
		if n, err := name.Canonical(cert.Server, d); err != nil {
			return g, fmt.Errorf("domains: %w", err)
		} else if n.Text != d {
			return g, fmt.Errorf("domains: want %q as %q", d, n.Text)
		}
	}
	for _, n := range conf.Networks {
		prefix, err := netip.ParsePrefix(n)
		if err != nil || prefix != prefix.Masked() {
			return g, fmt.Errorf("networks: %.60q: want a network such as 192.0.2.0/24", n)
		}
		g.networks = append(g.networks, prefix)
	}
	return g, nil
}
