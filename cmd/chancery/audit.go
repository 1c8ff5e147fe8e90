package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/audit/review"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/site"
	"github.com/chancery-ca/chancery/store"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Read and verify the log", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditVerifyCommand(), auditShowCommand())
	return cmd
}

// errNoDir asks for the one flag that both commands need.
var errNoDir = fmt.Errorf("%w: --dir DIR is needed", errUsage)

func auditVerifyCommand() *cobra.Command {
	var dir, output string
	var signedBy []string
	cmd := &cobra.Command{
		Use:   "verify --dir DIR",
		Short: "Verify every leaf, the tree, and every checkpoint and list in the git history",
		Long: `Verify the log of the installation in DIR without trusting the CA: every leaf and its place in the lives
it tells of, the Merkle tree, and every checkpoint and list in the git history. Only DIR/trust/log.pub is
believed; keep a copy of it elsewhere. Exit code 4 with the first record that contradicts.

With --signed-by every request on the log that the caller signed is held against its public key, which must come
from the caller and not from this machine: then nobody else asked for what stands there.`,
		Args: exactly(0, "takes no argument; --dir DIR names the installation"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errNoDir
			}
			signers, err := readSigners(signedBy)
			if err != nil {
				return err
			}
			report, err := verify(cmd.Context(), dir, signers)
			if err != nil {
				return err
			}
			return printVerify(cmd.OutOrStdout(), report, output)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder `DIR` of the installation")
	cmd.Flags().StringArrayVar(&signedBy, "signed-by", nil, "a caller who signs, and its public key as in signing_keys, `NAME=KEY`; can be repeated")
	completeDir(cmd, "dir")
	complete(cmd, "signed-by")
	outputFlag(cmd, &output)
	return cmd
}

// readSigners reads callers and their public keys.
func readSigners(given []string) (map[string][]crypto.PublicKey, error) {
	signers := make(map[string][]crypto.PublicKey)
	for _, one := range given {
		name, text, _ := strings.Cut(one, "=")
		key, err := audit.ParseSigningKey(text)
		if err == nil && name == "" {
			err = errors.New("want NAME=KEY")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: --signed-by: %w", errUsage, err)
		}
		signers[name] = append(signers[name], key)
	}
	return signers, nil
}

func verify(ctx context.Context, dir string, signers map[string][]crypto.PublicKey) (review.Report, error) {
	config, err := site.LoadConfig(filepath.Join(dir, site.ConfigName))
	if err != nil {
		return review.Report{}, err
	}
	key, err := config.LogKey()
	if err != nil {
		return review.Report{}, err
	}
	remote, err := config.Git.Open()
	if err != nil {
		return review.Report{}, err
	}
	history, err := review.ReadHistory(ctx, remote, config.Git.Folder)
	if err != nil {
		return review.Report{}, err
	}
	log, err := store.OpenReader(ctx, config.StorePath(), time.Now)
	if err != nil {
		return review.Report{}, err
	}
	report, err := review.Verify(ctx, review.Source{Log: log, LogKey: key, History: history, Signers: signers})
	return report, errors.Join(err, log.Close())
}

func printVerify(w io.Writer, report review.Report, output string) error {
	if output == "json" {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		for _, f := range report.Findings {
			fmt.Fprintf(w, "note: commit %s: %s: %s\n", f.Commit, f.Code, line(f.Reason))
		}
		for _, r := range report.Remarks {
			fmt.Fprintf(w, "note: leaf %d: %s: %s\n", r.Index, r.Code, line(r.Reason))
		}
		if report.Checkpoints == 0 {
			fmt.Fprintln(w, "note: checkpoint.none: git holds no checkpoint of this log, so it was only held against itself; ask a host's clone")
		}
		fmt.Fprintf(w, "log %s\nleaves verified   %d, root %s\n", report.Origin, report.Leaves, report.Root)
		fmt.Fprintf(w, "checkpoints agree %d, from %d commits, covering %d leaves\nlists on the log  %d\n",
			report.Checkpoints, report.Commits, report.Witnessed, report.Lists)
		for _, one := range report.Signed {
			fmt.Fprintf(w, "requests of       %s\n", line(one.String()))
		}
	}
	if report.Contradiction != nil {
		return fmt.Errorf("%w: %w", errIntegrity, report.Contradiction)
	}
	if output != "json" {
		fmt.Fprintln(w, "verified")
	}
	return nil
}

func auditShowCommand() *cobra.Command {
	var dir, serial, cn, output string
	cmd := &cobra.Command{
		Use:   "show --dir DIR",
		Short: "Show what the log says, of everything or of one certificate's life",
		Long: `Show what the log of the installation in DIR says, a line a leaf: of everything, or of the lives of the
certificates with a serial number or for a common name. Nothing is verified; chancery audit verify does that.`,
		Args: exactly(0, "takes no argument; --dir DIR names the installation"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errNoDir
			}
			filter := review.Filter{CN: cn}
			if serial != "" {
				parsed, err := cert.ParseSerial(serial)
				if err != nil {
					return fmt.Errorf("%w: --serial: %w", errUsage, err)
				}
				filter.Serial = parsed
			}
			return show(cmd.Context(), cmd.OutOrStdout(), dir, filter, output)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder `DIR` of the installation")
	completeDir(cmd, "dir")
	cmd.Flags().StringVar(&serial, "serial", "", "only the life of the certificate with the serial number `HEX`")
	cmd.Flags().StringVar(&cn, "cn", "", "only the lives of the certificates for the common name `NAME`")
	complete(cmd, "serial")
	complete(cmd, "cn")
	outputFlag(cmd, &output)
	return cmd
}

func show(ctx context.Context, w io.Writer, dir string, filter review.Filter, output string) error {
	config, err := site.LoadConfig(filepath.Join(dir, site.ConfigName))
	if err != nil {
		return err
	}
	log, err := store.OpenReader(ctx, config.StorePath(), time.Now)
	if err != nil {
		return err
	}
	write := review.WriteTable
	if output == "json" {
		write = review.WriteJSON
	}
	return errors.Join(write(w, review.Show(ctx, log, filter)), log.Close())
}
