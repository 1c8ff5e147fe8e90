package rpc

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/store"
)

const issueMethod = store.IssueMethod

const issueHelp = `Issue a certificate. A call with the same request_id and the same other members gets the same answer again,
however the first one ended: the same certificate, PKCS#12 and password.`

type issueParams struct {
	Purpose string    `json:"purpose" help:"what it is for" values:"purposes" flag:"purpose" arg:"PURPOSE"`
	CN      string    `json:"cn" help:"common name: a person, a host name, or a caller's name" arg:"NAME"`
	SANs    cert.SANs `json:"sans,omitzero" help:"further names: dns and ip for servers, email for users; uri is known, and no purpose has any"`
	keyParams
	changeParams
}

// keyParams are what is said of the key and the validity of a certificate to be.
type keyParams struct {
	CSR       csr    `json:"csr,omitempty" help:"PKCS#10, to bring a key of your own; it gives its public key and nothing else. Without it the CA makes the key" flag:"csr" arg:"FILE"`
	KeyType   string `json:"key_type,omitempty" help:"of the key that the CA makes; P-256 if none is named" values:"key types" flag:"key-type" arg:"TYPE"`
	ValidDays int    `json:"valid_days,omitempty" help:"validity in days; 0 is the purpose's default, or the max_days of the grant if that is less" flag:"days" arg:"N"`
}

// changeParams are what every method has that changes something.
type changeParams struct {
	RequestID string `json:"request_id,omitempty" help:"chosen by you, 1 to 128 of A-Z a-z 0-9 . _ : -; makes a retry safe" flag:"request-id" arg:"ID"`
	Plan      bool   `json:"plan,omitempty" help:"say what would happen and change nothing" flag:"plan"`
	Planned   *int   `json:"planned,omitempty" help:"log_index of a plan for this very call: refuse if something else would happen now" flag:"planned" arg:"INDEX"`
}

// issueDetail is the detail of an issue or a renewal. A plan has none of what only a certificate has, but for the serial
// number of one that its request id has got.
type issueDetail struct {
	head
	Serial      cert.Serial      `json:"serial,omitempty" help:"serial number, lower-case hex"`
	Issuer      cert.Issuer      `json:"issuer" help:"which of the issuing CAs"`
	NotBefore   time.Time        `json:"not_before" help:"valid from then on"`
	NotAfter    time.Time        `json:"not_after" help:"the last second at which it is valid"`
	Fingerprint cert.Fingerprint `json:"fingerprint,omitempty" help:"SHA-256 of the DER"`
	Certificate string           `json:"certificate,omitempty" help:"PEM"`
	Chain       string           `json:"chain,omitempty" help:"PEM: the issuing CA first, the root last"`
	PKCS12      []byte           `json:"pkcs12,omitempty" help:"if the CA made the key: key, certificate and chain, under AES-256 and HMAC-SHA-256"`
	Password    string           `json:"password,omitempty" help:"of the PKCS#12"`
	Directory   directoryDetail  `json:"directory" help:"where it stands with the directory"`
	RevokedAt   time.Time        `json:"revoked_at,omitzero" help:"only if it has been revoked since it was asked for: do not hand it over"`
	Plan        *issuePlan       `json:"plan,omitempty" help:"of a plan only; no list changes"`
}

type directoryDetail struct {
	State string `json:"state" help:"removed after a revocation, none if it is not for the directory" values:"pending published removed none"`
	Entry string `json:"entry" help:"which entry it belongs to, as the directory identifies it; empty if that is not known"`
}

// issuePlan is what a plan tells of a certificate that would be issued.
type issuePlan struct {
	Rule       string          `json:"rule" help:"the grant that allows it"`
	Purpose    cert.Purpose    `json:"purpose" help:"its profile, see docs/ISSUANCE.md"`
	CN         string          `json:"cn" help:"its common name, in canonical form"`
	SANs       cert.SANs       `json:"sans" help:"its further names, in canonical form"`
	KeyType    cert.KeyType    `json:"key_type" help:"of its key"`
	KeyMadeBy  string          `json:"key_made_by" values:"ca caller"`
	Renews     cert.Serial     `json:"renews,omitempty" help:"serial number of the certificate whose names these are"`
	ValidHours int             `json:"valid_hours" help:"how long it would be valid"`
	Extensions []planExtension `json:"extensions" help:"in their order"`
	Attribute  string          `json:"attribute,omitempty" help:"what it would be added to in the directory's entry"`
}

type planExtension struct {
	OID      string `json:"oid"`
	Critical bool   `json:"critical"`
	Value    string `json:"value" help:"DER in hex; empty for the subject's key identifier"`
}

func (p issueParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan, p.Planned} }

func (s *Server) issue(ctx context.Context, rq *request, p issueParams) (msg string, d issueDetail, err error) {
	r, err := p.request()
	if err != nil {
		return "", d, err
	}
	w := wish{method: issueMethod, purpose: r.Purpose, name: r.Name, sans: r.SANs, days: p.ValidDays}
	if _, err := rq.caller.allow(w); err != nil {
		return "", d, err // whatever its key is
	}
	if w.keyType, r.KeyType, err = readKeyType(p.KeyType, p.CSR); err != nil {
		return "", d, err
	}
	g, err := rq.caller.allow(w)
	if err != nil {
		return "", d, err
	}
	r.MaxDays = g.conf.MaxDays
	issued, err := s.authority.Issue(ctx, rq.asCall(g.rule), r)
	if err != nil {
		return "", d, err
	}
	rq.plan = issued.Plan
	msg, d = issueAnswer(issued)
	return msg, d, nil
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

// readKeyType gives the kind of key that a certificate will have, and which one the CA is to make.
func readKeyType(text string, brought csr) (will, asked cert.KeyType, err error) {
	if len(brought) > 0 {
		if text != "" {
			return "", "", refuse("key.type", "the CSR brings its key; leave key_type out")
		}
		// Its signature is checked once, where the certificate is drafted.
		request, err := x509.ParseCertificateRequest(brought)
		if err == nil {
			will, err = cert.KeyTypeOf(request.PublicKey)
		}
		if err != nil {
			_, err = profile.CheckCSR(brought)
		}
		return will, "", err
	}
	if text == "" {
		return cert.SubjectKeyTypes()[0], "", nil
	}
	if asked, err = cert.ParseKeyType(text); err != nil {
		return "", "", refuse("key.type", "%v", err)
	}
	return asked, asked, nil
}

const renewMethod = "ca.renew"

const renewHelp = `Issue a certificate with the names of one that there is, with a new key. The old one stays as it is until it ends
or is revoked. Give serial or cn, one of them. The grant has to allow ca.renew for all of its names. What is revoked,
on hold or expired is not renewed. The answer is that of ca.issue.`

type renewParams struct {
	Serial  string `json:"serial,omitempty" help:"of the certificate, in hex" flag:"serial" arg:"HEX"`
	CN      string `json:"cn,omitempty" help:"common name; its newest certificate is meant" arg:"NAME"`
	Purpose string `json:"purpose,omitempty" help:"what the certificate is for, with cn; needed where the name has them for several" values:"purposes" flag:"purpose" arg:"PURPOSE"`
	keyParams
	changeParams
}

func (p renewParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan, p.Planned} }

func (s *Server) renew(ctx context.Context, rq *request, p renewParams) (msg string, d issueDetail, err error) {
	chosen, err := choose(rq.caller, renewMethod, selector{serial: p.Serial, cn: p.CN, purpose: p.Purpose})
	if err != nil {
		return "", d, err
	}
	kind, asked, err := readKeyType(p.KeyType, p.CSR)
	if err != nil {
		return "", d, err
	}
	issued, err := s.authority.Renew(ctx, rq.asCall(""), ca.RenewRequest{
		Serial: chosen.serial, Names: chosen.names, CSR: p.CSR, KeyType: asked, ValidDays: p.ValidDays,
		// All of its names count, as if they were asked for now.
		May: func(c store.Certificate) (string, int, error) {
			w := concerning(renewMethod, c)
			w.sans, w.keyType, w.days = c.SANs, kind, p.ValidDays
			g, err := rq.caller.allow(w)
			if err != nil {
				return "", 0, err
			}
			return g.rule, g.conf.MaxDays, nil
		},
	})
	if err != nil {
		return "", d, err
	}
	rq.plan = issued.Plan
	msg, d = issueAnswer(issued)
	return msg, d, nil
}

func readPurpose(text string) (cert.Purpose, error) {
	p, err := cert.ParsePurpose(text)
	if err != nil {
		return "", refuse("purpose.unknown", "%v", err)
	}
	return p, nil
}

func issueAnswer(i *ca.Issued) (msg string, d issueDetail) {
	d = issueDetail{
		head: head{Code: i.Code}, Issuer: i.Issuer, NotBefore: i.NotBefore, NotAfter: i.NotAfter, Directory: directoryDetail(i.Directory),
	}
	if i.Plan != nil {
		d.Plan = planOfIssue(i)
		if d.Serial, d.RevokedAt = i.Serial, i.RevokedAt; d.Serial != "" {
			return fmt.Sprintf("certificate %s for the %s %q was issued for this request_id; ask without plan to get its answer again, or with another request_id for another certificate",
				i.Serial, i.Purpose, i.CN), d
		}
		return fmt.Sprintf("would issue a certificate for the %s %q by %s, valid until %s, as %s allows; ask without plan to get it",
			i.Purpose, i.CN, i.Issuer, i.NotAfter.Format("2006-01-02"), i.Plan.Rule), d
	}
	d.RequestID, d.LogIndex = i.RequestID, i.LogIndex
	d.Serial, d.Fingerprint = i.Serial, i.Fingerprint
	d.Certificate, d.Chain = asPEM(i.Certificate), asPEM(i.Chain...)
	d.PKCS12, d.Password, d.RevokedAt = i.PKCS12, i.Password, i.RevokedAt
	msg = fmt.Sprintf("certificate %s for the %s %q; ", i.Serial, i.Purpose, i.CN)
	switch {
	case !i.RevokedAt.IsZero():
		msg += "it was revoked at " + i.RevokedAt.UTC().Format("2006-01-02T15:04:05Z") + ": do not hand it over; issue another with a new request_id"
	case len(i.PKCS12) > 0:
		msg += "hand over the PKCS#12, and its password by another way"
	case i.Code == "issued.secrets_gone":
		msg += "its key is not kept any more; if the first answer was lost, revoke this certificate and issue another"
	default:
		msg += "install it with its chain"
	}
	if i.Directory.State == "pending" && i.RevokedAt.IsZero() {
		msg += "; the directory does not show it yet, ca.status tells when it does"
	}
	return msg, d
}

func planOfIssue(i *ca.Issued) *issuePlan {
	c := i.Plan.Certificate
	p := &issuePlan{
		Rule: i.Plan.Rule, Purpose: c.Purpose, CN: c.CN, SANs: c.SANs, KeyType: c.KeyType, KeyMadeBy: c.KeyMadeBy, Renews: c.Renews,
		ValidHours: int(c.Valid / time.Hour),
	}
	for _, e := range c.Extensions {
		p.Extensions = append(p.Extensions, planExtension(e))
	}
	if i.Directory.State != "none" {
		p.Attribute = cert.DirectoryAttribute
	}
	return p
}

func asPEM(ders ...[]byte) string {
	var b bytes.Buffer
	for _, der := range ders {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}
