package site_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/site"
)

// TestCallers: who is listed, with which certificates, as the time goes by.
func TestCallers(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	files(`sed -i 's/purposes: \[user, server\]/purposes: [user, server, caller]/; /Its own next certificate/,/names: \[provisioning\]/d' chancery.yaml`)(t, dir)
	serve(t, dir, func() error {
		return callAll(dir,
			call{"ca.issue", map[string]any{"purpose": "caller", "cn": "gone", "valid_days": 90, "request_id": "1"}},
			call{"ca.issue", map[string]any{"purpose": "caller", "cn": "revoked", "request_id": "2"}},
			call{"ca.revoke", map[string]any{"purpose": "caller", "cn": "revoked", "request_id": "3"}},
			call{"ca.issue", map[string]any{"purpose": "caller", "cn": "provisioning", "valid_days": 100, "request_id": "4"}})
	})
	path := filepath.Join(dir, site.ConfigName)
	if _, err := site.AddCaller(path, rpc.Caller{Name: "pinned", Credentials: []rpc.Credential{{SPKI: strings.Repeat("07", 32)}}}); err != nil {
		t.Fatal(err)
	}
	c, now := config(t, dir), time.Now()
	for after, want := range map[int]string{
		0:   "provisioning:1 live live; pinned:0 key; gone? live",
		69:  "provisioning:1 live live; pinned:0 key; gone? expiring",
		75:  "provisioning:1 live expiring; pinned:0 key; gone? expiring",
		101: "provisioning:1 live; pinned:0 key",
		340: "provisioning:1 expiring; pinned:0 key",
		400: "provisioning:1 expired; pinned:0 key",
	} {
		all, err := site.Callers(context.Background(), c, now.AddDate(0, 0, after))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range all {
			text := fmt.Sprintf("%s:%d", one.Name, one.Grants)
			if !one.Configured {
				text = one.Name + "?"
			}
			for range one.Credentials {
				text += " key"
			}
			for _, c := range one.Certificates {
				text += " " + c.State
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); text != want {
			t.Errorf("after %d days: %s, want %s", after, text, want)
		}
	}
	var listed struct {
		Callers []map[string]any `json:"callers"`
	}
	code, out, said := chancery(t, "caller", "list", dir, "--output", "json")
	if err := json.Unmarshal([]byte(out), &listed); code != 0 || err != nil || len(listed.Callers) != 3 || listed.Callers[2]["configured"] != false {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, said)
	}
}

// TestPastCallers: a name is known by a certificate of its own, whatever became of that, or by what it did.
func TestPastCallers(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	c := config(t, dir)
	for name, known := range map[string]bool{"provisioning": true, "provision": false, "alice": false, "init": false, "daemon": false} {
		past, err := site.PastCaller(context.Background(), c, name)
		if err != nil || (past.Certificates+past.Leaves > 0) != known {
			t.Errorf("%s: %+v %v", name, past, err)
		}
		if known && (past.Certificates != 1 || past.Leaves < 2 || time.Since(past.Last) > time.Hour) {
			t.Errorf("%s: %+v", name, past)
		}
	}
}

// TestHangUpOfSeveral: of commands that change the file at the same time each learns that the daemon took its change.
func TestHangUpOfSeveral(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	add := func(name string) error {
		path := filepath.Join(dir, site.ConfigName)
		after, err := site.AddCaller(path, rpc.Caller{Name: name})
		for ; err != nil && strings.Contains(err.Error(), "another command is changing it"); after, err = site.AddCaller(path, rpc.Caller{Name: name}) {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			return err
		}
		return site.HangUp(context.Background(), after)
	}
	err := serving(bin(t), dir, func(int) error {
		ends := make(chan error)
		for i := range 8 {
			go func() { ends <- add(fmt.Sprintf("new-%d", i)) }()
		}
		var errs []error
		for range 8 {
			errs = append(errs, <-ends)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHangUp: without a daemon, and with another process in its place, nothing is said to be taken.
func TestHangUp(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	c := config(t, dir)
	if err := site.HangUp(context.Background(), c); !errors.Is(err, site.ErrStopped) {
		t.Error(err)
	}
	lock, err := os.OpenFile(filepath.Join(c.State, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	// Anybody can start a process that calls itself so.
	other := asRoot("setpriv", "--reuid=4001", "--clear-groups", "bash", "-c",
		`exec -a chanceryd bash -c 'echo; read x' chanceryd --config "$1"`, "bash", c.Path)
	end, err1 := other.StdinPipe()
	up, err2 := other.StdoutPipe()
	if err := errors.Join(err1, err2, other.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := site.HangUp(context.Background(), c); !errors.Is(err, site.ErrNotTaken) || !strings.Contains(err.Error(), "no process is chanceryd --config") {
		t.Error(err)
	}
	_ = end.Close()
	if err := other.Wait(); other.ProcessState.ExitCode() < 0 {
		t.Errorf("another user's process was told: %v", err)
	}
}
