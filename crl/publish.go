package crl

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// push brings the lists of the books to the remote with a checkpoint that covers them, and enters that
// they are published.
func (l *Loop) push(ctx context.Context, debts []store.Debt, root rootList) (string, error) {
	lists, err := l.store.Lists(ctx)
	if err != nil {
		return "", err
	}
	o := &offer{loop: l, lists: lists, root: root.list}
	if o.least, err = l.mustCover(ctx, lists); err != nil {
		return "", err
	}
	o.least = max(o.least, root.leaf+1)
	if o.note, err = l.signer.Checkpoint(ctx); err != nil {
		return "", fmt.Errorf("asking for a checkpoint: %w", err)
	}
	if o.head, err = audit.OpenCheckpoint(o.note, l.signer.Hello().LogKey); err != nil {
		return "", err
	}
	if o.files, err = l.files(lists, root.list); err != nil {
		return "", err
	}
	commit, changed, err := l.publisher.Publish(ctx, o.change)
	if err != nil {
		return "", fmt.Errorf("publishing: %w", err)
	}
	l.proved, l.moved = o.files, false
	if !changed && len(debts) == 0 && allPublished(lists) {
		return commit, nil
	}
	return commit, l.enter(ctx, debts, lists, commit, o.covered)
}

// mustCover gives the least size of a checkpoint beside these lists: it covers the leaf of each.
func (l *Loop) mustCover(ctx context.Context, lists []store.List) (int64, error) {
	var least int64
	for _, kept := range lists {
		at, err := l.signedAt(ctx, kept)
		if err != nil {
			return 0, fmt.Errorf("looking for list %s of %s on the log: %w", kept.Number, kept.Issuer, err)
		}
		least = max(least, at+1)
	}
	return least, nil
}

// signedAt finds the leaf that says that a list was signed. It comes soon after the one that announced
// the list, which is the one that the books name.
func (l *Loop) signedAt(ctx context.Context, kept store.List) (int64, error) {
	const atOnce = 64
	size, _ := l.store.Head()
	for from := kept.Signed; from < size; from += atOnce {
		leaves, err := l.store.Leaves(ctx, from, min(from+atOnce, size))
		if err != nil {
			return 0, err
		}
		for n, encoded := range leaves {
			leaf, err := audit.Decode(encoded)
			if err != nil {
				return 0, err
			}
			if e, ok := leaf.Event.(*audit.CRLSigned); ok && e.Issuer == kept.Issuer && e.Number == kept.Number {
				return from + int64(n), nil
			}
		}
	}
	return 0, errors.New("it is not there")
}

// offer is what the remote is to hold.
type offer struct {
	loop    *Loop
	lists   []store.List
	root    *list.List
	files   gitrepo.Files // all but the checkpoint
	least   int64         // leaves that the checkpoint has to cover
	note    []byte
	head    audit.Checkpoint // in note
	covered int64            // by the checkpoint in the commit that holds the files
}

// change says what the commit does. While the files are there, and a checkpoint that covers them, there
// is no commit for a newer checkpoint alone.
func (o *offer) change(current gitrepo.Files) (gitrepo.Change, error) {
	there, err := audit.OpenCheckpoint(current[checkpointFile], o.loop.signer.Hello().LogKey)
	differs := err != nil || there.Size < o.least || there.Size > o.head.Size
	for path, content := range o.files {
		differs = differs || !bytes.Equal(current[path], content)
	}
	if !differs {
		o.covered = there.Size
		return gitrepo.Change{}, nil
	}
	seen := o.loop.verified(current)
	for _, kept := range o.lists {
		if s := seen[kept.Issuer]; strange(s, kept) {
			return gitrepo.Change{}, fmt.Errorf("the remote holds list %s of %s, which is not from the books, whose last is %s", s.Number, kept.Issuer, kept.Number)
		}
	}
	files := gitrepo.Files{checkpointFile: o.note}
	maps.Copy(files, o.files)
	o.covered = o.head.Size
	return gitrepo.Change{Files: files, Message: message(seen, o.named(seen), o.note)}, nil
}

// named are the lists that the commit's message can name: the root's too, when it replaces another.
func (o *offer) named(seen map[cert.Issuer]*list.List) []store.List {
	if seen[cert.Root] == nil {
		return o.lists
	}
	return append(slices.Clone(o.lists), store.List{
		Issuer: cert.Root, Number: o.root.Number.String(), ThisUpdate: o.root.ThisUpdate, NextUpdate: o.root.NextUpdate,
		Entries: len(o.root.Entries), SHA256: cert.SHA256(o.root.Raw),
	})
}

func allPublished(lists []store.List) bool {
	for _, kept := range lists {
		if kept.PublishedNumber != kept.Number {
			return false
		}
	}
	return true
}

// enter records that the remote holds the lists and pays the debts that they cover.
func (l *Loop) enter(ctx context.Context, debts []store.Debt, lists []store.List, commit string, size int64) error {
	_, err := l.store.Update(ctx, audit.Actor{Kind: audit.ByDaemon}, func(tx *store.Tx) (audit.Event, error) {
		event := &audit.CRLPublished{Commit: commit, Checkpoint: size}
		for _, kept := range lists {
			if err := tx.ListPublished(kept.Issuer, kept.Number, commit, tx.Now()); err != nil {
				return nil, err
			}
			event.Lists = append(event.Lists, audit.ListRef{Issuer: kept.Issuer, Number: kept.Number, SHA256: kept.SHA256})
		}
		for _, d := range debts {
			if err := tx.Paid(d); err != nil {
				return nil, err
			}
		}
		return event, nil
	})
	if err != nil {
		return fmt.Errorf("entering that the lists are published: %w", err)
	}
	return nil
}

// message is what the log of the configuration repository shows: which lists changed, and in trailers
// what a program wants to know, one group for each list.
func message(seen map[cert.Issuer]*list.List, lists []store.List, note []byte) string {
	var names, numbers []string
	var revoked int
	var trailers strings.Builder
	for _, kept := range lists {
		before := 0
		if s := seen[kept.Issuer]; s != nil {
			if s.Number.Cmp(number(kept.Number)) == 0 {
				continue
			}
			before = len(s.Entries)
		}
		names = append(names, string(kept.Issuer))
		numbers = append(numbers, kept.Number)
		revoked += kept.Entries - before
		fmt.Fprintf(&trailers, "CRL-Issuer: %s\nCRL-Number: %s\nThis-Update: %s\nNext-Update: %s\nCRL-SHA256: %s\n",
			kept.Issuer, kept.Number, stamp(kept.ThisUpdate), stamp(kept.NextUpdate), kept.SHA256)
	}
	subject := "crl: files put back as they were"
	if len(names) > 0 {
		subject = fmt.Sprintf("crl(%s): number %s, %+d revoked", strings.Join(names, ","), strings.Join(numbers, ","), revoked)
	}
	fmt.Fprintf(&trailers, "Audit-Checkpoint: %s\n", base64.StdEncoding.EncodeToString(note))
	return subject + "\n\n" + trailers.String()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
