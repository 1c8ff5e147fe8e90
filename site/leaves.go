package site

import (
	"bytes"
	"context"
	"fmt"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/store"
)

// leavesAtOnce is how many leaves are in memory at once.
const leavesAtOnce = 1024

// eachLeaf calls see with the leaves of the log at [from, to), in their order. Those whose text does not hold with
// are passed over, and not decoded, which takes most of the time; nil is in all.
func eachLeaf(ctx context.Context, log *store.Store, from, to int64, with []byte, see func(index int64, leaf audit.Leaf) error) error {
	for ; from < to; from += leavesAtOnce {
		leaves, err := log.Leaves(ctx, from, min(from+leavesAtOnce, to))
		if err != nil {
			return err
		}
		for i, text := range leaves {
			if !bytes.Contains(text, with) {
				continue
			}
			leaf, err := audit.Decode(text)
			if err != nil {
				return fmt.Errorf("leaf %d: %w", from+int64(i), err)
			}
			if err := see(from+int64(i), leaf); err != nil {
				return err
			}
		}
	}
	return nil
}
