package site

import (
	"context"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/sdnotify"
)

// signOfLife keeps systemd's watchdog content while the store's writer answers: nothing is issued, revoked
// or refused without it. That the RPC has ended ends the whole process, so it needs no watching; git and
// the directory may be away for long, which a new start would not mend.
func (d Daemon) signOfLife(ctx context.Context, p *parts) error {
	return sdnotify.Watch(ctx, p.store.Ping, func(err error) {
		if ctx.Err() == nil {
			d.Log.Error("no sign of life to systemd", zap.String("code", "systemd.watchdog"), zap.Error(err))
		}
	})
}
