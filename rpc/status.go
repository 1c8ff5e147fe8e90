package rpc

import (
	"context"
	"fmt"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

const (
	statusMethod = "ca.status"
	chainMethod  = "ca.chain"
)

const statusHelp = `Tell what the books say of certificates: by serial, by name, or by the request_id of a call of yours.
Answers ok, a message, and details: code request_id certificates[]{serial cn purpose issuer state
not_before not_after request_id directory{state entry}}, and for a revoked one revoked_at, reason and
crl{issuer number state commit}. Only what a grant of yours covers is told. Its one parameter is a
struct with one of serial, cn and request_id:`

type statusParams struct {
	Serial    string `json:"serial,omitempty" help:"hexadecimal"`
	CN        string `json:"cn,omitempty" help:"common name"`
	RequestID string `json:"request_id,omitempty" help:"of a call of yours"`
}

func (p statusParams) about() about { return about{requestID: p.RequestID, cn: p.CN} }

const maxStatus = 100 // certificates in an answer

func (s *Server) status(ctx context.Context, rq *request, p statusParams) (answer, error) {
	chosen, err := choose(rq.caller, statusMethod, selector{serial: p.Serial, cn: p.CN, requestID: p.RequestID})
	if err != nil {
		return answer{}, err
	}
	matching := 0
	all, err := s.authority.Status(ctx, ca.StatusRequest{
		Serial: chosen.serial, Names: chosen.names, Caller: rq.caller.name, RequestID: p.RequestID, Most: maxStatus,
		See: func(c store.Certificate) bool {
			_, err := rq.caller.allow(concerning(statusMethod, c))
			if err == nil {
				matching++
			}
			return err == nil
		},
	})
	if err != nil {
		return answer{}, err
	}
	msg := fmt.Sprintf("%d certificates", matching)
	switch {
	case matching == 0:
		msg = "no certificate that you may see"
	case matching == 1:
		msg = fmt.Sprintf("%s is %s", described(all[0].Serial, all[0].Purpose, all[0].CN), all[0].State)
	case matching > maxStatus:
		msg = fmt.Sprintf("the newest %d of %d certificates", maxStatus, matching)
	}
	certificates := []any{}
	for _, c := range all {
		certificates = append(certificates, statusOf(c))
	}
	return answer{true, msg, map[string]any{"code": "status", "certificates": certificates}}, nil
}

func statusOf(c ca.CertificateStatus) map[string]any {
	m := map[string]any{
		"serial": string(c.Serial), "cn": c.CN, "purpose": string(c.Purpose), "issuer": string(c.Issuer), "state": c.State,
		"not_before": c.NotBefore, "not_after": c.NotAfter, "request_id": c.RequestID, "directory": publication(c.Directory),
	}
	if c.List != nil {
		m["revoked_at"] = c.RevokedAt
		m["reason"] = c.Reason.String()
		m["crl"] = listState(*c.List)
	}
	return m
}

const chainHelp = `Give the CA certificates that a purpose's certificates chain to, the issuing CA first and the root
last, as PEM. Answers ok, a message, and details: code request_id chains[]{purpose issuer chain}. Its one
parameter is a struct:`

type chainParams struct {
	Purpose string `json:"purpose,omitempty" help:"user, server or caller; without it, all that you have a grant for"`
}

func (p chainParams) about() about { return about{purpose: p.Purpose} }

func (s *Server) chain(_ context.Context, rq *request, p chainParams) (answer, error) {
	purposes := cert.Purposes()
	if p.Purpose != "" {
		one, err := readPurpose(p.Purpose)
		if err != nil {
			return answer{}, err
		}
		purposes = []cert.Purpose{one}
	}
	chains := []any{}
	var denied error
	for _, one := range purposes {
		if _, err := rq.caller.allow(wish{method: chainMethod, purpose: one}); err != nil {
			denied = firstError(denied, err)
			continue
		}
		c, err := s.authority.Chain(one)
		if err != nil {
			return answer{}, err
		}
		chains = append(chains, map[string]any{"purpose": string(one), "issuer": string(c.Issuer), "chain": asPEM(c.Certificates...)})
	}
	if len(chains) == 0 {
		return answer{}, denied
	}
	msg := "1 chain; trust its last certificate"
	if len(chains) > 1 {
		msg = fmt.Sprintf("%d chains; trust the last certificate of each", len(chains))
	}
	return answer{true, msg, map[string]any{"code": "chain", "chains": chains}}, nil
}
