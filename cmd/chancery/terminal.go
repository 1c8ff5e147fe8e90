package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// isTerminal tells whether somebody looks at what is written there, or types what is read.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// progress tells somebody at a terminal what is going on. A program that runs this one gets nothing.
func (s *service) progress(format string, args ...any) {
	if isTerminal(os.Stderr) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

// coloured marks a state that wants attention, on a terminal whose owner has not set NO_COLOR.
func coloured(w io.Writer, state string) string {
	colours := map[string]string{"live": "32", "open": "33", "revoked": "31", "expired": "31"}
	if colours[state] == "" || os.Getenv("NO_COLOR") != "" || !isTerminal(w) {
		return state
	}
	return "\x1b[" + colours[state] + "m" + state + "\x1b[0m"
}
