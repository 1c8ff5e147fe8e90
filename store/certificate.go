package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// State is where a certificate is in its life.
type State string

// The states.
const (
	StateOpen      State = "open"      // the intent is durable; whether it was signed is not known yet
	StateLive      State = "live"      // signed; it may have expired since
	StateRevoked   State = "revoked"   // signed and revoked
	StateAbandoned State = "abandoned" // never signed, and never will be
)

// Certificate is what the books say of one serial number.
type Certificate struct {
	Serial  cert.Serial
	Issuer  cert.Issuer
	Purpose cert.Purpose
	CN      string // as it stands in the certificate
	Key     string // the form under which equal names are equal
	SANs    cert.SANs
	KeyType cert.KeyType

	State      State
	Caller     string // the caller's configured name
	RequestID  string // of that caller
	BodySHA256 string // of the request, lower-case hex
	NotBefore  time.Time
	NotAfter   time.Time
	Deadline   time.Time // the key room does not sign after it
	Intent     int64     // index of the leaf that announced it
	Done       int64     // index of the leaf that ended the intent; -1 while open

	SPKISHA256 string // lower-case hex
	TBSSHA256  string // lower-case hex
	CSR        []byte // DER, kept so that recovery can ask the key room again
	Sealed     []byte // the subject's secrets, sealed to a delivery key; nil if there are none, or no more
	DER        []byte // nil unless live or revoked
	Entry      string // the directory entry that the intent names

	// RevokeAsked tells that an open intent will be revoked as it completes. RevokedAt and Reason are
	// then what was asked for, and otherwise those of the revocation.
	RevokeAsked bool
	RevokedAt   time.Time
	Reason      cert.Reason
	// ReleasedHold is the date of the last hold that was released; zero if none was.
	ReleasedHold time.Time
}

// Released tells whether a hold of the date at was released.
func (c Certificate) Released(at time.Time) bool {
	return !c.ReleasedHold.IsZero() && !at.After(c.ReleasedHold) && !at.Equal(c.RevokedAt)
}

// Query selects certificates. A zero field matches everything. The answer is in the order of the
// intents.
type Query struct {
	Serial    cert.Serial
	Purpose   cert.Purpose
	Key       string
	Issuer    cert.Issuer
	Caller    string
	RequestID string
	SPKI      string // SHA-256 of the key, in lower-case hex
	States    []State
	ValidAt   time.Time // only what has not expired then
	Limit     int
	Newest    bool        // with Limit: the last ones, not the first
	After     cert.Serial // only what was announced after this certificate; nothing if it is unknown
}

// Find gives the certificates that q selects.
func (s *Store) Find(ctx context.Context, q Query) ([]Certificate, error) {
	return s.find(ctx, q)
}

// Live gives the certificates that q selects, are live, and have not expired.
func (s *Store) Live(ctx context.Context, q Query) ([]Certificate, error) {
	q.States, q.ValidAt = []State{StateLive}, s.Now()
	return s.find(ctx, q)
}

// Find gives the certificates that q selects, with what this change and those before it did.
func (tx *Tx) Find(q Query) ([]Certificate, error) {
	text, args := q.statement()
	var found []Certificate
	if err := tx.rows(collect(&found), text, args...); err != nil {
		return nil, fmt.Errorf("finding certificates: %w", err)
	}
	return q.inOrder(found), nil
}

// StateOf gives the state of exactly this certificate, or "" if the books do not hold it.
func (s *Store) StateOf(ctx context.Context, p cert.Purpose, serial cert.Serial, der []byte) (State, error) {
	ctx = context.WithoutCancel(ctx) // see Request
	var state State
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error { return rows.Scan(&state) },
			"SELECT state FROM certificate WHERE serial = $1 AND purpose = $2 AND der = $3", serial, p, der)
	})
	if err != nil {
		return "", fmt.Errorf("looking up certificate %s: %w", serial, err)
	}
	return state, nil
}

func (s *Store) find(ctx context.Context, q Query) ([]Certificate, error) {
	text, args := q.statement()
	var found []Certificate
	err := s.reading(func(st *statements) error { return st.rows(ctx, collect(&found), text, args...) })
	if err != nil {
		return nil, fmt.Errorf("finding certificates: %w", err)
	}
	return q.inOrder(found), nil
}

func (q Query) inOrder(found []Certificate) []Certificate {
	if q.Newest {
		slices.Reverse(found)
	}
	return found
}

const certificateColumns = `serial, issuer, purpose, cn, name, sans, key_type, state, caller, request_id, body_sha256,
	not_before, not_after, deadline, intent, done, spki_sha256, tbs_sha256, csr, sealed, der, entry,
	revoke_asked, revoked_at, reason, released_hold`

func (q Query) statement() (string, []any) {
	var conditions []string
	var args []any
	and := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(condition, "$"+strconv.Itoa(len(args))))
	}
	for _, c := range []struct{ condition, value string }{
		{"serial = %s", string(q.Serial)}, {"purpose = %s", string(q.Purpose)}, {"name = %s", q.Key},
		{"issuer = %s", string(q.Issuer)}, {"caller = %s", q.Caller}, {"request_id = %s", q.RequestID}, {"spki_sha256 = %s", q.SPKI},
		{"intent > (SELECT intent FROM certificate WHERE serial = %s)", string(q.After)},
	} {
		if c.value != "" {
			and(c.condition, c.value)
		}
	}
	if !q.ValidAt.IsZero() {
		and("not_after >= %s", micros(q.ValidAt))
	}
	if len(q.States) > 0 {
		var places []string
		for _, state := range q.States {
			args = append(args, string(state))
			places = append(places, "$"+strconv.Itoa(len(args)))
		}
		conditions = append(conditions, "state IN ("+strings.Join(places, ", ")+")")
	}
	text := "SELECT " + certificateColumns + " FROM certificate"
	if len(conditions) > 0 {
		text += " WHERE " + strings.Join(conditions, " AND ")
	}
	text += " ORDER BY intent"
	if q.Newest {
		text += " DESC"
	}
	if q.Limit > 0 {
		// In the text, not as an argument: SQLite plans a statement anew for each value of a bound LIMIT,
		// which cost more than the query. Limits are constants of the callers, so texts stay few.
		text += " LIMIT " + strconv.Itoa(q.Limit)
	}
	return text, args
}

func collect(found *[]Certificate) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		c, err := scanCertificate(rows)
		*found = append(*found, c)
		return err
	}
}

// scanCertificate reads certificateColumns, and what a query asks for behind them.
func scanCertificate(rows *sql.Rows, more ...any) (Certificate, error) {
	var c Certificate
	var sans string
	var notBefore, notAfter, deadline, revokedAt, releasedHold int64
	err := rows.Scan(append([]any{&c.Serial, &c.Issuer, &c.Purpose, &c.CN, &c.Key, &sans, &c.KeyType, &c.State, &c.Caller, &c.RequestID,
		&c.BodySHA256, &notBefore, &notAfter, &deadline, &c.Intent, &c.Done, &c.SPKISHA256, &c.TBSSHA256, &c.CSR,
		&c.Sealed, &c.DER, &c.Entry, &c.RevokeAsked, &revokedAt, &c.Reason, &releasedHold}, more...)...)
	if err != nil {
		return Certificate{}, err
	}
	c.NotBefore, c.NotAfter, c.Deadline = fromMicros(notBefore), fromMicros(notAfter), fromMicros(deadline)
	c.RevokedAt, c.ReleasedHold = fromMicros(revokedAt), fromMicros(releasedHold)
	if err := json.Unmarshal([]byte(sans), &c.SANs); err != nil {
		return Certificate{}, fmt.Errorf("reading the names of %s: %w", c.Serial, err)
	}
	return c, nil
}
