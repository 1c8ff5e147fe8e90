package cert

import (
	"fmt"
	"maps"
	"slices"
)

// Reason is a CRLReason code (RFC 5280 section 5.3.1).
type Reason int

// The reason codes that can stand in a full CRL. 7 is unused, and removeFromCRL (8) appears only in
// delta CRLs, which this CA never publishes.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

var reasonNames = map[Reason]string{
	Unspecified:          "unspecified",
	KeyCompromise:        "keyCompromise",
	CACompromise:         "cACompromise",
	AffiliationChanged:   "affiliationChanged",
	Superseded:           "superseded",
	CessationOfOperation: "cessationOfOperation",
	CertificateHold:      "certificateHold",
	PrivilegeWithdrawn:   "privilegeWithdrawn",
	AACompromise:         "aACompromise",
}

// Reasons lists every reason, by its code.
func Reasons() []Reason { return slices.Sorted(maps.Keys(reasonNames)) }

// ParseReason reads a reason by its name in RFC 5280, for instance "keyCompromise".
func ParseReason(s string) (Reason, error) {
	for r, name := range reasonNames {
		if name == s {
			return r, nil
		}
	}
	return 0, fmt.Errorf("reason %q: want a name of RFC 5280 section 5.3.1 such as keyCompromise or superseded", clip(s))
}

// Valid tells whether r can stand in a full CRL.
func (r Reason) Valid() bool { return reasonNames[r] != "" }

// String gives the name in RFC 5280.
func (r Reason) String() string {
	if name := reasonNames[r]; name != "" {
		return name
	}
	return fmt.Sprintf("reason(%d)", int(r))
}

// MarshalText writes the name.
func (r Reason) MarshalText() ([]byte, error) {
	if !r.Valid() {
		return nil, fmt.Errorf("reason code %d cannot stand in a full CRL", int(r))
	}
	return []byte(r.String()), nil
}

// UnmarshalText reads the name.
func (r *Reason) UnmarshalText(text []byte) error {
	parsed, err := ParseReason(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// CanBecome tells whether a revocation with reason r may be restated with reason next: a hold may
// become anything, and anything may become keyCompromise. Restating the same reason changes nothing
// and is allowed.
func (r Reason) CanBecome(next Reason) bool {
	return r == next || r == CertificateHold || next == KeyCompromise
}
