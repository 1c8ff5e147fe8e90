package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestContainer runs what the Containerfile says in a root that holds only what the Containerfile copies: as
// its user, read-only but for the volume, with nothing but /proc and /dev/null besides, which every engine
// gives.
func TestContainer(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("container/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	said := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		if word, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && word != "#" {
			said[word] = strings.Fields(rest)
		}
	}
	copied := said["COPY"]
	if strings.Join(said["FROM"], " ") != "scratch" || len(copied) < 2 || len(said["USER"]) != 1 {
		t.Fatalf("%v", said)
	}
	built(t)
	root, volume := t.TempDir(), t.TempDir()
	for _, file := range copied[:len(copied)-1] {
		program := filepath.Join(scratch, file)
		if out, err := exec.Command("file", "-b", program).CombinedOutput(); err != nil || !strings.Contains(string(out), "statically linked") {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := exec.Command("cp", program, root).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	user := said["USER"][0]
	inside := func(ctx context.Context, words []string) *exec.Cmd {
		script := `ip link set lo up; mkdir -p "$0/proc" "$0/ca" "$0/dev"; touch "$0/dev/null"; mount --bind "$0" "$0"; mount -t proc proc "$0/proc"; mount --bind /dev/null "$0/dev/null"; mount --bind "$1" "$0/ca"
			mount -o remount,bind,ro "$0"; root=$0; user=$2; shift 2
			exec chroot --userspec="$user" "$root" "$@"`
		return asRoot(ctx, append([]string{"unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-euc", script, root, volume, user}, words...)...)
	}
	if out, err := asRoot(t.Context(), "chown", user, volume).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	words := func(instruction string) []string {
		var list []string
		joined := strings.Join(said[instruction], " ")
		if err := json.Unmarshal([]byte(joined[strings.Index(joined, "["):]), &list); err != nil {
			t.Fatalf("%s: %v", instruction, err)
		}
		return list
	}
	entry := words("ENTRYPOINT")
	folder := words("CMD")[1]
	if out, err := inside(t.Context(), append(entry, "init", folder, "--listen", "127.0.0.1:8443")).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	out, err := inside(t.Context(), words("HEALTHCHECK")).CombinedOutput()
	if err == nil {
		t.Errorf("it is healthy before it runs: %s", out)
	}
	up := inside(context.Background(), append(entry, words("CMD")...))
	var log bytes.Buffer
	up.Stdout, up.Stderr = &log, &log
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	for range 150 {
		if out, err = inside(t.Context(), words("HEALTHCHECK")).CombinedOutput(); err == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("it does not get well: %v\n%s", err, out)
	}
	// An engine sends this to process 1, which is the program itself.
	pid := descendant(up.Process.Pid, "chancery")
	if pid == 0 {
		t.Fatalf("it has ended by itself:\n%s", &log)
	}
	first := strconv.Itoa(pid)
	if out, err := asRoot(context.Background(), "kill", "-"+strings.TrimPrefix(said["STOPSIGNAL"][0], "SIG"), first).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	kill := time.AfterFunc(30*time.Second, func() { _ = asRoot(context.Background(), "kill", "-9", first).Run() })
	defer kill.Stop()
	if err := up.Wait(); err != nil {
		t.Errorf("it does not stop in order: %v\n%s", err, &log)
	}
}
