package signer

import (
	"context"
	"fmt"
)

// Reader reads what the room holds and moves nothing: recovery and fsck use it, because they must work
// when the store and the room disagree. It is not safe for concurrent use.
type Reader struct {
	line  *line
	hello Hello
}

// DialReader connects to the room at a Unix socket. It fails with ErrUnreachable.
func DialReader(ctx context.Context, path string) (*Reader, error) {
	l, hello, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return &Reader{l, hello}, nil
}

// Close ends the connection.
func (r *Reader) Close() { r.line.close() }

// Hello is what the room said of itself.
func (r *Reader) Hello() Hello { return r.hello }

// Leaves gives leaves that the room holds from index from on, at least one if there is one.
func (r *Reader) Leaves(from int64) ([][]byte, error) {
	result, err := r.ask(Call{Kind: Leaves, Index: from})
	return result.Leaves, err
}

// Lookup gives the certificate of the issue.intent at index, DER: nil if it was not signed so far.
func (r *Reader) Lookup(index int64) ([]byte, error) {
	result, err := r.ask(Call{Kind: Lookup, Index: index})
	return result.DER, err
}

func (r *Reader) ask(call Call) (Result, error) {
	reply, err := r.line.roundTrip(context.Background(), Batch{From: ReadOnly, Calls: []Call{call}})
	switch {
	case err != nil:
		return Result{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case reply.Refused != nil:
		return Result{}, reply.Refused
	case len(reply.Results) != 1:
		return Result{}, fmt.Errorf("the key room gave %d results for one call", len(reply.Results))
	case reply.Results[0].Refused != nil:
		return Result{}, reply.Results[0].Refused
	}
	return reply.Results[0], nil
}
