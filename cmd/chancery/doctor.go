package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/site"
)

// errAiling says that doctor found something to fix; what it is has been printed.
var errAiling = errors.New("there is something to fix")

func doctorCommand() *cobra.Command {
	var output string
	var quick bool
	cmd := &cobra.Command{
		Use:   "doctor DIR",
		Short: "Say what to fix: clock, keys, rights, ends, debts, directory, git, disk",
		Long: `Look at the installation in DIR from all sides and say what to fix: clock, keys, who can read what, ends of
certificates and lists, what is owed, directory, git, disk, units. It changes nothing, and the service may
run or not; run it as root, or it cannot see everything. It does not compare what store, log and key room
hold: chancery fsck does. docs/DOCTOR.md explains every code.

Exit code 0 if nothing is worse than info, 1 if something is to be fixed, 2 if chancery.yaml cannot be used,
4 if parts of the installation contradict each other.`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := site.Doctor{Dir: args[0], Quick: quick, Now: time.Now}.Run(cmd.Context())
			if err != nil {
				return err
			}
			return printDoctor(cmd.OutOrStdout(), report, output)
		},
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "leave out what asks servers: directory and git")
	outputFlag(cmd, &output)
	return cmd
}

func printDoctor(w io.Writer, report site.DoctorReport, output string) error {
	critical, warnings := report.Count(site.SeverityCritical), report.Count(site.SeverityWarning)
	if output == "json" {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		for _, f := range report.Findings {
			fmt.Fprintf(w, "%-8s %s: %s: %s\n         to do: %s\n", f.Severity, f.Code, line(f.Subject), indent(plain(f.Reason)), line(f.Fix))
		}
		fmt.Fprintf(w, "%d checks: critical %d, warning %d, info %d\n", len(report.Checks), critical, warnings, report.Count(site.SeverityInfo))
	}
	switch {
	case report.Contradicts():
		return fmt.Errorf("%w: %w", errIntegrity, errAiling)
	case report.Misconfigured():
		return fmt.Errorf("%w: %w", site.ErrConfig, errAiling)
	case critical+warnings > 0:
		return errAiling
	}
	return nil
}

// indent keeps the lines of a message, for instance of a configuration's error, under their finding.
func indent(text string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n         ")
}
