package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/site"
)

// errIntegrity says that a check found a contradiction; what it is has been printed.
var errIntegrity = errors.New("integrity")

// outputFlag adds --output, for table, json and further formats, and checks it before the command runs.
func outputFlag(cmd *cobra.Command, output *string, further ...string) {
	formats := append([]string{"table", "json"}, further...)
	last := len(formats) - 1
	wanted := strings.Join(formats[:last], ", ") + " or " + formats[last]
	cmd.Flags().StringVarP(output, "output", "o", "table", "`FORMAT` of the output: "+wanted)
	complete(cmd, "output", formats...)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(formats, *output) {
			return fmt.Errorf("%w: --output is %s, not %q", errUsage, wanted, *output)
		}
		return nil
	}
}

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, plain(b.String())) // which does not change what the JSON says
	return err
}

func fsckCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "fsck DIR",
		Short: "Compare store, log, key room, directory and git with one another",
		Long: `Compare store, log, key room, directory and git of the installation in DIR with one another. It changes
nothing, and the service may run meanwhile; the key room must. Each violation has a code and says what
to do. Exit code 4 on a violation, 3 if the key room is not there.`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := site.LoadConfig(filepath.Join(args[0], site.ConfigName))
			if err != nil {
				return err
			}
			report, err := site.Fsck(cmd.Context(), config)
			if err != nil {
				return askForRoom(err, args[0])
			}
			return printFsck(cmd.OutOrStdout(), report, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// askForRoom says how to start the key room, if that is what is missing.
func askForRoom(err error, dir string) error {
	if !errors.Is(err, signer.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%w; start it first: systemctl start chancery-keyroom, or chancery-keyroom --config %s", err, site.ShellWord(filepath.Join(dir, "keyroom.json")))
}

func printFsck(w io.Writer, report site.FsckReport, output string) error {
	if output == "json" {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		for _, f := range report.Findings {
			word := "VIOLATION"
			if f.Pending {
				word = "pending"
			}
			fmt.Fprintf(w, "%-9s %s: %s: %s\n          to do: %s\n", word, f.Code, line(f.Subject), line(f.Reason), line(f.Fix))
		}
		fmt.Fprintf(w, "%d leaves, %d certificates (%d revoked), %d checkpoints in git agree\n",
			report.Leaves, report.Certificates, report.Revoked, report.Checkpoints)
	}
	if n := report.Violations(); n > 0 {
		return fmt.Errorf("%w: violations: %d", errIntegrity, n)
	}
	if output != "json" {
		if pending := len(report.Findings); pending > 0 {
			fmt.Fprintf(w, "clean, pending: %d\n", pending)
		} else {
			fmt.Fprintln(w, "clean")
		}
	}
	return nil
}

func recoverCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "recover DIR",
		Short: "Bring a store that lost the end of its log up to the key room",
		Long: `Bring the store of the installation in DIR up to what its key room has read, after the store was put
back from an old copy or lost its last commits: the missing leaves are appended as they were, and the
books follow from them. The daemon must be stopped and the key room must run:

  chancery-keyroom --config DIR/keyroom.json &
  chancery recover DIR

Nothing is signed. An old copy of the key room cannot be brought up this way: put its newest copy back.`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := site.LoadConfig(filepath.Join(args[0], site.ConfigName))
			if err != nil {
				return err
			}
			done, err := site.Recover(cmd.Context(), config)
			if err != nil {
				return askForRoom(err, args[0])
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), done)
			}
			if done.Leaves == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "nothing is missing: the store holds %d leaves\n", done.From)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "appended %d leaves from index %d, with %d certificates; start the daemon, then run chancery fsck\n",
				done.Leaves, done.From, done.Certificates)
			return nil
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
