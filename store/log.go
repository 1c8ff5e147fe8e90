package store

import (
	"context"
	"database/sql"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/chancery-ca/chancery/audit"
)

// overlap is how many of the last leaves are hashed anew when a log is opened.
const overlap = 64

// Head gives the size and the root of the committed log.
func (s *Store) Head() (size int64, root audit.Hash) {
	h := s.head.Load()
	return h.size, h.root
}

// Root gives the root that the log had when it was size leaves long.
func (s *Store) Root(ctx context.Context, size int64) (audit.Hash, error) {
	if have, root := s.Head(); size == have {
		return root, nil
	}
	tree, err := s.Tree(ctx, size)
	if err != nil {
		return audit.Hash{}, err
	}
	return tree.Root(), nil
}

// Tree gives the right edge of the tree that the log had when it was size leaves long.
func (s *Store) Tree(ctx context.Context, size int64) (*audit.Tree, error) {
	if have, _ := s.Head(); size < 0 || size > have {
		return nil, fmt.Errorf("the tree of %d leaves of a log that has %d", size, have)
	}
	var tree *audit.Tree
	err := s.reading(func(st *statements) (err error) {
		tree, err = edgeTree(ctx, st, size)
		return err
	})
	return tree, err
}

// Leaves gives the leaves at [from, to), all of them or an error.
func (s *Store) Leaves(ctx context.Context, from, to int64) ([][]byte, error) {
	if size, _ := s.Head(); from < 0 || to < from || to > size {
		return nil, fmt.Errorf("the leaves [%d, %d) of a log that has %d", from, to, size)
	}
	var leaves [][]byte
	err := s.reading(func(st *statements) (err error) {
		leaves, err = readLeaves(ctx, st, from, to)
		return err
	})
	return leaves, err
}

// Leaf gives the leaf at an index, or an error if there is none.
func (s *Store) Leaf(ctx context.Context, index int64) (audit.Leaf, error) {
	leaves, err := s.Leaves(ctx, index, index+1)
	if err != nil {
		return audit.Leaf{}, err
	}
	leaf, err := audit.Decode(leaves[0])
	if err != nil {
		return leaf, fmt.Errorf("leaf %d: %w", index, err)
	}
	return leaf, nil
}

// Restore appends leaves exactly as they were, for a daemon that lost the end of its log. fill brings
// the books to what each leaf says; its tx has the leaf's time and index. All of it is one transaction.
func (s *Store) Restore(ctx context.Context, leaves [][]byte, fill func(tx *Tx, index int64, leaf audit.Leaf) error) error {
	return s.run(ctx, &job{change: func(tx *Tx) error {
		first := tx.index
		for i, encoded := range leaves {
			leaf, err := audit.Decode(encoded)
			if err != nil {
				return fmt.Errorf("restoring leaf %d: %w", first+int64(i), err)
			}
			tx.index, tx.now = first+int64(i), leaf.Time
			if err := fill(tx, tx.index, leaf); err != nil {
				return fmt.Errorf("restoring what leaf %d says: %w", tx.index, err)
			}
			tx.leaves = append(tx.leaves, encoded)
		}
		return nil
	}})
}

func readLeaves(ctx context.Context, st *statements, from, to int64) ([][]byte, error) {
	leaves := make([][]byte, 0, to-from)
	err := st.rows(ctx, func(rows *sql.Rows) error {
		var position int64
		var leaf []byte
		if err := rows.Scan(&position, &leaf); err != nil {
			return err
		}
		if want := from + int64(len(leaves)); position != want {
			return fmt.Errorf("%w: leaf %d is missing", ErrHole, want)
		}
		leaves = append(leaves, leaf)
		return nil
	}, "SELECT position, leaf FROM leaf WHERE position >= $1 AND position < $2 ORDER BY position", from, to)
	if err == nil && int64(len(leaves)) != to-from {
		err = fmt.Errorf("%w: leaf %d is missing", ErrHole, from+int64(len(leaves)))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	return leaves, nil
}

func logSize(ctx context.Context, st *statements) (int64, error) {
	return next(ctx, st, "SELECT position FROM leaf ORDER BY position DESC LIMIT 1")
}

// next is one more than the position that text finds, 0 if it finds none.
func next(ctx context.Context, st *statements, text string) (int64, error) {
	var position int64 = -1
	err := st.rows(ctx, func(rows *sql.Rows) error { return rows.Scan(&position) }, text)
	if err != nil {
		return 0, fmt.Errorf("reading the log's size: %w", err)
	}
	return position + 1, nil
}

func readNode(ctx context.Context, st *statements, position int64) (audit.Hash, error) {
	var node []byte
	err := st.rows(ctx, func(rows *sql.Rows) error { return rows.Scan(&node) }, "SELECT hash FROM node WHERE position = $1", position)
	if err == nil && len(node) != tlog.HashSize {
		err = fmt.Errorf("%w: it is missing", ErrHole)
	}
	if err != nil {
		return audit.Hash{}, fmt.Errorf("reading node %d: %w", position, err)
	}
	return audit.Hash(node), nil
}

// edgeTree builds the tree of the given size from its right edge among the nodes.
func edgeTree(ctx context.Context, st *statements, size int64) (*audit.Tree, error) {
	var edge []audit.Hash
	for _, position := range audit.EdgeIndexes(size) {
		node, err := readNode(ctx, st, position)
		if err != nil {
			return nil, err
		}
		edge = append(edge, node)
	}
	return audit.NewTree(size, edge)
}

// loadTree takes up the tree of the whole log, and checks its nodes against the last leaves.
func loadTree(ctx context.Context, st *statements) (*audit.Tree, error) {
	size, err := logSize(ctx, st)
	if err != nil {
		return nil, err
	}
	nodes, err := next(ctx, st, "SELECT position FROM node ORDER BY position DESC LIMIT 1")
	if err != nil {
		return nil, err
	}
	if want := tlog.StoredHashIndex(0, size); nodes != want {
		return nil, fmt.Errorf("a log of %d leaves has %d nodes, not %d", size, nodes, want)
	}
	from := max(0, size-overlap)
	tree, err := edgeTree(ctx, st, from)
	if err != nil {
		return nil, err
	}
	leaves, err := readLeaves(ctx, st, from, size)
	if err != nil {
		return nil, err
	}
	for i, leaf := range leaves {
		first := tlog.StoredHashIndex(0, from+int64(i))
		for j, want := range tree.Append(leaf) {
			have, err := readNode(ctx, st, first+int64(j))
			if err != nil {
				return nil, err
			}
			if have != want {
				return nil, fmt.Errorf("node %d does not follow from the log at leaf %d", first+int64(j), from+int64(i))
			}
		}
	}
	return tree, nil
}
