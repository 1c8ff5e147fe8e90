package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/chancery-ca/chancery/site"
)

func rootListCommand() *cobra.Command {
	var o rootListOptions
	var dir string
	cmd := &cobra.Command{
		Use:   "root-crl --offline OFFLINEDIR --dir DIR",
		Short: "Renew the CRL of the offline root",
		Long: `Renew the CRL of the offline root, once a year. Lists stop being published when it has expired. Either in
two steps, so that the root key never comes near the CA,

  chancery root-crl sign OFFLINEDIR                         where the root key is
  chancery root-crl install DIR OFFLINEDIR/root.crl.pem     on the machine of the CA

or in one, with the offline folder brought to the machine of the CA for a moment:

  chancery root-crl --offline OFFLINEDIR --dir DIR`,
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.offline == "" && dir == "" {
				return cmd.Help()
			}
			if o.offline == "" || dir == "" {
				return fmt.Errorf("%w: --offline and --dir go together; chancery root-crl sign signs alone", errUsage)
			}
			if err := o.sign(cmd); err != nil {
				return err
			}
			return installRootList(cmd, dir, filepath.Join(o.offline, "root.crl.pem"))
		},
	}
	cmd.Flags().StringVar(&o.offline, "offline", "", "sign with the key in the folder `OFFLINEDIR`")
	cmd.Flags().StringVar(&dir, "dir", "", "and install the list in the installation in the folder `DIR`")
	o.flags(cmd)
	completeDir(cmd, "offline")
	completeDir(cmd, "dir")
	cmd.AddCommand(signRootListCommand(), installRootListCommand())
	return cmd
}

// rootListOptions say how the root's list is signed.
type rootListOptions struct {
	offline  string
	days, fd int
}

func (o *rootListOptions) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.days, "days", 400, "the list expires after `N` days, at most 800")
	cmd.Flags().IntVar(&o.fd, "passphrase-fd", -1, "read the passphrase of the offline keys from this file descriptor `N`; without it the terminal is asked")
}

func (o *rootListOptions) sign(cmd *cobra.Command) error {
	bin, err := binaries()
	if err != nil {
		return err
	}
	passphrase, err := offlinePassphrase(cmd, o.fd)
	if err != nil {
		return err
	}
	defer passphrase.Close()
	return site.SignRootList(cmd.Context(), bin, o.offline, o.days, passphrase, cmd.OutOrStdout())
}

func signRootListCommand() *cobra.Command {
	var o rootListOptions
	cmd := &cobra.Command{
		Use:   "sign OFFLINEDIR",
		Short: "Sign the root's next CRL with the key in the offline folder",
		Long: `Sign the root's next CRL with the key in OFFLINEDIR, the folder "offline" that chancery init made. It
replaces OFFLINEDIR/root.crl.pem, takes over its entries, and has the next number. Nothing else of the
installation is needed; only chancery-keyroom is, beside this program.

If a newer list was installed since this copy of the folder was used, copy it over root.crl.pem first: it is
pki/root.crl.pem of the repository with the lists.`,
		Args: exactly(1, "OFFLINEDIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.offline = args[0]
			if err := o.sign(cmd); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "bring %s/root.crl.pem to the machine of the CA, and run there: chancery root-crl install DIR root.crl.pem\n", args[0])
			return nil
		},
	}
	o.flags(cmd)
	return cmd
}

// offlinePassphrase gives a file to read the passphrase from: the one that was named, or what somebody
// types, which nobody sees.
func offlinePassphrase(cmd *cobra.Command, fd int) (*os.File, error) {
	if fd >= 0 {
		return os.NewFile(uintptr(fd), "passphrase"), nil
	}
	if !isTerminal(os.Stdin) {
		return nil, fmt.Errorf("%w: the standard input is no terminal to ask for the passphrase: give --passphrase-fd", errUsage)
	}
	fmt.Fprint(cmd.ErrOrStderr(), "passphrase of the offline keys: ")
	text, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer clear(text)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("passing the passphrase on: %w", err)
	}
	// A pipe holds far more than what a terminal gives in one line.
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("passing the passphrase on: %w", err), r.Close())
	}
	return r, nil
}

func installRootListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install DIR FILE",
		Short: "Take a new CRL of the root",
		Long: `Take the CRL of the root in FILE, PEM, into the installation in DIR: if the root signed it, if it is valid
now, if its number is higher than that of the last one, and if it lost no entry. Run it as root, or as the
user of the key room. Both processes may run.

The daemon enters the list on the log, and then publishes it with the others: within five minutes, or when
it starts.`,
		Args: exactly(2, "DIR FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return installRootList(cmd, args[0], args[1]) },
	}
}

func installRootList(cmd *cobra.Command, dir, file string) error {
	bin, err := binaries()
	if err != nil {
		return err
	}
	return site.InstallRootList(cmd.Context(), bin, dir, file, cmd.OutOrStdout())
}
