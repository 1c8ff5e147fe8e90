package site

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/sdnotify"
	"github.com/chancery-ca/chancery/store"
)

// signOfLife keeps systemd's watchdog content while the store's writer answers: nothing is issued, revoked
// or refused without it. That the RPC has ended ends the whole process, so it needs no watching; git and
// the directory may be away for long, which a new start would not mend.
func (d Daemon) signOfLife(ctx context.Context, p *parts) error {
	return sdnotify.Watch(ctx, p.writes, func(err error) {
		if ctx.Err() == nil {
			d.Log.Error("no sign of life to systemd", zap.String("code", "systemd.watchdog"), zap.Error(err))
		}
	})
}

var errWrites = errors.New("the writer answers")

// writes waits until the store's writer has begun a transaction, and has it undone.
func (p *parts) writes(ctx context.Context) error {
	_, err := p.store.Update(ctx, audit.Actor{Kind: audit.ByDaemon}, func(*store.Tx) (audit.Event, error) { return nil, errWrites })
	if errors.Is(err, errWrites) {
		return nil
	}
	return fmt.Errorf("asking the store's writer: %w", err)
}
