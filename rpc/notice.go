package rpc

import (
	"fmt"
	"time"
)

// noticeDays is how long before its end a caller is told of it in every answer.
const noticeDays = 30

// notice warns a caller whose certificate ends soon, in the words of who has to do something; empty if it
// does not.
func (rq *request) notice(now time.Time) string {
	left := rq.ends.Sub(now)
	if left > noticeDays*day {
		return ""
	}
	return fmt.Sprintf("your certificate ends on %s, in %d days: %s", rq.ends.UTC().Format("2006-01-02 15:04 MST"), int(left/day), rq.next())
}

// next says how its caller gets another certificate that lets it in.
func (rq *request) next() string {
	ask := "make a new key, ask ca.issue for purpose caller and cn " + rq.caller.name + " with its CSR, and use the new certificate from then on"
	switch {
	case rq.by.kind == byKey && rq.foreign:
		return "it is not renewed here; use another certificate for the same key, or have the operator add the hash of a new key to your credentials first"
	case rq.foreign:
		return "it is not renewed here; get another one of the same issuer and subject where this one is from"
	case rq.by.kind == byKey:
		return "have the operator add the hash of a new key to your credentials; then " + ask
	}
	return ask
}
