package list

import (
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// The ASN.1 tags that a list is made of.
const (
	tagBoolean         = 0x01
	tagInteger         = 0x02
	tagBitString       = 0x03
	tagOctetString     = 0x04
	tagOID             = 0x06
	tagEnumerated      = 0x0a
	tagUTCTime         = 0x17
	tagGeneralizedTime = 0x18
	tagSequence        = 0x30
	tagKeyID           = 0x80 // keyIdentifier [0] IMPLICIT in AuthorityKeyIdentifier
	tagExtensions      = 0xa0 // crlExtensions [0] EXPLICIT in TBSCertList
)

// The object identifiers of extensions, as DER contents.
const (
	oidNumber            = "\x55\x1d\x14" // 2.5.29.20, RFC 5280 section 5.2.3
	oidReason            = "\x55\x1d\x15" // 2.5.29.21, section 5.3.1
	oidDelta             = "\x55\x1d\x1b" // 2.5.29.27, section 5.2.4
	oidScope             = "\x55\x1d\x1c" // 2.5.29.28, section 5.2.5
	oidCertificateIssuer = "\x55\x1d\x1d" // 2.5.29.29, section 5.3.3
	oidKeyID             = "\x55\x1d\x23" // 2.5.29.35, section 5.2.1
)

// AppendEntry appends the DER of one element of revokedCertificates to dst. There is no reasonCode
// extension for unspecified (RFC 5280 section 5.3.1). The form of an entry never changes, so that it
// can be kept encoded from the day of the revocation.
func AppendEntry(dst []byte, e Entry) ([]byte, error) {
	if s, err := cert.ParseSerial(string(e.Serial)); err != nil || s != e.Serial {
		return nil, fmt.Errorf("entry with serial %.48q: not in the form of ParseSerial", string(e.Serial))
	}
	if !e.Reason.Valid() {
		return nil, fmt.Errorf("entry %s: reason code %d cannot stand in a full CRL", e.Serial, int(e.Reason))
	}
	at, err := encodeTime(e.RevokedAt)
	if err != nil {
		return nil, fmt.Errorf("entry %s: revocation date: %w", e.Serial, err)
	}
	serial := element(tagInteger, positive(e.Serial.Int().Bytes()))
	var extensions []byte
	if e.Reason != cert.Unspecified {
		code := element(tagEnumerated, []byte{byte(e.Reason)})
		extensions = element(tagSequence, extension(oidReason, code))
	}
	dst = appendHeader(dst, tagSequence, len(serial)+len(at)+len(extensions))
	dst = append(dst, serial...)
	dst = append(dst, at...)
	return append(dst, extensions...), nil
}

// encodeTime writes UTCTime through 2049 and GeneralizedTime from 2050 on (RFC 5280 section 5.1.2.4).
func encodeTime(t time.Time) ([]byte, error) {
	t = t.UTC()
	switch year := t.Year(); {
	case t.Nanosecond() != 0:
		return nil, errors.New("not in whole seconds")
	case year < 1950 || year > 9999:
		return nil, fmt.Errorf("year %d cannot be written", year)
	case year < 2050:
		return element(tagUTCTime, []byte(t.Format("060102150405Z"))), nil
	}
	return element(tagGeneralizedTime, []byte(t.Format("20060102150405Z"))), nil
}

// extension writes one that is not critical; a full list needs no other.
func extension(oid string, value []byte) []byte {
	return element(tagSequence, element(tagOID, []byte(oid)), element(tagOctetString, value))
}

// positive gives the contents of an INTEGER from a magnitude without leading zero octets.
func positive(magnitude []byte) []byte {
	if magnitude[0]&0x80 != 0 {
		return append([]byte{0}, magnitude...)
	}
	return magnitude
}

func element(tag byte, contents ...[]byte) []byte {
	n := 0
	for _, c := range contents {
		n += len(c)
	}
	out := appendHeader(make([]byte, 0, maxHeader+n), tag, n)
	for _, c := range contents {
		out = append(out, c...)
	}
	return out
}

// maxHeader is the longest header of an element of at most MaxSize octets: tag, 0x84, four octets.
const maxHeader = 6

func appendHeader(dst []byte, tag byte, n int) []byte {
	switch {
	case n < 1<<7:
		return append(dst, tag, byte(n))
	case n < 1<<8:
		return append(dst, tag, 0x81, byte(n))
	case n < 1<<16:
		return append(dst, tag, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		return append(dst, tag, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, tag, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
