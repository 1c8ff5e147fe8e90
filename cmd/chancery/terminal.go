package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"

	"golang.org/x/term"
)

// isTerminal tells whether somebody looks at what is written there, or types what is read.
func isTerminal(stream any) bool {
	file, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(file.Fd()))
}

// progress tells somebody at a terminal what is going on. A program that runs this one gets nothing.
func (s *service) progress(format string, args ...any) {
	if isTerminal(os.Stderr) {
		fmt.Fprintln(os.Stderr, plain(fmt.Sprintf(format, args...)))
	}
}

// coloured marks a state that wants attention, on a terminal whose owner has not set NO_COLOR.
func coloured(w io.Writer, state string) string {
	colours := map[string]string{"live": "32", "open": "33", "revoked": "31", "expired": "31"}
	if colours[state] == "" || os.Getenv("NO_COLOR") != "" || !isTerminal(w) {
		return line(state)
	}
	return "\x1b[" + colours[state] + "m" + state + "\x1b[0m"
}

// plain is a text of somebody else, such as a server or whoever names a file, for a terminal: what would move
// its cursor, or change what stands there, is escaped, as JSON does. Lines stay.
func plain(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	return b.String()
}

// line is the same where a line more would look like one of ours.
func line(text string) string { return strings.ReplaceAll(plain(text), "\n", `\u000a`) }
