package chancery_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestStories plays the stories in testdata/script: people's work with whole installations, and what
// goes wrong with it. What comes of it is read back with openssl, git and Python.
//
// Besides the commands of package testscript they use these:
//
//	up DIR                       start the installation and wait until it answers
//	down                         stop it, in order
//	ended CODE                   wait until it has ended by itself, with this exit code and no child left
//	start room|daemon DIR [K=V]  start one process alone; with a K=V it is one that can be made to die
//	halt room|daemon             stop it, in order
//	crash room|daemon            kill it, whichever way it was started
//	crashed room|daemon          wait until it has died by SIGKILL
//	said room|daemon TEXT        check that a process that was started alone has said something
//	reload [TEXT]                have a daemon that was started alone read its configuration anew; wait until it says something
//	losing N                     LOSSY is an address of the service at which the first N answers are lost
//	exits CODE PROGRAM ARGS...   run a program that must end with this exit code
func TestStories(t *testing.T) {
	bin, dying := built(t, released), built(t, mortal)
	path := toolPath(t)
	root, err := os.MkdirTemp(scratch, "s")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		WorkdirRoot:         root,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			address, err := freeAddress()
			if err != nil {
				return err
			}
			web, err := freeAddress()
			if err != nil {
				return err
			}
			tree, err := os.Getwd()
			if err != nil {
				return err
			}
			env.Setenv("PATH", bin+":"+path)
			env.Setenv("MORTAL", dying) // the programs that can be made to die
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("LISTEN", address)
			env.Setenv("URL", "https://"+address+"/RPC2")
			env.Setenv("WEB", web) // for a server of the story's own
			env.Setenv("DEPLOY", filepath.Join(tree, "deploy"))
			env.Setenv("PYTHONPATH", filepath.Join(tree, "testdata/python"))
			env.Setenv("PYTHONDONTWRITEBYTECODE", "1")
			env.Setenv("PYTHONUTF8", "1")
			env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			s := &stage{running: make(map[string]*process)}
			env.Values[stageKey{}] = s
			env.Defer(s.clear)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"up": scripted(upCommand), "down": scripted(downCommand), "ended": scripted(endedCommand),
			"start": scripted(startCommand), "halt": scripted(haltCommand),
			"crash": scripted(crashCommand), "crashed": scripted(crashedCommand),
			"said": scripted(saidCommand), "reload": scripted(reloadCommand), "exits": scripted(exitsCommand), "losing": scripted(losingCommand),
		},
	})
}

// toolPath gives a PATH on which the tools are with which stories look at the world. None may be missing.
func toolPath(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"openssl", "git", "python3", "strace", "ssh-keygen", "curl", "flock", "/usr/sbin/nginx", "/usr/sbin/slapd", "ldapsearch", "script", "unshare", "age"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: make deps installs it", err)
		}
	}
	// What is called python3 may be a script that looks for the real one in the home folder.
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(python))) + ":" + os.Getenv("PATH")
}

// stage is what runs in one story.
type stage struct{ running map[string]*process }

type stageKey struct{}

func (s *stage) clear() {
	for _, p := range s.running {
		p.kill()
	}
}

// take gives a running process and forgets it.
func (s *stage) take(name string) (*process, error) {
	p := s.running[name]
	if p == nil {
		return nil, fmt.Errorf("no %s was started", name)
	}
	delete(s.running, name)
	return p, nil
}

func (s *stage) put(ts *testscript.TestScript, name string, p *process, err error) error {
	if p != nil {
		s.running[name] = p
		ts.Logf("[%s]\n%s", p.name, &p.out)
	}
	return err
}

// scripted makes a command that cannot be negated out of a function.
func scripted(run func(ts *testscript.TestScript, s *stage, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command cannot be negated")
		}
		ts.Check(run(ts, ts.Value(stageKey{}).(*stage), args))
	}
}

var errArguments = errors.New("wrong arguments; see TestStories")

func upCommand(ts *testscript.TestScript, s *stage, args []string) error {
	if len(args) != 1 {
		return errArguments
	}
	bin, err := released()
	if err != nil {
		return err
	}
	p, err := launch(nil, filepath.Join(bin, "chancery"), "up", ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	return s.put(ts, "up", p, p.await(p.says("ready https://")))
}

func downCommand(_ *testscript.TestScript, s *stage, args []string) error {
	p, err := s.take("up")
	if err != nil || len(args) > 0 {
		return errors.Join(err, errArguments)
	}
	return p.stop()
}

func endedCommand(ts *testscript.TestScript, s *stage, args []string) error {
	if len(args) != 1 {
		return errArguments
	}
	p := s.running["up"]
	if p == nil {
		return errors.New("nothing is up")
	}
	code, err := p.wait(startTime)
	ts.Logf("[%s]\n%s", p.name, &p.out)
	if err != nil {
		return err
	}
	if strconv.Itoa(code) != args[0] {
		return fmt.Errorf("exit code %d", code)
	}
	delete(s.running, "up")
	// Each child is the leader of a group of its own; what one leaves behind has another parent now.
	left, err := processesWith(ts.Getenv("WORK"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind: %v", left)
	}
	return err
}

// processesWith gives the command lines that name a folder.
func processesWith(folder string) ([]string, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	var found []string
	for _, path := range lines {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), folder+"/") {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found, err
}

func startCommand(ts *testscript.TestScript, s *stage, args []string) error {
	if len(args) < 2 {
		return errArguments
	}
	programs := released
	if len(args) > 2 {
		programs = mortal
	}
	bin, err := programs()
	if err != nil {
		return err
	}
	begin := startDaemon
	if args[0] == "room" {
		begin = startRoom
	}
	p, err := begin(bin, ts.MkAbs(args[1]), args[2:]...)
	return s.put(ts, args[0], p, err)
}

func haltCommand(_ *testscript.TestScript, s *stage, args []string) error {
	if len(args) != 1 {
		return errArguments
	}
	p, err := s.take(args[0])
	if err != nil {
		return err
	}
	return p.stop()
}

func crashCommand(_ *testscript.TestScript, s *stage, args []string) error {
	if len(args) != 1 {
		return errArguments
	}
	if p, err := s.take(args[0]); err == nil {
		p.kill()
		return nil
	}
	up := s.running["up"]
	if up == nil {
		return errors.New("nothing is up")
	}
	below, err := children(up.cmd.Process.Pid)
	if err != nil {
		return err
	}
	program := map[string]string{"room": "chancery-keyroom", "daemon": "chanceryd"}[args[0]]
	pid := below[program]
	if pid == 0 {
		return fmt.Errorf("%s does not run; there are %v", program, below)
	}
	victim, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return victim.Kill()
}

func crashedCommand(ts *testscript.TestScript, s *stage, args []string) error {
	if len(args) != 1 {
		return errArguments
	}
	p, err := s.take(args[0])
	if err != nil {
		return err
	}
	code, err := p.wait(startTime)
	ts.Logf("[%s]\n%s", p.name, &p.out)
	if err == nil && code != -1 { // a signal leaves no code
		err = fmt.Errorf("%s ended with exit code %d", p.name, code)
	}
	return err
}

func saidCommand(_ *testscript.TestScript, s *stage, args []string) error {
	if len(args) != 2 {
		return errArguments
	}
	p := s.running[args[0]]
	if p == nil {
		return fmt.Errorf("no %s was started", args[0])
	}
	if !p.says(args[1])() {
		return fmt.Errorf("%s has not said that:\n%s", p.name, &p.out)
	}
	return nil
}

func reloadCommand(_ *testscript.TestScript, s *stage, args []string) error {
	p := s.running["daemon"]
	if p == nil || len(args) > 1 {
		return errArguments
	}
	before := len(p.out.String())
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil || len(args) == 0 {
		return err
	}
	return p.await(func() bool { return strings.Contains(p.out.String()[before:], args[0]) })
}

func exitsCommand(ts *testscript.TestScript, _ *stage, args []string) error {
	if len(args) < 2 {
		return errArguments
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	program := args[1]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, args[1]); isFile(path) {
			program = path
			break
		}
	}
	var env []string
	for _, name := range []string{"PATH", "HOME", "PYTHONPATH", "URL", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "GIT_CONFIG_NOSYSTEM"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	code, err := command(ctx, ts.Stdout(), ts.Stderr(), ts.MkAbs("."), env, program, args[2:]...)
	if err != nil {
		return err
	}
	if strconv.Itoa(code) != args[0] {
		return fmt.Errorf("exit code %d", code)
	}
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
