package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/site"
)

func policyReplayCommand() *cobra.Command {
	var against, since, output string
	var rules bool
	cmd := &cobra.Command{
		Use:   "replay DIR --against NEW --since T",
		Short: "Decide anew what the log has, by other grants, and list what flips",
		Long: `Read from the log of the installation in DIR what its callers were allowed and denied since T, decide it anew by
the grants in NEW, a draft of chancery.yaml or - for standard input, and list each decision that would be another
one. T is a time as 2026-12-01T08:00:00Z, a day as 2026-12-01, or how long ago, as 72h. Nothing is changed, and
the service may run.

What was issued, renewed, revoked, held, released and retired is on the log with all that counts. Of a call that
was refused the log has method, purpose and common name, and of a plan the method: what the rest would decide is
counted as undecided, and a flip says what is not recorded. Questions such as ca.status are on the log only
if they were refused. Bounds an hour are not replayed.

Exit code 0 if nothing flips, 1 if something does.`,
		Example: `  chancery policy replay ca --against draft.yaml --since 720h
  git show HEAD:chancery.yaml | chancery policy replay ca --against - --since 2026-12-01 -o json`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			if against == "" || since == "" {
				return fmt.Errorf("%w: --against and --since are needed", errUsage)
			}
			from, err := readSince(since, time.Now())
			if err != nil {
				return err
			}
			return replay(cmd.Context(), cmd.OutOrStdout(), args[0], against, from, rules, output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&against, "against", "", "the grants to decide by: `NEW`, a chancery.yaml, its folder, or -")
	f.StringVar(&since, "since", "", "a time, a day or how long ago, `T`")
	f.BoolVar(&rules, "rules", false, "list also what another rule would allow")
	complete(cmd, "since")
	outputFlag(cmd, &output)
	return cmd
}

func readSince(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%w: --since %q: want a time as 2026-12-01T08:00:00Z, a day as 2026-12-01, or how long ago, as 72h", errUsage, text)
}

func replay(ctx context.Context, w io.Writer, dir, against string, since time.Time, rules bool, output string) error {
	if against == "-" {
		against = "/dev/stdin"
	}
	report, err := site.ReplayPolicy(ctx, dir, configFile(against), since)
	if err != nil {
		return err
	}
	if !rules {
		report.Moved = nil
	}
	if output == "json" {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		for _, f := range append(report.Moved, report.Flips...) {
			fmt.Fprintln(w, line(flipped(f)))
		}
		fmt.Fprintf(w, "decisions: %d, flips: %d, undecided: %d\n", report.Decided, len(report.Flips), report.Undecided)
	}
	if n := len(report.Flips); n > 0 {
		return fmt.Errorf("decisions that flip: %d", n)
	}
	return nil
}

func flipped(f site.PolicyFlip) string {
	was := "was refused"
	if f.Allowed {
		was = "was allowed"
	}
	if f.Rule != "" {
		was += " by rule " + f.Rule
	}
	text := fmt.Sprintf("leaf %d, %s: %s: %s, would be %s", f.Leaf, f.Time.Format(time.RFC3339), f.Asked, was, decided(f.Decision))
	if len(f.Unknown) > 0 {
		text += "; not recorded: " + strings.Join(f.Unknown, ", ")
	}
	return text
}
