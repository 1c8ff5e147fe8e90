package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// Numbers of the faults that do not come from a codec. The negative ones are those of the fault code
// interoperability specification, which JSON-RPC 2.0 shares; the positive ones say that the call was
// not looked at because of who made it.
const (
	codeNoMethod  = -32601
	codeParams    = -32602
	codeUnknown   = 4010 // the caller is not known, or not any more
	codeUnsigned  = 4011 // the caller signs its requests, and this one is not signed as it should be
	codeTooLarge  = 4130 // the result, for what is left of a multicall's answer
	codeTooMany   = 4290 // calls, or answers that are held
	codeMalformed = xmlrpc.CodeNotWellFormed
	codeInvalid   = xmlrpc.CodeInvalid
	codeInternal  = xmlrpc.CodeInternal
)

// codeUnknownOutcome is the code of the one answer that is neither yes nor no.
const codeUnknownOutcome = "outcome.unknown"

// fault is a call that was not understood, or not looked at. Word is its code in the log.
type fault struct {
	number int
	word   string
	text   string
}

func (f *fault) Error() string { return f.word + ": " + f.text }

func invalid(path, format string, args ...any) error {
	return &fault{codeParams, "params.invalid", path + ": " + fmt.Sprintf(format, args...)}
}

// refusal is a clear no of this package.
type refusal struct {
	code, reason string
	stops        int // how far the closest grant went along, if that is why
}

func (r *refusal) Error() string { return r.code + ": " + r.reason }

func (r *refusal) Is(target error) bool {
	return target == ca.ErrOthers && stopsAtOwner(r.stops) || target == ca.ErrBound && stopsAtTerms(r.stops)
}

func refuse(code, format string, args ...any) *refusal {
	return &refusal{code: code, reason: fmt.Sprintf(format, args...)}
}

// no is an error as it goes on the wire with ok=false.
type no struct {
	code   string
	reason string
	prior  string // request id of an earlier request that is the reason
	record string // what the log says instead of the reason, if the caller may not know all of it
}

// explain is the one mapping from errors to answers. It gives nil for an error that nobody outside can
// do anything about.
//
// What is unknown comes first: an error that says so may have a refusal in its chain as well, and
// unknown is not no. What the line to the key room finds before it asks, the room finds as well, and then
// in a refusal: to a caller these are one situation.
func explain(err error) *no {
	var byRoom *signer.Refusal
	room := ""
	if errors.As(err, &byRoom) {
		room = byRoom.Code
	}
	switch {
	case errors.Is(err, signer.ErrUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &no{code: codeUnknownOutcome,
			reason: "it is not known yet how this ended; ask again with the request_id of this answer, nothing will be done twice"}
	case errors.Is(err, signer.ErrUnreachable):
		return &no{code: "keyroom.unreachable",
			reason: "the key room is not there, nothing was signed; ask again later with the request_id of this answer"}
	case errors.Is(err, signer.ErrStoreBehind), room == "log.smaller":
		return &no{code: "store.behind",
			reason: "nothing is signed, because the store is older than the key room: the operator of the CA must run chancery recover"}
	case errors.Is(err, signer.ErrRoomBehind), room == "room.behind", room == "room.diverged":
		return &no{code: "keyroom.behind",
			reason: "nothing is signed, because the key room is an old copy: the operator of the CA must put back its newest copy"}
	case errors.Is(err, signer.ErrFork), room == "log.fork", room == "log.root", room == "log.other":
		return &no{code: "store.fork",
			reason: "nothing is signed, because the store is not the one this key room follows: the operator of the CA must restore that one"}
	}
	return explainRefusal(err)
}

func explainRefusal(err error) *no {
	var byCA *ca.Refusal
	var byName *name.Refusal
	var byProfile *profile.Refusal
	var byRoom *signer.Refusal
	var byUs *refusal
	switch {
	case errors.As(err, &byCA):
		return &no{code: byCA.Code, reason: byCA.Reason, prior: byCA.Prior, record: byCA.Record}
	case errors.As(err, &byName):
		return &no{code: byName.Code, reason: byName.Field + ": " + byName.Reason}
	case errors.As(err, &byProfile):
		return &no{code: byProfile.Code, reason: byProfile.Reason}
	case errors.As(err, &byRoom):
		return roomRefusal(byRoom)
	case errors.As(err, &byUs):
		return &no{code: byUs.code, reason: byUs.reason}
	}
	return nil
}

// roomRefusal says what to do as well: the key room does not know who asked.
func roomRefusal(r *signer.Refusal) *no {
	n := &no{code: "keyroom." + r.Code}
	next := "ask for something else, or ask the operator of the CA"
	if kindOf(n.code) == isNow {
		next = "ask again later, also with the same request_id"
	}
	n.reason = "the key room refused: " + roomReason(r) + "; " + next
	return n
}

// roomReason is the reason that the room gives, unless that is the text of an error, which its own log has.
func roomReason(r *signer.Refusal) string {
	switch r.Code {
	case "room.failed":
		return "it failed, and its log says why"
	case "leaf.not_canonical":
		return "it does not understand the log, and its own log says where"
	}
	return r.Reason
}

const maxText = 1000

// ascii escapes what is not printable ASCII, so that every client, terminal and log shows the same, and
// cuts what is long.
func ascii(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case b.Len() >= maxText:
			return b.String() + "..."
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
