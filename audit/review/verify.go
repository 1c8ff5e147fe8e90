package review

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/store"
)

// Source is what Verify compares.
type Source struct {
	Log     Log
	LogKey  string   // verifier key of the log, as in trust/log.pub; from a place that the log's keeper cannot write
	History *History // nil: the log is only held against itself
	// Signers are public keys of callers who sign their requests, from those callers. Every signature on the log in
	// the name of one of them has to be of one of its keys.
	Signers map[string][]crypto.PublicKey
}

// Report is what Verify found. The log is verified if Contradiction is nil.
type Report struct {
	Origin        string               `json:"origin"`
	Leaves        int64                `json:"leaves"`      // that were verified
	Root          string               `json:"root"`        // of the tree over them, hex
	Checkpoints   int                  `json:"checkpoints"` // that agree
	Witnessed     int64                `json:"witnessed"`   // leaves that the largest of them covers
	Commits       int                  `json:"commits"`     // that were read
	Lists         int                  `json:"lists"`       // different lists in them, each on the log
	Remarks       []audit.Remark       `json:"remarks,omitempty"`
	Findings      []Finding            `json:"findings,omitempty"`
	Signed        []Signed             `json:"signed,omitempty"`
	Contradiction *audit.Contradiction `json:"contradiction,omitempty"`

	Books *audit.Books `json:"-"` // what the log implies, as far as it was verified
}

// Verify reads the whole log, computes its tree, checks each leaf against those before it, compares the
// tree with every checkpoint in the history, and each list in the history with the log. The error says
// that it could not look; what it found is in the report.
func Verify(ctx context.Context, s Source) (Report, error) {
	key := strings.TrimSpace(s.LogKey)
	if key == "" {
		return Report{}, errors.New("verifying a log takes the log key")
	}
	v, err := audit.NewVerifier(key)
	if err != nil {
		return Report{}, err
	}
	r := &Report{}
	err = r.read(ctx, v, s)
	var c *audit.Contradiction
	if errors.As(err, &c) {
		r.Contradiction, err = c, nil
	}
	if err != nil {
		return Report{}, err
	}
	r.Books = v.Books()
	tree, root := v.Tree(), v.Tree().Root()
	r.Origin, r.Leaves, r.Root, r.Remarks = r.Books.Log.Origin, tree.Size(), hex.EncodeToString(root[:]), r.Books.Remarks
	r.Checkpoints, r.Witnessed = v.Checkpoints()
	return *r, nil
}

// read gives the first contradiction as its error.
func (r *Report) read(ctx context.Context, v *audit.Verifier, s Source) error {
	if err := r.expect(v, s.History); err != nil {
		return err
	}
	size, _ := s.Log.Head()
	err := pages(ctx, s.Log, size, func(from int64, leaves [][]byte) error { return page(ctx, v, s.Log, from, leaves) })
	if err != nil {
		return err
	}
	if err := v.Finish(); err != nil {
		return err
	}
	if err := r.signed(ctx, s, size); err != nil || s.History == nil {
		return err
	}
	return r.lists(ctx, v.Books(), s.History)
}

func (r *Report) expect(v *audit.Verifier, h *History) error {
	if h == nil {
		return nil
	}
	r.Commits, r.Findings = len(h.commits), append([]Finding(nil), h.findings...)
	for _, n := range h.notes {
		err := v.Expect(n.signed, n.source())
		var c *audit.Contradiction
		if errors.As(err, &c) && c.Code == audit.CheckpointSignature {
			r.Findings = append(r.Findings, Finding{n.commit, c.Code, fmt.Sprintf("the %s: %s", n.place, c.Reason)})
		} else if err != nil {
			return err
		}
	}
	return nil
}

// page adds some leaves. If they do not give the root that the store keeps, one of them was altered
// after it was written, and they are added one by one to find it.
func page(ctx context.Context, v *audit.Verifier, log Log, from int64, leaves [][]byte) error {
	tree := v.Tree()
	for _, leaf := range leaves {
		tree.Append(leaf)
	}
	stored, err := storedRoot(ctx, log, tree.Size())
	if err != nil {
		return err
	}
	altered := tree.Root() != stored
	for i, leaf := range leaves {
		if !altered {
			if err := v.Add(leaf); err != nil {
				return err
			}
			continue
		}
		if stored, err = storedRoot(ctx, log, from+int64(i)+1); err != nil {
			return err
		}
		if err := v.AddWithRoot(leaf, stored); err != nil {
			return err
		}
	}
	return nil
}

// storedRoot gives the root that the store keeps, and one that nothing agrees with where its tree has a
// hole.
func storedRoot(ctx context.Context, log Log, size int64) (audit.Hash, error) {
	root, err := log.Root(ctx, size)
	if err != nil && !errors.Is(err, store.ErrHole) {
		return root, fmt.Errorf("reading the tree: %w", err)
	}
	return root, nil
}
