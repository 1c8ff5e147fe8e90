package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// allPages is the help of the commands that read pages.
const allPages = `All of them are shown. With --limit at most so many are; if there may be more, a line on standard error, in JSON
the member next, says with which --after the same command goes on.`

// found is what the pages of an answer hold: certificates, whole as the service tells them, where to go on if
// there may be more, and what the service has to say of the caller's own.
type found struct {
	Certificates []json.RawMessage `json:"certificates"`
	Next         string            `json:"next"`
	Notice       string            `json:"notice"`
}

// pages asks page after page, to the end or until there are as many certificates as the call is limited to.
func (s *service) pages(ctx context.Context, w io.Writer, method string, params map[string]any) (found, error) {
	all := found{Certificates: []json.RawMessage{}}
	most, limited := params["limit"].(int)
	if !limited {
		params["limit"] = 1000
	}
	for {
		if err := s.open(); err != nil { // asking closes the connection
			return all, err
		}
		answer, err := s.ask(ctx, method, params, sameCommand(""))
		if err != nil {
			return all, errors.Join(printRefusal(w, answer, s.output), err)
		}
		var page found
		if err := json.Unmarshal(answer.Detail, &page); err != nil {
			return all, fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
		}
		all = found{append(all.Certificates, page.Certificates...), page.Next, page.Notice}
		if page.Next == "" || page.Next == params["after"] || limited && len(all.Certificates) >= most {
			return all, nil
		}
		params["after"] = page.Next
		if limited {
			params["limit"] = most - len(all.Certificates)
		}
	}
}

// writeJSON gives a program all certificates in one object, with what else there is to say.
func (f found) writeJSON(w io.Writer, shown map[string]any) error {
	shown["certificates"] = f.Certificates
	if f.Next != "" {
		shown["next"] = f.Next
	}
	if f.Notice != "" {
		shown["notice"] = f.Notice
	}
	return writeJSON(w, shown)
}

// showNext tells people where to go on.
func (f found) showNext(w io.Writer) {
	if f.Next != "" {
		fmt.Fprintf(w, "there may be more: the same command with --after %s goes on\n", line(f.Next))
	}
}

func countOf(certificates int) string {
	if certificates == 1 {
		return "1 certificate"
	}
	return fmt.Sprintf("%d certificates", certificates)
}
