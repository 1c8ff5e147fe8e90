package rpc

import (
	"context"
	"fmt"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/store"
)

// planned enters a call that only asked.
func (s *Server) planned(ctx context.Context, rq *request, a answer) (answer, error) {
	decision, err := rq.plan.Decision()
	if err != nil {
		return a, err
	}
	code, _ := a.detail["code"].(string)
	entry, err := s.store.Update(ctx, rq.who, func(*store.Tx) (audit.Event, error) {
		return &audit.RequestPlanned{
			Method: rq.method, RequestID: rq.id, BodySHA256: rq.body, Code: code, Effect: ascii(a.msg), DecisionSHA256: decision,
		}, nil
	})
	if err != nil {
		return a, fmt.Errorf("entering the plan: %w", err)
	}
	a.detail["request_id"] = rq.id
	a.detail["log_index"] = int(entry.Index)
	return a, nil
}

// findPlan takes up the decision of the plan that a call names. It is on the log, so it needs no other memory.
func (s *Server) findPlan(ctx context.Context, rq *request) error {
	if rq.about.planned == nil {
		return nil
	}
	index := int64(*rq.about.planned)
	unknown := refuse("plan.unknown", "planned: there is no plan of yours for this very call at %d of the log; name the log_index of one", index)
	if size, _ := s.store.Head(); index < 0 || index >= size {
		return unknown
	}
	leaf, err := s.store.Leaf(ctx, index)
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	plan, ok := leaf.Event.(*audit.RequestPlanned)
	if !ok || leaf.Actor.Kind != rq.who.Kind || leaf.Actor.Name != rq.who.Name || plan.BodySHA256 != rq.body {
		return unknown
	}
	rq.decision = plan.DecisionSHA256
	return nil
}
