package ca

import (
	"errors"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

// IssueRequest is a certificate to be issued, with names in canonical form.
type IssueRequest struct {
	Purpose   cert.Purpose
	Name      name.Name
	SANs      cert.SANs
	CSR       []byte       // DER; empty: the CA makes the key
	KeyType   cert.KeyType // of the key that the CA makes; empty: P-256
	ValidDays int          // 0: the purpose's default
	MaxDays   int          // that the grant allows: without ValidDays it is no longer; 0: any
	Renews    cert.Serial  // the certificate whose names these are; empty if it is none

	past error // there is nothing to renew: only what an earlier call with the same id has got is given
}

// RenewRequest selects the certificate whose names a new one gets: by Serial, or the newest by Names, as
// in RevokeRequest. The rest is as in IssueRequest.
type RenewRequest struct {
	Serial    cert.Serial
	Names     map[cert.Purpose]name.Name
	CSR       []byte
	KeyType   cert.KeyType
	ValidDays int
	// May decides whether the caller may renew this certificate, and names the grant and its MaxDays, or refuses.
	May func(c store.Certificate) (rule string, maxDays int, err error)
}

// What a refusal of May can say of a certificate. Any other is told of a name, and of a serial number only that
// there is no such certificate.
var (
	ErrOthers = errors.New("the certificate is another caller's") // it is as if it were not there
	ErrBound  = errors.New("the certificate is within the grant, and what is asked of it is not")
)

// Issued is the answer to an issue.
type Issued struct {
	Code        string // "issued", "issued.secrets_gone" or "plan.issue"
	RequestID   string
	LogIndex    int64       // of the intent
	Serial      cert.Serial // in a plan that which an earlier call with the same id has got, if there was one
	Purpose     cert.Purpose
	CN          string
	Issuer      cert.Issuer
	NotBefore   time.Time
	NotAfter    time.Time
	Fingerprint cert.Fingerprint
	Certificate []byte    // DER
	RevokedAt   time.Time // not zero if it has been revoked since it was asked for
	Chain       [][]byte  // DER, the leaf's issuer first
	PKCS12      []byte    // nil when the caller brought a CSR
	Password    string
	Directory   Publication
	Plan        *Plan // of a call that only asked
}

// Publication says where a certificate stands with the directory. State is "published", "pending",
// "removed" if it was revoked, or "none" if it is not for the directory.
type Publication struct {
	State string
	Entry string
}

// RevokeRequest selects certificates by Serial, or by the names in Names: a common name as the
// purposes that it may belong to spell it. A release has no Reason.
type RevokeRequest struct {
	Method string // as the caller called it
	Serial cert.Serial
	Names  map[cert.Purpose]name.Name
	Reason cert.Reason
	Max    int // how many certificates may be hit; 0: 10
	// May decides whether the caller may do that to this certificate and names the grant, or refuses; once more
	// when it is known how many certificates the call hits, which is 0 before.
	May func(c store.Certificate, hits int) (rule string, err error)
}

// Revoked is the answer to a revoke or a release.
type Revoked struct {
	RequestID string
	LogIndex  int64
	Revoked   []RevokedCertificate
	Lists     []ListState
	Plan      *Plan // of a call that only asked
}

// RevokedCertificate is one certificate that a revoke hit. Pending tells that it is still being
// issued and is revoked as it completes.
type RevokedCertificate struct {
	Serial  cert.Serial
	CN      string
	Purpose cert.Purpose
	Pending bool
	Became  *Became // in the answer to a retry: what has become of it since; nil if it is as the change left it
}

// Became is what has become of a certificate: a State as in CertificateStatus, but "expired" whether or not it was
// revoked before, and the Reason of one that is revoked or will be.
type Became struct {
	State  string
	Reason cert.Reason
}

// ListState says where an issuer's list stands: State is "published" if the list in git, of this
// Number and at this Commit, holds the revocation, and otherwise "pending".
type ListState struct {
	Issuer cert.Issuer
	Number string
	State  string
	Commit string
}

// StatusRequest selects certificates: by Serial, by Names, or by the caller's own RequestID.
type StatusRequest struct {
	Serial    cert.Serial
	Names     map[cert.Purpose]name.Name
	Caller    string
	RequestID string
	See       func(c store.Certificate) bool // whether the caller may see it; nil: all of them
	Most      int                            // only so many, the last of those that are seen; 0: all of them
}

// CertificateStatus is what the books say of one certificate. State is "open", "live", "expired",
// "revoked" or "abandoned".
type CertificateStatus struct {
	store.Certificate
	State     string
	Directory Publication
	List      *ListState // set when it is revoked
}
