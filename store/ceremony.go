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

// CeremonyLeaf is a leaf of the ceremony, decoded.
type CeremonyLeaf struct {
	Index int64
	Event audit.Event
}

// Ceremony gives the leaves that name the CAs and the root's lists, oldest first: a handful, and one more
// for each later list of the root. It does not read the rest of the log.
func (s *Store) Ceremony(ctx context.Context) ([]CeremonyLeaf, error) {
	var all []CeremonyLeaf
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			var at int64
			var encoded []byte
			if err := rows.Scan(&at, &encoded); err != nil {
				return err
			}
			leaf, err := audit.Decode(encoded)
			if err != nil {
				return fmt.Errorf("leaf %d: %w", at, err)
			}
			all = append(all, CeremonyLeaf{at, leaf.Event})
			return nil
		}, ceremonyLeaves)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the ceremony's leaves: %w", err)
	}
	return all, nil
}
