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

const revokeMethod = ca.RevokeMethod

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
	chosen, err := choose(rq.caller, revokeMethod, selector{serial: p.Serial, cn: p.CN, purpose: p.Purpose})
	if err != nil {
		return answer{}, err
	}
	reason := cert.Unspecified
	if p.Reason != "" {
		if reason, err = cert.ParseReason(p.Reason); err != nil {
			return answer{}, refuse("reason.unknown", "%v", err)
		}
	}
	if p.Max < 0 || p.Max > maxRevoke {
		return answer{}, refuse("revoke.max", "max is %d; want 1 to %d", p.Max, maxRevoke)
	}
	done, err := s.authority.Revoke(ctx, rq.asCall(""), ca.RevokeRequest{
		Serial: chosen.serial, Names: chosen.names, Reason: reason, Max: p.Max,
		May: func(c store.Certificate) (string, error) { return rq.caller.allow(concerning(revokeMethod, c)) },
	})
	if err != nil {
		return answer{}, err
	}
	return p.answer(done), nil
}

func (p revokeParams) answer(r *ca.Revoked) answer {
	revoked, lists := []any{}, []any{}
	for _, c := range r.Revoked {
		revoked = append(revoked, map[string]any{"serial": string(c.Serial), "cn": c.CN, "purpose": string(c.Purpose)})
	}
	for _, l := range r.Lists {
		lists = append(lists, listState(l))
	}
	detail := map[string]any{"code": r.Code, "revoked": revoked, "crl": lists}
	if p.Plan {
		return answer{true, "would revoke " + allOf(r.Revoked) + "; ask without plan to do it", detail}
	}
	detail["request_id"] = r.RequestID
	detail["log_index"] = int(r.LogIndex)
	return answer{true, whatIsRevoked(r.Revoked) + "; " + whereItIsSaid(r.Lists), detail}
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

func whatIsRevoked(hit []ca.RevokedCertificate) string {
	pending := 0
	for _, c := range hit {
		if c.Pending {
			pending++
		}
	}
	switch {
	case pending == 0:
		return allOf(hit) + " revoked"
	case len(hit) == 1:
		return allOf(hit) + " will be revoked as soon as it is issued"
	}
	return fmt.Sprintf("%s revoked, %d of them as soon as issued", allOf(hit), pending)
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
