// Command chancery makes, runs and checks a Chancery installation, reads its audit log, and asks the running
// service for certificates.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/site"
)

// version is set by the linker.
var version = "dev"

// The exit codes. They are promised in the documentation.
const (
	exitRefused   = 1 // understood, and not done
	exitUsage     = 2 // the command line or the configuration
	exitUnknown   = 3 // unreachable, or the outcome is not known, or could not be told
	exitIntegrity = 4 // the log, the books or the world contradict each other
)

// exitCodes is their documentation.
const exitCodes = `Exit codes: 0 done; 1 understood, and not done; 2 the command line or the configuration; 3 the service or
the key room is not there, the outcome is unknown or could not be written, or a process ended by itself;
4 log, books and world contradict each other.`

// errUsage marks errors of the command line.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := &output{file: os.Stdout}
	root := newCommand()
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.failed
	}
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "chancery:", plain(err.Error()))
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, errUsage), errors.Is(err, site.ErrConfig):
		return exitUsage
	case errors.Is(err, errIntegrity), errors.Is(err, signer.ErrStoreBehind), errors.Is(err, signer.ErrFork):
		return exitIntegrity
	case errors.Is(err, signer.ErrUnreachable), errors.Is(err, signer.ErrUnknown), errors.Is(err, site.ErrDied), errors.Is(err, errUnsettled):
		return exitUnknown
	}
	return exitRefused
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "chancery",
		Short: "An isolated certificate authority: make it, run it, check it, ask it",
		Long: `An isolated certificate authority: make it, run it, check it, ask it.

` + exitCodes,
		Args:    subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Version: version,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return noneEmpty(cmd.Flags())
		},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(flagError)
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Make and run:", []*cobra.Command{initCommand(), upCommand(), configCommand(), rootListCommand(), manCommand()}},
		{"Ask the running service:", []*cobra.Command{issueCommand(), renewCommand(), holdCommand(), releaseCommand(), revokeCommand(), retireCommand(), statusCommand(), findCommand(), expiringCommand(), chainCommand(), whoamiCommand()}},
		{"Check and repair:", []*cobra.Command{doctorCommand(), fsckCommand(), auditCommand(), backupCommand(), restoreCommand(), recoverCommand(), callerCommand(), policyCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.title
		}
		root.AddCommand(group.commands...)
	}
	return root
}

// exactly makes a wrong number of arguments a usage error that names what is wanted.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			if n == 0 {
				return fmt.Errorf("%w: %s %s", errUsage, cmd.CommandPath(), what)
			}
			return fmt.Errorf("%w: got %d arguments, want %d: %s %s; %s --help tells more", errUsage, len(args), n, cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// subcommand makes a word that is no command a usage error.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2 // letters
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("%w: there is no command %q; did you mean %s?", errUsage, args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("%w: there is no command %q; %s --help tells which there are", errUsage, args[0], cmd.CommandPath())
}

// binaries is the folder of the other programs: they are installed beside this one.
func binaries() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the other programs: %w", err)
	}
	return filepath.Dir(path), nil
}

func initCommand() *cobra.Command {
	var listen, org, domain string
	var fd int
	var system bool
	var offline string
	cmd := &cobra.Command{
		Use:   "init DIR | --system",
		Short: "Make a complete installation, in a new folder or on this machine",
		Long: `Make a complete installation in a new folder: a root, issuing CAs for users, servers and callers, the
key room and the daemon's configuration, a bare git repository for the lists, a directory file, the
first caller's key and certificate, and the log that names them all.

The keys of the root and of recovery are left in DIR/offline, encrypted; move them off this machine.

With --system, as root, it is the installation of this machine, which systemd runs as two users, chancery
and chancery-keyroom: the configuration in /etc/chancery, what the daemon keeps in /var/lib/chancery, the CA
keys in /var/lib/chancery-keyroom, and the offline keys in the folder of --offline.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if system {
				return exactly(0, "--system takes no DIR")(cmd, args)
			}
			return exactly(1, "DIR")(cmd, args)
		},
		ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			bin, err := binaries()
			if err != nil {
				return err
			}
			i := site.Init{
				Listen: listen, Org: org, Domain: domain, Bin: bin,
				Out: cmd.OutOrStdout(), Log: zap.NewNop(),
			}
			if fd >= 0 {
				i.Passphrase = os.NewFile(uintptr(fd), "passphrase")
			}
			if system {
				err = initSystem(cmd.Context(), i, offline)
			} else {
				i.Dir = args[0]
				err = i.Run(cmd.Context())
			}
			if err != nil {
				return err
			}
			if domain == "" {
				fmt.Fprintln(cmd.OutOrStdout(), "note: without --domain this CA can sign any name")
			}
			if system {
				fmt.Fprintf(cmd.OutOrStdout(), "made the installation of this machine; move %s off it, then run: systemctl enable --now chanceryd\n", offline)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s; move %s off this machine, then run: chancery up %s\n",
				args[0], filepath.Join(args[0], "offline"), args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8443", "address `HOST:PORT` that the RPC listens at; the service's certificate is for this host")
	cmd.Flags().StringVar(&org, "org", "Example", "`NAME` of the organisation, in the subject of every CA")
	cmd.Flags().StringVar(&domain, "domain", "", "constrain host names and mail addresses to the domain `NAME`")
	cmd.Flags().BoolVar(&system, "system", false, "make the installation of this machine instead of one in DIR")
	cmd.Flags().StringVar(&offline, "offline", "/root/chancery-offline", "with --system: new folder `DIR` for the offline keys")
	cmd.Flags().IntVar(&fd, "passphrase-fd", -1, "read the passphrase of the offline keys from this file descriptor `N`; without it one is made and printed")
	return cmd
}

func upCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "up DIR",
		Short: "Run both processes of an installation, for evaluation",
		Long: `Run the key room and the daemon of the installation in DIR, both as the current user, until SIGINT or
SIGTERM. A line "ready https://HOST:PORT/RPC2" says that calls are answered; the logs go to stderr. If one
of the two ends by itself the other is stopped, and the exit code is 3.

That is for evaluation: in production each runs on its own, as a user of its own, with --config.`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			bin, err := binaries()
			if err != nil {
				return err
			}
			return site.Up{Dir: args[0], Bin: bin, Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}.Run(cmd.Context())
		},
	}
}
