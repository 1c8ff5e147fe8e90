package store

import (
	"context"
	"database/sql"
	"fmt"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// List is the newest signed CRL of an issuer, and which of its CRLs is known to be published.
type List struct {
	Issuer     cert.Issuer
	Number     string // decimal
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    int
	DER        []byte
	SHA256     string // of the DER, lower-case hex
	Signed     int64  // index of the leaf that announced it

	PublishedNumber     string // "" when none is known to be
	PublishedCommit     string
	PublishedAt         time.Time
	PublishedNextUpdate time.Time
}

// List gives an issuer's list; false if none was signed yet.
func (s *Store) List(ctx context.Context, issuer cert.Issuer) (List, bool, error) {
	lists, err := s.lists(ctx, "der", " WHERE issuer = $1", issuer)
	if err != nil || len(lists) == 0 {
		return List{}, false, err
	}
	return lists[0], true, nil
}

// Lists gives every issuer's list, in the order of their names.
func (s *Store) Lists(ctx context.Context) ([]List, error) { return s.lists(ctx, "der", "") }

// ListTimes gives every issuer's list as Lists does, without its DER, which can be large.
func (s *Store) ListTimes(ctx context.Context) ([]List, error) { return s.lists(ctx, "NULL", "") }

func (s *Store) lists(ctx context.Context, der, where string, args ...any) ([]List, error) {
	var lists []List
	err := s.reading(func(st *statements) error {
		return st.rows(ctx, func(rows *sql.Rows) error {
			var l List
			var this, next, at, publishedNext int64
			err := rows.Scan(&l.Issuer, &l.Number, &this, &next, &l.Entries, &l.DER, &l.SHA256, &l.Signed,
				&l.PublishedNumber, &l.PublishedCommit, &at, &publishedNext)
			l.ThisUpdate, l.NextUpdate = fromMicros(this), fromMicros(next)
			l.PublishedAt, l.PublishedNextUpdate = fromMicros(at), fromMicros(publishedNext)
			lists = append(lists, l)
			return err
		}, `SELECT issuer, number, this_update, next_update, entries, `+der+`, sha256, signed,
			published_number, published_commit, published_at, published_next_update FROM list`+where+" ORDER BY issuer", args...)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the lists: %w", err)
	}
	return lists, nil
}

// PutList keeps a signed list in the place of the issuer's last one. Its number is a positive decimal
// above that of the last one, or it is refused with ErrListNumber. Published fields are ignored.
func (tx *Tx) PutList(l List) error {
	last, found, err := tx.listNumber(l.Issuer)
	if err != nil {
		return err
	}
	number, ok := new(big.Int).SetString(l.Number, 10)
	if !ok || number.Sign() <= 0 || number.String() != l.Number {
		return fmt.Errorf("%w: %q is not a positive decimal", ErrListNumber, l.Number)
	}
	if found {
		if before, _ := new(big.Int).SetString(last, 10); before == nil || number.Cmp(before) <= 0 {
			return fmt.Errorf("%w: list %s of %s after %s", ErrListNumber, l.Number, l.Issuer, last)
		}
	}
	_, err = tx.exec(`INSERT INTO list (issuer, number, this_update, next_update, entries, der, sha256, signed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (issuer) DO UPDATE SET number = $2, this_update = $3, next_update = $4, entries = $5, der = $6, sha256 = $7, signed = $8`,
		l.Issuer, l.Number, micros(l.ThisUpdate), micros(l.NextUpdate), l.Entries, append([]byte{}, l.DER...), l.SHA256, l.Signed)
	if err != nil {
		return fmt.Errorf("keeping list %s of %s: %w", l.Number, l.Issuer, err)
	}
	return nil
}

// ListPublished notes that the issuer's list of this number, which is the last one it signed, was read
// back from the remote at that time, in that commit. Another number is refused with ErrListNumber.
func (tx *Tx) ListPublished(issuer cert.Issuer, number, commit string, at time.Time) error {
	n, err := tx.exec(`UPDATE list SET published_number = number, published_commit = $1, published_at = $2,
		published_next_update = next_update WHERE issuer = $3 AND number = $4`, commit, micros(at), issuer, number)
	if err == nil && n == 0 {
		err = ErrListNumber
	}
	if err != nil {
		return fmt.Errorf("noting that list %s of %s is published: %w", number, issuer, err)
	}
	return nil
}

func (tx *Tx) listNumber(issuer cert.Issuer) (number string, found bool, err error) {
	err = tx.rows(func(rows *sql.Rows) error {
		found = true
		return rows.Scan(&number)
	}, "SELECT number FROM list WHERE issuer = $1", issuer)
	if err != nil {
		return "", false, fmt.Errorf("reading the last list of %s: %w", issuer, err)
	}
	return number, found, nil
}
