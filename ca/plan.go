package ca

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/store"
)

// Plan is what a call would do, as things stand.
type Plan struct {
	Rule        string              `json:"rule"` // the grant that allows it; of several certificates that of each is in Changes
	Certificate *PlannedCertificate `json:"certificate,omitempty"`
	Again       cert.Serial         `json:"again,omitempty"` // the certificate that the request id has got, and would get again
	Entry       string              `json:"entry,omitempty"` // that would hold the certificate
	Changes     []PlannedChange     `json:"changes,omitempty"`
}

// PlannedCertificate is a certificate as it would be, apart from its serial number, its key and the very
// times.
type PlannedCertificate struct {
	Issuer     cert.Issuer   `json:"issuer"`
	Purpose    cert.Purpose  `json:"purpose"`
	CN         string        `json:"cn"`
	SANs       cert.SANs     `json:"sans"`
	KeyType    cert.KeyType  `json:"key_type"`
	KeyMadeBy  string        `json:"key_made_by"` // "ca" or "caller"
	Renews     cert.Serial   `json:"renews,omitempty"`
	Valid      time.Duration `json:"valid"` // both ends included
	Extensions []Extension   `json:"extensions"`
}

// Extension is one of a certificate (RFC 5280 section 4.2). What depends on the subject's key has no Value.
type Extension struct {
	OID      string `json:"oid"`
	Critical bool   `json:"critical"`
	Value    string `json:"value"` // hex of the DER
}

// PlannedChange is what would become of a certificate that there is.
type PlannedChange struct {
	Serial    cert.Serial `json:"serial"`
	Rule      string      `json:"rule"`
	State     string      `json:"state"`     // that it has now
	Reason    string      `json:"reason"`    // that it would have; empty for a release
	List      string      `json:"list"`      // what its issuer's list would do: "enter", "change" or "remove" it
	Directory string      `json:"directory"` // what would happen to it in the entry: "add", "remove" or "none"
	Entry     string      `json:"entry,omitempty"`
}

// Decision is a SHA-256, lower-case hex, that two plans for the same call share only if they would do the
// same.
func (p *Plan) Decision() (string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encoding a plan: %w", err)
	}
	return cert.SHA256(text), nil
}

// asPlanned refuses a call that names a plan and would do something else.
func (c Call) asPlanned(plan func() (*Plan, error)) error {
	if c.Decision == "" {
		return nil
	}
	p, err := plan()
	if err != nil {
		return err
	}
	now, err := p.Decision()
	if err != nil {
		return err
	}
	if now != c.Decision {
		return refuse("plan.changed", "what this would do is not what was planned any more; ask for a plan again, and look at what is different")
	}
	return nil
}

// planIssue says what Issue would do. A request id that has got a certificate would get it again, so the plan names
// that one.
func (a *Authority) planIssue(ctx context.Context, call Call, r IssueRequest) (*Issued, error) {
	request, found, err := a.earlier(ctx, call, store.IssueMethod)
	if err != nil {
		return nil, err
	}
	if found {
		c, err := a.certificate(ctx, request.Serial)
		if err != nil {
			return nil, err
		}
		switch c.State {
		case store.StateLive, store.StateRevoked:
			return a.planAgain(ctx, call, c)
		case store.StateAbandoned:
			if err := a.checkFree(ctx, call, c); err != nil {
				return nil, err
			}
		}
	}
	if r.past != nil {
		return nil, r.past
	}
	d, err := a.draft(ctx, call, r)
	if err != nil {
		return nil, err
	}
	if err := call.asPlanned(d.plan); err != nil {
		return nil, err
	}
	plan, err := d.plan()
	if err != nil {
		return nil, err
	}
	issued := &Issued{
		Code: "plan.issue", RequestID: call.RequestID, Purpose: r.Purpose, CN: r.Name.Text, Issuer: d.issuer.id,
		NotBefore: d.row.NotBefore, NotAfter: d.row.NotAfter, Directory: Publication{State: "none", Entry: d.row.Entry}, Plan: plan,
	}
	if a.published(r.Purpose) {
		issued.Directory.State = "pending"
	}
	return issued, nil
}

// planAgain is the plan of a retry. No call with another id does the same.
func (a *Authority) planAgain(ctx context.Context, call Call, c store.Certificate) (*Issued, error) {
	intent, err := a.intentOf(ctx, c)
	if err != nil {
		return nil, err
	}
	d := &draft{rule: call.Rule, renews: intent.Renews, keyBy: intent.KeyMadeBy, row: c, precertificate: c.DER}
	plan, err := d.plan()
	if err != nil {
		return nil, err
	}
	plan.Again = c.Serial
	directory, err := a.publication(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Issued{
		Code: "plan.issue", RequestID: call.RequestID, LogIndex: c.Intent, Serial: c.Serial, Purpose: c.Purpose, CN: c.CN, Issuer: c.Issuer,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, RevokedAt: c.RevokedAt, Directory: directory, Plan: plan,
	}, nil
}

func (d *draft) plan() (*Plan, error) {
	parsed, err := x509.ParseCertificate(d.precertificate)
	if err != nil {
		return nil, fmt.Errorf("reading the precertificate: %w", err)
	}
	c := &PlannedCertificate{
		Issuer: d.row.Issuer, Purpose: d.row.Purpose, CN: d.row.CN, SANs: d.row.SANs,
		KeyType: d.row.KeyType, KeyMadeBy: d.keyBy, Renews: d.renews,
		Valid: d.row.NotAfter.Sub(d.row.NotBefore) + time.Second,
	}
	for _, e := range parsed.Extensions {
		one := Extension{OID: e.Id.String(), Critical: e.Critical, Value: hex.EncodeToString(e.Value)}
		if one.OID == subjectKeyID {
			one.Value = ""
		}
		c.Extensions = append(c.Extensions, one)
	}
	return &Plan{Rule: d.rule, Certificate: c, Entry: d.row.Entry}, nil
}

const subjectKeyID = "2.5.29.14"

// plan is what a revocation or a release would do.
func (w *revocation) plan() (*Plan, error) {
	return &Plan{Rule: w.rule(), Changes: w.changes}, nil
}

// standIn gives a public key that nobody has the private key of, for a plan: making an RSA key takes
// seconds of a core.
func standIn(random io.Reader, kind cert.KeyType) (crypto.PublicKey, error) {
	bits := map[cert.KeyType]int{cert.RSA2048: 2048, cert.RSA3072: 3072}[kind]
	if bits == 0 {
		key, err := cert.GenerateKey(random, kind)
		if err != nil {
			return nil, err
		}
		return key.Public(), nil
	}
	modulus := make([]byte, bits/8)
	for {
		if _, err := io.ReadFull(random, modulus); err != nil {
			return nil, fmt.Errorf("drawing a modulus: %w", err)
		}
		modulus[0] |= 0x80
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
		if profile.CheckKey(key) == nil { // one in some twelve
			return key, nil
		}
	}
}
