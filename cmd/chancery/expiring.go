package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func expiringCommand() *cobra.Command {
	var s service
	var wanted members
	cmd := &cobra.Command{
		Use:   "expiring (--dir DIR | --url URL)",
		Short: "Show which certificates end soon",
		Long: `Ask the running service which live certificates end within some days, the first to end first, of those that
a grant of the caller covers. What is superseded has a successor: a live certificate of the same purpose and
name that ends later.`,
		Example: `  chancery expiring --dir ca --within 14 --purpose server
  chancery expiring --dir ca --output json | jq -r '.certificates[] | select(.superseded | not) | .cn'`,
		Args:              exactly(0, "takes no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			params := wanted.params()
			params["limit"] = 1000
			if params["within_days"] == nil {
				params["within_days"] = 30
			}
			return s.expiring(cmd.Context(), cmd.OutOrStdout(), params)
		},
	}
	s.flags(cmd)
	wanted = memberFlags(cmd, "ca.expiring")
	return cmd
}

// ending is one certificate of the answer.
type ending struct {
	Serial     string    `json:"serial"`
	Purpose    string    `json:"purpose"`
	CN         string    `json:"cn"`
	NotAfter   time.Time `json:"not_after"`
	Superseded bool      `json:"superseded"`
}

// pages asks page after page for certificates, and gives them whole as the service tells them, and what it
// has to say of the caller's own.
func (s *service) pages(ctx context.Context, w io.Writer, method string, params map[string]any) (all []json.RawMessage, notice string, err error) {
	all = []json.RawMessage{}
	for next := ""; ; {
		if err := s.open(); err != nil { // asking closes the connection
			return nil, "", err
		}
		answer, err := s.ask(ctx, method, params, sameCommand(""))
		if err != nil {
			return nil, "", errors.Join(printRefusal(w, answer, s.output), err)
		}
		var detail struct {
			Certificates []json.RawMessage `json:"certificates"`
			Next         string            `json:"next"`
			Notice       string            `json:"notice"`
		}
		if err := json.Unmarshal(answer.Detail, &detail); err != nil {
			return nil, "", fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
		}
		all, notice = append(all, detail.Certificates...), detail.Notice
		if detail.Next == "" || detail.Next == next {
			return all, notice, nil
		}
		next = detail.Next
		params["after"] = next
	}
}

// noticed adds what the service has to say of the caller's own certificate to what a program gets.
func noticed(shown map[string]any, notice string) map[string]any {
	if notice != "" {
		shown["notice"] = notice
	}
	return shown
}

// expiring shows what ends soon. A program gets all certificates in one object.
func (s *service) expiring(ctx context.Context, w io.Writer, params map[string]any) error {
	all, notice, err := s.pages(ctx, w, "ca.expiring", params)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return writeJSON(w, noticed(map[string]any{"within_days": params["within_days"], "certificates": all}, notice))
	}
	return printExpiring(w, all, time.Now())
}

func printExpiring(w io.Writer, all []json.RawMessage, now time.Time) error {
	var rows [][]string
	if len(all) > 0 {
		rows = append(rows, []string{"NOT AFTER", "DAYS", "PURPOSE", "NAME", "SERIAL", "SUCCESSOR"})
	}
	for _, text := range all {
		var c ending
		if err := json.Unmarshal(text, &c); err != nil {
			return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
		}
		successor := "none"
		if c.Superseded {
			successor = "live"
		}
		days := int(c.NotAfter.Sub(now).Hours() / 24)
		rows = append(rows, []string{c.NotAfter.Format(time.RFC3339), strconv.Itoa(days), line(c.Purpose), line(c.CN), line(c.Serial), successor})
	}
	var b bytes.Buffer
	if err := writeTable(&b, rows); err != nil {
		return err
	}
	if len(all) == 1 {
		fmt.Fprintln(&b, "1 certificate")
	} else {
		fmt.Fprintf(&b, "%d certificates\n", len(all))
	}
	_, err := w.Write(b.Bytes())
	return err
}
