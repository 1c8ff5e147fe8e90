package audit

import (
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// State is where a certificate is in its life.
type State string

// The states.
const (
	Open      State = "open"      // announced; whether it was signed the log does not say yet
	Live      State = "live"      // signed; it may have expired since
	Revoked   State = "revoked"   // signed and revoked
	Abandoned State = "abandoned" // never signed, and never will be
)

// Books are what a log implies. Whoever keeps books of their own compares them with these.
type Books struct {
	Log          LogOpened
	Issuers      map[cert.Issuer]*IssuerBook // the root among them, as cert.Root
	Certificates map[cert.Serial]*Certificate
	Rooms        map[string]RoomState // the last that each key room said of itself
	Events       map[string]int64     // how many of each type
	Remarks      []Remark             // at most 100

	config   string               // SHA-256 of the one in force; "" before the service first started
	now      time.Time            // of the leaf that is taken up
	started  bool                 // something else than the ceremony has been entered
	requests map[requestKey]int64 // the leaf that spent it
}

// Certificate is what the log says of one serial number.
type Certificate struct {
	Serial       cert.Serial
	Issuer       cert.Issuer
	Purpose      cert.Purpose
	CN           string
	Caller       string // the configured name
	RequestID    string // of that caller
	State        State
	NotAfter     time.Time
	TBSSHA256    string
	SealedSHA256 string           // "" if there are no secrets
	Fingerprint  cert.Fingerprint // "" unless live or revoked
	Intent       int64            // the leaf that announced it
	Ended        int64            // the leaf that ended the intent; -1 while open

	// RevokeAsked tells that an open intent will be revoked as it completes, for Reason. The rest means
	// something if State is Revoked.
	RevokeAsked bool
	Reason      cert.Reason
	RevokedAt   time.Time
	RevokedBy   int64 // the leaf that revoked it first
	RestatedBy  int64 // the leaf that gave the reason it has now

	Holds []Hold // those that were released, in the order of the log
}

// Hold is a hold that was released: from the leaf By on, and not any more from the leaf To on.
type Hold struct {
	At     time.Time
	By, To int64
}

// IssuerBook is what the log says of one CA.
type IssuerBook struct {
	ID          cert.Issuer
	Room        string // that holds the key; "" for the root
	Purposes    []cert.Purpose
	Certificate []byte   // DER
	Lists       []Signed // every list it signed, numbers rising

	PublishedNumber string // "" while none is known to be published
	PublishedCommit string

	parsed  *x509.Certificate // of the root
	last    *big.Int          // the number of the last list
	intents map[int64]*CRLIntent
}

// Signed is one list that an issuer signed.
type Signed struct {
	Number     string // decimal
	SHA256     string // of the DER
	Intent     int64  // the leaf that announced it; -1 for a list of the root
	Index      int64  // the leaf that says it was signed
	Entries    int    // -1 for a list of the root
	ThisUpdate time.Time
	NextUpdate time.Time
}

// Find gives the list with this SHA-256.
func (i *IssuerBook) Find(sha256 string) (Signed, bool) {
	for n := len(i.Lists) - 1; n >= 0; n-- {
		if i.Lists[n].SHA256 == sha256 {
			return i.Lists[n], true
		}
	}
	return Signed{}, false
}

func newBooks() *Books {
	return &Books{
		Issuers: make(map[cert.Issuer]*IssuerBook), Certificates: make(map[cert.Serial]*Certificate),
		Rooms: make(map[string]RoomState), Events: make(map[string]int64), requests: make(map[requestKey]int64),
	}
}

// requestKey stands for a caller and a request id.
type requestKey [16]byte

func keyOf(caller, id string) requestKey {
	sum := sha256.Sum256([]byte(caller + "\x00" + id))
	return requestKey(sum[:16])
}
