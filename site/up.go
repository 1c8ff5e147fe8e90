package site

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/ca/signer"
)

const (
	helloTimeout = 20 * time.Second // reading a long journal takes a while
	stopTimeout  = 15 * time.Second
)

// ErrDied says that one of the processes ended by itself.
var ErrDied = errors.New("a process of the installation ended by itself")

// child is a process that this one started.
type child struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended; err is set before
	err   error
	tail  *tail
}

// start runs a program in its own process group, so that a signal from the terminal reaches only this
// process, which stops its children one after the other; they die with it if it is killed.
func start(bin, name string, stdout, stderr io.Writer, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(filepath.Join(bin, name), args...), ended: make(chan struct{}), tail: &tail{to: stderr}}
	c.cmd.Stdout, c.cmd.Stderr = stdout, c.tail
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// stop asks the process to end, and makes it after a while.
func (c *child) stop() error {
	select {
	case <-c.ended:
		return fmt.Errorf("%w: %s: %w\n%s", ErrDied, c.name, c.failure(), c.tail)
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", c.name, err)
	}
	select {
	case <-c.ended:
	case <-time.After(stopTimeout):
		if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping %s: %w", c.name, err)
		}
		<-c.ended
		return fmt.Errorf("%s did not stop within %s and was killed", c.name, stopTimeout)
	}
	if c.err != nil && c.endedBy() != syscall.SIGTERM { // it was not yet far enough to take that as a request
		return fmt.Errorf("stopping %s: %w\n%s", c.name, c.err, c.tail)
	}
	return nil
}

// endedBy is the signal that ended the process, or -1.
func (c *child) endedBy() syscall.Signal {
	status, _ := c.cmd.ProcessState.Sys().(syscall.WaitStatus) // it always is
	return status.Signal()
}

// failure is how a process ended, which is never nothing.
func (c *child) failure() error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}

// tail passes a stream on and keeps its end, to say why a process died.
type tail struct {
	to  io.Writer
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.end = append(t.end, p...)
	if len(t.end) > 2048 {
		t.end = append([]byte(nil), t.end[len(t.end)-2048:]...)
	}
	t.mu.Unlock()
	return t.to.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.end))
}

// startKeyRoom starts the key room of the installation in dir. Its log goes to stderr.
func startKeyRoom(bin, dir string, stderr io.Writer) (*child, error) {
	return start(bin, "chancery-keyroom", stderr, stderr, "--config", filepath.Join(dir, RoomConfigName))
}

// awaitHello waits until the key room of the installation in dir answers.
func (c *child) awaitHello(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	socket := filepath.Join(dir, "keyroom", "socket")
	for {
		r, err := signer.DialReader(ctx, socket)
		if err == nil {
			r.Close()
			return nil
		}
		select {
		case <-c.ended:
			return errors.New("the key room does not start")
		case <-ctx.Done():
			return fmt.Errorf("waiting for the key room: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Up runs both processes of the installation in one folder, as one user.
type Up struct {
	Dir string
	Bin string // folder with the other binaries
	Out io.Writer
	Err io.Writer // the processes' logs
}

// Run starts the key room, then the daemon, says when the RPC answers, and stops both in reverse when
// ctx ends. If one of them ends by itself it stops the other and returns ErrDied.
func (u Up) Run(ctx context.Context) error {
	config := filepath.Join(u.Dir, ConfigName)
	c, err := LoadConfig(config)
	if err != nil {
		return err
	}
	if c.KeyRoom == roomSocket {
		return fmt.Errorf("%w: %s is the installation of this machine, of two users: systemctl start chanceryd runs it", ErrConfig, u.Dir)
	}
	fmt.Fprintln(u.Out, "evaluation: both processes run as one user, so nothing but the process boundary keeps the daemon from the CA keys")
	room, err := startKeyRoom(u.Bin, u.Dir, u.Err)
	if err != nil {
		return err
	}
	switch err = room.awaitHello(ctx, u.Dir); {
	case ctx.Err() != nil:
		err = nil // it is asked to stop before it has started
	case err == nil:
		err = u.runDaemon(ctx, config, room)
	}
	return errors.Join(err, room.stop())
}

// runDaemon runs the daemon until ctx or one of the two processes ends.
func (u Up) runDaemon(ctx context.Context, config string, room *child) error {
	out, in := io.Pipe()
	daemon, err := start(u.Bin, "chanceryd", in, u.Err, "--config", config)
	if err != nil {
		return err
	}
	relayed := make(chan struct{})
	go func() {
		u.relay(out)
		close(relayed)
	}()
	select {
	case <-ctx.Done():
	case <-room.ended:
	case <-daemon.ended:
	}
	err = errors.Join(daemon.stop(), in.Close())
	<-relayed
	return err
}

// relay passes on what the daemon says, which is its ready line.
func (u Up) relay(from io.Reader) {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		fmt.Fprintln(u.Out, lines.Text())
	}
}
