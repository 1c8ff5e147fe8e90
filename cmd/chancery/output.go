package main

import "os"

// output is where a command prints. It keeps the first failure, because a command that was carried out is not
// done when nobody can read what came of it, whether or not it looks at what a print gives back.
type output struct {
	file   *os.File
	failed error
}

// Write prints.
func (o *output) Write(text []byte) (int, error) {
	n, err := o.file.Write(text)
	if err == nil {
		return n, nil
	}
	if o.failed == nil {
		o.failed = unprinted{err}
	}
	return n, unprinted{err}
}

// Fd is for those who ask whether it is a terminal.
func (o *output) Fd() uintptr { return o.file.Fd() }

// unprinted says that the output could not be written.
type unprinted struct{ error }

func (u unprinted) Error() string { return "the output could not be written: " + u.error.Error() }

// Unwrap gives the exit code and the reason.
func (u unprinted) Unwrap() []error { return []error{errUnsettled, u.error} }
