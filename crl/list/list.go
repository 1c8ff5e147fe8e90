// Package list says what a certificate revocation list is: how one is encoded, signed, read and
// compared, and the rules that a file of lists must meet before a TLS server may be given it.
//
// Lists are full CRLs, version 2, without issuing distribution point and without delta indicator
// (RFC 5280 section 5): the only form that every consumer understands. A delta in such a file
// un-revokes in silence, and a list with a distribution point fails open in GnuTLS and NSS.
//
// The package does no I/O. It imports ca/cert, the standard library and x/crypto/cryptobyte, because
// the key room links it. What it refuses to read or to let pass it refuses with a *Fault, whose code
// is stable.
package list

import (
	"fmt"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// MaxSize is the longest list in octets of DER that is read or signed; it holds more than a million
// entries. Nothing longer is looked at.
const MaxSize = 64 << 20

// MaxNumberOctets is the longest CRL number (RFC 5280 section 5.2.3).
const MaxNumberOctets = 20

// Skew is how far in the future a thisUpdate may lie, for clocks that disagree.
const Skew = 5 * time.Minute

// Entry is one revoked certificate. RevokedAt is in whole seconds UTC.
type Entry struct {
	Serial    cert.Serial
	RevokedAt time.Time
	Reason    cert.Reason
}

// List is a list that Parse has read. Its signature is not checked: Verify does that.
type List struct {
	Raw            []byte // DER
	RawIssuer      []byte // the issuer's name, DER
	Issuer         string // the same for people; never compared
	AuthorityKeyID []byte
	Number         *big.Int
	ThisUpdate     time.Time
	NextUpdate     time.Time
	Entries        []Entry // in the order of the list

	tbs       []byte
	algorithm string // the AlgorithmIdentifier, DER
	signature []byte
	index     map[cert.Serial]int
}

// Find gives the entry of a certificate.
func (l *List) Find(serial cert.Serial) (Entry, bool) {
	i, ok := l.index[serial]
	if !ok {
		return Entry{}, false
	}
	return l.Entries[i], true
}

// The codes of a Fault.
const (
	// A list in itself.
	TooLarge       = "list.too_large"       // longer than MaxSize
	Truncated      = "list.truncated"       // the end is missing
	Trailing       = "list.trailing"        // something follows the list
	Malformed      = "list.malformed"       // not DER, or not a CertificateList
	BadVersion     = "list.version"         // not version 2
	BadAlgorithm   = "list.algorithm"       // two different ones, one unknown here, or not that of the issuer's key
	BadIssuer      = "list.issuer"          // an issuer name that is empty or not a name, or not the one expected
	BadTime        = "list.time"            // missing, or in a form that RFC 5280 section 5.1.2.4 forbids
	BadNumber      = "list.number"          // missing, zero, negative or too long
	BadKeyID       = "list.key_id"          // authority key identifier missing, odd, or not that of the issuer
	Delta          = "list.delta"           // a delta CRL
	Scoped         = "list.idp"             // an issuing distribution point
	Indirect       = "list.indirect"        // entries of other issuers
	BadExtension   = "list.extension"       // an extension twice, or with the wrong criticality
	Critical       = "list.critical"        // an unknown critical extension
	NoEntries      = "list.empty_entries"   // revokedCertificates present and empty
	BadSerial      = "list.serial"          // a serial number that no certificate may carry
	BadReason      = "list.reason"          // a reason code that cannot stand in a full list, or an explicit 0
	DuplicateEntry = "list.duplicate_entry" // one serial number twice

	// A list and its issuer, or the time.
	BadSigner    = "list.signer"    // a certificate that may not sign lists
	BadSignature = "list.signature" // the signature does not verify
	Future       = "list.future"    // thisUpdate is in the future
	Expired      = "list.expired"   // nextUpdate has passed
	Backwards    = "list.backwards" // nextUpdate is not after thisUpdate

	// A list and the one it replaces.
	NotNewer      = "list.not_newer"      // the number does not rise
	Dropped       = "list.dropped"        // an entry left too early
	DateChanged   = "list.date_changed"   // a revocation date moved
	ReasonChanged = "list.reason_changed" // a reason changed that may not

	// A file of lists.
	NoLists         = "list.none"             // no list in the file
	BadBlock        = "list.block"            // a PEM block of another kind, or not in the one form that EncodePEM writes
	Garbage         = "list.garbage"          // text between or after the blocks
	DuplicateIssuer = "list.duplicate_issuer" // two lists of one issuer
	UnknownIssuer   = "list.unknown_issuer"   // a list of no CA of the chain
	Missing         = "list.missing"          // a CA of the chain without a list
	BadOrder        = "list.order"            // not in the order of the chain
)

// Fault is why a list, or a file of lists, is refused. Code is one of the constants of this package.
type Fault struct{ Code, Reason string }

// Error gives code and reason.
func (f *Fault) Error() string { return f.Code + ": " + f.Reason }

func fault(code, format string, args ...any) error {
	return &Fault{Code: code, Reason: fmt.Sprintf(format, args...)}
}
