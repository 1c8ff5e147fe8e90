package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/keyroom"
)

// TestLongJournal: while the journal is read, systemd is asked for more time every five seconds, and not
// for each record.
func TestLongJournal(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"init", "--dir", dir, "--org", "Example"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	clock := time.Unix(1_700_000_000, 0)
	told := reading(func() time.Time { clock = clock.Add(time.Second); return clock })
	config, err := keyroom.LoadConfig(filepath.Join(dir, "keyroom.json"))
	if err != nil {
		t.Fatal(err)
	}
	records := 0
	room, err := keyroom.Open(keyroom.Options{
		Config: config, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
		Reading: func(leaves int64) {
			records++
			for range 20 { // as if the journal were longer
				told(leaves)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer room.Close()
	if records != 1 {
		t.Errorf("told of %d records of a journal with one", records)
	}
	heard := 0
	for b := make([]byte, 256); ; heard++ {
		if err := systemd.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := systemd.Read(b)
		if err != nil {
			break
		}
		if want := "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the journal: 0 leaves"; string(b[:n]) != want {
			t.Errorf("systemd reads %q, want %q", b[:n], want)
		}
	}
	if heard < 2 || heard > 5 {
		t.Errorf("systemd was asked %d times in 20 seconds", heard)
	}
}

// TestLogLines: time, level and msg, as the daemon writes them.
func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	newLogger(&out).Warn("turned a connection away", "reason", "too many are open")
	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339Nano, line["time"]); err != nil || line["level"] != "warn" || line["msg"] == "" || line["reason"] == "" {
		t.Errorf("%v %v", line, err)
	}
}
