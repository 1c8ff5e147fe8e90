package audit

import (
	"fmt"
	"reflect"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// RoomState is what the key room said of itself in its last reply: how many records its journal holds
// and the hash of the last one. It stands in the leaf that follows a reply, so a key room restored
// from an old copy meets its own future in the log.
type RoomState struct {
	Room     string `json:"room"`
	Sequence int64  `json:"sequence"`
	Journal  string `json:"journal"` // SHA-256, lower-case hex
}

// LogOpened is the first leaf of a log.
type LogOpened struct {
	Origin      string `json:"origin"`       // first line of every checkpoint, and the name of the log key
	LogKey      string `json:"log_key"`      // verifier key of the checkpoints (signed-note format)
	RecoveryKey string `json:"recovery_key"` // verifier key of the offline recovery key
	Room        string `json:"room"`         // identity of the key room
}

// RootNamed names the root certificate.
type RootNamed struct {
	Subject     string `json:"subject"`
	Certificate []byte `json:"certificate,omitempty"` // DER
}

// IssuerNamed names an issuing CA and the room that holds its key.
type IssuerNamed struct {
	Issuer      cert.Issuer    `json:"issuer"`
	Room        string         `json:"room"`
	Subject     string         `json:"subject"`
	Purposes    []cert.Purpose `json:"purposes,omitempty"`
	Certificate []byte         `json:"certificate,omitempty"` // DER
}

// RootListNamed names a CRL that the offline root signed.
type RootListNamed struct {
	Number     string    `json:"number"` // decimal
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	SHA256     string    `json:"sha256"` // of the DER
}

// ServiceStarted is written when the daemon is ready to answer.
type ServiceStarted struct {
	Build        string    `json:"build"`
	ConfigSHA256 string    `json:"config_sha256"`
	Room         RoomState `json:"room"`
	// Restored is there when this is the first start of an installation that came out of a backup.
	Restored *RestoredFrom `json:"restored,omitempty"`
}

// RestoredFrom is the backup that an installation came out of.
type RestoredFrom struct {
	Made time.Time `json:"made"`
	Size int64     `json:"size"` // leaves of the log in it
}

// ConfigReloaded is written before another configuration takes effect. Both hashes are equal if only files
// that it names were read anew.
type ConfigReloaded struct {
	From string `json:"from"` // SHA-256 of chancery.yaml in force so far, lower-case hex
	To   string `json:"to"`   // of the one that is in force from now on
}

// ServiceStopped is the last leaf of a daemon that ended without a crash.
type ServiceStopped struct{}

// LogRecovered says that the daemon had lost the end of the log and appended it again as the key room
// had kept it.
type LogRecovered struct {
	From int64     `json:"from"` // first index that was missing
	Size int64     `json:"size"` // tree size after the missing leaves
	Room RoomState `json:"room"`
}

// RequestRefused is a call that was understood well enough to name its caller, and refused. With a Count it
// stands for as many of a caller that was refused too often to enter each.
type RequestRefused struct {
	Method     string `json:"method,omitempty"`
	RequestID  string `json:"request_id,omitempty"`
	BodySHA256 string `json:"body_sha256,omitempty"`
	Purpose    string `json:"purpose,omitempty"` // as the caller wrote it, quoted and cut
	CN         string `json:"cn,omitempty"`      // as the caller wrote it, quoted and cut
	Code       string `json:"code"`
	Reason     string `json:"reason"`
	Count      int64  `json:"count,omitempty"`
}

// RequestPlanned is a call that only asked what would happen. DecisionSHA256 is the same for every plan of the
// same call that would do the same.
type RequestPlanned struct {
	Method         string `json:"method"`
	RequestID      string `json:"request_id,omitempty"`
	BodySHA256     string `json:"body_sha256"`
	Code           string `json:"code"`
	Effect         string `json:"effect"`
	DecisionSHA256 string `json:"decision_sha256"`
}

// StrangersTurnedAway folds the attempts of one minute that named no known caller into one record a
// cause.
type StrangersTurnedAway struct {
	Cause  string    `json:"cause"`
	Minute time.Time `json:"minute"`
	Count  int64     `json:"count"`
}

// IssueIntent reserves a serial number and says which certificate the CA is about to sign. The key
// room signs nothing that no such leaf announces.
type IssueIntent struct {
	RequestID    string       `json:"request_id"`
	BodySHA256   string       `json:"body_sha256"`
	Rule         string       `json:"rule"` // the grant that allowed it
	Room         string       `json:"room"`
	Issuer       cert.Issuer  `json:"issuer"`
	Serial       cert.Serial  `json:"serial"`
	Purpose      cert.Purpose `json:"purpose"`
	CN           string       `json:"cn"`
	SANs         cert.SANs    `json:"sans"`
	KeyType      cert.KeyType `json:"key_type"`
	KeyMadeBy    string       `json:"key_made_by"` // "ca" or "caller"
	NotBefore    time.Time    `json:"not_before"`
	NotAfter     time.Time    `json:"not_after"`
	Deadline     time.Time    `json:"deadline"` // the room does not sign after it
	SPKISHA256   string       `json:"spki_sha256"`
	TBSSHA256    string       `json:"tbs_sha256"`
	SealedSHA256 string       `json:"sealed_sha256,omitempty"` // of the subject's secrets, sealed to a delivery key
	Entry        string       `json:"entry,omitempty"`         // the directory entry it will be published to
	Renews       cert.Serial  `json:"renews,omitempty"`        // the certificate whose names it has
	ValidDays    int          `json:"valid_days,omitempty"`    // that were asked for; 0: none were

	Request *SignedRequest `json:"request,omitempty"` // that it answers, if the caller signs
}

// IssueDone says that the key room signed what the intent at index Intent announced. Revocation is set
// when a revocation was asked for while the intent was open.
type IssueDone struct {
	Serial      cert.Serial      `json:"serial"`
	Intent      int64            `json:"intent"`
	Fingerprint cert.Fingerprint `json:"fingerprint"`
	Room        RoomState        `json:"room"`
	Revocation  *Revocation      `json:"revocation,omitempty"`
}

// IssueAbandoned says that the key room voided the serial of an intent: it never signed it and never
// will.
type IssueAbandoned struct {
	Serial cert.Serial `json:"serial"`
	Intent int64       `json:"intent"`
	Why    string      `json:"why"`
	Room   RoomState   `json:"room"`
}

// IssueAnswering is written before a certificate leaves for its caller. Published tells whether the
// directory held it by then.
type IssueAnswering struct {
	Serial    cert.Serial `json:"serial"`
	RequestID string      `json:"request_id"`
	Secrets   bool        `json:"secrets"` // a PKCS#12 and its password are in the answer
	Published bool        `json:"published"`
}

// IssueRedelivered is written before the key room opens sealed secrets for a retry of the same
// request by the same caller.
type IssueRedelivered struct {
	Serial       cert.Serial `json:"serial"`
	Intent       int64       `json:"intent"`
	RequestID    string      `json:"request_id"`
	SealedSHA256 string      `json:"sealed_sha256"`
	Room         string      `json:"room"`

	Request *SignedRequest `json:"request,omitempty"` // the retry, if the caller signs
}

// Revocation is one revoked certificate.
type Revocation struct {
	Serial cert.Serial `json:"serial"`
	Issuer cert.Issuer `json:"issuer"`
	At     time.Time   `json:"at"` // whole seconds; fixed by the first revocation
	Reason cert.Reason `json:"reason"`
}

// RevokeDone revokes certificates. Pending lists open intents that will be revoked as they complete. Method is
// the caller's: ca.revoke, ca.hold or ca.retire.
type RevokeDone struct {
	RequestID  string        `json:"request_id"`
	BodySHA256 string        `json:"body_sha256"`
	Method     string        `json:"method,omitempty"`
	Rule       string        `json:"rule"`
	Reason     cert.Reason   `json:"reason"`
	Revoked    []Revocation  `json:"revoked,omitempty"`
	Pending    []cert.Serial `json:"pending,omitempty"`

	Request *SignedRequest `json:"request,omitempty"` // if the caller signs
}

// Release takes one certificate off hold.
type Release struct {
	Serial cert.Serial `json:"serial"`
	Issuer cert.Issuer `json:"issuer"`
}

// ReleaseDone takes certificates off hold: they are live again, and the next list leaves them out.
type ReleaseDone struct {
	RequestID  string    `json:"request_id"`
	BodySHA256 string    `json:"body_sha256"`
	Rule       string    `json:"rule"`
	Released   []Release `json:"released,omitempty"`

	Request *SignedRequest `json:"request,omitempty"` // if the caller signs
}

// CRLIntent announces a list. The key room puts every revocation that it has read into it.
type CRLIntent struct {
	Room       string      `json:"room"`
	Issuer     cert.Issuer `json:"issuer"`
	Number     string      `json:"number"` // decimal
	ThisUpdate time.Time   `json:"this_update"`
	NextUpdate time.Time   `json:"next_update"`
}

// CRLSigned says that the key room signed the list announced at index Intent.
type CRLSigned struct {
	Issuer  cert.Issuer `json:"issuer"`
	Number  string      `json:"number"`
	Intent  int64       `json:"intent"`
	Entries int         `json:"entries"`
	SHA256  string      `json:"sha256"` // of the DER
	Room    RoomState   `json:"room"`
}

// ListRef names one published list.
type ListRef struct {
	Issuer cert.Issuer `json:"issuer"`
	Number string      `json:"number"`
	SHA256 string      `json:"sha256"` // of the DER
}

// CRLPublished says that the remote was read back and holds these lists.
type CRLPublished struct {
	Lists      []ListRef `json:"lists,omitempty"`
	Commit     string    `json:"commit"`
	Checkpoint int64     `json:"checkpoint"` // tree size of the checkpoint in the same commit
}

// DirectoryPublished says that the directory was read back and holds what the books say of one name.
type DirectoryPublished struct {
	Purpose cert.Purpose  `json:"purpose"`
	CN      string        `json:"cn"`
	Entry   string        `json:"entry"`
	Added   []cert.Serial `json:"added,omitempty"`
	Removed []cert.Serial `json:"removed,omitempty"`
}

func (*LogOpened) Type() string           { return "log.opened" }
func (*RootNamed) Type() string           { return "ceremony.root" }
func (*IssuerNamed) Type() string         { return "ceremony.issuer" }
func (*RootListNamed) Type() string       { return "ceremony.root_crl" }
func (*ServiceStarted) Type() string      { return "service.started" }
func (*ConfigReloaded) Type() string      { return "config.reloaded" }
func (*ServiceStopped) Type() string      { return "service.stopped" }
func (*LogRecovered) Type() string        { return "log.recovered" }
func (*RequestRefused) Type() string      { return "request.refused" }
func (*RequestPlanned) Type() string      { return "request.planned" }
func (*StrangersTurnedAway) Type() string { return "request.strangers" }
func (*IssueIntent) Type() string         { return "issue.intent" }
func (*IssueDone) Type() string           { return "issue.done" }
func (*IssueAbandoned) Type() string      { return "issue.abandoned" }
func (*IssueAnswering) Type() string      { return "issue.answering" }
func (*IssueRedelivered) Type() string    { return "issue.redelivered" }
func (*RevokeDone) Type() string          { return "revoke.done" }
func (*ReleaseDone) Type() string         { return "release.done" }
func (*CRLIntent) Type() string           { return "crl.intent" }
func (*CRLSigned) Type() string           { return "crl.signed" }
func (*CRLPublished) Type() string        { return "crl.published" }
func (*DirectoryPublished) Type() string  { return "directory.published" }

// RoomStateIn gives what a key room said of itself in an event; false if the event holds no such thing.
func RoomStateIn(event Event) (RoomState, bool) {
	switch e := event.(type) {
	case *ServiceStarted:
		return e.Room, true
	case *LogRecovered:
		return e.Room, true
	case *IssueDone:
		return e.Room, true
	case *IssueAbandoned:
		return e.Room, true
	case *CRLSigned:
		return e.Room, true
	}
	return RoomState{}, false
}

// RequestIn gives the signed request that an event answers, nil if its caller did not sign; false for an event that
// answers none.
func RequestIn(event Event) (*SignedRequest, bool) {
	switch e := event.(type) {
	case *IssueIntent:
		return e.Request, true
	case *RevokeDone:
		return e.Request, true
	case *ReleaseDone:
		return e.Request, true
	case *IssueRedelivered:
		return e.Request, true
	}
	return nil, false
}

// newEvent makes an empty event of the named kind.
func newEvent(kind string) (Event, error) {
	for _, e := range kinds() {
		if e.Type() == kind {
			return empty(e), nil
		}
	}
	return nil, fmt.Errorf("no event is called %.40q", kind)
}

// Events gives one empty event of every kind.
func Events() []Event {
	var all []Event
	for _, e := range kinds() {
		all = append(all, empty(e))
	}
	return all
}

func empty(kind Event) Event { return reflect.New(reflect.TypeOf(kind).Elem()).Interface().(Event) }

// kinds gives a nil pointer of every kind of event, so that asking for their types costs nothing.
func kinds() [22]Event {
	return [...]Event{
		(*LogOpened)(nil), (*RootNamed)(nil), (*IssuerNamed)(nil), (*RootListNamed)(nil),
		(*ServiceStarted)(nil), (*ConfigReloaded)(nil), (*ServiceStopped)(nil), (*LogRecovered)(nil),
		(*RequestRefused)(nil), (*RequestPlanned)(nil), (*StrangersTurnedAway)(nil),
		(*IssueIntent)(nil), (*IssueDone)(nil), (*IssueAbandoned)(nil), (*IssueAnswering)(nil), (*IssueRedelivered)(nil),
		(*RevokeDone)(nil), (*ReleaseDone)(nil), (*CRLIntent)(nil), (*CRLSigned)(nil), (*CRLPublished)(nil), (*DirectoryPublished)(nil),
	}
}
