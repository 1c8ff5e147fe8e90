package crl

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// rootList is the root's list that is published, and the leaf that names it.
type rootList struct {
	list *list.List
	leaf int64
}

// rootList gives the root's newest list on the log. The root signs away from here, and an operator puts its
// list into the key room: one that follows is entered on the log now, before anybody sees it. Any other
// there is an alarm, and the one on the log stays, from the remote if need be. seen is the root's list on
// the remote, nil if there is none.
func (l *Loop) rootList(ctx context.Context, seen *list.List) (rootList, error) {
	named, leaf, err := l.namedRootList(ctx)
	if err != nil {
		return rootList{}, err
	}
	hello, err := l.signer.FreshHello(ctx)
	if err != nil {
		return rootList{}, fmt.Errorf("asking for the root's CRL: %w", err)
	}
	held, err := l.read(l.root, hello.RootCRL)
	if err == nil && cert.SHA256(held.Raw) == named.SHA256 {
		return rootList{held, leaf}, nil
	}
	if seen != nil && cert.SHA256(seen.Raw) != named.SHA256 {
		seen = nil // not what the log says, so it proves nothing
	}
	if err == nil {
		err = l.followsRoot(held, named, seen)
	}
	if err == nil {
		return l.enterRoot(ctx, held)
	}
	err = fmt.Errorf("the root's CRL in the key room is not taken up: %w; install the newest one with chancery root-crl install", err)
	if seen == nil {
		return rootList{}, err
	}
	l.log.Error("the root's list stays as it is", zap.String("code", codeRoot), zap.String("number", seen.Number.String()), zap.Error(err))
	return rootList{seen, leaf}, nil
}

// namedRootList gives what the log says of the root's newest list.
func (l *Loop) namedRootList(ctx context.Context) (*audit.RootListNamed, int64, error) {
	entries, err := l.store.Ceremony(ctx)
	if err != nil {
		return nil, 0, err
	}
	named, at := &audit.RootListNamed{Number: "0"}, int64(-1)
	for _, entry := range entries {
		if e, ok := entry.Event.(*audit.RootListNamed); ok {
			named, at = e, entry.Index
		}
	}
	return named, at, nil
}

// followsRoot judges a list that is to come after the one that the log names, whose content is in last if
// the remote still has it.
func (l *Loop) followsRoot(next *list.List, named *audit.RootListNamed, last *list.List) error {
	if err := next.Current(l.store.Now()); err != nil {
		return err
	}
	if next.Number.Cmp(number(named.Number)) <= 0 || next.ThisUpdate.Before(named.ThisUpdate) {
		return fmt.Errorf("it is number %s of %s, and the log names number %s of %s",
			next.Number, stamp(next.ThisUpdate), named.Number, stamp(named.ThisUpdate))
	}
	if last == nil {
		return nil
	}
	never := func(cert.Serial) (time.Time, bool) { return time.Time{}, false } // no CA's entry leaves
	return list.Follows(next, last, never, func(list.Entry) bool { return false })
}

func (l *Loop) enterRoot(ctx context.Context, next *list.List) (rootList, error) {
	entry, err := l.store.Update(ctx, audit.Actor{Kind: audit.ByDaemon}, func(*store.Tx) (audit.Event, error) {
		return &audit.RootListNamed{
			Number: next.Number.String(), ThisUpdate: next.ThisUpdate, NextUpdate: next.NextUpdate, SHA256: cert.SHA256(next.Raw),
		}, nil
	})
	if err != nil {
		return rootList{}, fmt.Errorf("entering the root's new CRL: %w", err)
	}
	return rootList{next, entry.Index}, nil
}
