package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/site"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check, show and explain the configuration", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configCheckCommand(), configShowCommand(), configReferenceCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check FILE|DIR",
		Short: "Tell what is wrong with a configuration before the service does",
		Long: `Tell everything that is wrong with chancery.yaml or keyroom.json in FILE, or with both in DIR, each with
its line and column: what the daemon and the key room would refuse, and files that are named and are not
there, cannot be read, have the wrong mode or do not hold what they should. Nothing is started, changed or
asked over the network. Run it as the user that reads the file, or as root. Exit code 2 on a problem.`,
		Args: exactly(1, "FILE|DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bin, err := binaries()
			if err != nil {
				return err
			}
			report, err := site.CheckConfig(args[0], bin)
			if err != nil {
				return err
			}
			return printConfigCheck(cmd.OutOrStdout(), report, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func printConfigCheck(w io.Writer, report site.ConfigReport, output string) error {
	if output == "json" {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		for _, p := range report.Problems {
			fmt.Fprintln(w, p)
		}
		for _, s := range report.Skipped {
			fmt.Fprintln(w, "not checked:", s)
		}
	}
	if n := len(report.Problems); n > 0 {
		return fmt.Errorf("%w: problems: %d", site.ErrConfig, n)
	}
	if output != "json" {
		fmt.Fprintln(w, "clean:", strings.Join(report.Checked, ", "))
	}
	return nil
}

// configFile is the file itself, or the one in an installation's folder.
func configFile(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, site.ConfigName)
	}
	return path
}

func configShowCommand() *cobra.Command {
	var output string
	var origin bool
	cmd := &cobra.Command{
		Use:   "show FILE|DIR",
		Short: "Show the configuration as it takes effect, defaults included",
		Long: `Show chancery.yaml in FILE, or in DIR, as it takes effect: with absolute paths, and with the default of each
key that is not set. Secrets are names of files, and no such file is read. The YAML form is a configuration
that means the same.`,
		Args: exactly(1, "FILE|DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, err := site.ShowConfig(configFile(args[0]))
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			switch output {
			case "json":
				return writeJSON(w, settings.All)
			case "yaml":
				text, err := settings.YAML(origin)
				if err != nil {
					return err
				}
				_, err = w.Write(text)
				return err
			}
			return printSettings(w, settings.All, origin)
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "also show where each value comes from: FILE:LINE:COLUMN, or default")
	outputFlag(cmd, &output, "yaml")
	return cmd
}

func printSettings(w io.Writer, settings []site.Setting, origin bool) error {
	var rows [][]string
	for _, s := range settings {
		row := []string{s.Key, fmt.Sprint(s.Value)}
		if origin {
			row = append(row, s.Origin)
		}
		rows = append(rows, row)
	}
	return writeTable(w, rows)
}

func configReferenceCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "reference",
		Short: "Explain every key of chancery.yaml and keyroom.json",
		Args:  exactly(0, "takes no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			if output == "json" {
				return writeJSON(w, site.References())
			}
			file := ""
			for _, r := range site.References() {
				if r.File != file {
					file = r.File
					fmt.Fprintf(w, "%s\n\n", file)
				}
				fmt.Fprintf(w, "  %s\n      %s\n      needed: %s\n\n", r.Key, r.Meaning, r.Needed)
			}
			return nil
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
