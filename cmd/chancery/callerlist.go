package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/site"
)

func listCallersCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list DIR",
		Short: "List the callers, what lets them in, and their certificates",
		Long: `List the callers in the configuration of the installation in DIR: what lets each in, how many grants it has,
and the certificates of the callers CA for its name that are not revoked, with their ends. Behind them are names
that have such a certificate and are no callers: it opens nothing, and is better revoked.

A caller with credentials comes in by these alone. Where a credential is a key or a name of a foreign CA, nobody here
knows when the caller's certificate ends; the caller is told in every answer.`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := site.LoadConfig(configFile(args[0]))
			if err != nil {
				return err
			}
			all, err := site.Callers(cmd.Context(), config, time.Now())
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), map[string]any{"callers": all})
			}
			return printCallers(cmd.OutOrStdout(), all)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func printCallers(w io.Writer, all []site.CallerEntry) error {
	rows := [][]string{{"CALLER", "GRANTS", "COMES IN BY"}}
	for _, c := range all {
		name, grants := line(c.Name), strconv.Itoa(c.Grants)
		if !c.Configured {
			grants = "no caller"
		}
		for _, by := range entrances(c) {
			rows = append(rows, []string{name, grants, by})
			name, grants = "", ""
		}
	}
	return writeTable(w, rows)
}

// entrance says what lets a caller in by a credential.
func entrance(c rpc.Credential) string {
	if c.SPKI != "" {
		return "key " + c.SPKI
	}
	return c.Subject + " by " + c.Issuer
}

// entrances says by what a caller comes in, or why not.
func entrances(c site.CallerEntry) []string {
	var all []string
	for _, one := range c.Credentials {
		all = append(all, line(entrance(one)))
	}
	for _, one := range c.Certificates {
		text := fmt.Sprintf("certificate %s until %s", one.Serial, one.NotAfter.UTC().Format(time.RFC3339))
		if len(c.Credentials) > 0 {
			text = "(" + text + ", if a credential names it)"
		}
		if one.State != site.CallerLive {
			text += ", " + one.State
		}
		all = append(all, line(text))
	}
	if len(all) == 0 {
		all = append(all, "nothing: it has no certificate")
	}
	return all
}
