package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// settle finds out how an open intent ended, and enters it: signed, then it is completed; not signed,
// then it never will be, and is abandoned. If the key room cannot be asked, the intent stays open.
func (a *Authority) settle(ctx context.Context, who audit.Actor, serial cert.Serial, intent int64, why string) (store.Certificate, error) {
	der, err := a.signer.Settle(ctx, intent)
	if err != nil {
		return store.Certificate{}, fmt.Errorf("settling the intent of %s: %w", serial, err)
	}
	if der != nil {
		c, err := a.certificate(ctx, serial)
		if err != nil {
			return c, err
		}
		if err := sameTBS(der, c.TBSSHA256); err != nil {
			return c, fmt.Errorf("certificate %s: %w", serial, err)
		}
		c, _, err = a.complete(ctx, who, serial, der)
		return c, err
	}
	_, err = a.store.Update(ctx, who, func(tx *store.Tx) (audit.Event, error) {
		if err := tx.Abandon(serial); err != nil {
			return nil, err
		}
		return &audit.IssueAbandoned{Serial: serial, Intent: intent, Why: why, Room: a.signer.RoomState()}, nil
	})
	if err != nil {
		return store.Certificate{}, fmt.Errorf("abandoning the intent of %s: %w", serial, err)
	}
	return a.certificate(ctx, serial)
}

// Recover settles the open intents that no call in this process works on and whose deadline is before
// the given time; at start, that is all of them. It returns how many it settled, and the first error:
// an intent that could not be settled stays open for the next time.
func (a *Authority) Recover(ctx context.Context, before time.Time) (int, error) {
	open, err := a.store.Find(ctx, store.Query{States: []store.State{store.StateOpen}})
	if err != nil {
		return 0, err
	}
	settled := 0
	var failed error
	for _, c := range open {
		if !c.Deadline.Before(before) {
			continue
		}
		land, other := a.tryTakeOff(c.Caller, c.RequestID)
		if other != nil {
			continue
		}
		_, err := a.settle(ctx, audit.Actor{Kind: audit.ByDaemon}, c.Serial, c.Intent, "recovered")
		land()
		switch {
		case err == nil:
			settled++
		case !errors.Is(err, store.ErrNotOpen) && failed == nil:
			failed = err
		}
	}
	return settled, failed
}

// ForgetSecrets deletes sealed secrets whose delivery time is over.
func (a *Authority) ForgetSecrets(ctx context.Context) (int, error) {
	kept := time.Duration(a.signer.Hello().DeliveryHours) * time.Hour
	return a.store.DropSealed(ctx, a.store.Now().Add(-kept))
}
