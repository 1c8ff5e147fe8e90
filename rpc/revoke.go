package rpc

import (
	"context"
	"fmt"
	"slices"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

const (
	revokeMethod  = ca.RevokeMethod
	holdMethod    = "ca.hold"
	releaseMethod = ca.ReleaseMethod
	retireMethod  = "ca.retire"
)

const revokeHelp = `Revoke certificates: one by its serial, or all of a name, those still being issued included. Answers
ok, a message, and details: code request_id log_index revoked[]{serial cn purpose}
crl[]{issuer number state commit}. When the answer is ok the revocation is durable; crl says whether
the list in git holds it already. Its one parameter is a struct with either serial or cn:`

type revokeParams struct {
	Serial    string `json:"serial,omitempty" help:"hexadecimal"`
	CN        string `json:"cn,omitempty" help:"common name"`
	Purpose   string `json:"purpose,omitempty" help:"with cn: user, server or caller; without it, all of them"`
	Reason    string `json:"reason,omitempty" help:"as RFC 5280 names it, for instance keyCompromise; without it, unspecified"`
	Max       int    `json:"max,omitempty" help:"how many certificates this may revoke; 0 for 10"`
	RequestID string `json:"request_id,omitempty" help:"chosen by you; makes a retry safe"`
	Plan      bool   `json:"plan,omitempty" help:"say what would happen and change nothing"`
}

func (p revokeParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan} }

const maxRevoke = 1000 // certificates in one call: the answer names each

func (s *Server) revoke(ctx context.Context, rq *request, p revokeParams) (answer, error) {
	reason, err := readReason(p.Reason, cert.Unspecified)
	if err != nil {
		return answer{}, err
	}
	return s.change(ctx, rq, verb{revokeMethod, "revoke", "revoked", s.authority.Revoke}, p.selector(), ca.RevokeRequest{Reason: reason, Max: p.Max})
}

func (p revokeParams) selector() selector {
	return selector{serial: p.Serial, cn: p.CN, purpose: p.Purpose}
}

func readReason(text string, otherwise cert.Reason) (cert.Reason, error) {
	if text == "" {
		return otherwise, nil
	}
	reason, err := cert.ParseReason(text)
	if err != nil {
		return 0, refuse("reason.unknown", "%v", err)
	}
	return reason, nil
}

const holdHelp = `Revoke certificates for as long as a doubt lasts, with the reason certificateHold. ca.release ends that,
ca.revoke makes it final. Answers as ca.revoke does, with the list held. Its one parameter is a struct with
either serial or cn:`

const releaseHelp = `Take certificates off hold: they are live again, and the next list leaves them out. No other revocation
ends. Answers as ca.revoke does, with the list released. Its one parameter is a struct with either serial
or cn:`

type holdParams struct {
	Serial    string `json:"serial,omitempty" help:"hexadecimal"`
	CN        string `json:"cn,omitempty" help:"common name"`
	Purpose   string `json:"purpose,omitempty" help:"with cn: user, server or caller; without it, all of them"`
	Max       int    `json:"max,omitempty" help:"how many certificates this may hit; 0 for 10"`
	RequestID string `json:"request_id,omitempty" help:"chosen by you; makes a retry safe"`
	Plan      bool   `json:"plan,omitempty" help:"say what would happen and change nothing"`
}

func (p holdParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan} }

func (p holdParams) selector() selector {
	return selector{serial: p.Serial, cn: p.CN, purpose: p.Purpose}
}

func (s *Server) hold(ctx context.Context, rq *request, p holdParams) (answer, error) {
	return s.change(ctx, rq, verb{holdMethod, "hold", "held", s.authority.Revoke}, p.selector(), ca.RevokeRequest{Reason: cert.CertificateHold, Max: p.Max})
}

func (s *Server) release(ctx context.Context, rq *request, p holdParams) (answer, error) {
	return s.change(ctx, rq, verb{releaseMethod, "release", "released", s.authority.Release}, p.selector(), ca.RevokeRequest{Max: p.Max})
}

const retireHelp = `Revoke everything that a subject has: all certificates of a name, of every purpose that you have a grant
for, those still being issued included, up to 1000. For a person who leaves, or a machine that is taken
down. Answers as ca.revoke does, with the list retired. Its one parameter is a struct:`

type retireParams struct {
	CN        string `json:"cn" help:"common name"`
	Reason    string `json:"reason,omitempty" help:"as RFC 5280 names it; without it, cessationOfOperation"`
	RequestID string `json:"request_id,omitempty" help:"chosen by you; makes a retry safe"`
	Plan      bool   `json:"plan,omitempty" help:"say what would happen and change nothing"`
}

func (p retireParams) about() about { return about{requestID: p.RequestID, cn: p.CN, plan: p.Plan} }

func (s *Server) retire(ctx context.Context, rq *request, p retireParams) (answer, error) {
	reason, err := readReason(p.Reason, cert.CessationOfOperation)
	if err != nil {
		return answer{}, err
	}
	return s.change(ctx, rq, verb{retireMethod, "retire", "retired", s.authority.Revoke}, selector{cn: p.CN}, ca.RevokeRequest{Reason: reason, Max: maxRevoke})
}

// verb is what one of the methods that revoke or release does, in words.
type verb struct {
	method string
	would  string // do, in a plan
	done   string // the code, and the name of the list of certificates
	do     func(context.Context, ca.Call, ca.RevokeRequest) (*ca.Revoked, error)
}

// change chooses what a call may hit, does it, and answers.
func (s *Server) change(ctx context.Context, rq *request, v verb, sel selector, r ca.RevokeRequest) (answer, error) {
	chosen, err := choose(rq.caller, v.method, sel)
	if err != nil {
		return answer{}, err
	}
	if r.Max < 0 || r.Max > maxRevoke {
		return answer{}, refuse("revoke.max", "max is %d; want 1 to %d", r.Max, maxRevoke)
	}
	r.Serial, r.Names = chosen.serial, chosen.names
	r.May = func(c store.Certificate) (string, error) { return rq.caller.allow(concerning(v.method, c)) }
	done, err := v.do(ctx, rq.asCall(""), r)
	if err != nil {
		return answer{}, err
	}
	return v.answer(rq.about.plan, done), nil
}

func (v verb) answer(plan bool, r *ca.Revoked) answer {
	hit, lists := []any{}, []any{}
	for _, c := range r.Revoked {
		hit = append(hit, map[string]any{"serial": string(c.Serial), "cn": c.CN, "purpose": string(c.Purpose)})
	}
	for _, l := range r.Lists {
		lists = append(lists, listState(l))
	}
	detail := map[string]any{"code": v.done, v.done: hit, "crl": lists}
	if plan {
		detail["code"] = "plan." + v.would
		return answer{true, "would " + v.would + " " + allOf(r.Revoked) + "; ask without plan to do it", detail}
	}
	detail["request_id"] = r.RequestID
	detail["log_index"] = int(r.LogIndex)
	return answer{true, v.whatIsDone(r.Revoked) + "; " + whereItIsSaid(r.Lists), detail}
}

func described(serial cert.Serial, p cert.Purpose, cn string) string {
	return fmt.Sprintf("certificate %s of %s %q", serial, p, cn)
}

func allOf(hit []ca.RevokedCertificate) string {
	if len(hit) == 1 {
		return described(hit[0].Serial, hit[0].Purpose, hit[0].CN)
	}
	return fmt.Sprintf("%d certificates", len(hit))
}

func (v verb) whatIsDone(hit []ca.RevokedCertificate) string {
	pending := 0
	for _, c := range hit {
		if c.Pending {
			pending++
		}
	}
	switch {
	case pending == 0:
		return allOf(hit) + " " + v.done
	case len(hit) == 1:
		return allOf(hit) + " will be " + v.done + " as soon as it is issued"
	}
	return fmt.Sprintf("%s %s, %d of them as soon as issued", allOf(hit), v.done, pending)
}

func whereItIsSaid(lists []ca.ListState) string {
	waiting := slices.ContainsFunc(lists, func(l ca.ListState) bool { return l.State != "published" })
	switch one := len(lists) == 1; {
	case one && waiting:
		return "the list that says so is not in git yet, ca.status tells when it is"
	case one:
		return "the list that says so is published"
	case waiting:
		return "the lists that say so are not all in git yet, ca.status tells when they are"
	}
	return "the lists that say so are published"
}

func listState(l ca.ListState) map[string]any {
	return map[string]any{"issuer": string(l.Issuer), "number": l.Number, "state": l.State, "commit": l.Commit}
}

// selector is how a call says which certificates it is about, as the caller wrote it.
type selector struct {
	serial, cn, purpose, requestID string
}

type selection struct {
	serial cert.Serial
	names  map[cert.Purpose]name.Name
}

// choose reads a selector and checks that the caller may ask for such a thing at all. A name without a
// purpose means every purpose that it can be a name of and that the caller has a grant for.
func choose(c *caller, method string, sel selector) (selection, error) {
	given := 0
	for _, s := range []string{sel.serial, sel.cn, sel.requestID} {
		if s != "" {
			given++
		}
	}
	if given != 1 || sel.purpose != "" && sel.cn == "" {
		return selection{}, refuse("selection", "say which certificates: by one of serial, cn, or, for ca.status, request_id; purpose goes with cn")
	}
	if sel.cn != "" {
		names, err := chooseNames(c, method, sel)
		return selection{names: names}, err
	}
	if _, err := c.allow(wish{method: method}); err != nil || sel.serial == "" {
		return selection{}, err
	}
	serial, err := cert.ParseSerial(sel.serial)
	if err != nil {
		return selection{}, refuse("serial.malformed", "%v", err)
	}
	return selection{serial: serial}, nil
}

func chooseNames(c *caller, method string, sel selector) (map[cert.Purpose]name.Name, error) {
	purposes := cert.Purposes()
	if sel.purpose != "" {
		p, err := readPurpose(sel.purpose)
		if err != nil {
			return nil, err
		}
		purposes = []cert.Purpose{p}
	}
	names := make(map[cert.Purpose]name.Name)
	var noName, noGrant error
	for _, p := range purposes {
		n, err := name.Canonical(p, sel.cn)
		if err != nil {
			noName = firstError(noName, err)
			continue
		}
		if _, err := c.allow(namedWish(method, p, n)); err != nil {
			noGrant = firstError(noGrant, err)
			continue
		}
		names[p] = n
	}
	if len(names) == 0 {
		return nil, firstError(noGrant, noName)
	}
	return names, nil
}

func firstError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// concerning is the wish to do something with a certificate that exists.
func concerning(method string, c store.Certificate) wish {
	return namedWish(method, c.Purpose, name.Name{Text: c.CN, Key: c.Key})
}

// namedWish is about a common name only. A certificate may have more names than its caller has now, and
// must be revocable all the same.
func namedWish(method string, p cert.Purpose, n name.Name) wish {
	return wish{method: method, purpose: p, name: n}
}
