package rpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// Policy tells what the grants of a configuration decide, without a service. It asks the code that decides in
// the service; what the CA and the key room refuse for reasons of their own, it does not know.
type Policy struct {
	names   []string // of the callers, as they are configured
	callers map[string]*caller
}

// Question is what a caller would ask for, as it would write it.
type Question struct {
	Caller  string
	Method  string // of Methods
	Purpose string
	CN      string    // needed, but for ca.chain, which has none
	SANs    cert.SANs // of ca.issue and ca.renew only
}

// Decision is what the service would decide.
type Decision struct {
	Allowed bool      `json:"allowed"`
	Rule    string    `json:"rule,omitempty"`   // that allows it, "<caller>/<n>"
	Code    string    `json:"code,omitempty"`   // of the refusal
	Reason  string    `json:"reason,omitempty"` // of the refusal
	Grants  []Verdict `json:"grants"`           // of the caller, in their order; none if the names are refused
}

// Verdict is what one grant says. The first that allows is the rule.
type Verdict struct {
	Rule    string `json:"rule"`
	Allowed bool   `json:"allowed"`
	Fails   string `json:"fails,omitempty"` // at what it stops to go along: method, purpose, name or sans
	Reason  string `json:"reason,omitempty"`
}

// Methods are those that a grant can allow, sorted.
func Methods() []string { return grantedIn((&Server{}).table()) }

// NewPolicy refuses all that New would: ConfigErrors, joined.
func NewPolicy(c Config) (*Policy, error) {
	callers, err := newCallers(c, Methods())
	if err != nil {
		return nil, err
	}
	p := &Policy{callers: callers}
	for _, one := range c.Callers {
		p.names = append(p.names, one.Name)
	}
	return p, nil
}

// Explain decides a question. Its error is a *ConfigError with the key caller, method, purpose, cn or sans: it
// is no question that could be asked.
func (p *Policy) Explain(q Question) (Decision, error) {
	c := p.callers[q.Caller]
	if c == nil {
		return Decision{}, &ConfigError{"caller", fmt.Errorf("there is no caller %q; there are: %s", q.Caller, strings.Join(p.names, ", "))}
	}
	d := Decision{Grants: []Verdict{}}
	w, err := q.wish()
	if malformed := (*ConfigError)(nil); errors.As(err, &malformed) {
		return d, err
	}
	if err == nil {
		for _, g := range c.grants {
			how, reason := g.judge(w)
			d.Grants = append(d.Grants, Verdict{g.rule, how == allowed, failing[how], reason})
		}
		d.Rule, err = c.allow(w)
	}
	if err != nil {
		n := explain(err)
		d.Code, d.Reason = n.code, n.reason
		return d, nil
	}
	d.Allowed = true
	return d, nil
}

// Permission is a rule by which a caller could call a method.
type Permission struct {
	Caller string `json:"caller"`
	Method string `json:"method"`
	Rule   string `json:"rule"` // each that allows it, also where an earlier one does
}

// WhoCould gives every permission for what a question is about; its Caller is not looked at. Without a Method it
// is about all methods that concern a name, of which some take no further names. Its error is a *ConfigError, as
// that of Explain, or a *name.Refusal: then nobody could.
func (p *Policy) WhoCould(q Question) ([]Permission, error) {
	methods := []string{q.Method}
	if q.Method == "" {
		methods = slices.DeleteFunc(Methods(), func(m string) bool { return m == chainMethod })
	}
	wishes := make([]wish, len(methods))
	for i, method := range methods {
		one := q
		if one.Method = method; q.Method == "" && !withNames(method) {
			one.SANs = cert.SANs{}
		}
		var err error
		if wishes[i], err = one.wish(); err != nil {
			return nil, err
		}
	}
	could := []Permission{}
	for _, caller := range p.names {
		for _, w := range wishes {
			for _, g := range p.callers[caller].grants {
				if how, _ := g.judge(w); how == allowed {
					could = append(could, Permission{caller, w.method, g.rule})
				}
			}
		}
	}
	return could, nil
}

var failing = [...]string{otherMethod: "method", otherPurpose: "purpose", otherName: "name", otherSAN: "sans", allowed: ""}

// withNames tells whether all of a certificate's names count for a method; for the others only its common name.
func withNames(method string) bool { return method == issueMethod || method == renewMethod }

// wish is what the service would look for a grant for. An error that is no *ConfigError is its refusal.
func (q Question) wish() (w wish, err error) {
	if granted := Methods(); !slices.Contains(granted, q.Method) {
		return w, &ConfigError{"method", fmt.Errorf("method %.60q: want one of %s", q.Method, strings.Join(granted, ", "))}
	}
	purpose, err := cert.ParsePurpose(q.Purpose)
	if err != nil {
		return w, &ConfigError{"purpose", err}
	}
	switch {
	case q.Method == chainMethod && q.CN != "":
		return w, &ConfigError{"cn", fmt.Errorf("%s is about a purpose, not about a name", q.Method)}
	case q.Method != chainMethod && q.CN == "":
		return w, &ConfigError{"cn", fmt.Errorf("cn is needed for %s", q.Method)}
	case !withNames(q.Method) && q.SANs.Count() > 0:
		return w, &ConfigError{"sans", fmt.Errorf("for %s the purpose and the common name decide; leave further names out", q.Method)}
	case q.Method == chainMethod:
		return wish{method: q.Method, purpose: purpose}, nil
	case withNames(q.Method):
		r, err := issueParams{Purpose: q.Purpose, CN: q.CN, SANs: q.SANs}.request()
		return wish{q.Method, r.Purpose, r.Name, r.SANs}, err
	}
	n, err := name.Canonical(purpose, q.CN)
	return namedWish(q.Method, purpose, n), err
}
