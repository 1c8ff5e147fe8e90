package rpc

import (
	"context"
	"time"
)

// maxCalls is how many calls one system.multicall may hold.
const maxCalls = 16

const (
	publishTime = 5 * time.Second  // for which the calls of a multicall together wait for git and the directory
	leastTime   = 10 * time.Second // without which none of them begins
)

const multicallName = "system.multicall"

const multicallHelp = `Make up to 16 calls, one after the other. Its one parameter is an array of structs, each with methodName and
params, an array. Each call is a call by itself: authorised, limited and recorded. The result is an array with
an array of one result for each that was carried out, and a struct with faultCode and faultString for each
that ended in a fault; in JSON-RPC an object with result, or with error. It does not nest. The results share one answer: a
page ends where it is full, a call for which it has no space left is refused with multicall.answer before it begins, and
a result that is too large for what is left becomes the fault 4130 of that call. They also share five seconds of waiting
for git and the directory, and 60 in all: a call that less than ten are left for is refused with multicall.time.`

// several are the results of a multicall, in the order of the calls.
type several []ended

type ended struct {
	value any
	fault *fault // nil, or what the call ended in
}

func (s *Server) multicall(ctx context.Context, rq *request, params []any) (any, error) {
	if rq.signed != nil {
		return nil, &fault{codeUnsigned, "signature.multicall", "a signed request is one call: the log shows it with what came of it"}
	}
	if len(params) != 1 {
		return nil, invalid("params", "%d parameters; want one array of calls", len(params))
	}
	calls := innerCalls(params)
	if len(calls) == 0 {
		return nil, invalid("params[0]", "want an array of 1 to %d calls", maxCalls)
	}
	rq.left = rq.left.without(len(calls) * frame)
	rq.publishBy = time.Now().Add(publishTime)
	var results several
	for _, c := range calls {
		results = append(results, s.oneOf(ctx, rq, c))
	}
	return results, nil
}

// innerCalls are the calls of a multicall that has no more of them than it may.
func innerCalls(params []any) []any {
	if len(params) != 1 {
		return nil
	}
	calls, _ := params[0].([]any)
	if len(calls) > maxCalls {
		return nil
	}
	return calls
}

// oneOf makes one of several calls. It counts as one for the caller's rate, like any other.
func (s *Server) oneOf(ctx context.Context, rq *request, tree any) ended {
	one, err := s.inner(rq, tree)
	if err != nil {
		return ended{fault: s.broken(rq, err)}
	}
	begun := time.Now()
	defer func() { s.observe(s.listed(one.rq.method), rq.transport, one.rq.result, time.Since(begun)) }()
	switch {
	case !rq.caller.limit.AllowN(s.now(), 1):
		one.rq.result = resultTooMany
		s.crowd.tooFast(rq.caller.name)
		return ended{fault: tooFast()}
	case one.wrong != "":
		return ended{fault: s.misunderstood(ctx, one.rq, &fault{codeParams, "params.invalid", one.wrong})}
	case one.rq.method == multicallName:
		return ended{fault: s.misunderstood(ctx, one.rq, &fault{codeParams, "params.invalid", multicallName + " does not nest"})}
	}
	value, f := s.guarded(ctx, one.rq, one.params)
	if a, isAnswer := value.(answer); f != nil || isAnswer && !a.ok {
		return ended{value, f}
	}
	return s.counted(ctx, rq, one.rq, value)
}

// counted takes the space for a result.
func (s *Server) counted(ctx context.Context, rq, one *request, value any) ended {
	fits, err := rq.left.take(value)
	switch {
	case err != nil:
		return ended{fault: s.broken(one, err)}
	case !fits:
		return ended{fault: s.misunderstood(ctx, one, &fault{codeTooLarge, "answer.large",
			"the result is too large for what the results before it leave of this answer; make the call by itself, with request_id " + one.id + " if it changes something"})}
	}
	return ended{value: value}
}

func tooFast() *fault {
	return &fault{number: codeTooMany, text: "too many calls at once; wait a second and ask again"}
}

// innerCall is one of the calls of a multicall. wrong says what it is not.
type innerCall struct {
	rq     *request
	params []any
	wrong  string
}

// inner makes a request of its own for one of several calls.
func (s *Server) inner(rq *request, tree any) (c innerCall, err error) {
	c.rq = &request{caller: rq.caller, who: rq.who, pass: rq.pass, transport: rq.transport, left: rq.left.without(frame), publishBy: rq.publishBy, made: true}
	if c.rq.id, err = s.newID(); err != nil {
		return c, err
	}
	members, isStruct := tree.(map[string]any)
	name, named := members["methodName"].(string)
	c.rq.method = name
	params, given := members["params"].([]any)
	if c.params = params; !isStruct || !named || !given || len(members) != 2 {
		c.wrong = "want a struct of methodName, a string, and params, an array"
	}
	return c, nil
}
