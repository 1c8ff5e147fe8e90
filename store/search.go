package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// SearchQuery selects certificates by what they say and by what became of them. A zero field matches
// everything. Keys are one name as each purpose spells it, and SAN is a further name in canonical form.
type SearchQuery struct {
	Keys     map[cert.Purpose]string
	SAN      string
	Purpose  cert.Purpose
	Caller   string
	State    State
	EndsFrom time.Time // notAfter, both ends included
	EndsTo   time.Time
	After    int64 // only what was announced by a later leaf than this
	Limit    int   // rows that are looked at, and so at most as many that match
}

// Search looks at the certificates after q.After in the order of the intents, and gives those that q selects,
// without the CSR, the secrets and the certificate itself. next is where to go on, 0 when there is no more. A
// name, a further name and a caller are found by an index; for the rest every certificate is looked at, Limit
// at a time.
func (s *Store) Search(ctx context.Context, q SearchQuery) (found []Certificate, next int64, err error) {
	text, args := q.statement()
	looked := 0
	err = s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			c, err := scanCertificate(rows)
			if err != nil {
				return err
			}
			looked, next = looked+1, c.Intent
			if q.matches(c) {
				found = append(found, c)
			}
			return nil
		}, text, args...)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("searching certificates: %w", err)
	}
	if looked < q.Limit {
		next = 0
	}
	return found, next, nil
}

// statement narrows the search by the best index that there is. What else is asked for is for matches.
func (q SearchQuery) statement() (string, []any) {
	light := strings.Replace(certificateColumns, "csr, sealed, der,", "NULL, NULL, NULL,", 1)
	text, args := "SELECT "+light+" FROM certificate ", []any{q.After}
	switch {
	case len(q.Keys) > 0:
		var places []string
		for purpose, key := range q.Keys {
			args = append(args, string(purpose), key)
			places = append(places, fmt.Sprintf("purpose = $%d AND name = $%d", len(args)-1, len(args)))
		}
		text += "WHERE intent > $1 AND (" + strings.Join(places, " OR ") + ")"
	case q.SAN != "":
		args = append(args, q.SAN)
		text += "WHERE intent IN (SELECT intent FROM san WHERE name = $2 AND intent > $1)"
	case q.Caller != "":
		args = append(args, q.Caller)
		text += "INDEXED BY certificate_caller WHERE caller = $2 AND intent > $1"
	default:
		text += "WHERE intent > $1"
	}
	return text + " ORDER BY intent LIMIT " + strconv.Itoa(q.Limit), args
}

func (q SearchQuery) matches(c Certificate) bool {
	switch {
	case len(q.Keys) > 0 && q.Keys[c.Purpose] != c.Key,
		q.SAN != "" && !slices.Contains(c.SANs.All(), q.SAN),
		q.Purpose != "" && q.Purpose != c.Purpose,
		q.Caller != "" && q.Caller != c.Caller,
		q.State != "" && q.State != c.State,
		!q.EndsFrom.IsZero() && c.NotAfter.Before(q.EndsFrom),
		!q.EndsTo.IsZero() && c.NotAfter.After(q.EndsTo):
		return false
	}
	return true
}
