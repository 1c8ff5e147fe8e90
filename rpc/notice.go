package rpc

import (
	"fmt"
	"time"
)

// noticeDays is how long before its end a caller is told of it in every answer.
const noticeDays = 30

// notice warns a caller whose certificate ends soon, in the words of who has to do something; empty if it
// does not.
func notice(name string, ends, now time.Time) string {
	left := ends.Sub(now)
	if left > noticeDays*day {
		return ""
	}
	return fmt.Sprintf("your certificate ends on %s, in %d days: make a new key, ask ca.issue for purpose caller and cn %s with its CSR, and use the new certificate from then on",
		ends.UTC().Format("2006-01-02 15:04 MST"), int(left/day), name)
}
