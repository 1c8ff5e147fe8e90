package rpc

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// row is one method: what is said of it, and what it does. call gives an answer, or for the system
// methods a plain value. params and detail are the structs of a ca method; everything else that is said
// of their members, wherever it is said, is made from their tags.
type row struct {
	name      string
	help      string
	signature []string // XML-RPC types, that of the result first
	params    reflect.Type
	detail    reflect.Type
	call      func(ctx context.Context, rq *request, params []any) (any, error)
	most      func(params []any) int // certificates that its answer may name; nil for a system method
}

// head is what the detail of every answer has.
type head struct {
	Code      string `json:"code" help:"a stable word, see Codes"`
	RequestID string `json:"request_id,omitempty" help:"your own, or one that was made for the call"`
	LogIndex  int64  `json:"log_index,omitempty" help:"of the leaf that tells of it, if the call wrote one"`
	Notice    string `json:"notice,omitempty" help:"only when your certificate ends soon: when, and what to do"`
}

// refusalDetail is the detail of an answer that is not ok.
type refusalDetail struct {
	head
	Prior string `json:"prior_request_id,omitempty" help:"of an earlier call that is the reason"`
}

// answer is what every ca method says: whether it was done, what to do next, and the details.
type answer struct {
	ok     bool
	msg    string
	detail map[string]any
}

// about is what a parameter struct says of the call as such, as the caller wrote it.
type about struct {
	requestID string
	purpose   string
	cn        string
	plan      bool
	planned   *int // the index of a plan; nil: none is named, which 0 is not
}

type params interface{ about() about }

// request is one call of a known caller.
type request struct {
	pass
	caller    *caller
	who       audit.Actor
	method    string
	id        string // the request id
	made      bool   // the caller gave none, so it was made for it: every answer says it, and a retry can use it
	body      string // SHA-256 of what is asked, lower-case hex
	about     about
	signed    *audit.SignedRequest // by a caller who signs
	decision  string               // of the plan that it names, if it names one
	plan      *ca.Plan             // what it would do, if it only asks
	result    string               // how it ended, for Options.Observe
	transport string               // which codec it came by
	left      space                // of the answer
	publishBy time.Time            // when waits for git and the directory end; zero: as package ca has them
}

// method makes the row of a ca method: parameters are bound, the call is named, and the answer gets
// what every answer has.
func method[P params, D any](s *Server, name, help string, handle func(context.Context, *request, P) (msg string, detail D, err error)) row {
	call := func(ctx context.Context, rq *request, list []any) (any, error) {
		var p P
		err := bindStruct(list, &p)
		rq.about = p.about() // as far as it was understood, for the record
		if err != nil {
			return nil, err
		}
		if err := rq.takeRequestID(); err != nil {
			return nil, err
		}
		if err := rq.hashBody(p); err != nil {
			return nil, err
		}
		if err := rq.mayBegin(ctx, p); err != nil {
			return nil, err
		}
		if err := s.findPlan(ctx, rq); err != nil {
			return nil, err
		}
		msg, detail, err := handle(ctx, rq, p)
		if err != nil {
			return nil, err
		}
		a := answer{true, msg, membersOf(reflect.ValueOf(detail))}
		if a.detail["request_id"] == nil {
			a.detail["request_id"] = rq.id
		}
		if rq.plan != nil {
			return s.planned(ctx, rq, a)
		}
		return a, nil
	}
	return row{name, help, []string{"array", "struct"}, reflect.TypeFor[P](), reflect.TypeFor[D](), call, mostIn[P]()}
}

const maxRequestID = 128

// takeRequestID takes up the caller's request id, if it gave one.
func (rq *request) takeRequestID() error {
	id := rq.about.requestID
	if id == "" && rq.signed != nil && changes(rq.method) {
		return refuse("request_id.missing", "a signed request that changes something needs a request_id: it could be used twice")
	}
	if id == "" {
		return nil
	}
	if len(id) > maxRequestID || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") != "" {
		return refuse("request_id.malformed", "request_id: want 1 to %d of the characters A-Z a-z 0-9 . _ : -", maxRequestID)
	}
	rq.id, rq.made = id, false
	return nil
}

// hashBody hashes what is asked: the members that are there, apart from request_id, plan and planned, as they
// were understood, so that it is the same for both codecs.
func (rq *request) hashBody(p any) error {
	var members map[string]json.RawMessage
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	if err := json.Unmarshal(text, &members); err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	delete(members, "request_id")
	delete(members, "plan")
	delete(members, "planned")
	text, err = json.Marshal(map[string]any{"method": rq.method, "params": members})
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	rq.body = cert.SHA256(text)
	return nil
}

// asCall is the request as ca wants it.
func (rq *request) asCall(rule string) ca.Call {
	return ca.Call{
		Who: rq.who, Rule: rule, RequestID: rq.id, Made: rq.made, BodySHA256: rq.body,
		Plan: rq.about.plan, Decision: rq.decision, Request: rq.signed, Spend: rq.caller.spend,
		PublishBy: rq.publishBy,
	}
}

// perform runs one call and turns whatever came of it into what goes on the wire: an answer, a plain
// value, or a fault. Every answer warns of the end of the caller's certificate.
func (s *Server) perform(ctx context.Context, rq *request, params []any) (any, *fault) {
	value, f := s.outcome(ctx, rq, params)
	if a, ok := value.(answer); ok {
		if text := rq.notice(s.now()); text != "" {
			a.detail["notice"] = text
		}
	}
	return value, f
}

func (s *Server) outcome(ctx context.Context, rq *request, params []any) (any, *fault) {
	row, ok := s.methods[rq.method]
	if !ok {
		return nil, s.misunderstood(ctx, rq, &fault{codeNoMethod, "method.unknown", "there is no such method; system.listMethods tells which there are"})
	}
	value, err := row.call(ctx, rq, params)
	if err == nil {
		if a, ok := value.(answer); ok {
			a.msg = ascii(a.msg)
			value = a
		}
		rq.result = resultOK
		return value, nil
	}
	var f *fault
	if errors.As(err, &f) {
		return nil, s.misunderstood(ctx, rq, f)
	}
	return s.declined(ctx, rq, err)
}

// declined answers a call that ended in an error.
func (s *Server) declined(ctx context.Context, rq *request, err error) (any, *fault) {
	n := explain(err)
	if n == nil {
		return nil, s.broken(rq, err)
	}
	detail := refusalDetail{head{Code: n.code, RequestID: rq.id}, n.prior}
	switch kindOf(n.code) {
	case isUnknown:
		rq.result = resultUnknown
		s.log.Error("a call failed", zapCall(rq, err)...)
	case isUnavailable:
		rq.result = resultFailed
		s.log.Error("a call failed", zapCall(rq, err)...)
	default:
		rq.result = resultRefused
		if errors.As(err, new(*refusal)) { // others know what the request id was used for
			n.reason += s.before(ctx, rq)
		}
		record := n.reason
		if n.record != "" {
			record = n.record
		}
		index, entered, err := s.refused(ctx, rq, n.code, record)
		if err != nil {
			return nil, s.broken(rq, err)
		}
		if entered {
			detail.LogIndex = index
		}
	}
	return answer{false, ascii(n.reason), membersOf(reflect.ValueOf(detail))}, nil
}

// before says what a caller might forget over the refusal of a retry: that it does not undo the first call.
func (s *Server) before(ctx context.Context, rq *request) string {
	if rq.made || rq.body == "" {
		return ""
	}
	r, found, err := s.store.Request(ctx, rq.who.Name, rq.id)
	if err != nil || !found || r.BodySHA256 != rq.body {
		return ""
	}
	return fmt.Sprintf("; an earlier call with this request_id is at %d of the log, and what came of it stays", r.Index)
}

// misunderstood enters a call that was no proper one, and gives the fault to answer with.
func (s *Server) misunderstood(ctx context.Context, rq *request, f *fault) *fault {
	rq.result = resultMisunderstood
	if _, _, err := s.refused(ctx, rq, f.word, f.text); err != nil {
		return s.broken(rq, err)
	}
	return f
}

// broken is for what nobody outside can do anything about: a reference there, the whole of it here.
func (s *Server) broken(rq *request, err error) *fault {
	rq.result = resultInternal
	s.log.Error("internal error", zapCall(rq, err)...)
	return &fault{codeInternal, "internal", "internal error; it is not known how this ended: ask again with request_id " + rq.id + ", nothing will be done twice; the operator of the CA finds it in the service's journal under " + rq.id}
}

// refused enters a refusal of a known caller. One of too many is counted, and entered with the others of its code
// when the minute is over.
func (s *Server) refused(ctx context.Context, rq *request, code, reason string) (index int64, entered bool, err error) {
	if !rq.caller.refusals.AllowN(s.now(), 1) {
		s.crowd.repeated(rq.caller.name, code)
		return 0, false, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	entry, err := s.store.Update(ctx, rq.who, func(*store.Tx) (audit.Event, error) {
		return &audit.RequestRefused{
			Method: quoted(rq.method), RequestID: rq.id, BodySHA256: rq.body,
			Purpose: quoted(rq.about.purpose), CN: quoted(rq.about.cn), Code: code, Reason: ascii(reason),
		}, nil
	})
	if err != nil {
		return 0, false, fmt.Errorf("entering the refusal %s: %w", code, err)
	}
	return entry.Index, true, nil
}

const maxQuoted = 80

// quoted is what a caller wrote, safe to show and cut.
func quoted(s string) string {
	if len(s) > maxQuoted {
		return ascii(strings.ToValidUTF8(s[:maxQuoted], "")) + "..."
	}
	return ascii(s)
}

// newID makes a request id that nobody can have used before.
func (s *Server) newID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(s.rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing a request id: %w", err)
	}
	return "call-" + hex.EncodeToString(b[:]), nil
}
