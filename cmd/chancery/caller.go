package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/site"
)

func callerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "caller",
		Short: "List, add and remove callers, and give one a new key",
		Args:  subcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listCallersCommand(), addCallerCommand(), removeCallerCommand(), rotateCallerCommand())
	return cmd
}

// askRunning says who can ask the daemon, if that is in the way.
func askRunning(err error, c site.Config, dir, name string) error {
	if !errors.Is(err, site.ErrRuns) {
		return err
	}
	who, unread := whoMay(c, "ca.issue", name, "")
	if unread != nil || who == "" {
		return err
	}
	return fmt.Errorf("%w, but only if none of these is left who can ask it: %s, as in\n  chancery issue %s --purpose caller %s --csr %s.csr",
		err, who, asCaller(c, dir), name, name)
}

func rotateCallerCommand() *cobra.Command {
	var out, csr string
	cmd := &cobra.Command{
		Use:   "rotate DIR NAME --out FOLDER",
		Short: "Give a caller in the configuration a new key and certificate",
		Long: `Give the caller NAME in the configuration of the installation in DIR a new key and certificate, which become
FOLDER/NAME.key and FOLDER/NAME.pem; with --csr the certificate alone, for the key of that request.

While a caller is left that may ask the running service, this is not the way: NAME itself, or another one with a grant
for it, asks, the old certificate and the new one are both good, and nobody waits, as in

  chancery issue --dir DIR --caller NAME --purpose caller NAME --csr new.csr

This command is for the day when none is left: there is none yet, all expired, or their keys are lost. The daemon must
be stopped and the key room must run:

  systemctl stop chanceryd
  chancery caller rotate DIR NAME --out FOLDER
  systemctl start chanceryd

Where chancery up runs both, stop that, and run chancery-keyroom --config DIR/keyroom.json meanwhile.

The log says who ran this command. What NAME had before stays valid: if a key was lost, revoke its certificate
by the serial number, which chancery caller list tells.`,
		Args: exactly(2, "DIR NAME"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, name := args[0], args[1]
			if out == "" {
				return fmt.Errorf("%w: say with --out in which folder the key and the certificate are to be", errUsage)
			}
			config, err := site.LoadConfig(filepath.Join(dir, site.ConfigName))
			if err != nil {
				return err
			}
			if err := site.RotateCaller(cmd.Context(), config, name, out, csr); err != nil {
				return askRunning(askForRoom(err, dir), config, dir, name)
			}
			w, made := cmd.OutOrStdout(), filepath.Join(out, name)
			if csr != "" {
				fmt.Fprintf(w, "made %s.pem; start the daemon, and bring it to where %s runs\n", made, name)
			} else {
				fmt.Fprintf(w, "made %s.key and %s.pem; start the daemon, and bring both to where %s runs\n", made, made, name)
			}
			if i := slices.IndexFunc(config.Callers, func(c rpc.Caller) bool { return c.Name == name }); len(config.Callers[i].Credentials) > 0 {
				fmt.Fprintf(w, "note: %s comes in by its credentials alone; see that one of them names this certificate or its key\n", name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FOLDER` for the new key and certificate")
	cmd.Flags().StringVar(&csr, "csr", "", "`FILE` with a PKCS#10 request for a key of the caller's own, PEM or DER; without it the key is made here")
	completeDir(cmd, "out")
	return cmd
}
