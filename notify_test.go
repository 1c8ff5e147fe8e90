package chancery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSignsOfLife runs both processes as systemd does, with a watchdog, and reads what they tell it. A
// lock on the database that nobody lets go of ends the daemon's signs of life, and only the daemon's.
func TestSignsOfLife(t *testing.T) {
	bin := built(t, released)
	work, err := os.MkdirTemp(scratch, "n")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(work, "ca")
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	if code, err := command(t.Context(), t.Output(), t.Output(), work, os.Environ(), filepath.Join(bin, "chancery"), "init", dir, "--listen", address); err != nil || code != 0 {
		t.Fatalf("chancery init: exit code %d, %v", code, err)
	}
	roomSays, daemonSays := manager(t, filepath.Join(work, "room")), manager(t, filepath.Join(work, "daemon"))
	beside := func(name string) []string {
		return []string{"NOTIFY_SOCKET=" + filepath.Join(work, name), "WATCHDOG_USEC=400000"}
	}
	room, err := startRoom(bin, dir, beside("room")...)
	if err != nil {
		t.Fatal(err)
	}
	defer room.kill()
	daemon, err := startDaemon(bin, dir, beside("daemon")...)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.kill()
	hears(t, roomSays, `"READY=1\nSTATUS=serving from leaf`)
	hears(t, daemonSays, `"READY=1\nSTATUS=answering at https://`+address)
	hears(t, roomSays, `"WATCHDOG=1"`)
	hears(t, daemonSays, `"WATCHDOG=1"`)

	lock, err := launch(nil, "python3", "-u", "-c", fmt.Sprintf(`import signal, sqlite3
held = sqlite3.connect(%q, isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("locked")
signal.pause()`, filepath.Join(dir, "state", "store.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.kill()
	if err := lock.await(lock.says("locked")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond) // one that was on its way
	before := strings.Count(daemonSays.out.String(), "WATCHDOG=1")
	roomBefore := strings.Count(roomSays.out.String(), "WATCHDOG=1")
	time.Sleep(1500 * time.Millisecond)
	if n := strings.Count(daemonSays.out.String(), "WATCHDOG=1"); n != before {
		t.Errorf("%d signs of life while the store is wedged", n-before)
	}
	if n := strings.Count(roomSays.out.String(), "WATCHDOG=1"); n < roomBefore+3 {
		t.Errorf("the room gave %d signs of life meanwhile", n-roomBefore)
	}
	lock.kill()
	held := strings.Count(daemonSays.out.String(), "WATCHDOG=1")
	if err := daemonSays.await(func() bool { return strings.Count(daemonSays.out.String(), "WATCHDOG=1") > held }); err != nil {
		t.Error(err)
	}
	for _, p := range []*process{daemon, room} {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}
	hears(t, daemonSays, `"STOPPING=1`)
	hears(t, roomSays, `"STOPPING=1`)
}

// manager runs the Python program that stands where systemd does.
func manager(t *testing.T, socket string) *process {
	t.Helper()
	p, err := launch(nil, "python3", "sdnotify/testdata/manager.py", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	if err := p.await(p.says("listening")); err != nil {
		t.Fatal(err)
	}
	return p
}

func hears(t *testing.T, manager *process, text string) {
	t.Helper()
	if err := manager.await(manager.says(text)); err != nil {
		t.Errorf("systemd does not read %s: %v", text, err)
	}
}
