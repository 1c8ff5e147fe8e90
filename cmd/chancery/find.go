package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

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
		Args:              exactly(0, "takes no argument; --name NAME is the common name"),
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
	all, notice, err := s.pages(ctx, w, "ca.find", params)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return writeJSON(w, noticed(map[string]any{"certificates": all}, notice))
	}
	certificates := make([]certificateStatus, len(all))
	for i, text := range all {
		if err := json.Unmarshal(text, &certificates[i]); err != nil {
			return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
		}
	}
	return printCertificates(w, fmt.Sprintf("%d certificates", len(all)), certificates)
}
