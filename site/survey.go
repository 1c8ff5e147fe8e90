package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// The rhythm of looking, and when something is wrong.
const (
	surveyEvery = 5 * time.Second
	askTime     = 3 * time.Second  // for the store's writer, and for the key room
	stuckAfter  = 45 * time.Second // without a survey

	recentError  = time.Minute
	lateAfter    = 10 * time.Minute // a debt
	tooLateAfter = time.Hour
	clockSkew    = time.Minute // of what was recorded before
)

// survey is what the installation looked like at one moment.
type survey struct {
	at        time.Time // zero before the first
	alarms    []Alarm   // by part, in the order of the registry
	backlogs  map[store.Topic]store.Backlog
	lists     []store.List // without DER
	deadlines []Deadline
	rootList  []byte // DER, as the key room last gave it
}

func (s *survey) has(code string) bool {
	for _, a := range s.alarms {
		if a.Code == code {
			return true
		}
	}
	return false
}

// health looks at the installation at times, keeps what it found, and tells it to whoever asks: asking
// costs the service nothing.
type health struct {
	config  Config
	log     *zap.Logger
	now     func() time.Time
	marks   *marks
	metrics *metrics
	parts   *parts
	last    atomic.Pointer[survey]

	answering atomic.Bool // the RPC

	// Of the surveys, one after the other.
	begun    map[alarmID]time.Time // alarms that were on last time
	failures int64                 // of the store
	failedAt time.Time
}

type alarmID struct{ code, subject string }

// newHealth makes a log that is watched from now on. What is wrong is known after attend and the first
// survey.
func newHealth(c Config, build string, log *zap.Logger) *health {
	h := &health{config: c, now: time.Now, marks: newMarks(time.Now), begun: make(map[alarmID]time.Time)}
	h.last.Store(&survey{alarms: []Alarm{}})
	h.metrics = newMetrics(h, build)
	h.log = watchLog(log, func(code string, err error) {
		if !errors.Is(err, signer.ErrUnreachable) { // that has its own alarm
			h.marks.raise(code)
		}
		h.metrics.failed(code, err)
	})
	return h
}

func (h *health) found() *survey { return h.last.Load() }

// onReady notes that the RPC answers when it does, and that it does not when ctx ends.
func (h *health) onReady(ctx context.Context, ready func(url string)) func(url string) {
	return func(url string) {
		h.answering.Store(true)
		context.AfterFunc(ctx, func() { h.answering.Store(false) })
		ready(url)
	}
}

// attend takes up the parts, before the first change of the books.
func (h *health) attend(p *parts) {
	h.parts, p.health = p, h
	p.store.Observe(h.metrics.event)
}

// reached notes how a look at the directory's servers ended.
func (h *health) reached(ctx context.Context, err error) {
	if err == nil {
		h.marks.clear(codeDirectoryDown)
	} else if ctx.Err() == nil {
		h.marks.raise(codeDirectoryDown)
	}
}

// reloaded notes that another configuration is in force.
func (h *health) reloaded() {
	h.metrics.configAt.SetToCurrentTime()
	h.marks.clear(codeConfig)
}

// beside answers monitors while run does: from before the RPC answers until after it has ended.
func (h *health) beside(run func() error) error {
	if h.config.Health == "" {
		return run()
	}
	l, err := net.Listen("tcp", h.config.Health)
	if err != nil {
		return fmt.Errorf("listening for health: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var both sync.WaitGroup
	both.Go(func() { h.serveHealth(ctx, l) })
	both.Go(func() { h.keepLooking(ctx) })
	err = run()
	stop()
	both.Wait()
	return err
}

func (h *health) keepLooking(ctx context.Context) {
	h.look(ctx)
	_ = every(ctx, surveyEvery, func() { h.look(ctx) }) // it ends with ctx
}

// alarmFinder gathers the alarms of one survey.
type alarmFinder struct {
	*health
	at     time.Time
	raised map[string][]Alarm // by code
}

// raise sets an alarm, once. A zero since means that it began when it was seen first.
func (f *alarmFinder) raise(code, subject string, since time.Time) *Alarm {
	for i := range f.raised[code] {
		if f.raised[code][i].Subject == subject {
			return &f.raised[code][i]
		}
	}
	if since.IsZero() {
		if since = f.begun[alarmID{code, subject}]; since.IsZero() {
			since = f.at
		}
	}
	a := f.marks.kinds[code].alarm(since.UTC())
	a.Subject = subject
	f.raised[code] = append(f.raised[code], a)
	return &f.raised[code][len(f.raised[code])-1]
}

// look makes a survey.
func (h *health) look(ctx context.Context) {
	f := &alarmFinder{h, h.now().UTC(), make(map[string][]Alarm)}
	s := &survey{at: f.at, alarms: []Alarm{}}
	f.askStore(ctx)
	f.askRoom(ctx, s)
	f.readBooks(ctx, s)
	f.readMarks(s)
	if ctx.Err() != nil {
		return // what failed now failed because the service stops
	}
	for _, part := range alarmParts() {
		for _, k := range alarmKinds() {
			if k.part == part {
				s.alarms = append(s.alarms, f.raised[k.code]...)
			}
		}
	}
	clear(h.begun)
	for _, a := range s.alarms {
		h.begun[alarmID{a.Code, a.Subject}] = a.Since
	}
	s.at = h.now().UTC()
	h.last.Store(s)
}

func (f *alarmFinder) askStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	switch err := f.parts.store.Ping(ctx); {
	case errors.Is(err, store.ErrBroken), errors.Is(err, store.ErrClosed):
		f.raise(codeStoreBroken, "", time.Time{})
	case errors.Is(err, context.DeadlineExceeded):
		f.raise(codeStoreBusy, "", time.Time{})
	}
	if n := f.parts.store.Failures(); n != f.failures {
		f.failures, f.failedAt = n, f.at
	}
	if !f.failedAt.IsZero() && f.at.Sub(f.failedAt) < recentError {
		f.raise(codeStoreErrors, "", time.Time{})
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(f.config.State, &disk); err != nil {
		f.raise(codeStoreUnread, "", time.Time{})
	} else if free := disk.Bavail * uint64(disk.Bsize); free < lowDisk {
		a := f.raise(codeStoreSpace, "", time.Time{})
		if free < fullDisk {
			a.Severity = SeverityCritical
		}
	}
}

func (f *alarmFinder) askRoom(ctx context.Context, s *survey) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	hello, err := f.parts.signer.Check(ctx)
	if err != nil {
		f.raise(roomCode(err), "", time.Time{})
		s.rootList = f.found().rootList
		return
	}
	s.rootList = hello.RootCRL
	for _, code := range hello.Troubles {
		if strings.HasPrefix(code, "delivery.") && f.marks.kinds[code].part == partKeyRoom { // it has no say in the others
			f.raise(code, "", time.Time{})
		}
	}
	if hello.State.Time.Sub(f.at) > clockSkew {
		f.raise(codeClockBehind, "", time.Time{})
	}
}

// readBooks reads what is owed and what ends when.
func (f *alarmFinder) readBooks(ctx context.Context, s *survey) {
	var backlogs, lists, deadlines error
	s.backlogs, backlogs = f.parts.store.Backlogs(ctx)
	s.lists, lists = f.parts.store.ListTimes(ctx)
	s.deadlines, deadlines = Deadlines(ctx, *f.parts.inForce.Load(), f.parts.store)
	if errors.Join(backlogs, lists, deadlines) != nil {
		f.raise(codeStoreUnread, "", time.Time{})
	}
	for topic, code := range map[store.Topic]string{store.CRL: codeListsLate, store.Directory: codeDirectoryLate} {
		b := s.backlogs[topic]
		if b.Oldest.IsZero() || f.at.Sub(b.Oldest) < lateAfter {
			continue
		}
		a := f.raise(code, "", b.Oldest)
		if f.at.Sub(b.Oldest) > tooLateAfter {
			a.Severity = SeverityCritical
		}
	}
	if s.backlogs[store.Directory].Parked > 0 {
		f.raise(codeDebtParked, "", time.Time{})
	}
	for _, d := range s.deadlines {
		if severity := d.Severity(f.at); severity != SeverityFine {
			a := f.raise(d.Code, d.Subject, time.Time{})
			a.Severity, a.Fix = severity, d.Fix
			a.Reason = fmt.Sprintf("%s: on %s", a.Reason, d.NotAfter.UTC().Format(time.RFC3339))
		}
	}
}

// readMarks takes up what the log's lines raised. An alarm of a debt ends with the last debt that fails.
func (f *alarmFinder) readMarks(s *survey) {
	owed := s.backlogs[store.Directory]
	for _, k := range alarmKinds() {
		switch k.code {
		case "directory.no_entry", "directory.many_entries", "directory.refused", "directory.read_back":
			if owed.Failing == 0 {
				continue
			}
		}
		if since, on := f.marks.since(k); on {
			f.raise(k.code, "", since)
		}
	}
}
