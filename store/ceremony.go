package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/chancery-ca/chancery/audit"
)

// ceremonyLeaves is served by the index leaf_ceremony, whose condition it repeats word for word.
const ceremonyLeaves = `SELECT position, leaf FROM leaf
	WHERE instr(leaf, x'2274797065223a22636572656d6f6e792e') > 0 ORDER BY position`

// Ceremony gives the leaves that name the CAs and the root's lists, oldest first: a handful, and one more
// for each later list of the root. It does not read the rest of the log.
func (s *Store) Ceremony(ctx context.Context) ([]audit.Entry, error) {
	var entries []audit.Entry
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			var e audit.Entry
			err := rows.Scan(&e.Index, &e.Leaf)
			entries = append(entries, e)
			return err
		}, ceremonyLeaves)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the ceremony's leaves: %w", err)
	}
	return entries, nil
}
