package crl

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// lookAtRemote gives the lists on the remote that verify under our CAs. Anything else in their
// place is vandalism: an alarm, and ours again with the next commit.
func (l *Loop) lookAtRemote(ctx context.Context) (map[cert.Issuer]*list.List, error) {
	files, _, err := gitrepo.Read(ctx, l.publisher.Remote, l.publisher.Folder)
	if err != nil {
		return nil, fmt.Errorf("reading the remote: %w", err)
	}
	if err := l.heed(ctx, files[checkpointFile]); err != nil {
		return nil, err
	}
	books, err := l.store.Lists(ctx)
	if err != nil {
		return nil, err
	}
	l.raiseAlarm(files, books)
	return l.verified(files), nil
}

func (l *Loop) verified(files gitrepo.Files) map[cert.Issuer]*list.List {
	seen := make(map[cert.Issuer]*list.List)
	for _, i := range l.chain() {
		if parsed, err := l.read(i, files[derFile(i.id)]); err == nil {
			seen[i.id] = parsed
		}
	}
	return seen
}

// raiseAlarm says which files with lists, of those that once were published, are gone or are not ours.
func (l *Loop) raiseAlarm(files gitrepo.Files, books []store.List) {
	published := make(map[cert.Issuer]string)
	for _, kept := range books {
		if kept.PublishedNumber != "" {
			published[kept.Issuer] = kept.PublishedNumber
		}
	}
	chain := l.chain()
	holding := map[string][]*authority{bundleFile: chain}
	for _, i := range chain {
		holding[derFile(i.id)], holding[pemFile(i.id)] = []*authority{i}, []*authority{i}
	}
	for _, path := range slices.Sorted(maps.Keys(holding)) {
		content, there := files[path]
		if !there && (len(published) == 0 || l.moved) || there && bytes.Equal(content, l.proved[path]) {
			continue
		}
		if err := genuine(content, holding[path], published); err != nil {
			l.log.Error("somebody replaced a list on the remote", zap.String("code", codeTampered),
				zap.String("file", path), zap.Bool("there", there), zap.Error(err))
		}
	}
}

// genuine checks that a file, DER or PEM, holds one list of each authority, in their order, and none
// that is older than the one that was published.
func genuine(file []byte, authorities []*authority, published map[cert.Issuer]string) error {
	lists, err := list.ParseBundle(file)
	if parsed, notDER := list.Parse(file); notDER == nil {
		lists, err = []*list.List{parsed}, nil
	}
	if err != nil {
		return err
	}
	if len(lists) != len(authorities) {
		return fmt.Errorf("it holds %d lists, not %d", len(lists), len(authorities))
	}
	for n, i := range authorities {
		if err := lists[n].Verify(i.cert); err != nil {
			return err
		}
		if last := published[i.id]; lists[n].Number.Cmp(number(last)) < 0 {
			return fmt.Errorf("it holds list %s of %s; list %s was published", lists[n].Number, i.id, last)
		}
	}
	return nil
}

// strange tells whether a genuine list on the remote is neither the one that the books hold nor older:
// another copy of this installation, or its future, published it.
func strange(seen *list.List, current store.List) bool {
	if seen == nil {
		return false
	}
	order := seen.Number.Cmp(number(current.Number))
	return order > 0 || order == 0 && !bytes.Equal(seen.Raw, current.DER)
}

// remoteKnown refuses to replace a list whose entries the books do not know: that would un-revoke them.
// It is asked before a number is spent.
func (l *Loop) remoteKnown(ctx context.Context, i *authority, current store.List, seen *list.List) error {
	if !strange(seen, current) {
		return nil
	}
	if err := l.entriesKnown(ctx, i, seen, nil); err != nil {
		return fmt.Errorf("list %s of %s on the remote is not from these books, whose last is %q, and cannot be replaced; restore the newest copy of this installation: %w",
			seen.Number, i.id, current.Number, err)
	}
	return nil
}
