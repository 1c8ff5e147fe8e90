// Package signer is the wire to the key room: what is said over it, and the client that the daemon
// uses. It holds no keys. It imports audit and ca/cert, and both sides of the wall link it.
//
// A signature has one of three outcomes, and the errors keep them apart: a *Refusal means that the room
// understood and said no; ErrUnknown means that nothing is known, so the question must be asked again
// with Settle; any other error means that nothing was asked.
package signer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Version is the version of the wire. Both sides refuse another.
const Version = 1

// Limits of the wire.
const (
	MaxRequest = 1 << 20   // octets in a request frame
	MaxReply   = 256 << 20 // octets in a reply frame: a list of a million entries fits
	MaxCalls   = 64        // calls in a batch
)

// Hello is what the room says first on every connection.
type Hello struct {
	Version       int      `json:"version"`
	Build         string   `json:"build"`
	Room          string   `json:"room"`           // identity of the room
	Origin        string   `json:"origin"`         // of the log it follows
	LogKey        string   `json:"log_key"`        // verifier key of its checkpoints
	RecoveryKey   string   `json:"recovery_key"`   // verifier key of the offline recovery key
	DeliveryHours int      `json:"delivery_hours"` // how long after an issue the room opens its sealed secrets; 0: never
	Root          []byte   `json:"root"`           // root certificate, DER
	RootCRL       []byte   `json:"root_crl"`       // DER
	Issuers       []Issuer `json:"issuers"`
	State         State    `json:"state"`

	SigningKeys map[string][]string `json:"signing_keys,omitempty"` // of callers whose requests the room wants signed, as keyroom.json has them
	Troubles    []string            `json:"troubles,omitempty"`     // codes of what is wrong in the room now, as its log has them, sorted
}

// Issuer is an issuing CA whose key the room holds, with the limits that the room keeps for it.
type Issuer struct {
	ID              cert.Issuer    `json:"id"`
	Certificate     []byte         `json:"certificate"` // DER
	Purposes        []cert.Purpose `json:"purposes"`
	CRLURL          string         `json:"crl_url,omitempty"`
	MaxValidityDays int            `json:"max_validity_days"`
	MaxListDays     int            `json:"max_list_days"` // longest nextUpdate - thisUpdate
}

// State is how far the room is: what it has read of the log, and what its journal holds.
type State struct {
	Size         int64                  `json:"size"` // leaves read
	Root         string                 `json:"root"` // of the tree over them, hex
	Sequence     int64                  `json:"sequence"`
	Journal      string                 `json:"journal"` // hash of the last record, hex
	Certificates int64                  `json:"certificates"`
	Voided       int64                  `json:"voided"`
	Lists        int64                  `json:"lists"`
	ListNumbers  map[cert.Issuer]string `json:"list_numbers"` // the last number signed, decimal
	Time         time.Time              `json:"time"`         // of the last record
	Delivery     DeliveryKey            `json:"delivery,omitzero"`
}

// Kind is what a call asks for.
type Kind string

// The kinds of call. Index names the leaf that allows it.
const (
	SignCert   Kind = "sign.cert"  // an issue.intent, with the CSR: the certificate
	SignCRL    Kind = "sign.crl"   // a crl.intent: the list
	Settle     Kind = "settle"     // an issue.intent: the certificate if it was signed, otherwise it never will be
	Lookup     Kind = "lookup"     // an issue.intent: the certificate if it was signed; changes nothing
	Checkpoint Kind = "checkpoint" // a signed note of the room's own head, after the leaves of the batch
	Open       Kind = "open"       // an issue.redelivered, with the sealed secrets: the secrets
	Leaves     Kind = "leaves"     // leaves that the room holds from Index on, as many as fit
)

// Call is one question in a batch.
type Call struct {
	Kind   Kind   `json:"kind"`
	Index  int64  `json:"index"`
	CSR    []byte `json:"csr,omitempty"`    // DER
	Sealed []byte `json:"sealed,omitempty"` // by Seal
}

// ReadOnly in Batch.From brings no leaves and allows only Lookup and Leaves.
const ReadOnly = -1

// Batch brings the room the leaves that follow those it has read, and asks. FromRoot and Root are the
// roots of the daemon's own tree before and after Leaves, in hex.
type Batch struct {
	From     int64    `json:"from"`
	FromRoot string   `json:"from_root"`
	Leaves   [][]byte `json:"leaves"`
	Root     string   `json:"root"`
	Calls    []Call   `json:"calls"`
}

// Reply answers a batch. Refused is set when the batch as a whole was refused, and then nothing of it
// had an effect; Stale when the room has read further than From. Otherwise there is one result for each call.
type Reply struct {
	State   State    `json:"state"`
	Stale   bool     `json:"stale,omitempty"`
	Refused *Refusal `json:"refused,omitempty"`
	Results []Result `json:"results,omitempty"`
}

// Result answers one call.
type Result struct {
	Refused *Refusal `json:"refused,omitempty"`
	DER     []byte   `json:"der,omitempty"`
	Entries int      `json:"entries,omitempty"` // of a list
	Voided  bool     `json:"voided,omitempty"`
	Note    []byte   `json:"note,omitempty"`
	Secrets []byte   `json:"secrets,omitempty"`
	Leaves  [][]byte `json:"leaves,omitempty"`
}

// Refusal is the room's no. Code is stable.
type Refusal struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// Error gives code and reason.
func (r *Refusal) Error() string { return "the key room refuses (" + r.Code + "): " + r.Reason }

// NeverOpens tells whether the room will never open the sealed secrets that it was asked about, whoever asks.
func (r *Refusal) NeverOpens() bool { return strings.HasPrefix(r.Code, "open.") }

// OfRequest tells whether the caller's signed request is why: signed as the room wants it, it may be granted.
func (r *Refusal) OfRequest() bool { return strings.HasPrefix(r.Code, "request.") }

// Errors that a caller branches on besides *Refusal.
var (
	// ErrUnknown: the question was sent and no answer came. Unknown is not no.
	ErrUnknown = errors.New("the key room did not answer: whether it signed is unknown")
	// ErrUnreachable: the key room is not there; nothing was asked.
	ErrUnreachable = errors.New("the key room is not reachable")
	// ErrStoreBehind: the key room has read leaves that the store does not hold. Nothing is signed.
	ErrStoreBehind = errors.New("the store is older than the key room: run chancery recover")
	// ErrRoomBehind: the key room was put back from an old copy. Nothing is signed.
	ErrRoomBehind = errors.New("the key room is an old copy: put back its newest copy")
	// ErrFork: the key room has read another log than the store holds. Nothing is signed.
	ErrFork = errors.New("the store and the key room hold different logs: restore the store that belongs to this key room")
)

// WriteFrame sends v as JSON behind its length, 4 octets big-endian.
func WriteFrame(w io.Writer, v any, limit int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a frame: %w", err)
	}
	if len(body) > limit {
		return fmt.Errorf("a frame of %d octets; at most %d", len(body), limit)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// ReadFrame receives a frame of at most limit octets into v. Members that v does not have are refused.
// io.EOF means that the other side ended the connection between two frames.
func ReadFrame(r *bufio.Reader, v any, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(limit) {
		return fmt.Errorf("a frame of %d octets; at most %d", n, limit)
	}
	var body bytes.Buffer // grows with what arrives, not with what the head claims
	if _, err := io.CopyN(&body, r, n); err != nil {
		return fmt.Errorf("reading a frame: %w", unexpected(err))
	}
	dec := json.NewDecoder(&body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decoding a frame: %w", unexpected(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("bytes behind the frame's value")
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
