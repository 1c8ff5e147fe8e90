package audit

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func leafAt(i int64) []byte { return fmt.Appendf(nil, "leaf %d", i) }

// reference is the tree as tlog keeps it: every node, by its stored-hash index.
type reference []tlog.Hash

func (r reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(r)) {
			return nil, fmt.Errorf("no node %d", index)
		}
		hashes[i] = r[index]
	}
	return hashes, nil
}

// TestTree grows a tree and compares it at every size with tlog's: root, new nodes, and the edge from
// which it can be taken up again.
func TestTree(t *testing.T) {
	tree, all := new(Tree), reference(nil)
	if want := sha256.Sum256(nil); tree.Root() != want { // RFC 6962 section 2.1
		t.Error("the empty tree has another root")
	}
	for size := int64(0); size <= 300; size++ {
		checkAt(t, tree, all, size)
		nodes, err := tlog.StoredHashes(size, leafAt(size), all)
		if err != nil {
			t.Fatal(err)
		}
		if first := tlog.StoredHashIndex(0, size); first != int64(len(all)) {
			t.Fatalf("leaf %d goes to node %d, but there are %d", size, first, len(all))
		}
		if got := tree.Append(leafAt(size)); !slices.Equal(got, nodes) {
			t.Fatalf("leaf %d completes %d nodes, want %d, or others", size, len(got), len(nodes))
		}
		all = append(all, nodes...)
	}
}

func checkAt(t *testing.T, tree *Tree, all reference, size int64) {
	t.Helper()
	if tree.Size() != size {
		t.Fatalf("size %d, want %d", tree.Size(), size)
	}
	edge, err := all.ReadHashes(EdgeIndexes(size))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := NewTree(size, edge)
	if err != nil {
		t.Fatal(err)
	}
	if taken.Root() != tree.Root() {
		t.Fatalf("size %d: the tree taken up has another root", size)
	}
	if size == 0 {
		return
	}
	want, err := tlog.TreeHash(size, all)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Root() != want {
		t.Fatalf("size %d: another root than tlog's", size)
	}
	taken.Append(leafAt(size))
	if tree.Root() != want || taken.Root() == want {
		t.Fatalf("size %d: the tree taken up is not one of its own", size)
	}
}

// TestLargeTrees does the same at sizes that a log reaches in years, from random edges: no tree of that
// size fits a test.
func TestLargeTrees(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		size := random.Int64N(1 << (1 + random.IntN(61)))
		nodes := make(sparse)
		indexes := EdgeIndexes(size)
		edge := make([]Hash, len(indexes))
		for i, index := range indexes {
			edge[i] = Hash(sha256.Sum256(fmt.Append(nil, index)))
			nodes[index] = edge[i]
		}
		tree, err := NewTree(size, edge)
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(5) {
			if tree.Size() > 0 {
				want, err := tlog.TreeHash(tree.Size(), nodes)
				if err != nil {
					t.Fatalf("size %d: %v", tree.Size(), err)
				}
				if tree.Root() != want {
					t.Fatalf("size %d: another root than tlog's", tree.Size())
				}
			}
			first := tlog.StoredHashIndex(0, tree.Size())
			for j, h := range tree.Append(leafAt(i)) {
				nodes[first+int64(j)] = h
			}
		}
	}
}

type sparse map[int64]tlog.Hash

func (s sparse) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := s[index]
		if !ok {
			return nil, fmt.Errorf("node %d is not on the edge", index)
		}
		hashes[i] = h
	}
	return hashes, nil
}

// TestClone changes a copy.
func TestClone(t *testing.T) {
	tree := new(Tree)
	for i := range int64(6) {
		tree.Append(leafAt(i))
	}
	root, a, b := tree.Root(), tree.Clone(), tree.Clone()
	a.Append([]byte("a"))
	b.Append([]byte("b"))
	if tree.Root() != root || tree.Size() != 6 || a.Root() == b.Root() || a.Size() != 7 {
		t.Error("copies share something")
	}
}

// TestBadEdges takes up trees from edges of another size.
func TestBadEdges(t *testing.T) {
	for _, c := range []struct {
		size int64
		edge int
	}{{-1, 0}, {0, 1}, {1, 0}, {3, 1}, {3, 3}, {1 << 40, 2}} {
		if _, err := NewTree(c.size, make([]Hash, c.edge)); err == nil {
			t.Errorf("a tree of %d leaves from %d nodes", c.size, c.edge)
		}
	}
}
