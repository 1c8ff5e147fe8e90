package list

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Parse reads one list in DER and refuses whatever is not a full list in exactly the form that RFC
// 5280 section 5 gives it. The order of the entries is not judged, and extensions that are unknown
// and not critical are passed over. Every error is a *Fault. The list keeps raw: do not change it
// afterwards.
func Parse(raw []byte) (*List, error) {
	if err := whole(raw); err != nil {
		return nil, err
	}
	input := cryptobyte.String(raw)
	var outer, tbs, algorithm cryptobyte.String
	l := &List{Raw: raw}
	if !input.ReadASN1(&outer, der.SEQUENCE) ||
		!outer.ReadASN1Element(&tbs, der.SEQUENCE) ||
		!outer.ReadASN1Element(&algorithm, der.SEQUENCE) ||
		!outer.ReadASN1BitStringAsBytes(&l.signature) || !outer.Empty() {
		return nil, fault(Malformed, "not a CertificateList")
	}
	l.tbs, l.algorithm = tbs, string(algorithm)
	switch l.algorithm {
	case ecdsaSHA256, ecdsaSHA384, rsaSHA256, pureEd25519:
	default:
		return nil, fault(BadAlgorithm, "signature algorithm %.64x is not one that lists are signed with", l.algorithm)
	}
	if err := l.readTBS(tbs); err != nil {
		return nil, err
	}
	return l, nil
}

// whole compares the length that the outermost header announces with what is there, so that a list
// cut short says so.
func whole(raw []byte) error {
	if len(raw) > MaxSize {
		return fault(TooLarge, "%d octets; at most %d are read", len(raw), MaxSize)
	}
	if len(raw) > 0 && raw[0] != tagSequence {
		return fault(Malformed, "does not begin with a SEQUENCE: not DER")
	}
	if len(raw) < 2 {
		return fault(Truncated, "%d octets", len(raw))
	}
	header, length := 2, int(raw[1])
	if raw[1] >= 0x80 {
		octets := int(raw[1] & 0x7f)
		if octets == 0 || octets > 4 {
			return fault(Malformed, "a length in %d octets", octets)
		}
		header += octets
		if len(raw) < header {
			return fault(Truncated, "%d octets", len(raw))
		}
		length = 0
		for _, b := range raw[2:header] {
			length = length<<8 | int(b)
		}
	}
	switch there := len(raw) - header; {
	case there < length:
		return fault(Truncated, "%d octets announced, %d there", length, there)
	case there > length:
		return fault(Trailing, "%d octets after the list", there-length)
	}
	return nil
}

// readTBS reads the signed part (RFC 5280 section 5.1.2).
func (l *List) readTBS(element cryptobyte.String) error {
	var tbs, algorithm, issuer cryptobyte.String
	element.ReadASN1(&tbs, der.SEQUENCE)
	var version int
	if !tbs.PeekASN1Tag(der.INTEGER) || !tbs.ReadASN1Integer(&version) || version != 1 {
		return fault(BadVersion, "not version 2 (RFC 5280 section 5.1.2.1)")
	}
	if !tbs.ReadASN1Element(&algorithm, der.SEQUENCE) || string(algorithm) != l.algorithm {
		return fault(BadAlgorithm, "inside and outside the signature differ (RFC 5280 section 5.1.1.2)")
	}
	if !tbs.ReadASN1Element(&issuer, der.SEQUENCE) {
		return fault(Malformed, "no issuer")
	}
	if err := l.readIssuer(issuer); err != nil {
		return err
	}
	var ok bool
	if l.ThisUpdate, ok = readTime(&tbs); !ok {
		return fault(BadTime, "thisUpdate is missing or ill formed (RFC 5280 section 5.1.2.4)")
	}
	if l.NextUpdate, ok = readTime(&tbs); !ok {
		return fault(BadTime, "nextUpdate is missing or ill formed (RFC 5280 section 5.1.2.5)")
	}
	var entries, explicit cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&entries, &present, der.SEQUENCE) {
		return fault(Malformed, "revokedCertificates")
	}
	if present {
		if err := l.readEntries(entries); err != nil {
			return err
		}
	}
	if !tbs.ReadOptionalASN1(&explicit, &present, tagExtensions) || !tbs.Empty() {
		return fault(Malformed, "crlExtensions")
	}
	if present {
		if err := readExtensions(explicit, l.readExtension); err != nil {
			return err
		}
	}
	if l.Number == nil {
		return fault(BadNumber, "no CRL number (RFC 5280 section 5.2.3)")
	}
	if l.AuthorityKeyID == nil {
		return fault(BadKeyID, "no authority key identifier (RFC 5280 section 5.2.1)")
	}
	return nil
}

// maxName bounds an issuer's name, which takes far more memory read than written.
const maxName = 16 << 10

func (l *List) readIssuer(element []byte) error {
	if len(element) > maxName {
		return fault(BadIssuer, "a name of %d octets; at most %d are read", len(element), maxName)
	}
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(element, &name); err != nil || len(rest) > 0 || len(name) == 0 {
		return fault(BadIssuer, "an empty or ill-formed name (RFC 5280 section 5.1.2.3)")
	}
	for _, rdn := range name {
		if len(rdn) == 0 {
			return fault(BadIssuer, "an empty part of the name (RFC 5280 section 4.1.2.4)")
		}
		for _, attribute := range rdn {
			if _, text := attribute.Value.(string); !text {
				return fault(BadIssuer, "the name's attribute %s is not text", attribute.Type)
			}
		}
	}
	l.RawIssuer, l.Issuer = element, name.String()
	return nil
}

// readEntries reads revokedCertificates.
func (l *List) readEntries(entries cryptobyte.String) error {
	if entries.Empty() {
		return fault(NoEntries, "revokedCertificates is present without entries (RFC 5280 section 5.1.2.6)")
	}
	l.index = map[cert.Serial]int{}
	for !entries.Empty() {
		var entry cryptobyte.String
		if !entries.ReadASN1(&entry, der.SEQUENCE) {
			return fault(Malformed, "entry %d", len(l.Entries))
		}
		e, err := readEntry(entry)
		if err != nil {
			return err
		}
		if _, twice := l.index[e.Serial]; twice {
			return fault(DuplicateEntry, "serial %s stands twice", e.Serial)
		}
		l.index[e.Serial] = len(l.Entries)
		l.Entries = append(l.Entries, e)
	}
	return nil
}

func readEntry(entry cryptobyte.String) (Entry, error) {
	magnitude, ok := readPositive(&entry, cert.MaxSerialOctets)
	if !ok {
		return Entry{}, fault(BadSerial, "a serial number that is not positive, or too long (RFC 5280 section 4.1.2.2)")
	}
	e := Entry{Serial: cert.Serial(hex.EncodeToString(magnitude))}
	if e.RevokedAt, ok = readTime(&entry); !ok {
		return Entry{}, fault(BadTime, "entry %s: revocation date missing or ill formed (RFC 5280 section 5.1.2.6)", e.Serial)
	}
	if entry.Empty() {
		return e, nil
	}
	err := readExtensions(entry, func(oid string, critical bool, value cryptobyte.String) error {
		switch {
		case oid == oidCertificateIssuer:
			return fault(Indirect, "entry %s belongs to another issuer (RFC 5280 section 5.3.3)", e.Serial)
		case oid == oidReason && critical:
			return fault(BadExtension, "entry %s: a critical reason code (RFC 5280 section 5.3.1)", e.Serial)
		case oid == oidReason:
			return e.readReason(value)
		case critical:
			return fault(Critical, "entry %s: an unknown critical extension", e.Serial)
		}
		return nil
	})
	return e, err
}

// readReason refuses an explicit unspecified too: a revocation has one encoding (RFC 5280 section
// 5.3.1 wants the extension absent).
func (e *Entry) readReason(value cryptobyte.String) error {
	var code cryptobyte.String
	if !value.ReadASN1(&code, der.ENUM) || !value.Empty() || len(code) != 1 {
		return fault(BadReason, "entry %s: an ill-formed reason code", e.Serial)
	}
	e.Reason = cert.Reason(code[0])
	if !e.Reason.Valid() || e.Reason == cert.Unspecified {
		return fault(BadReason, "entry %s: reason code %d cannot stand in a full list (RFC 5280 section 5.3.1)", e.Serial, code[0])
	}
	return nil
}

// readExtension takes in one extension of the list.
func (l *List) readExtension(oid string, critical bool, value cryptobyte.String) error {
	switch oid {
	case oidDelta:
		return fault(Delta, "a delta CRL: a consumer that takes it for the whole list un-revokes what is not in it")
	case oidScope:
		return fault(Scoped, "an issuing distribution point: the list is not for all certificates of its issuer, or not for all consumers")
	case oidNumber, oidKeyID:
		if critical {
			return fault(BadExtension, "number or authority key identifier marked critical (RFC 5280 section 5.2)")
		}
	default:
		if critical {
			return fault(Critical, "an unknown critical extension")
		}
		return nil
	}
	if oid == oidNumber {
		magnitude, ok := readPositive(&value, MaxNumberOctets)
		if !ok || !value.Empty() {
			return fault(BadNumber, "not positive, or longer than %d octets (RFC 5280 section 5.2.3)", MaxNumberOctets)
		}
		l.Number = new(big.Int).SetBytes(magnitude)
		return nil
	}
	var keyID, id cryptobyte.String
	if !value.ReadASN1(&keyID, der.SEQUENCE) || !value.Empty() ||
		!keyID.ReadASN1(&id, tagKeyID) || !keyID.Empty() || id.Empty() {
		return fault(BadKeyID, "authority key identifier is not one key identifier (RFC 5280 section 5.2.1)")
	}
	l.AuthorityKeyID = id
	return nil
}

// maxExtensions bounds the search for an extension that stands twice.
const maxExtensions = 16

// readExtensions reads an Extensions value, which is all of input, and shows each extension to take.
func readExtensions(input cryptobyte.String, take func(oid string, critical bool, value cryptobyte.String) error) error {
	var all cryptobyte.String
	if !input.ReadASN1(&all, der.SEQUENCE) || !input.Empty() || all.Empty() {
		return fault(Malformed, "extensions")
	}
	var seen [maxExtensions]string
	for n := 0; !all.Empty(); n++ {
		var one, name, value cryptobyte.String
		var id asn1.ObjectIdentifier
		if n == maxExtensions || !all.ReadASN1(&one, der.SEQUENCE) {
			return fault(Malformed, "extensions")
		}
		again := one
		if !one.ReadASN1(&name, der.OBJECT_IDENTIFIER) || !again.ReadASN1ObjectIdentifier(&id) {
			return fault(Malformed, "an extension without object identifier")
		}
		// critical is DEFAULT FALSE: DER writes it only when it is true.
		var critical bool
		if one.PeekASN1Tag(der.BOOLEAN) && (!one.ReadASN1Boolean(&critical) || !critical) {
			return fault(Malformed, "extension %s: critical is not in DER", id)
		}
		if !one.ReadASN1(&value, der.OCTET_STRING) || !one.Empty() {
			return fault(Malformed, "extension %s", id)
		}
		for _, earlier := range seen[:n] {
			if earlier == string(name) {
				return fault(BadExtension, "extension %s stands twice (RFC 5280 section 4.2)", id)
			}
		}
		seen[n] = string(name)
		if err := take(string(name), critical, value); err != nil {
			return err
		}
	}
	return nil
}

// readPositive reads a positive INTEGER of at most octets octets and gives its magnitude without
// leading zeros.
func readPositive(s *cryptobyte.String, octets int) ([]byte, bool) {
	var n cryptobyte.String
	if !s.ReadASN1(&n, der.INTEGER) || len(n) == 0 || len(n) > octets || n[0]&0x80 != 0 {
		return nil, false
	}
	if n[0] != 0 {
		return n, true
	}
	// A leading zero octet is there only to keep the sign: zero itself and padding are refused.
	if len(n) == 1 || n[1]&0x80 == 0 {
		return nil, false
	}
	return n[1:], true
}

// readTime reads UTCTime through 2049 or GeneralizedTime from 2050 on, in whole seconds and UTC (RFC
// 5280 section 5.1.2.4).
func readTime(s *cryptobyte.String) (time.Time, bool) {
	var text cryptobyte.String
	var tag der.Tag
	if !s.ReadAnyASN1(&text, &tag) {
		return time.Time{}, false
	}
	var year int
	switch {
	case tag == der.UTCTime && len(text) == len("060102150405Z"):
		switch year = 2000 + pair(text); {
		case year < 2000: // no digits
			return time.Time{}, false
		case year >= 2050:
			year -= 100
		}
		text = text[2:]
	case tag == der.GeneralizedTime && len(text) == len("20060102150405Z"):
		if year = 100*pair(text) + pair(text[2:]); year < 2050 {
			return time.Time{}, false
		}
		text = text[4:]
	default:
		return time.Time{}, false
	}
	month, day, hour, minute, second := pair(text), pair(text[2:]), pair(text[4:]), pair(text[6:]), pair(text[8:])
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	// time.Date carries what is out of range over to the next unit: then the parts differ.
	ok := text[10] == 'Z' && t.Year() == year && t.Month() == time.Month(month) && t.Day() == day &&
		t.Hour() == hour && t.Minute() == minute && t.Second() == second
	return t, ok
}

// pair reads two digits. What is not a digit gives a number that no part of a time can be.
func pair(text []byte) int {
	if text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9' {
		return -10000
	}
	return int(text[0]-'0')*10 + int(text[1]-'0')
}
