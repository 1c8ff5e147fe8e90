package site

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// warnEvery is how often the deadlines are looked at.
const warnEvery = time.Minute

// warnings tells of deadlines in the daemon's log: once when one comes nearer, not each time it is looked at.
type warnings struct {
	log  *zap.Logger
	told map[string]Severity // by code and subject
	last string              // error
}

// keepWarning looks at the deadlines until ctx ends.
func (d Daemon) keepWarning(ctx context.Context, p *parts) error {
	w := &warnings{log: d.Log, told: make(map[string]Severity)}
	look := func() {
		all, err := Deadlines(ctx, *p.inForce.Load(), p.store)
		if ctx.Err() == nil {
			w.tell(time.Now(), all)
			w.unread(err)
		}
	}
	look()
	return every(ctx, warnEvery, look)
}

func (w *warnings) tell(now time.Time, all []Deadline) {
	for _, d := range all {
		key, is := d.Code+" "+d.Subject, d.Severity(now)
		if was := w.told[key]; was == is {
			continue
		}
		w.told[key] = is
		fields := []zap.Field{
			zap.String("code", d.Code), zap.String("subject", d.Subject), zap.String("severity", string(is)),
			zap.Time("not_after", d.NotAfter), zap.Int("days_left", int(d.NotAfter.Sub(now)/day)),
		}
		switch is {
		case SeverityFine:
			w.log.Info("does not end soon any more", fields...)
			continue
		case SeverityCritical:
			w.log.Error("ends very soon", append(fields, zap.String("fix", d.Fix))...)
		case SeverityWarning:
			w.log.Warn("ends soon", append(fields, zap.String("fix", d.Fix))...)
		case SeverityInfo:
			w.log.Info("will end", append(fields, zap.String("fix", d.Fix))...)
		}
	}
}

// unread tells of what keeps a deadline from being known, once for each reason.
func (w *warnings) unread(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != w.last {
		w.log.Error("not every deadline can be read", zap.String("code", codeStoreUnread), zap.Error(err))
	}
	w.last = text
}
