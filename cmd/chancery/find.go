package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func findCommand() *cobra.Command {
	var s service
	var wanted members
	cmd := &cobra.Command{
		Use:   "find (--dir DIR | --url URL)",
		Short: "Find certificates by what they say and by what became of them",
		Long: `Ask the running service for the certificates that fit all of what is given, of those that a grant of the caller
covers, in the order in which they were announced.`,
		Example: `  chancery find --dir ca --san www.example.org
  chancery find --dir ca --state live --purpose server --ends-to 2026-12-31`,
		Args:              exactly(0, "takes no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			params := wanted.params()
			params["limit"] = 1000
			return s.find(cmd.Context(), cmd.OutOrStdout(), params)
		},
	}
	s.flags(cmd)
	wanted = memberFlags(cmd, "ca.find")
	return cmd
}

func (s *service) find(ctx context.Context, w io.Writer, params map[string]any) error {
	all, _, err := s.pages(ctx, w, "ca.find", params)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return writeJSON(w, map[string]any{"certificates": all})
	}
	certificates := make([]certificateStatus, len(all))
	for i, text := range all {
		if err := json.Unmarshal(text, &certificates[i]); err != nil {
			return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
		}
	}
	return printCertificates(w, fmt.Sprintf("%d certificates", len(all)), certificates)
}

func whoamiCommand() *cobra.Command {
	var s service
	cmd := &cobra.Command{
		Use:   "whoami (--dir DIR | --url URL)",
		Short: "Show who the caller is to the service, and what it may do",
		Long: `Ask the running service which caller the certificate is that of, until when it is good, and which grants the
caller has. A grant allows what fits all of it.`,
		Example:           `  chancery whoami --dir ca`,
		Args:              exactly(0, "takes no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return s.whoami(cmd.Context(), cmd.OutOrStdout()) },
	}
	s.flags(cmd)
	return cmd
}

func (s *service) whoami(ctx context.Context, w io.Writer) error {
	if err := s.open(); err != nil {
		return err
	}
	answer, err := s.ask(ctx, "ca.whoami", map[string]any{}, sameCommand(""))
	if err != nil {
		return errors.Join(printRefusal(w, answer, s.output), err)
	}
	if s.output == "json" {
		return writeJSON(w, answer)
	}
	var me struct {
		Caller     string    `json:"caller"`
		NotAfter   time.Time `json:"not_after"`
		Credential struct {
			SPKI    string `json:"spki"`
			Issuer  string `json:"issuer"`
			Subject string `json:"subject"`
		} `json:"credential"`
		Grants []toldGrant `json:"grants"`
	}
	if err := json.Unmarshal(answer.Detail, &me); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	rows := [][2]string{{"caller", me.Caller}, {"not after", me.NotAfter.Format(time.RFC3339)}}
	switch by := me.Credential; {
	case by.SPKI != "":
		rows = append(rows, [2]string{"credential", "key " + by.SPKI})
	case by.Issuer != "":
		rows = append(rows, [2]string{"credential", by.Subject + " by " + by.Issuer})
	}
	for _, g := range me.Grants {
		rows = append(rows, [2]string{g.Rule, g.String()})
	}
	return printRows(w, answer.Msg, rows)
}

// toldGrant is a grant as ca.whoami tells it.
type toldGrant struct {
	Rule     string   `json:"rule"`
	Methods  []string `json:"methods"`
	Purposes []string `json:"purposes"`
	Names    []string `json:"names"`
	Domains  []string `json:"domains"`
	Networks []string `json:"networks"`
	KeyTypes []string `json:"key_types"`
	MaxDays  int      `json:"max_days"`
	Reasons  []string `json:"reasons"`
	Max      int      `json:"max"`
	PerHour  int      `json:"per_hour"`
	Own      bool     `json:"own"`
}

func (g toldGrant) String() string {
	text := strings.Join(g.Methods, " ") + "; for " + strings.Join(g.Purposes, " ") + "; names " + strings.Join(g.Names, " ")
	for _, list := range []struct {
		what  string
		items []string
	}{{"domains", g.Domains}, {"networks", g.Networks}, {"key types", g.KeyTypes}, {"reasons", g.Reasons}} {
		if len(list.items) > 0 {
			text += "; " + list.what + " " + strings.Join(list.items, " ")
		}
	}
	for _, bound := range []struct {
		most int
		of   string
	}{{g.MaxDays, "days"}, {g.Max, "certificates a call"}, {g.PerHour, "calls an hour"}} {
		if bound.most > 0 {
			text += fmt.Sprintf("; at most %d %s", bound.most, bound.of)
		}
	}
	if g.Own {
		text += "; only what it asked for itself"
	}
	return text
}
