package list

import (
	"bytes"
	"crypto/x509"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// KeepAfterExpiry is how long an entry stays at least after its certificate has expired.
const KeepAfterExpiry = 7 * 24 * time.Hour

// Verify checks that the list is the issuer's: its name byte for byte, its key identifier, and the
// signature, made in the one algorithm for that kind of key. It does not judge the issuer's own
// validity or chain.
func (l *List) Verify(issuer *x509.Certificate) error {
	if err := maySign(issuer); err != nil {
		return fault(BadSigner, "%v", err)
	}
	if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		return fault(BadIssuer, "the list is of %.200q, not of %.200q", l.Issuer, issuer.Subject.String())
	}
	if !bytes.Equal(l.AuthorityKeyID, issuer.SubjectKeyId) {
		return fault(BadKeyID, "the list is for key %.64x, the issuer's is %.64x", l.AuthorityKeyID, issuer.SubjectKeyId)
	}
	algorithm, err := algorithmOf(issuer.PublicKey)
	if err != nil {
		return fault(BadSigner, "%v", err)
	}
	if algorithm != l.algorithm {
		return fault(BadAlgorithm, "the algorithm is not that of the issuer's key")
	}
	message, _ := digest(algorithm, l.tbs)
	if !verify(issuer.PublicKey, message, l.signature) {
		return fault(BadSignature, "the signature does not verify under the key of %.200q", l.Issuer)
	}
	return nil
}

// Current judges a list by itself at the time now. The dates of its entries are not judged: to hold back
// a list for a wrong clock would leave every certificate on it in use. That no entry has a date to come,
// for which Java and NSS would wait, is the key room's to see to.
func (l *List) Current(now time.Time) error {
	switch {
	case !l.NextUpdate.After(l.ThisUpdate):
		return fault(Backwards, "nextUpdate %s is not after thisUpdate %s", stamp(l.NextUpdate), stamp(l.ThisUpdate))
	case l.ThisUpdate.After(now.Add(Skew)):
		return fault(Future, "thisUpdate %s is more than %s after %s", stamp(l.ThisUpdate), Skew, stamp(now))
	case !l.NextUpdate.After(now):
		return fault(Expired, "nextUpdate %s has passed at %s", stamp(l.NextUpdate), stamp(now))
	}
	return nil
}

// MayDrop tells whether a list of time now may leave out the entry of a certificate that expired at
// notAfter: KeepAfterExpiry has passed, and a list of time lastHeld, after the expiry, still held it
// (RFC 5280 section 3.3: an entry stays until one list past the certificate's validity).
func MayDrop(notAfter, lastHeld, now time.Time) bool {
	return lastHeld.After(notAfter) && now.After(notAfter.Add(KeepAfterExpiry))
}

// Follows judges next against last, the list it replaces; both are read and verified already. The
// number gives the order, not the time. An entry leaves only if it MayDrop at next's thisUpdate, or if
// it was a hold that has been released. It keeps its date, and its reason changes only as
// cert.Reason.CanBecome allows, unless a released hold has been revoked anew.
//
// expiry gives a certificate's notAfter; where it is not known the entry has to stay. released tells
// whether a release of this very hold, later than the entry's date, is on record.
func Follows(next, last *List, expiry func(cert.Serial) (notAfter time.Time, known bool), released func(hold Entry) bool) error {
	if !bytes.Equal(next.RawIssuer, last.RawIssuer) || !bytes.Equal(next.AuthorityKeyID, last.AuthorityKeyID) {
		return fault(BadIssuer, "a list of %.200q does not follow one of %.200q", next.Issuer, last.Issuer)
	}
	if next.Number.Cmp(last.Number) <= 0 {
		return fault(NotNewer, "number %s is not higher than %s", next.Number, last.Number)
	}
	for _, was := range last.Entries {
		is, present := next.Find(was.Serial)
		if present && is == was {
			continue
		}
		if was.Reason == cert.CertificateHold && released(was) {
			continue
		}
		switch {
		case !present:
			notAfter, known := expiry(was.Serial)
			if !known || !MayDrop(notAfter, last.ThisUpdate, next.ThisUpdate) {
				return fault(Dropped, "serial %s (%s) has left the list", was.Serial, was.Reason)
			}
		case !is.RevokedAt.Equal(was.RevokedAt):
			return fault(DateChanged, "serial %s: revoked at %s, before at %s", was.Serial, stamp(is.RevokedAt), stamp(was.RevokedAt))
		case !was.Reason.CanBecome(is.Reason):
			return fault(ReasonChanged, "serial %s: reason %s, before %s", was.Serial, is.Reason, was.Reason)
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
