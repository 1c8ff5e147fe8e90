package site

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"syscall"
	"time"
)

// checkService tells which of the two processes are there, and whether the store can be read.
func (e *examination) checkService(context.Context) ([]Finding, error) {
	works, err := worksOn(e.config.State)
	if err != nil {
		return nil, err
	}
	var found []Finding
	var denied error
	hello, roomErr := e.hello()
	switch {
	case errors.Is(roomErr, fs.ErrPermission):
		denied = roomErr
	case roomErr != nil && works:
		found = append(found, e.find("service.room", e.config.KeyRoom, "%v", roomErr))
	case roomErr != nil:
		found = append(found, e.find("service.stopped", e.dir, "nobody holds the lock of %s, and the key room does not answer: %v", e.config.State, roomErr))
	case !works:
		found = append(found, e.find("service.daemon", e.dir, "%s answers, and nobody holds the lock of %s", hello.Room, e.config.State))
	}
	if _, err := e.store(); errors.Is(err, fs.ErrPermission) {
		denied = err
	} else if err != nil {
		found = append(found, e.find("store.unreadable", e.config.StorePath(), "%v", err))
	}
	return found, denied
}

// checkRoom holds what the room says of itself against the log. Whether every signature is accounted for
// is fsck's to say.
func (e *examination) checkRoom(ctx context.Context) ([]Finding, error) {
	hello, err := e.hello()
	if err != nil {
		return nil, nil //nolint:nilerr // of which checkService tells
	}
	s, err := e.store()
	if err != nil {
		return nil, err
	}
	opened, err := e.opened(ctx)
	if err != nil {
		return nil, err
	}
	if opened.Room != hello.Room || opened.Origin != hello.Origin {
		return []Finding{e.find("room.other", hello.Room, "the log %s is that of %s, the key room follows %s", opened.Origin, opened.Room, hello.Origin)}, nil
	}
	var found []Finding
	for _, code := range hello.Troubles {
		found = append(found, e.find("room.trouble", code, "the key room tells it of itself"))
	}
	size, _ := s.Head()
	if hello.State.Size > size {
		return []Finding{e.find("store.behind", e.config.StorePath(), "the key room has read %d leaves, the store holds %d", hello.State.Size, size)}, nil
	}
	root, err := s.Root(ctx, hello.State.Size)
	if err != nil {
		return nil, err
	}
	if hex.EncodeToString(root[:]) != hello.State.Root {
		return []Finding{e.find("room.fork", hello.Room, "it computed another root over %d leaves than the store", hello.State.Size)}, nil
	}
	return found, nil
}

const (
	clockStep = 24 * time.Hour  // the key room doubts the clock after that
	clockAway = 5 * time.Minute // what the key room allows the daemon
)

func (e *examination) checkClock(ctx context.Context) ([]Finding, error) {
	var found []Finding
	behind := func(what string, recorded time.Time) {
		if now := e.Now(); recorded.After(now.Add(clockSkew)) {
			found = append(found, e.find("clock.behind", what, "it was written at %s, and the clock says %s", recorded.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
		}
	}
	if hello, err := e.hello(); err == nil && !hello.State.Time.IsZero() {
		last := hello.State.Time
		behind("the key room's last record", last)
		if now := e.Now(); now.Sub(last) > clockStep {
			found = append(found, e.find("clock.step", hello.Room, "its last record is of %s, and the clock says %s", last.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
		}
	}
	if s, err := e.store(); err == nil {
		size, _ := s.Head()
		newest, err := s.Leaf(ctx, size-1)
		if err != nil {
			return found, err
		}
		behind("the newest leaf", newest.Time)
	}
	const unsynchronised = 0x40 // STA_UNSYNC of adjtimex(2)
	var kernel syscall.Timex
	if _, err := syscall.Adjtimex(&kernel); err == nil && kernel.Status&unsynchronised != 0 { // containers may not ask
		found = append(found, e.find("clock.free", "this machine", "the kernel says that no time service keeps the clock"))
	}
	return found, nil
}
