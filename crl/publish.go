package crl

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// lookAtRemote gives the lists on the remote that verify under our issuers. Anything else in their
// place is vandalism: an alarm, and ours again with the next commit.
func (l *Loop) lookAtRemote(ctx context.Context) (map[cert.Issuer]*list.List, error) {
	files, _, err := gitrepo.Read(ctx, l.publisher.Remote, l.publisher.Folder)
	if err != nil {
		return nil, fmt.Errorf("reading the remote: %w", err)
	}
	return l.verified(files), nil
}

func (l *Loop) verified(files gitrepo.Files) map[cert.Issuer]*list.List {
	seen := make(map[cert.Issuer]*list.List)
	for _, i := range l.issuers {
		der, ok := files[derFile(i.id)]
		if !ok {
			continue
		}
		parsed, err := list.Parse(der)
		if err == nil {
			err = parsed.Verify(i.cert)
		}
		if err != nil {
			l.log.Error("somebody replaced a list on the remote", zap.String("code", codeTampered),
				zap.String("file", derFile(i.id)), zap.Error(err))
			continue
		}
		seen[i.id] = parsed
	}
	return seen
}

// push brings the lists of the books to the remote with a checkpoint that covers them, and enters that
// they are published.
func (l *Loop) push(ctx context.Context, debts []store.Debt) (string, error) {
	lists, err := l.store.Lists(ctx)
	if err != nil {
		return "", err
	}
	note, err := l.signer.Checkpoint(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for a checkpoint: %w", err)
	}
	ours, err := l.files(lists)
	if err != nil {
		return "", err
	}
	commit, changed, err := l.publisher.Publish(ctx, func(current gitrepo.Files) (gitrepo.Change, error) {
		return l.change(current, ours, lists, note)
	})
	if err != nil {
		return "", fmt.Errorf("publishing: %w", err)
	}
	if !changed && len(debts) == 0 && allPublished(lists) {
		return commit, nil
	}
	checkpoint, err := audit.OpenCheckpoint(note, l.signer.Hello().LogKey)
	if err != nil {
		return "", err
	}
	return commit, l.enter(ctx, debts, lists, commit, checkpoint.Size)
}

// change says what the commit does. While nothing but the checkpoint would change there is no commit.
func (l *Loop) change(current, ours gitrepo.Files, lists []store.List, note []byte) (gitrepo.Change, error) {
	differs := len(current[checkpointFile]) == 0
	for path, content := range ours {
		differs = differs || !bytes.Equal(current[path], content)
	}
	if !differs {
		return gitrepo.Change{}, nil
	}
	seen := l.verified(current)
	for _, kept := range lists {
		if s := seen[kept.Issuer]; s != nil && s.Number.Cmp(number(kept.Number)) > 0 {
			return gitrepo.Change{}, fmt.Errorf("the remote holds list %s of %s, newer than %s of the books", s.Number, kept.Issuer, kept.Number)
		}
	}
	files := gitrepo.Files{checkpointFile: note}
	for path, content := range ours {
		files[path] = content
	}
	return gitrepo.Change{Files: files, Message: message(seen, lists, note)}, nil
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
// what a program wants to know, one group a list.
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
