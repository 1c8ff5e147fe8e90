package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/chancery-ca/chancery/audit"
)

// Counts is how much there is of everything.
type Counts struct {
	Certificates map[State]int64
	Debts        map[Topic]int64
	Parked       int64
	Leaves       int64
}

// Counts counts. Its time grows with the number of certificates.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	c := Counts{Certificates: make(map[State]int64), Debts: make(map[Topic]int64)}
	c.Leaves, _ = s.Head()
	err := s.reading(func(st *statements) error {
		err := st.rows(ctx, func(rows *sql.Rows) error {
			var state State
			var n int64
			err := rows.Scan(&state, &n)
			c.Certificates[state] = n
			return err
		}, "SELECT state, count(*) FROM certificate GROUP BY state")
		if err != nil {
			return err
		}
		return st.rows(ctx, func(rows *sql.Rows) error {
			var topic Topic
			var n, parked int64
			err := rows.Scan(&topic, &n, &parked)
			c.Debts[topic] = n
			c.Parked += parked
			return err
		}, "SELECT topic, count(*), sum(parked) FROM debt GROUP BY topic")
	})
	if err != nil {
		return Counts{}, fmt.Errorf("counting: %w", err)
	}
	return c, nil
}

// DropSealed forgets the sealed secrets of every certificate whose intent is older than before, in the
// database and in the WAL, and tells how many that were. If somebody reads from the WAL for long, the
// secrets are gone from the books but not from the file, which is an error: call again later.
func (s *Store) DropSealed(ctx context.Context, before time.Time) (int, error) {
	const atOnce = 1000 // bounds how long other changes wait
	dropped := 0
	for {
		var n int64
		err := s.run(ctx, &job{scrub: true, change: func(tx *Tx) (err error) {
			n, err = tx.exec(`UPDATE certificate SET sealed = NULL WHERE intent IN (
				SELECT intent FROM certificate WHERE sealed IS NOT NULL AND reserved < $1 ORDER BY reserved LIMIT $2)`,
				micros(before), atOnce)
			return err
		}})
		if err != nil {
			return dropped, fmt.Errorf("dropping sealed secrets: %w", err)
		}
		dropped += int(n)
		if n < atOnce {
			return dropped, nil
		}
	}
}

// maxFindings ends a check that finds nothing but faults.
const maxFindings = 50

// Check looks at the whole database: the file itself, the references, and the log, whose tree it
// computes anew from the first leaf. It returns what it finds wrong; the error says that it could not
// look.
func (s *Store) Check(ctx context.Context) (findings []error, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.engine == nil {
		return nil, s.gone
	}
	committed := *s.head.Load()
	tx, err := s.engine.readDB.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one moment of the database
	if err != nil {
		return nil, fmt.Errorf("checking the database: %w", err)
	}
	c := &checker{ctx: ctx, st: newStatements(tx.PrepareContext), committed: committed}
	err = errors.Join(c.file(), c.names(), c.log(), tx.Rollback())
	if err != nil {
		return c.findings, fmt.Errorf("checking the database: %w", err)
	}
	return c.findings, nil
}

type checker struct {
	ctx       context.Context
	st        *statements
	committed head
	findings  []error
}

func (c *checker) find(format string, args ...any) {
	if len(c.findings) < maxFindings {
		c.findings = append(c.findings, fmt.Errorf(format, args...))
	}
}

// file asks the engine about the pages, the indexes and the references.
func (c *checker) file() error {
	err := c.st.rows(c.ctx, func(rows *sql.Rows) error {
		var answer string
		err := rows.Scan(&answer)
		if answer != "ok" {
			c.find("the database file: %s", answer)
		}
		return err
	}, "PRAGMA integrity_check")
	if err != nil {
		return err
	}
	return c.st.rows(c.ctx, func(rows *sql.Rows) error {
		var table, parent string
		var row, key sql.NullInt64
		err := rows.Scan(&table, &row, &parent, &key)
		c.find("row %d of table %s refers to a row of %s that is not there", row.Int64, table, parent)
		return err
	}, "PRAGMA foreign_key_check")
}

// names compares the index of further names with the names that each certificate has.
func (c *checker) names() error {
	const held = `SELECT entry.value AS name, certificate.intent AS intent FROM certificate, json_each(certificate.sans) AS kind, json_each(kind.value) AS entry`
	for what, query := range map[string]string{
		"is not found by its further name": held + " EXCEPT SELECT name, intent FROM san",
		"is found by a name that it lacks": "SELECT name, intent FROM san EXCEPT " + held,
	} {
		err := c.st.rows(c.ctx, func(rows *sql.Rows) error {
			var name string
			var intent int64
			err := rows.Scan(&name, &intent)
			c.find("the certificate of leaf %d %s %.80q", intent, what, name)
			return err
		}, query)
		if err != nil {
			return err
		}
	}
	return nil
}

// log computes the tree again, and compares each node, the count of everything, and the head that the
// process has in memory.
func (c *checker) log() error {
	size, err := logSize(c.ctx, c.st)
	if err != nil {
		return err
	}
	if dense, err := c.dense("leaf", size); err != nil || !dense {
		return err
	}
	nodes := tlog.StoredHashIndex(0, size)
	if dense, err := c.dense("node", nodes); err != nil || !dense {
		return err
	}
	if size < c.committed.size {
		c.find("the log has %d leaves, and had %d in memory", size, c.committed.size)
	}
	const atOnce = 512
	tree := &audit.Tree{}
	for from := int64(0); from < size; from += atOnce {
		if err := c.stretch(tree, from, min(size, from+atOnce)); err != nil {
			return err
		}
	}
	return nil
}

// dense checks that a table of the log has exactly the positions 0 to size-1.
func (c *checker) dense(table string, size int64) (bool, error) {
	var count, first, last int64
	err := c.st.rows(c.ctx, func(rows *sql.Rows) error { return rows.Scan(&count, &first, &last) },
		"SELECT count(*), coalesce(min(position), 0), coalesce(max(position), -1) FROM "+table)
	if err == nil && (count != size || first != 0 || last != size-1) {
		c.find("the table %s has %d rows from %d to %d; want %d from 0", table, count, first, last, size)
		return false, nil
	}
	return true, err
}

func (c *checker) stretch(tree *audit.Tree, from, to int64) error {
	leaves, err := readLeaves(c.ctx, c.st, from, to)
	if err != nil {
		return err
	}
	position := tlog.StoredHashIndex(0, from)
	nodes := make([][]byte, 0, 2*(to-from))
	err = c.st.rows(c.ctx, func(rows *sql.Rows) error {
		var node []byte
		err := rows.Scan(&node)
		nodes = append(nodes, node)
		return err
	}, "SELECT hash FROM node WHERE position >= $1 AND position < $2 ORDER BY position", position, tlog.StoredHashIndex(0, to))
	if err != nil {
		return err
	}
	for i, leaf := range leaves {
		if _, err := audit.Decode(leaf); err != nil {
			c.find("leaf %d: %w", from+int64(i), err)
		}
		for _, want := range tree.Append(leaf) {
			if !bytes.Equal(nodes[0], want[:]) {
				c.find("node %d does not follow from the log at leaf %d", position, from+int64(i))
			}
			nodes, position = nodes[1:], position+1
		}
		if tree.Size() == c.committed.size && tree.Root() != c.committed.root {
			c.find("the root of %d leaves is not the one in memory", tree.Size())
		}
	}
	return nil
}
