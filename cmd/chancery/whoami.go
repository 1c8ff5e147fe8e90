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

	"github.com/chancery-ca/chancery/rpc"
)

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
		Caller     string         `json:"caller"`
		NotAfter   time.Time      `json:"not_after"`
		Credential rpc.Credential `json:"credential"`
		Grants     []toldGrant    `json:"grants"`
	}
	if err := json.Unmarshal(answer.Detail, &me); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	rows := [][2]string{{"caller", me.Caller}, {"not after", me.NotAfter.Format(time.RFC3339)}}
	if me.Credential != (rpc.Credential{}) {
		rows = append(rows, [2]string{"credential", entrance(me.Credential)})
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
