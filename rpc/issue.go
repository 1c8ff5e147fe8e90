package rpc

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

const issueMethod = store.IssueMethod

const issueHelp = `Issue a certificate. Answers ok, a message, and details: code request_id log_index serial issuer
not_before not_after fingerprint certificate chain pkcs12 password directory. With csr there is no
pkcs12 and no password. A call with the same request_id and the same other members gets the same
answer again, however the first one ended. Its one parameter is a struct:`

type issueParams struct {
	Purpose   string    `json:"purpose" help:"user, server or caller"`
	CN        string    `json:"cn" help:"common name: a person, a host name, or a caller"`
	RequestID string    `json:"request_id,omitempty" help:"chosen by you; makes a retry safe"`
	SANs      cert.SANs `json:"sans,omitzero" help:"further names"`
	CSR       csr       `json:"csr,omitempty" help:"to bring your own key; without it the CA makes one"`
	KeyType   string    `json:"key_type,omitempty" help:"of the key that the CA makes: P-256, P-384, RSA-2048 or RSA-3072"`
	ValidDays int       `json:"valid_days,omitempty" help:"days, 0 for the purpose's default"`
	Plan      bool      `json:"plan,omitempty" help:"say what would happen and change nothing"`
}

func (p issueParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan} }

func (s *Server) issue(ctx context.Context, rq *request, p issueParams) (answer, error) {
	r, err := p.request()
	if err != nil {
		return answer{}, err
	}
	rule, err := rq.caller.allow(wish{issueMethod, r.Purpose, r.Name, r.SANs})
	if err != nil {
		return answer{}, err
	}
	if r.KeyType, err = readKeyType(p.KeyType, p.CSR); err != nil {
		return answer{}, err
	}
	issued, err := s.authority.Issue(ctx, rq.asCall(rule), r)
	if err != nil {
		return answer{}, err
	}
	return issueAnswer(p.Plan, issued), nil
}

// request brings the names to their canonical form.
func (p issueParams) request() (r ca.IssueRequest, err error) {
	if r.Purpose, err = readPurpose(p.Purpose); err != nil {
		return r, err
	}
	if r.Name, err = name.Canonical(r.Purpose, p.CN); err != nil {
		return r, err
	}
	if r.SANs, err = name.CanonicalSANs(r.Purpose, r.Name, p.SANs); err != nil {
		return r, err
	}
	r.CSR, r.ValidDays = p.CSR, p.ValidDays
	return r, nil
}

func readKeyType(text string, brought csr) (cert.KeyType, error) {
	if text == "" {
		return "", nil
	}
	if len(brought) > 0 {
		return "", refuse("key.type", "the CSR brings its key; leave key_type out")
	}
	kind, err := cert.ParseKeyType(text)
	if err != nil {
		return "", refuse("key.type", "%v", err)
	}
	return kind, nil
}

const renewMethod = "ca.renew"

const renewHelp = `Issue a certificate with the names of one that there is, with a new key. The old one stays as it is until
it ends or is revoked. Answers as ca.issue does. Its one parameter is a struct with either serial or cn:`

type renewParams struct {
	Serial    string `json:"serial,omitempty" help:"hexadecimal"`
	CN        string `json:"cn,omitempty" help:"common name; its newest certificate is meant"`
	Purpose   string `json:"purpose,omitempty" help:"with cn: user, server or caller"`
	RequestID string `json:"request_id,omitempty" help:"chosen by you; makes a retry safe"`
	CSR       csr    `json:"csr,omitempty" help:"to bring your own key; without it the CA makes one"`
	KeyType   string `json:"key_type,omitempty" help:"of the key that the CA makes: P-256, P-384, RSA-2048 or RSA-3072"`
	ValidDays int    `json:"valid_days,omitempty" help:"days, 0 for the purpose's default"`
	Plan      bool   `json:"plan,omitempty" help:"say what would happen and change nothing"`
}

func (p renewParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan} }

func (s *Server) renew(ctx context.Context, rq *request, p renewParams) (answer, error) {
	chosen, err := choose(rq.caller, renewMethod, selector{serial: p.Serial, cn: p.CN, purpose: p.Purpose})
	if err != nil {
		return answer{}, err
	}
	kind, err := readKeyType(p.KeyType, p.CSR)
	if err != nil {
		return answer{}, err
	}
	issued, err := s.authority.Renew(ctx, rq.asCall(""), ca.RenewRequest{
		Serial: chosen.serial, Names: chosen.names, CSR: p.CSR, KeyType: kind, ValidDays: p.ValidDays,
		// All of its names count, as if they were asked for now.
		May: func(c store.Certificate) (string, error) {
			w := concerning(renewMethod, c)
			w.sans = c.SANs
			return rq.caller.allow(w)
		},
	})
	if err != nil {
		return answer{}, err
	}
	return issueAnswer(p.Plan, issued), nil
}

func readPurpose(text string) (cert.Purpose, error) {
	p, err := cert.ParsePurpose(text)
	if err != nil {
		return "", refuse("purpose.unknown", "%v", err)
	}
	return p, nil
}

func issueAnswer(plan bool, i *ca.Issued) answer {
	detail := map[string]any{
		"code": i.Code, "issuer": string(i.Issuer),
		"not_before": i.NotBefore, "not_after": i.NotAfter, "directory": publication(i.Directory),
	}
	if plan {
		return answer{true, fmt.Sprintf("would issue a certificate for the %s %q by %s, valid until %s; ask without plan to get it",
			i.Purpose, i.CN, i.Issuer, i.NotAfter.Format("2006-01-02")), detail}
	}
	detail["request_id"] = i.RequestID
	detail["log_index"] = int(i.LogIndex)
	detail["serial"] = string(i.Serial)
	detail["fingerprint"] = string(i.Fingerprint)
	detail["certificate"] = asPEM(i.Certificate)
	detail["chain"] = asPEM(i.Chain...)
	msg := fmt.Sprintf("certificate %s for the %s %q; ", i.Serial, i.Purpose, i.CN)
	if len(i.PKCS12) > 0 {
		detail["pkcs12"] = i.PKCS12
		detail["password"] = i.Password
	}
	switch {
	case !i.RevokedAt.IsZero():
		detail["revoked_at"] = i.RevokedAt
		msg += "it was revoked at " + i.RevokedAt.UTC().Format("2006-01-02T15:04:05Z") + ": do not hand it over; issue another with a new request_id"
	case len(i.PKCS12) > 0:
		msg += "hand over the PKCS#12, and its password by another way"
	case i.Code == "issued.secrets_gone":
		msg += "its key was handed over before and is not kept; if it is lost, revoke this certificate and issue another"
	default:
		msg += "install it with its chain"
	}
	if i.Directory.State == "pending" {
		msg += "; the directory does not show it yet, ca.status tells when it does"
	}
	return answer{true, msg, detail}
}

func publication(p ca.Publication) map[string]any {
	return map[string]any{"state": p.State, "entry": p.Entry}
}

func asPEM(ders ...[]byte) string {
	var b bytes.Buffer
	for _, der := range ders {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}
