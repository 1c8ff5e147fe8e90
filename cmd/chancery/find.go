package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func findCommand() *cobra.Command {
	var s service
	var wanted members
	cmd := &cobra.Command{
		Use:   "find (--dir DIR | --url URL)",
		Short: "Find certificates by what they say and by what became of them",
		Long: `Ask the running service for the certificates that fit all of what is given, of those that a grant of the caller
covers, in the order in which they were announced.

` + allPages,
		Example: `  chancery find --dir ca --san www.example.org
  chancery find --dir ca --state live --purpose server --ends-to 2026-12-31
  chancery find --dir ca --by provisioning --limit 20`,
		Args:              exactly(0, "takes no argument; --name NAME is the common name"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.find(cmd.Context(), cmd.OutOrStdout(), wanted.params())
		},
	}
	s.flags(cmd)
	wanted = memberFlags(cmd, "ca.find")
	return cmd
}

func (s *service) find(ctx context.Context, w io.Writer, params map[string]any) error {
	all, err := s.pages(ctx, w, "ca.find", params)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return all.writeJSON(w, map[string]any{})
	}
	certificates := make([]certificateStatus, len(all.Certificates))
	for i, text := range all.Certificates {
		if err := json.Unmarshal(text, &certificates[i]); err != nil {
			return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
		}
	}
	all.showNext(os.Stderr)
	return printCertificates(w, countOf(len(certificates)), certificates)
}
