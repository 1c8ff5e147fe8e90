package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// Bounds of a body. One that is too long is read to a point and thrown away, so that the caller gets to
// read the answer instead of a broken connection.
const (
	maxBody  = xmlrpc.MaxBody
	maxDrain = 16 << 20
)

// wire is a codec: bytes to a call, and what came of it to bytes.
type wire interface {
	decode(body []byte) (call, *fault)
	encode(c call, value any) ([]byte, error)
	encodeFault(c call, f *fault) []byte
}

// call is what a codec found in a body.
type call struct {
	method string
	params []any
	id     []byte // of JSON-RPC, to be sent back as it is
}

// endpoint is what is served at a path.
type endpoint struct {
	wire
	transport string   // its name, for Options.Observe
	types     []string // of the bodies that it takes; it writes the first
}

func endpointAt(path string) (endpoint, bool) {
	switch path {
	case "/RPC2":
		return endpoint{xmlWire{}, "xmlrpc", []string{"text/xml", "application/xml"}}, true
	case "/rpc":
		return endpoint{jsonWire{}, "jsonrpc", []string{"application/json"}}, true
	}
	return endpoint{transport: "none"}, false
}

// serve answers one HTTP request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	r.Context().Value(connKey{}).(*conn).served.Add(1)
	// What has begun is finished even if the caller hangs up, who would only have to ask again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.callTime)
	defer cancel()
	e, ok := endpointAt(r.URL.Path)
	rq, stranger, err := s.identify(ctx, r)
	if err != nil || stranger != "" {
		s.turnAway(w, e, ok, stranger, err)
		return
	}
	rq.transport, rq.left = e.transport, wholeAnswer()
	begun := time.Now()
	defer func() { s.observe(s.listed(rq.method), e.transport, rq.result, time.Since(begun)) }()
	if !rq.caller.limit.AllowN(s.now(), 1) {
		rq.result = resultTooMany
		s.crowd.tooFast(rq.caller.name)
		f := tooFast()
		s.write(w, e, ok, http.StatusTooManyRequests, f.text, e.fault(f))
		return
	}
	if status, code, text := unfit(r, e, ok); status != 0 {
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		if f := s.misunderstood(ctx, rq, &fault{word: code, text: text}); f.number == codeInternal {
			status, text = http.StatusInternalServerError, f.text
		}
		s.write(w, e, false, status, text, nil)
		return
	}
	s.answer(ctx, w, r, e, rq)
}

// listed gives the name of a method that there is, and "none" for anything else that callers write.
func (s *Server) listed(method string) string {
	if _, ok := s.methods[method]; ok {
		return method
	}
	return "none"
}

// answer reads a body, performs the call in it and writes what came of it.
func (s *Server) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, e endpoint, rq *request) {
	body, err := readBody(w, r)
	if err != nil {
		f := s.misunderstood(ctx, rq, &fault{codeInvalid, "http.body", err.Error()})
		s.write(w, e, true, 0, "", e.fault(f))
		return
	}
	c, f := e.decode(body)
	if f == nil {
		rq.method = c.method
		f = s.checkSignature(rq, r, body)
	}
	if f != nil {
		s.write(w, e, true, 0, "", e.encodeFault(c, s.misunderstood(ctx, rq, f)))
		return
	}
	place, ok := s.shelf.take(ctx, rq.caller.name, s.weigh(c.method, c.params))
	if !ok {
		rq.result = resultTooMany
		s.crowd.repeated(rq.caller.name, answersHeld)
		s.write(w, e, true, 0, "", e.encodeFault(c, &fault{number: codeTooMany,
			text: "too many large answers at once, or answers that are not read; nothing was done: read them, and ask again later"}))
		return
	}
	defer place.leave()
	out := s.carryOut(ctx, e, rq, c)
	place.shrink(cap(out))
	s.write(w, e, true, 0, "", out)
}

// carryOut performs a call, and writes down what came of it. The rest of what that took is free then.
func (s *Server) carryOut(ctx context.Context, e endpoint, rq *request, c call) []byte {
	value, f := s.guarded(ctx, rq, c.params)
	rq.plan = nil
	if f != nil {
		return e.encodeFault(c, f)
	}
	out, err := e.encode(c, value)
	if err != nil {
		return e.encodeFault(c, s.broken(rq, fmt.Errorf("encoding the answer: %w", err)))
	}
	return out
}

// guarded performs a call and survives its panics: one caller's bad luck is not everybody's.
func (s *Server) guarded(ctx context.Context, rq *request, params []any) (value any, f *fault) {
	defer func() {
		if p := recover(); p != nil {
			f = s.broken(rq, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return s.perform(ctx, rq, params)
}

func (e endpoint) fault(f *fault) []byte {
	if e.wire == nil {
		return nil
	}
	return e.encodeFault(call{}, f)
}

// turnAway answers somebody who is not a caller, and ends the connection.
func (s *Server) turnAway(w http.ResponseWriter, e endpoint, known bool, stranger string, err error) {
	w.Header().Set("Connection", "close")
	if err != nil {
		s.log.Error("cannot tell who is calling", zap.Error(err))
		f := &fault{number: codeInternal, text: "internal error, and nothing was done: ask again later, also with the same request_id"}
		s.write(w, e, known, http.StatusInternalServerError, f.text, e.fault(f))
		return
	}
	s.crowd.stranger(stranger)
	f := &fault{number: codeUnknown, text: "this certificate is not, or not any more, that of a caller (" + stranger +
		"), and nothing was done: come with one that is, or ask the operator of the CA for it"}
	s.write(w, e, known, http.StatusForbidden, f.text, e.fault(f))
}

// write sends a body of the endpoint's kind with 200, as XML-RPC wants it for faults too; or, for what
// never was a call, a status and a text.
func (s *Server) write(w http.ResponseWriter, e endpoint, known bool, status int, text string, body []byte) {
	h := w.Header()
	if known {
		status = http.StatusOK
		h.Set("Content-Type", e.types[0]+"; charset=utf-8")
	} else {
		body = []byte(text + "\n")
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store") // it may hold a key
	w.WriteHeader(status)
	// A caller that has gone asks again with its request id.
	_, _ = w.Write(body)
}

// unfit tells why a request cannot be a call, before its body is read; status 0 if it can.
func unfit(r *http.Request, e endpoint, known bool) (status int, code, text string) {
	if !known {
		return http.StatusNotFound, "http.path", "there are /RPC2 for XML-RPC and /rpc for JSON-RPC"
	}
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, "http.method", "want POST"
	}
	if c := r.Header.Get("Content-Encoding"); c != "" && !strings.EqualFold(c, "identity") {
		return http.StatusUnsupportedMediaType, "http.encoding", "want a body without a content encoding"
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(e.types, kind) {
		return http.StatusUnsupportedMediaType, "http.type", "want a body of type " + strings.Join(e.types, " or ")
	}
	return 0, "", ""
}

// readBody reads a body within the limit. Its error is what to tell the caller.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, errors.New("the body could not be read to its end")
	}
	if len(body) <= maxBody {
		return body, nil
	}
	w.Header().Set("Connection", "close")
	if _, err := io.CopyN(io.Discard, r.Body, maxDrain); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("the body could not be read to its end")
	}
	return nil, fmt.Errorf("the body is longer than %d bytes", maxBody)
}
