package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Place is where a certificate stands in the order in which certificates end: by their end, and by their
// intents where that is the same. The zero Place is before all.
type Place struct {
	NotAfter time.Time
	Intent   int64
}

// ExpiringQuery selects live certificates that end in [From, Until]. An empty Purpose matches every one.
type ExpiringQuery struct {
	From, Until time.Time
	Purpose     cert.Purpose
	After       Place // only what stands behind this place
	Limit       int   // positive
}

// Expiring is a live certificate that will end. Superseded tells that a live certificate of the same
// purpose and name stands behind it, SupersededByCaller that one does which the same caller asked for.
type Expiring struct {
	Certificate
	Superseded, SupersededByCaller bool
}

// Expiring gives what q selects, in the order in which it ends.
func (s *Store) Expiring(ctx context.Context, q ExpiringQuery) ([]Expiring, error) {
	text, args := q.statement()
	var found []Expiring
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			var e Expiring
			var err error
			e.Certificate, err = scanCertificate(rows, &e.Superseded, &e.SupersededByCaller)
			found = append(found, e)
			return err
		}, text, args...)
	})
	if err != nil {
		return nil, fmt.Errorf("finding what expires: %w", err)
	}
	return found, nil
}

func (q ExpiringQuery) statement() (string, []any) {
	from := micros(q.From)
	after := int64(-1) // every intent at From itself
	if place := micros(q.After.NotAfter); place >= from {
		from, after = place, q.After.Intent
	}
	// The row value goes along the index; each look for a later certificate is one of certificate_name.
	const later = `EXISTS (SELECT 1 FROM certificate AS later INDEXED BY certificate_name
			WHERE later.purpose = certificate.purpose AND later.name = certificate.name AND later.state = 'live'
			AND (later.not_after, later.intent) > (certificate.not_after, certificate.intent)`
	text := "SELECT " + certificateColumns + ", " + later + "), " + later + ` AND later.caller = certificate.caller)
		FROM certificate INDEXED BY certificate_expiry
		WHERE state = 'live' AND (not_after, intent) > ($1, $2) AND not_after <= $3`
	args := []any{from, after, micros(q.Until)}
	if q.Purpose != "" {
		text += " AND purpose = $4"
		args = append(args, string(q.Purpose))
	}
	return text + " ORDER BY not_after, intent LIMIT " + strconv.Itoa(q.Limit), args
}
