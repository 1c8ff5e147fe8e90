// Package nodump keeps what a process holds in memory out of core files, and away from debuggers of
// the same user. It imports only the standard library.
package nodump

import (
	"fmt"
	"syscall"
)

// prSetDumpable is PR_SET_DUMPABLE of prctl(2).
const prSetDumpable = 4

// Set turns core files off for this process and makes it undumpable.
func Set() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("turning core files off: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("making the process undumpable: %w", errno)
	}
	return nil
}
