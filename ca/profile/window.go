package profile

import (
	"crypto/x509"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Backdate is how long before its making a certificate becomes valid, for hosts whose clock is
// behind.
const Backdate = 5 * time.Minute

// DefaultValidity is how long a certificate of a purpose is valid if nobody asks for anything else.
// It is 0 for an unknown purpose.
func DefaultValidity(p cert.Purpose) time.Duration {
	r, _ := rulesOf(p)
	return r.standard
}

// MaxValidity is the longest that a certificate of a purpose may be valid. It is 0 for an unknown
// purpose.
func MaxValidity(p cert.Purpose) time.Duration {
	r, _ := rulesOf(p)
	return r.longest
}

// Window chooses the validity of a certificate made now: whole seconds, back-dated by Backdate but
// never before the issuer became valid. Both ends are included (RFC 5280 section 4.1.2.5), so a
// certificate for one day ends one second short of 24 hours after it began. validDays 0 asks for the
// default, which is cut where the issuer ends; a validity asked for that the issuer or the purpose
// does not allow is a *Refusal.
func Window(issuer *x509.Certificate, p cert.Purpose, validDays int, now time.Time) (notBefore, notAfter time.Time, err error) {
	r, err := rulesOf(p)
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	most := int(r.longest / day)
	if validDays < 0 || validDays > most {
		return time.Time{}, time.Time{}, refuse("validity.days", "%d days; want 1 to %d for purpose %s", validDays, most, p)
	}
	if now.Before(issuer.NotBefore) || now.After(issuer.NotAfter) {
		return time.Time{}, time.Time{}, refuse("validity.issuer", "the issuer is valid from %s to %s; the operator of the CA has to look at the clock, or make a new issuer",
			issuer.NotBefore.Format(time.RFC3339), issuer.NotAfter.Format(time.RFC3339))
	}
	notBefore = now.UTC().Add(-Backdate).Truncate(time.Second)
	if notBefore.Before(issuer.NotBefore) {
		notBefore = issuer.NotBefore.UTC()
	}
	length := r.standard
	if validDays > 0 {
		length = time.Duration(validDays) * day
	}
	notAfter = notBefore.Add(length - time.Second)
	if notAfter.After(issuer.NotAfter) {
		if validDays > 0 {
			return time.Time{}, time.Time{}, refuse("validity.issuer", "%d days is beyond the issuer's end on %s; ask for fewer days",
				validDays, issuer.NotAfter.Format(time.RFC3339))
		}
		notAfter = issuer.NotAfter.UTC()
	}
	if !notBefore.Before(notAfter) {
		return time.Time{}, time.Time{}, refuse("validity.issuer", "the issuer ends on %s; the operator of the CA has to make a new one", issuer.NotAfter.Format(time.RFC3339))
	}
	return notBefore, notAfter, nil
}
