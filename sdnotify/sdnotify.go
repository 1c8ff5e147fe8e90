// Package sdnotify tells systemd how the process is doing, as sd_notify(3) describes it: datagrams to the
// socket that $NOTIFY_SOCKET names. Without that variable nobody listens, and nothing is sent.
//
// It imports only the standard library, because the key room links it.
package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Ready says that the service does its work, or does it again after Reloading. What it does is for
// systemctl status: one line.
func Ready(status string) error { return send("READY=1", "STATUS="+status) }

// Reloading says that the configuration is being read anew; Ready has to follow, whatever came of it.
func Reloading() error { return send("RELOADING=1", "STATUS=reading the configuration") }

// Stopping says that the service is on its way to its end.
func Stopping() error { return send("STOPPING=1", "STATUS=stopping") }

// Starting asks that the start may last this much longer from now on, and says why.
func Starting(longer time.Duration, status string) error {
	return send("EXTEND_TIMEOUT_USEC="+strconv.FormatInt(longer.Microseconds(), 10), "STATUS="+status)
}

// Watch sends a sign of life at half the time that the unit's WatchdogSec gives, each time that healthy
// returns nil, until ctx ends. While healthy fails or does not return none is sent, and systemd kills and
// restarts the service when the time is over. unwell gets what healthy returned. Without a watchdog it
// only waits for ctx.
func Watch(ctx context.Context, healthy func(context.Context) error, unwell func(error)) error {
	limit, err := watchdog()
	if err != nil || limit == 0 {
		<-ctx.Done()
		return err
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := healthy(ctx); err != nil {
			unwell(err)
			continue
		}
		if err := send("WATCHDOG=1"); err != nil {
			unwell(err)
		}
	}
}

// watchdog is the time within which systemd wants a sign of life from this process; 0: it wants none.
func watchdog() (time.Duration, error) {
	text := os.Getenv("WATCHDOG_USEC")
	if pid := os.Getenv("WATCHDOG_PID"); text == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 1 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0, fmt.Errorf("$WATCHDOG_USEC is %q; want microseconds", text)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// send sends one datagram. An address with @ in front is in the abstract namespace, which is how package
// net reads it too.
func send(lines ...string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	// A manager that does not read must not hold up the service.
	err = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}
