package site

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/store"
)

// PolicyReplay is what other grants would have made of the calls on the log.
type PolicyReplay struct {
	Since     time.Time    `json:"since"`
	Decided   int          `json:"decisions"`
	Undecided int64        `json:"undecided"` // calls for which that decides which is not on the log
	Flips     []PolicyFlip `json:"flips"`
	Moved     []PolicyFlip `json:"moved,omitempty"` // that another rule would allow
}

// PolicyFlip is a call that would be decided otherwise.
type PolicyFlip struct {
	Leaf     int64        `json:"leaf"`
	Time     time.Time    `json:"time"`
	Asked    string       `json:"asked"`
	Rule     string       `json:"rule,omitempty"`    // that allowed it, as the log says
	Allowed  bool         `json:"allowed"`           // what it was
	Decision rpc.Decision `json:"decision"`          // what it would be
	Unknown  []string     `json:"unknown,omitempty"` // what the log does not say of it
}

// ReplayPolicy decides anew, by the grants in the file against, what the log of the installation in dir says that
// callers were allowed or denied since a time. It reads the store, whether or not the daemon runs.
func ReplayPolicy(ctx context.Context, dir, against string, since time.Time) (report PolicyReplay, err error) {
	config, err := LoadConfig(filepath.Join(dir, ConfigName))
	if err != nil {
		return report, err
	}
	now, err := config.policy()
	if err != nil {
		return report, err
	}
	next, err := LoadPolicy(against)
	if err != nil {
		return report, err
	}
	log, err := store.OpenReader(ctx, config.StorePath(), time.Now)
	if err != nil {
		return report, err
	}
	r := &replay{now: now, next: next, known: make(map[cert.Serial]subject)}
	r.report = PolicyReplay{Since: since, Flips: []PolicyFlip{}, Moved: []PolicyFlip{}}
	size, _ := log.Head()
	err = eachLeaf(ctx, log, 0, size, nil, func(index int64, leaf audit.Leaf) error {
		r.take(index, leaf)
		return nil
	})
	return r.report, errors.Join(err, log.Close())
}

// replay goes through the log from its beginning, because calls are about certificates of any age.
type replay struct {
	now, next *rpc.Policy
	known     map[cert.Serial]subject
	report    PolicyReplay
}

// subject is what an intent says of a certificate.
type subject struct {
	purpose cert.Purpose
	cn      string
	caller  string
}

func (r *replay) take(index int64, leaf audit.Leaf) {
	if e, ok := leaf.Event.(*audit.IssueIntent); ok {
		r.known[e.Serial] = subject{e.Purpose, e.CN, leaf.Actor.Name}
	}
	if leaf.Time.Before(r.report.Since) || leaf.Actor.Kind != audit.ByCaller {
		return
	}
	f := PolicyFlip{Leaf: index, Time: leaf.Time, Allowed: true}
	caller := leaf.Actor.Name
	switch e := leaf.Event.(type) {
	case *audit.IssueIntent:
		f.Rule = e.Rule
		r.allowed(f, r.issued(caller, e))
	case *audit.RevokeDone:
		f.Rule = e.Rule
		serials := slices.Clone(e.Pending)
		for _, one := range e.Revoked {
			serials = append(serials, one.Serial)
		}
		q := rpc.Question{Caller: caller, Method: e.Method}
		if q.Method != "ca.hold" {
			q.Reason = e.Reason.String()
		}
		r.allowed(f, r.each(q, serials))
	case *audit.ReleaseDone:
		f.Rule = e.Rule
		var serials []cert.Serial
		for _, one := range e.Released {
			serials = append(serials, one.Serial)
		}
		r.allowed(f, r.each(rpc.Question{Caller: caller, Method: "ca.release"}, serials))
	case *audit.RequestPlanned:
		r.planned(f, rpc.Question{Caller: caller, Method: e.Method})
	case *audit.RequestRefused:
		r.refused(f, caller, e)
	}
}

func (r *replay) issued(caller string, e *audit.IssueIntent) []rpc.Question {
	q := rpc.Question{
		Caller: caller, Method: "ca.issue", Purpose: string(e.Purpose), CN: e.CN, SANs: e.SANs,
		KeyType: string(e.KeyType), ValidDays: e.ValidDays,
	}
	if e.Renews != "" {
		q.Method, q.Owner = "ca.renew", r.known[e.Renews].caller
	}
	return []rpc.Question{q}
}

// each asks the same about several certificates.
func (r *replay) each(q rpc.Question, serials []cert.Serial) (all []rpc.Question) {
	q.Certificates = len(serials)
	for _, serial := range serials {
		s := r.known[serial]
		q.Purpose, q.CN, q.Owner = string(s.purpose), s.cn, s.caller
		all = append(all, q)
	}
	return all
}

// allowed decides anew what was allowed: every question has to be.
func (r *replay) allowed(f PolicyFlip, questions []rpc.Question) {
	r.report.Decided++
	var rules []string
	for _, q := range questions {
		f.Asked, f.Decision = asked(q), r.next.Recall(q)
		if !f.Decision.Allowed {
			r.report.Flips = append(r.report.Flips, f)
			return
		}
		if !slices.Contains(rules, f.Decision.Rule) {
			rules = append(rules, f.Decision.Rule)
		}
	}
	if strings.Join(rules, " ") != f.Rule {
		r.report.Moved = append(r.report.Moved, f)
	}
}

// planned decides a plan, of which the log says the method alone.
func (r *replay) planned(f PolicyFlip, q rpc.Question) {
	if f.Asked, f.Decision = asked(q), r.next.Recall(q); f.Decision.Allowed {
		r.report.Undecided++
		return
	}
	r.report.Decided++
	f.Unknown = unrecorded(q)
	r.report.Flips = append(r.report.Flips, f)
}

// refused decides anew what was denied. What the new grants allow as far as it is recorded, and those of today as
// well, was denied for what is not recorded, of which nobody can tell.
func (r *replay) refused(f PolicyFlip, caller string, e *audit.RequestRefused) {
	if e.Code != "policy.denied" {
		return
	}
	if e.Count > 0 {
		r.report.Undecided += e.Count
		return
	}
	q := rpc.Question{Caller: caller, Method: e.Method, Purpose: e.Purpose}
	if !strings.Contains(e.CN, `\`) && !strings.HasSuffix(e.CN, "...") { // otherwise it is quoted or cut
		q.CN = e.CN
	}
	f.Allowed, f.Asked, f.Unknown = false, asked(q), unrecorded(q)
	f.Decision = couldBe(r.next, q)
	switch {
	case !f.Decision.Allowed:
		r.report.Decided++
	case couldBe(r.now, q).Allowed:
		r.report.Undecided++
	default:
		r.report.Decided++
		r.report.Flips = append(r.report.Flips, f)
	}
}

// couldBe is Recall for a name whose purpose may be open.
func couldBe(p *rpc.Policy, q rpc.Question) rpc.Decision {
	if q.Purpose != "" || q.CN == "" {
		return p.Recall(q)
	}
	d := rpc.Decision{}
	for _, purpose := range cert.Purposes() {
		if _, err := name.Canonical(purpose, q.CN); err != nil {
			continue
		}
		q.Purpose = string(purpose)
		if d = p.Recall(q); d.Allowed {
			return d
		}
	}
	return d
}

// unrecorded is what the log does not say of a call that was planned or refused.
func unrecorded(q rpc.Question) (all []string) {
	if q.Purpose == "" {
		all = append(all, "purpose")
	}
	if q.CN == "" {
		all = append(all, "name")
	}
	switch q.Method {
	case "ca.issue":
		return append(all, "further names", "key type", "days")
	case "ca.renew":
		return append(all, "owner", "further names", "key type", "days")
	case "ca.revoke", "ca.retire":
		return append(all, "owner", "reason", "certificates")
	case "ca.hold", "ca.release":
		return append(all, "owner", "certificates")
	case "ca.chain":
		return slices.DeleteFunc(all, func(s string) bool { return s == "name" })
	}
	return append(all, "owner")
}
