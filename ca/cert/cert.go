// Package cert holds the words that every part of the CA shares: serial numbers, revocation reasons,
// purposes, key types, names in a certificate and fingerprints.
//
// It imports only the standard library, does no I/O, and every text form it defines has exactly one
// spelling: Parse accepts what String writes, so that a value can be compared, hashed and looked up
// as text.
package cert

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

// MaxSerialOctets is the longest serial number a certificate may carry (RFC 5280 section 4.1.2.2).
const MaxSerialOctets = 20

// Serial is a certificate serial number as lower-case hexadecimal of its big-endian magnitude: two
// digits an octet, no leading zero octet, as openssl prints it apart from the case.
type Serial string

// NewSerial draws a positive serial number of 127 random bits from rand, a CSPRNG. Uniqueness is the
// store's business: it keeps the serial as a primary key.
func NewSerial(rand io.Reader) (Serial, error) {
	var b [16]byte
	for {
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return "", fmt.Errorf("drawing a serial number: %w", err)
		}
		b[0] &= 0x7f // positive in DER without a leading zero octet
		if n := new(big.Int).SetBytes(b[:]); n.Sign() > 0 {
			return SerialOf(n), nil
		}
	}
}

// ParseSerial reads a serial number in hexadecimal, in either case, with or without leading zeros or
// colons between octets. It refuses zero and more than MaxSerialOctets octets.
func ParseSerial(s string) (Serial, error) {
	digits := strings.ReplaceAll(s, ":", "")
	if digits == "" || len(digits) > 4*MaxSerialOctets {
		return "", fmt.Errorf("serial %q: want 1 to %d hexadecimal digits", clip(s), 2*MaxSerialOctets)
	}
	for _, c := range []byte(digits) {
		if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return "", fmt.Errorf("serial %q: want hexadecimal digits only", clip(s))
		}
	}
	n, _ := new(big.Int).SetString(digits, 16)
	if n.Sign() == 0 {
		return "", errors.New("serial 0: a serial number is positive (RFC 5280 section 4.1.2.2)")
	}
	if n.BitLen() > 8*MaxSerialOctets-1 {
		return "", fmt.Errorf("serial %q: longer than %d octets (RFC 5280 section 4.1.2.2)", clip(s), MaxSerialOctets)
	}
	return SerialOf(n), nil
}

// SerialOf gives the text form of a positive number.
func SerialOf(n *big.Int) Serial { return Serial(hex.EncodeToString(n.Bytes())) }

// Int gives the number. It is nil if s did not come from ParseSerial, NewSerial or SerialOf.
func (s Serial) Int() *big.Int {
	b, err := hex.DecodeString(string(s))
	if err != nil || len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

// Issuer is the short name of an issuing CA key as the configuration spells it, for instance "users".
// A new key of the same family gets a new short name, because it gets a new subject DN.
type Issuer string

// Root is the short name of the offline root.
const Root Issuer = "root"

// Purpose is what a certificate is for. It decides the profile, the issuer, the form of its names and
// where it is published.
type Purpose string

// The purposes.
const (
	User   Purpose = "user"   // a person: TLS client authentication and mail
	Server Purpose = "server" // a TLS server
	Caller Purpose = "caller" // a client of the CA's own RPC
)

// Purposes lists every purpose.
func Purposes() []Purpose { return []Purpose{User, Server, Caller} }

// ParsePurpose reads the name of a purpose.
func ParsePurpose(s string) (Purpose, error) {
	for _, p := range Purposes() {
		if string(p) == s {
			return p, nil
		}
	}
	return "", fmt.Errorf("purpose %q: want user, server or caller", clip(s))
}

// SANs are the subject alternative names of a certificate (RFC 5280 section 4.2.1.6) in canonical
// form: DNS as lower-case A-labels, IP as text without zone, Email with a lower-case domain, URI
// absolute.
type SANs struct {
	DNS   []string `json:"dns,omitempty"`
	IP    []string `json:"ip,omitempty"`
	Email []string `json:"email,omitempty"`
	URI   []string `json:"uri,omitempty"`
}

// All gives every name, of whatever kind.
func (s SANs) All() []string { return slices.Concat(s.DNS, s.IP, s.Email, s.URI) }

// Count is the number of names.
func (s SANs) Count() int { return len(s.DNS) + len(s.IP) + len(s.Email) + len(s.URI) }

// DirectoryAttribute is the attribute of a directory entry that certificates are published in (RFC 4523
// section 4.1).
const DirectoryAttribute = "userCertificate;binary"

// Fingerprint is the SHA-256 of a certificate's DER, in lower-case hexadecimal.
type Fingerprint string

// FingerprintOf gives the fingerprint of a certificate in DER.
func FingerprintOf(der []byte) Fingerprint { return Fingerprint(SHA256(der)) }

// SHA256 gives the digest of data in lower-case hexadecimal, the form in which the log and the books
// name bytes.
func SHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// clip shortens hostile input for an error text.
func clip(s string) string {
	if len(s) > 48 {
		return s[:48] + "..."
	}
	return s
}
