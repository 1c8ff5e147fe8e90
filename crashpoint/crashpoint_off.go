//go:build !crashpoint

// Package crashpoint marks the durable steps of a process, so that a test can
// cut the power at each of them.
//
// What a crash leaves behind is decided at few places: the commit of the
// store, the record of the key room's journal, the move of a branch. Each calls
// Before right before the step and After as soon as it is durable. In a normal
// build both do nothing. With the build tag crashpoint they count, and the
// process kills itself with SIGKILL (no deferred call, no flush) where the
// environment says:
//
//	CHANCERY_CRASH=before:3     die before the third durable step
//	CHANCERY_CRASH=after:3      die after it
//	CHANCERY_CRASH_LOG=file     append "n op" for every durable step begun
//
// n counts all operations of one process together, from 1: a first run with
// only the log enumerates the steps, and a run for each of them breaks it twice.
package crashpoint

// Before is called right before the durable step op.
func Before(op string) {}

// After is called as soon as the step op is durable, before anyone is told.
func After(op string) {}
