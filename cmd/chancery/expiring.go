package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
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
name that ends later.

` + allPages,
		Example: `  chancery expiring --dir ca --within 14 --purpose server
  chancery expiring --dir ca --output json | jq -r '.certificates[] | select(.superseded | not) | .cn'`,
		Args:              exactly(0, "takes no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			params := wanted.params()
			if days, _ := params["within_days"].(int); days == 0 {
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

// expiring shows what ends soon.
func (s *service) expiring(ctx context.Context, w io.Writer, params map[string]any) error {
	all, err := s.pages(ctx, w, "ca.expiring", params)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return all.writeJSON(w, map[string]any{"within_days": params["within_days"]})
	}
	all.showNext(os.Stderr)
	return printExpiring(w, all.Certificates, time.Now())
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
	fmt.Fprintln(&b, countOf(len(all)))
	_, err := w.Write(b.Bytes())
	return err
}
