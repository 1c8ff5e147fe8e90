//go:build crashpoint

// Package crashpoint, built to kill: see crashpoint_off.go.
package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// steps belongs to the process, not to a caller: n counts every durable step
// of every package. begun remembers the number that an operation's After ends.
var steps struct {
	sync.Mutex
	n     int
	begun map[string]int
}

// Before counts the step, logs it, and dies here if it is the one.
func Before(op string) {
	steps.Lock()
	defer steps.Unlock()
	steps.n++
	if steps.begun == nil {
		steps.begun = make(map[string]int)
	}
	steps.begun[op] = steps.n
	record(steps.n, op)
	dieAt("before", steps.n)
}

// After dies here if op's newest step is the one.
func After(op string) {
	steps.Lock()
	defer steps.Unlock()
	dieAt("after", steps.begun[op])
}

func record(n int, op string) {
	name := os.Getenv("CHANCERY_CRASH_LOG")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(fmt.Sprintf("crashpoint: %v", err))
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%d %s\n", n, op); err != nil {
		panic(fmt.Sprintf("crashpoint: %v", err))
	}
}

func dieAt(side string, n int) {
	value := os.Getenv("CHANCERY_CRASH")
	if value == "" {
		return
	}
	when, number, _ := strings.Cut(value, ":")
	at, err := strconv.Atoi(number)
	if err != nil || at < 1 || when != "before" && when != "after" {
		panic(fmt.Sprintf("crashpoint: CHANCERY_CRASH=%q: want before:N or after:N", value))
	}
	if when == side && at == n {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // nothing of this process may go on while the signal arrives
	}
}
