package audit

import (
	"crypto/sha256"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a node of the Merkle tree of RFC 6962 section 2.1.
type Hash = tlog.Hash

// Tree is the right edge of the Merkle tree over the log: enough to append and to give the root, in
// memory that grows with the logarithm of its size. The zero value is the empty tree. Copies made with
// Clone are independent.
type Tree struct {
	size int64
	edge []Hash // roots of the complete subtrees, largest first: one for each bit set in size
}

// NewTree takes up a tree of the given size from its right edge, as the nodes at EdgeIndexes(size).
func NewTree(size int64, edge []Hash) (*Tree, error) {
	if size < 0 || len(edge) != bits.OnesCount64(uint64(size)) {
		return nil, fmt.Errorf("a tree of %d leaves has %d nodes on its edge, not %d", size, bits.OnesCount64(uint64(size)), len(edge))
	}
	return &Tree{size, append([]Hash(nil), edge...)}, nil
}

// EdgeIndexes gives the stored-hash indexes (as tlog counts them) of the right edge of a tree, largest
// subtree first.
func EdgeIndexes(size int64) []int64 {
	var indexes []int64
	var start int64
	for level := 62; level >= 0; level-- {
		if width := int64(1) << level; size&width != 0 {
			indexes = append(indexes, tlog.StoredHashIndex(level, start>>level))
			start += width
		}
	}
	return indexes
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Clone copies the tree.
func (t *Tree) Clone() *Tree { return &Tree{t.size, append([]Hash(nil), t.edge...)} }

// Append adds a leaf and returns the nodes that are complete by it, in the order of their stored-hash
// indexes, the first of which is tlog.StoredHashIndex(0, size before).
func (t *Tree) Append(leaf []byte) []Hash {
	h := tlog.RecordHash(leaf)
	nodes := []Hash{h}
	for n := t.size; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(t.edge[len(t.edge)-1], h)
		t.edge = t.edge[:len(t.edge)-1]
		nodes = append(nodes, h)
	}
	t.edge = append(t.edge, h)
	t.size++
	return nodes
}

// Root is the Merkle tree hash.
func (t *Tree) Root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	root := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(t.edge[i], root)
	}
	return root
}
