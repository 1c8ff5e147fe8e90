package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

var errTxOver = errors.New("a Tx was used after its change returned")

// Tx is the books within one change. It belongs to the writer and ends with the change.
type Tx struct {
	write *statements
	now   time.Time
	index int64

	leaves [][]byte
	owed   []Topic
	paid   []Debt
	wrote  bool

	// err is the first error of the engine. It sticks: SQLite answers a full disk by undoing the whole
	// transaction, and a statement after that would commit by itself.
	err error
}

// Now is the time of the change: UTC, whole microseconds.
func (tx *Tx) Now() time.Time { return tx.now }

// Index is the index that the change's leaf will have.
func (tx *Tx) Index() int64 { return tx.index }

// append adds a leaf to the log. What the canonical decoder would not read back is refused here:
// once on the log it could never be taken off, and the key room would go no further.
func (tx *Tx) append(who audit.Actor, event audit.Event) error {
	leaf, err := audit.Encode(audit.Leaf{Time: tx.now, Actor: who, Event: event})
	if err != nil {
		return err
	}
	if _, err := audit.Decode(leaf); err != nil {
		return fmt.Errorf("reading back a %s leaf: %w", event.Type(), err)
	}
	tx.leaves = append(tx.leaves, leaf)
	return nil
}

func (tx *Tx) exec(text string, args ...any) (int64, error) {
	if tx.err != nil {
		return 0, tx.err
	}
	n, err := tx.write.exec(context.Background(), text, args...)
	if err != nil {
		tx.err = err
	}
	tx.wrote = tx.wrote || n > 0
	return n, err
}

func (tx *Tx) rows(scan func(*sql.Rows) error, text string, args ...any) error {
	if tx.err != nil {
		return tx.err
	}
	err := tx.write.rows(context.Background(), scan, text, args...)
	if err != nil {
		tx.err = err
	}
	return err
}
