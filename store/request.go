package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Request is a request id that a caller has spent, and on what.
type Request struct {
	Caller     string // the configured name
	ID         string
	Method     string
	BodySHA256 string      // lower-case hex
	Serial     cert.Serial // the certificate that it made, if it made one
	Index      int64       // of the leaf that spent it
}

const selectRequest = "SELECT method, body_sha256, serial, position FROM request WHERE caller = $1 AND id = $2"

// Request tells whether and on what the caller has spent a request id.
func (s *Store) Request(ctx context.Context, caller, id string) (Request, bool, error) {
	ctx = context.WithoutCancel(ctx) // one row is not worth the two goroutines that would wait for ctx to end
	r, found := Request{Caller: caller, ID: id}, false
	err := s.reading(func(st *statements) error { return st.rows(ctx, r.scan(&found), selectRequest, caller, id) })
	return r.or(found, err)
}

// Request tells whether and on what the caller has spent a request id, this change and those before
// it included.
func (tx *Tx) Request(caller, id string) (Request, bool, error) {
	r, found := Request{Caller: caller, ID: id}, false
	return r.or(found, tx.rows(r.scan(&found), selectRequest, caller, id))
}

// BindRequest spends a request id. It returns ErrRequestBound if the caller has spent it before,
// whatever on.
func (tx *Tx) BindRequest(r Request) error {
	if r.Caller == "" || r.ID == "" {
		return fmt.Errorf("binding request %q of caller %q: want both", r.ID, r.Caller)
	}
	n, err := tx.exec(`INSERT INTO request (caller, id, method, body_sha256, serial, position)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, id) DO NOTHING`,
		r.Caller, r.ID, r.Method, r.BodySHA256, r.Serial, r.Index)
	if err == nil && n == 0 {
		err = ErrRequestBound
	}
	if err != nil {
		return fmt.Errorf("binding request %q of caller %q: %w", r.ID, r.Caller, err)
	}
	return nil
}

func (r *Request) scan(found *bool) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		*found = true
		return rows.Scan(&r.Method, &r.BodySHA256, &r.Serial, &r.Index)
	}
}

func (r Request) or(found bool, err error) (Request, bool, error) {
	if err != nil {
		return Request{}, false, fmt.Errorf("looking up request %q of caller %q: %w", r.ID, r.Caller, err)
	}
	if !found {
		return Request{}, false, nil
	}
	return r, true, nil
}
