package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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

	KeyType      string // of the same, also if a CSR brings the key; empty: as the CA makes it
	ValidDays    int    // of the same; 0: none is asked for
	Reason       string // of ca.revoke and ca.retire; empty: their default
	Owner        string // who asked for the certificate that it is about; empty: nobody looks at that
	Certificates int    // that the call hits, of ca.revoke, ca.hold, ca.release and ca.retire; 0: as few as can be
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
	Fails   string `json:"fails,omitempty"` // where it stops going along: name or max, for instance
	Reason  string `json:"reason,omitempty"`
}

// Methods are those that a grant can allow, sorted.
func Methods() []string { return grantedIn((&Server{}).table()) }

// NewPolicy refuses all that New would, but for what CheckCAs looks at: ConfigErrors, joined.
func NewPolicy(c Config) (*Policy, error) {
	callers, err := newCallers(c, Methods(), time.Now)
	_, wrong := newCredentials(c)
	if err := errors.Join(err, wrong); err != nil {
		return nil, err
	}
	p := &Policy{callers: callers}
	for _, one := range c.Callers {
		p.names = append(p.names, one.Name)
	}
	return p, nil
}

// Explain decides a question. Its error is a *ConfigError with the key caller or that of a member of the question,
// as valid_days: it is no question that could be asked.
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
		return c.decide(w), nil
	}
	n := explain(err)
	d.Code, d.Reason = n.code, n.reason
	return d, nil
}

// Recall decides what is known of a call that was made once, with names as the log has them. What a question leaves
// out, even purpose and name, hinders nobody.
func (p *Policy) Recall(q Question) Decision {
	c := p.callers[q.Caller]
	if c == nil {
		return Decision{Code: "caller.unknown", Reason: fmt.Sprintf("there is no caller %s", q.Caller), Grants: []Verdict{}}
	}
	w := wish{
		method: q.Method, sans: q.SANs, keyType: cert.KeyType(q.KeyType), days: q.ValidDays, reason: q.Reason,
		existing: q.Owner != "", owner: q.Owner, hits: q.Certificates,
	}
	if purpose, err := cert.ParsePurpose(q.Purpose); err == nil {
		w.purpose = purpose
		if n, err := name.Canonical(purpose, q.CN); err == nil {
			w.name = n
		}
	}
	return c.decide(w)
}

func (c *caller) decide(w wish) Decision {
	d := Decision{Grants: []Verdict{}}
	for i := range c.grants {
		how, reason := c.grants[i].judge(w)
		v := Verdict{Rule: c.grants[i].rule, Allowed: how == allowed, Reason: reason}
		if how != allowed {
			v.Fails = steps[how]
		}
		d.Grants = append(d.Grants, v)
	}
	g, err := c.allow(w)
	if err != nil {
		n := explain(err)
		d.Code, d.Reason = n.code, n.reason
		return d
	}
	d.Allowed, d.Rule = true, g.rule
	return d
}

// Permission is a rule by which a caller could call a method.
type Permission struct {
	Caller string `json:"caller"`
	Method string `json:"method"`
	Rule   string `json:"rule"` // each that allows it, also where an earlier one does
}

// WhoCould gives every permission for what a question is about; its Caller is not looked at, and what it leaves out
// hinders nobody. Without a Method it is about all methods that concern a name, of which each takes what it has. Its
// error is a *ConfigError, as that of Explain, or a *name.Refusal: then nobody could.
func (p *Policy) WhoCould(q Question) ([]Permission, error) {
	methods := []string{q.Method}
	if q.Method == "" {
		methods = slices.DeleteFunc(Methods(), func(m string) bool { return m == chainMethod })
	}
	wishes := make([]wish, len(methods))
	for i, method := range methods {
		one := q
		if one.Method = method; q.Method == "" {
			one = q.fit(method)
		}
		var err error
		if wishes[i], err = one.wish(); err != nil {
			return nil, err
		}
		if q.KeyType == "" {
			wishes[i].keyType = ""
		}
		if q.Reason == "" {
			wishes[i].reason = ""
		}
	}
	could := []Permission{}
	for _, caller := range p.names {
		for _, w := range wishes {
			for i := range p.callers[caller].grants {
				g := &p.callers[caller].grants[i]
				if how, _ := g.judge(w); how == allowed {
					could = append(could, Permission{caller, w.method, g.rule})
				}
			}
		}
	}
	return could, nil
}

// fit leaves out what a method does not have.
func (q Question) fit(method string) Question {
	if q.Method = method; !withNames(method) {
		q.SANs, q.KeyType, q.ValidDays = cert.SANs{}, "", 0
	}
	if !withReason(method) {
		q.Reason = ""
	}
	if !hitsSeveral(method) {
		q.Certificates = 0
	}
	if !ofExisting(method) {
		q.Owner = ""
	}
	return q
}

// wish is what the service would look for a grant for. An error that is no *ConfigError is its refusal.
func (q Question) wish() (w wish, err error) {
	if granted := Methods(); !slices.Contains(granted, q.Method) {
		return w, wrongAt("method", "method %.60q: want one of %s", q.Method, strings.Join(granted, ", "))
	}
	purpose, err := cert.ParsePurpose(q.Purpose)
	if err != nil {
		return w, &ConfigError{"purpose", err}
	}
	switch {
	case q.Method == chainMethod && q.CN != "":
		return w, wrongAt("cn", "%s is about a purpose, not about a name", q.Method)
	case q.Method != chainMethod && q.CN == "":
		return w, wrongAt("cn", "cn is needed for %s", q.Method)
	case !withNames(q.Method) && q.SANs.Count() > 0:
		return w, wrongAt("sans", "for %s the purpose and the common name decide; leave further names out", q.Method)
	}
	if err := q.checkBounds(); err != nil {
		return w, err
	}
	if q.Method == chainMethod {
		return wish{method: q.Method, purpose: purpose}, nil
	}
	if withNames(q.Method) {
		return q.wishToMake()
	}
	n, err := name.Canonical(purpose, q.CN)
	w = namedWish(q.Method, purpose, n)
	w.existing, w.owner, w.hits = q.Owner != "", q.Owner, q.Certificates
	switch q.Method {
	case revokeMethod:
		w.reason = cmp.Or(q.Reason, cert.Unspecified.String())
	case retireMethod:
		w.reason = cmp.Or(q.Reason, cert.CessationOfOperation.String())
	}
	return w, err
}

// wishToMake is the wish for a certificate.
func (q Question) wishToMake() (wish, error) {
	r, err := issueParams{Purpose: q.Purpose, CN: q.CN, SANs: q.SANs}.request()
	w := wish{method: q.Method, purpose: r.Purpose, name: r.Name, sans: r.SANs, existing: q.Owner != "", owner: q.Owner, days: q.ValidDays}
	w.keyType = cmp.Or(cert.KeyType(q.KeyType), cert.SubjectKeyTypes()[0])
	return w, err
}

// checkBounds refuses what the method does not have, and what does not exist.
func (q Question) checkBounds() error {
	fit := q.fit(q.Method)
	for _, has := range []struct {
		key string
		not bool
	}{
		{"key_type", q.KeyType != fit.KeyType}, {"valid_days", q.ValidDays != fit.ValidDays}, {"reason", q.Reason != fit.Reason},
		{"owner", q.Owner != fit.Owner}, {"certificates", q.Certificates != fit.Certificates},
	} {
		if has.not {
			return wrongAt(has.key, "%s has no %s; leave it out", q.Method, has.key)
		}
	}
	if q.KeyType != "" {
		if _, err := cert.ParseKeyType(q.KeyType); err != nil {
			return &ConfigError{"key_type", err}
		}
	}
	if _, err := readReason(q.Reason, cert.Unspecified); err != nil {
		return wrongAt("reason", "%s", explain(err).reason)
	}
	if q.ValidDays < 0 {
		return wrongAt("valid_days", "valid_days %d: want 1 or more", q.ValidDays)
	}
	if q.Certificates < 0 {
		return wrongAt("certificates", "certificates %d: want 1 or more", q.Certificates)
	}
	return nil
}
