package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/signer"
)

// installation is one that chancery init made, and its two processes while they run.
type installation struct {
	bin, dir, url string
	health        string // URL of the metrics
	room, daemon  *exec.Cmd
	calls         int64 // numbers the requests, so that none is made twice
	issued        int
}

// install builds the programs and makes an installation with high limits and without a directory.
func install(b *testing.B) *installation {
	b.Helper()
	s := &installation{bin: b.TempDir()}
	s.dir = filepath.Join(b.TempDir(), "site")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.bin, "../cmd/chancery", "../cmd/chanceryd", "../cmd/chancery-keyroom")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	quietly(b, build)
	quietly(b, exec.Command(filepath.Join(s.bin, "chancery"), "init", s.dir, "--domain", "example.org", "--listen", freeAddress(b)))
	s.raiseLimits(b)
	return s
}

func quietly(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

func freeAddress(b *testing.B) string {
	l := got(net.Listen("tcp", "127.0.0.1:0"))(b)
	defer l.Close()
	return l.Addr().String()
}

func (s *installation) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

func (s *installation) raiseLimits(b *testing.B) {
	yaml := string(got(os.ReadFile(s.path("chancery.yaml")))(b))
	before, rest, found := strings.Cut(yaml, "\ndirectory:\n")
	_, after, ended := strings.Cut(rest, "\n\n")
	const caller = "  - name: provisioning\n"
	if !found || !ended || !strings.Contains(after, caller) {
		b.Fatalf("chancery.yaml is not as it was:\n%s", yaml)
	}
	after = strings.Replace(after, caller, caller+"    per_second: 1000000\n", 1)
	const own = "names: [provisioning]\n"
	if !strings.HasSuffix(after, own) {
		b.Fatalf("chancery.yaml does not end as it did:\n%s", yaml)
	}
	after = strings.TrimSuffix(after, own) + "names: [provisioning, noisy]\n  - name: noisy\n    per_second: 1\n"
	health := freeAddress(b)
	s.health = "http://" + health + "/metrics"
	must(b, os.WriteFile(s.path("chancery.yaml"), []byte("health: "+health+"\n"+before+"\n\n"+after), 0o600))

	var room map[string]any
	must(b, json.Unmarshal(got(os.ReadFile(s.path("keyroom.json")))(b), &room))
	room["certificates_per_hour"], room["certificates_per_day"] = 10_000_000, 10_000_000
	must(b, os.WriteFile(s.path("keyroom.json"), got(json.Marshal(room))(b), 0o600))
}

// start runs the key room and the daemon until stop, or the end of the benchmark.
func (s *installation) start(b *testing.B) {
	b.Helper()
	s.room = s.run(b, "chancery-keyroom", "keyroom.json")
	must(b, s.room.Start())
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if r, err := signer.DialReader(context.Background(), s.path("keyroom", "socket")); err == nil {
			r.Close()
			break
		} else if time.Since(begin) > time.Minute {
			b.Fatal(err)
		}
	}
	s.daemon = s.run(b, "chanceryd", "chancery.yaml")
	out := got(s.daemon.StdoutPipe())(b)
	must(b, s.daemon.Start())
	line := got(bufio.NewReader(out).ReadString('\n'))(b)
	url, found := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !found {
		b.Fatalf("the daemon says %q", line)
	}
	s.url = strings.TrimSuffix(url, "/RPC2")
}

func (s *installation) run(b *testing.B, program, config string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), "--config", s.path(config))
	var log bytes.Buffer
	cmd.Stderr = &log
	// If the benchmark is killed, they go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b.Cleanup(func() {
		if cmd.ProcessState == nil && cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if b.Failed() {
			b.Logf("%s:\n%s", program, log.String())
		}
	})
	return cmd
}

func (s *installation) stop(b *testing.B) {
	for _, cmd := range []*exec.Cmd{s.daemon, s.room} {
		must(b, cmd.Process.Signal(syscall.SIGTERM))
		must(b, cmd.Wait())
	}
}

// cpu is what both processes have used so far.
func (s *installation) cpu(b *testing.B) (daemon, room time.Duration) {
	return cpuOfProcess(b, s.daemon.Process.Pid), cpuOfProcess(b, s.room.Process.Pid)
}

// clockTick is the unit of /proc/PID/stat on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

func cpuOfProcess(b *testing.B, pid int) time.Duration {
	text := string(got(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)))(b))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // from the third one, state
	user := got(strconv.ParseInt(fields[11], 10, 64))(b)
	system := got(strconv.ParseInt(fields[12], 10, 64))(b)
	return time.Duration(user+system) * clockTick
}

// memory is the resident set of a process, now and at its highest, in MiB.
func memory(b *testing.B, cmd *exec.Cmd) (now, peak float64) {
	text := string(got(os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)))(b))
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch fields[0] {
		case "VmRSS:":
			now = float64(got(strconv.Atoi(fields[1]))(b)) / 1024
		case "VmHWM:":
			peak = float64(got(strconv.Atoi(fields[1]))(b)) / 1024
		}
	}
	return now, peak
}

// tls is the caller's side of mutual TLS.
func (s *installation) tls(b *testing.B) *tls.Config {
	own := got(tls.LoadX509KeyPair(s.path("callers", "provisioning.pem"), s.path("callers", "provisioning.key")))(b)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(got(os.ReadFile(s.path("trust", "root.pem")))(b)) {
		b.Fatal("trust/root.pem holds no certificate")
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: pool, MinVersion: tls.VersionTLS13}
}
