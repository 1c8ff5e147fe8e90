package site

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// alarmEvery is how often the deadlines are looked at.
const alarmEvery = time.Minute

// warnings tells of deadlines in the journal: once when one comes nearer, not each time it is looked at.
type warnings struct {
	log  *zap.Logger
	told map[string]Severity // by code and subject
	last string              // error
}

// keepWarning looks at the deadlines until ctx ends.
func (d Daemon) keepWarning(ctx context.Context, p *parts) error {
	a := &warnings{log: d.Log, told: make(map[string]Severity)}
	look := func() {
		all, err := Deadlines(ctx, *p.inForce.Load(), p.store)
		if ctx.Err() == nil {
			a.tell(time.Now(), all)
			a.unread(err)
		}
	}
	look()
	return every(ctx, alarmEvery, look)
}

func (a *warnings) tell(now time.Time, all []Deadline) {
	for _, d := range all {
		key, is := d.Code+" "+d.Subject, d.Severity(now)
		if was := a.told[key]; was == is {
			continue
		}
		a.told[key] = is
		fields := []zap.Field{
			zap.String("code", d.Code), zap.String("subject", d.Subject), zap.String("severity", string(is)),
			zap.Time("not_after", d.NotAfter), zap.Int("days_left", int(d.NotAfter.Sub(now)/day)),
		}
		switch is {
		case SeverityFine:
			a.log.Info("does not end soon any more", fields...)
			continue
		case SeverityCritical:
			a.log.Error("ends very soon", append(fields, zap.String("fix", d.Fix))...)
		case SeverityWarning:
			a.log.Warn("ends soon", append(fields, zap.String("fix", d.Fix))...)
		case SeverityInfo:
			a.log.Info("will end", append(fields, zap.String("fix", d.Fix))...)
		}
	}
}

// unread tells of what keeps a deadline from being known, once for each reason.
func (a *warnings) unread(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != a.last {
		a.log.Error("not every deadline can be read", zap.String("code", "store.unread"), zap.Error(err))
	}
	a.last = text
}
