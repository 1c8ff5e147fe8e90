package rpc

import (
	"context"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

const (
	statusMethod = "ca.status"
	chainMethod  = "ca.chain"
)

const statusHelp = `Tell what the books say of certificates: by serial, by name, or by the request_id of an issue or renewal of yours.
Give one of them. Only what a grant of yours covers is told; at most the newest 100.`

type statusParams struct {
	Serial    string `json:"serial,omitempty" help:"of one certificate, in hex" flag:"serial" arg:"HEX"`
	CN        string `json:"cn,omitempty" help:"common name: all certificates of it" arg:"NAME"`
	RequestID string `json:"request_id,omitempty" help:"of an issue or renewal of your own; how a revocation ended tells the same call with the same request_id" flag:"request-id" arg:"ID"`
}

// certificateDetail is a certificate as the books have it.
type certificateDetail struct {
	Serial    cert.Serial     `json:"serial" help:"lower-case hex"`
	CN        string          `json:"cn"`
	Purpose   cert.Purpose    `json:"purpose"`
	Issuer    cert.Issuer     `json:"issuer"`
	State     string          `json:"state" values:"open live expired revoked abandoned"`
	NotBefore time.Time       `json:"not_before"`
	NotAfter  time.Time       `json:"not_after"`
	RequestID string          `json:"request_id" help:"of the call that asked for it"`
	Directory directoryDetail `json:"directory"`
	RevokedAt time.Time       `json:"revoked_at,omitzero" help:"only of a revoked one"`
	Reason    string          `json:"reason,omitempty" help:"only of a revoked one: as RFC 5280 names it"`
	CRL       *listDetail     `json:"crl,omitempty" help:"only of a revoked one: the list that says so"`
}

type statusDetail struct {
	head
	Certificates []certificateDetail `json:"certificates" help:"in the order in which they were announced"`
}

func (p statusParams) about() about { return about{requestID: p.RequestID, cn: p.CN} }

const maxStatus = 100 // certificates in an answer

func (s *Server) status(ctx context.Context, rq *request, p statusParams) (msg string, d statusDetail, err error) {
	chosen, err := choose(rq.caller, statusMethod, selector{serial: p.Serial, cn: p.CN, requestID: p.RequestID})
	if err != nil {
		return "", d, err
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
		return "", d, err
	}
	msg = fmt.Sprintf("%d certificates", matching)
	switch {
	case matching == 0 && p.RequestID != "":
		msg = "no certificate that you may see is of an issue or renewal of yours with this request_id; to learn how another call ended, make it again with the same request_id"
	case matching == 0:
		msg = "no certificate that you may see"
	case matching == 1:
		msg = fmt.Sprintf("%s is %s", described(all[0].Serial, all[0].Purpose, all[0].CN), all[0].State)
	case matching > maxStatus:
		msg = fmt.Sprintf("the newest %d certificates; ca.find with cn tells all", maxStatus)
	}
	d.head = head{Code: "status"}
	for _, c := range all {
		d.Certificates = append(d.Certificates, statusOf(c))
	}
	return msg, d, nil
}

func statusOf(c ca.CertificateStatus) certificateDetail {
	d := certificateDetail{
		Serial: c.Serial, CN: c.CN, Purpose: c.Purpose, Issuer: c.Issuer, State: c.State,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, RequestID: c.RequestID, Directory: directoryDetail(c.Directory),
	}
	if c.List != nil {
		list := listDetail(*c.List)
		d.RevokedAt, d.Reason, d.CRL = c.RevokedAt, c.Reason.String(), &list
	}
	return d
}

const chainHelp = `Give the CA certificates that the certificates of a purpose chain to.`

type chainParams struct {
	Purpose string `json:"purpose,omitempty" help:"only for it, all that you have a grant for if it is not there" values:"purposes" flag:"purpose" arg:"PURPOSE"`
}

type chainDetail struct {
	head
	Chains []purposeChain `json:"chains"`
}

type purposeChain struct {
	Purpose cert.Purpose `json:"purpose"`
	Issuer  cert.Issuer  `json:"issuer"`
	Chain   string       `json:"chain" help:"PEM: the issuing CA first, the root last"`
}

func (p chainParams) about() about { return about{purpose: p.Purpose} }

func (s *Server) chain(_ context.Context, rq *request, p chainParams) (msg string, d chainDetail, err error) {
	purposes := cert.Purposes()
	if p.Purpose != "" {
		one, err := readPurpose(p.Purpose)
		if err != nil {
			return "", d, err
		}
		purposes = []cert.Purpose{one}
	}
	var denied error
	for _, one := range purposes {
		if _, err := rq.caller.allow(wish{method: chainMethod, purpose: one}); err != nil {
			denied = firstError(denied, err)
			continue
		}
		c, err := s.authority.Chain(one)
		if err != nil {
			return "", d, err
		}
		d.Chains = append(d.Chains, purposeChain{one, c.Issuer, asPEM(c.Certificates...)})
	}
	d.head = head{Code: "chain"}
	switch len(d.Chains) {
	case 0:
		return "", d, denied
	case 1:
		return "1 chain; trust its last certificate", d, nil
	}
	return fmt.Sprintf("%d chains; trust the last certificate of each", len(d.Chains)), d, nil
}
