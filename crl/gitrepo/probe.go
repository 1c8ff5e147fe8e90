package gitrepo

import (
	"context"
	"fmt"
	"time"
)

// Probe asks the server whether it would take a push from us, and what its clock says, in whole seconds;
// zero if it does not tell, as over ssh. Nothing is pushed: a server lists its references to those who
// want to push only if they may. What a hook would decline is not seen.
func (h *Hosted) Probe(ctx context.Context) (clock time.Time, err error) {
	defer caught(&err)
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	e, _, err := h.greet(ctx, "git-receive-pack")
	if err != nil {
		return clock, explain(ctx, err)
	}
	e.quit()
	if err := e.close(); err != nil {
		return clock, fmt.Errorf("ending the conversation: %w", explain(ctx, err))
	}
	return e.clock, nil
}
