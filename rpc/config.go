package rpc

import (
	"crypto"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// Config says who may call, and what for. A caller that is not in it is a stranger, whatever
// certificate it holds.
type Config struct {
	Callers    []Caller    `yaml:"callers"`
	ForeignCAs []ForeignCA `yaml:"foreign_cas"`
}

// Caller is one client of the RPC. Its name is never given to anybody else.
type Caller struct {
	Name        string       `yaml:"name"`
	Credentials []Credential `yaml:"credentials"` // none: a certificate of the callers CA with Name as its common name
	Grants      []Grant      `yaml:"grants"`      // none: only the system methods
	PerSecond   float64      `yaml:"per_second"`  // calls, on average, with twice as many at once; 0: 100

	// SigningKeys are public keys, as audit.ParseSigningKey reads them, by one of which every request has to be
	// signed. None: requests are not signed.
	SigningKeys []string `yaml:"signing_keys"`
}

// Grant allows methods for purposes and names. A call needs one grant that allows all of it; in the log
// the n-th grant of a caller, from 1, is called "<caller>/<n>".
//
// A common name, and each host name of a server, must match a pattern of Names, as name.Match reads
// them. A server's host names must also be in one of Domains, if there are any; a mail address always
// must. A server's IP addresses must be in one of Networks. Whether a method other than ca.issue and ca.renew
// concerns a certificate is decided by its purpose and common name alone, for a server by Domains too, so that
// what was issued under another grant can still be revoked.
//
// The bounds that follow Networks are each no bound where they are zero, and wrong where no method of the grant
// has what they bound.
type Grant struct {
	Methods  []string       `yaml:"methods"` // of ca.*; the system methods need no grant
	Purposes []cert.Purpose `yaml:"purposes"`
	Names    []string       `yaml:"names"`    // "*" is every name, "{caller}" the caller's own; needed for any method but ca.chain
	Domains  []string       `yaml:"domains"`  // none: any host name that Names allow, and no mail address
	Networks []string       `yaml:"networks"` // as 192.0.2.0/24; none: no IP address

	KeyTypes []cert.KeyType `yaml:"key_types"` // of ca.issue and ca.renew: what the certificate's key may be
	MaxDays  int            `yaml:"max_days"`  // of the same: the longest validity; who asks for none gets no longer one
	Reasons  []string       `yaml:"reasons"`   // of ca.revoke and ca.retire, by their names in RFC 5280
	Max      int            `yaml:"max"`       // certificates that one call may revoke, hold or release
	PerHour  int            `yaml:"per_hour"`  // calls that change something; as many at once
	Own      bool           `yaml:"own"`       // only certificates that the caller itself asked for
}

// ownName in a grant's Names stands for the name of its caller. No name has such characters.
const ownName = "{caller}"

// DefaultPerSecond is the rate of a caller for whom none is configured.
const DefaultPerSecond = 100

// ConfigError is what is wrong with a configuration at one key, which is written as in
// callers[0].grants[1].names[0].
type ConfigError struct {
	Key string
	Err error
}

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap gives the error.
func (e *ConfigError) Unwrap() error { return e.Err }

// caller is a configured caller.
type caller struct {
	name    string
	signers []crypto.PublicKey // none: its requests are not signed
	grants  []grant
	now     func() time.Time
	limit   *rate.Limiter
	// refusals are entered one by one as long as it allows, and after that as one count a code and minute: a
	// caller that repeats a mistake for days must not fill the disk.
	refusals *rate.Limiter
}

// What a caller's refusals may take up of the log one by one: so many at once, and one in this time.
const (
	refusalsAtOnce = 200
	refusalEvery   = 6 * time.Second
)

type grant struct {
	conf     Grant
	holder   string // the caller
	rule     string
	methods  []string
	purposes []cert.Purpose
	names    []string
	domains  []string
	networks []netip.Prefix
	hourly   *hourly // nil: no bound
}

// newCallers checks the configuration. granted are the methods that a grant can allow.
func newCallers(c Config, granted []string, now func() time.Time) (map[string]*caller, error) {
	callers := make(map[string]*caller)
	var wrong []error
	for i, conf := range c.Callers {
		key := fmt.Sprintf("callers[%d]", i)
		bad := func(err error) { wrong = append(wrong, &ConfigError{key + ".name", fmt.Errorf("%s: %w", key, err)}) }
		if n, err := name.Canonical(cert.Caller, conf.Name); err != nil {
			bad(err)
		} else if n.Text != conf.Name {
			bad(fmt.Errorf("want the name as %q", n.Text))
		} else if callers[conf.Name] != nil {
			bad(fmt.Errorf("%s is there twice", conf.Name))
		}
		one, errs := newCaller(conf, granted, now)
		for _, err := range errs {
			wrong = append(wrong, &ConfigError{key + "." + err.Key, fmt.Errorf("caller %s: %w", conf.Name, err)})
		}
		callers[conf.Name] = one
	}
	return callers, errors.Join(wrong...)
}

// newCaller gives the keys of what is wrong relative to the caller.
func newCaller(conf Caller, granted []string, now func() time.Time) (c *caller, wrong []*ConfigError) {
	perSecond := conf.PerSecond
	if perSecond == 0 {
		perSecond = DefaultPerSecond
	}
	if !(perSecond > 0 && perSecond <= 1e6) {
		wrong = append(wrong, &ConfigError{"per_second", fmt.Errorf("per_second %v: want a rate up to 1000000", conf.PerSecond)})
		perSecond = DefaultPerSecond
	}
	c = &caller{name: conf.Name, now: now, limit: rate.NewLimiter(rate.Limit(perSecond), max(1, int(2*perSecond))),
		refusals: rate.NewLimiter(rate.Every(refusalEvery), refusalsAtOnce)}
	if conf.SigningKeys != nil && len(conf.SigningKeys) == 0 {
		wrong = append(wrong, wrongAt("signing_keys", "signing_keys is empty: leave it out, and requests are not signed, or name some"))
	}
	signers, bad := newSigners(conf.SigningKeys)
	c.signers, wrong = signers, append(wrong, bad...)
	for i, g := range conf.Grants {
		key := fmt.Sprintf("grants[%d]", i)
		one, err := newGrant(conf.Name, g, granted)
		one.rule = fmt.Sprintf("%s/%d", conf.Name, i+1)
		if err != nil {
			wrong = append(wrong, &ConfigError{key + "." + err.Key, fmt.Errorf("%s: %w", key, err)})
			continue
		}
		if rules := one.coveredBy(c.grants); rules != nil {
			// Whoever wrote it thinks that it matters.
			wrong = append(wrong, &ConfigError{key, fmt.Errorf("%s: %s allows already all that it allows; leave it out", key, strings.Join(rules, " and "))})
		}
		c.grants = append(c.grants, one)
	}
	return c, wrong
}

// newGrant gives the key of what is wrong relative to the grant.
func newGrant(holder string, conf Grant, granted []string) (grant, *ConfigError) {
	g := grant{conf: conf, holder: holder, methods: conf.Methods, purposes: conf.Purposes, names: slices.Clone(conf.Names), domains: conf.Domains}
	for i, n := range g.names {
		if n == ownName {
			g.names[i] = holder
		}
	}
	if conf.PerHour > 0 {
		g.hourly = &hourly{most: float64(conf.PerHour), left: float64(conf.PerHour)}
	}
	for _, check := range []func() *ConfigError{
		func() *ConfigError { return g.checkCalls(granted) }, g.checkNames, g.takeNetworks, g.checkMatters, conf.checkBounds,
	} {
		if err := check(); err != nil {
			return g, err
		}
	}
	return g, nil
}

func wrongAt(key, format string, args ...any) *ConfigError {
	return &ConfigError{key, fmt.Errorf(format, args...)}
}

func (g *grant) checkCalls(granted []string) *ConfigError {
	const empty = "methods and purposes are needed: a grant without them allows nothing"
	if len(g.methods) == 0 {
		return wrongAt("methods", empty)
	}
	if len(g.purposes) == 0 {
		return wrongAt("purposes", empty)
	}
	for i, m := range g.methods {
		if !slices.Contains(granted, m) {
			return wrongAt(fmt.Sprintf("methods[%d]", i), "method %.60q: want some of %v", m, granted)
		}
	}
	for i, p := range g.purposes {
		if _, err := cert.ParsePurpose(string(p)); err != nil {
			return wrongAt(fmt.Sprintf("purposes[%d]", i), "%w", err)
		}
	}
	return nil
}

func (g *grant) checkNames() *ConfigError {
	if len(g.names) == 0 && slices.ContainsFunc(g.methods, ofName) {
		return wrongAt("names", `names are needed: "*" allows every name`)
	}
	for i, pattern := range g.names {
		key, written := fmt.Sprintf("names[%d]", i), g.conf.Names[i]
		if pattern == "" {
			return wrongAt(key, "names: an empty pattern matches nothing")
		}
		if strings.Contains(written, ownName) && written != ownName {
			return wrongAt(key, "names: %.60q: %s stands for the caller's name only where it is the whole pattern", written, ownName)
		}
	}
	for i, d := range g.domains {
		key := fmt.Sprintf("domains[%d]", i)
		if n, err := name.Canonical(cert.Server, d); err != nil {
			return wrongAt(key, "domains: %w", err)
		} else if n.Text != d {
			return wrongAt(key, "domains: want %q as %q", d, n.Text)
		}
	}
	return nil
}

func (g *grant) takeNetworks() *ConfigError {
	for i, n := range g.conf.Networks {
		prefix, err := netip.ParsePrefix(n)
		if err != nil || prefix != prefix.Masked() {
			return wrongAt(fmt.Sprintf("networks[%d]", i), "networks: %.60q: want a network such as 192.0.2.0/24", n)
		}
		g.networks = append(g.networks, prefix)
	}
	return nil
}
