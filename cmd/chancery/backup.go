package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/site"
)

// age's own work factor for passphrases, 2^18: about a second, and 256 MiB. A file that asks for more
// was not made by chancery backup or age.
const workFactor = 18

func backupCommand() *cobra.Command {
	var recipients []string
	var recipientsFile, output string
	fd := -1
	cmd := &cobra.Command{
		Use:   "backup DIR OUT",
		Short: "Copy an installation, which may run, into one encrypted file",
		Long: `Copy the installation in DIR into the new file OUT, or to standard output for "-". The service may run
meanwhile. The file is a tar stream under age, which the age command opens too:

  chancery backup DIR OUT --recipient age1...
  age -d -i IDENTITY OUT | tar t

In it: store, log, configuration, the daemon's keys, the key room's journal and its keys, encrypted as they
are. Not in it: the passphrase of the key room, its delivery keys, the offline keys, callers' keys and the git
repository. Keep the passphrase in another place than the backups. docs/BACKUP.md tells more.

The exit code is 0 only if the whole backup is durable under its name.`,
		Args: exactly(2, "DIR OUT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := readRecipients(recipients, recipientsFile, fd)
			if err != nil {
				return err
			}
			config, err := site.LoadConfig(filepath.Join(args[0], site.ConfigName))
			if err != nil {
				return err
			}
			b := site.Backup{Config: config, Build: version, Recipients: to}
			return runBackup(cmd, b, args[1], output)
		},
	}
	cmd.Flags().StringArrayVarP(&recipients, "recipient", "r", nil, "encrypt to the age `RECIPIENT`; may be repeated")
	cmd.Flags().StringVarP(&recipientsFile, "recipients-file", "R", "", "encrypt to the age recipients in `FILE`, one a line")
	cmd.Flags().IntVar(&fd, "passphrase-fd", -1, "encrypt under the passphrase that file descriptor `N` gives, one line")
	outputFlag(cmd, &output)
	return cmd
}

func runBackup(cmd *cobra.Command, b site.Backup, out, output string) error {
	done := progress(cmd.ErrOrStderr(), &b.Progress)
	if out == "-" {
		if isTerminal(cmd.OutOrStdout()) {
			return fmt.Errorf("%w: a backup is not for a terminal: redirect standard output", errUsage)
		}
		m, err := b.Write(cmd.Context(), cmd.OutOrStdout())
		done()
		if err != nil {
			return fmt.Errorf("making the backup: %w", err)
		}
		return printManifest(cmd.ErrOrStderr(), "backup", m, output)
	}
	m, err := b.ToFile(cmd.Context(), out)
	done()
	if err != nil {
		return err
	}
	return printManifest(cmd.OutOrStdout(), "backup", m, output)
}

// readRecipients gives those whom the command line names, in one of the three ways.
func readRecipients(keys []string, file string, fd int) ([]age.Recipient, error) {
	if (len(keys) > 0 || file != "") == (fd >= 0) {
		return nil, fmt.Errorf("%w: give either --recipient or --recipients-file, or --passphrase-fd", errUsage)
	}
	if fd >= 0 {
		passphrase, err := readPassphrase(fd)
		if err != nil {
			return nil, err
		}
		r, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		r.SetWorkFactor(workFactor)
		return []age.Recipient{r}, nil
	}
	text := strings.Join(keys, "\n")
	if file != "" {
		more, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%w: --recipients-file: %w", errUsage, err)
		}
		text += "\n" + string(more)
	}
	found, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%w: the recipients: %w", errUsage, err)
	}
	return found, nil
}

// minPassphrase keeps out what can be guessed: the file is all that an attacker needs to try.
const minPassphrase = 12

func readPassphrase(fd int) (string, error) {
	text, err := io.ReadAll(io.LimitReader(os.NewFile(uintptr(fd), "passphrase"), 1024))
	if err != nil {
		return "", fmt.Errorf("%w: --passphrase-fd: %w", errUsage, err)
	}
	passphrase := strings.TrimRight(string(text), "\r\n")
	if len(passphrase) < minPassphrase {
		return "", fmt.Errorf("%w: the passphrase has %d characters; give at least %d", errUsage, len(passphrase), minPassphrase)
	}
	return passphrase, nil
}

func restoreCommand() *cobra.Command {
	var identity, output string
	var check bool
	fd := -1
	cmd := &cobra.Command{
		Use:   "restore FILE DIR",
		Short: "Unpack a backup into a new folder, and say what to do then",
		Long: `Unpack a backup that chancery backup made into the new folder DIR. Everything in it is compared with its
manifest, and the store is checked, before the folder gets its name. FILE is "-" for standard input. What
to do then is printed, in order. With --check and without DIR the backup is only read and verified:

  chancery restore --check FILE --identity IDENTITY`,
		Args: func(cmd *cobra.Command, args []string) error {
			if check {
				return exactly(1, "--check FILE")(cmd, args)
			}
			return exactly(2, "FILE DIR")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			identities, err := readIdentities(identity, fd)
			if err != nil {
				return err
			}
			r := site.Restore{Identities: identities}
			if !check {
				r.Dir = args[1]
			}
			return runRestore(cmd, r, args[0], output)
		},
	}
	cmd.Flags().StringVarP(&identity, "identity", "i", "", "decrypt with the age identities in `FILE`")
	cmd.Flags().IntVar(&fd, "passphrase-fd", -1, "decrypt with the passphrase that file descriptor `N` gives, one line")
	cmd.Flags().BoolVar(&check, "check", false, "read the backup to its end, compare it with its manifest, and write nothing")
	outputFlag(cmd, &output)
	return cmd
}

func readIdentities(file string, fd int) ([]age.Identity, error) {
	if (file != "") == (fd >= 0) {
		return nil, fmt.Errorf("%w: give either --identity or --passphrase-fd", errUsage)
	}
	if fd >= 0 {
		passphrase, err := readPassphrase(fd)
		if err != nil {
			return nil, err
		}
		i, err := age.NewScryptIdentity(passphrase)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		i.SetMaxWorkFactor(workFactor)
		return []age.Identity{i}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%w: --identity: %w", errUsage, err)
	}
	defer f.Close()
	found, err := age.ParseIdentities(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: --identity: %w", errUsage, err)
	}
	return found, nil
}

// restored is what chancery restore tells in JSON.
type restored struct {
	Dir      string        `json:"dir"`
	Manifest site.Manifest `json:"manifest"`
	Steps    []site.Step   `json:"steps"`
}

func runRestore(cmd *cobra.Command, r site.Restore, file, output string) error {
	from, err := openBackup(cmd, file)
	if err != nil {
		return err
	}
	defer from.Close()
	done := progress(cmd.ErrOrStderr(), &r.Progress)
	run := r.Run
	if r.Dir == "" {
		run = r.Check
	}
	m, err := run(cmd.Context(), from)
	done()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted, and nothing is left behind: %w", err)
	} else if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if r.Dir == "" {
		return printManifest(w, "whole", m, output)
	}
	steps, err := site.Steps(r.Dir, m)
	if err != nil {
		return err
	}
	if output == "json" {
		return writeJSON(w, restored{r.Dir, m, steps})
	}
	if err := printManifest(w, "restored", m, output); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nto do now, in this order:\n")
	for i, s := range steps {
		fmt.Fprintf(w, "%2d. %s\n", i+1, line(s.Do))
		if s.Command != "" {
			fmt.Fprintf(w, "      %s\n", line(s.Command))
		}
	}
	return nil
}

func openBackup(cmd *cobra.Command, file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the backup: %w", err)
	}
	return f, nil
}

func printManifest(w io.Writer, word string, m site.Manifest, output string) error {
	if output == "json" {
		return writeJSON(w, m)
	}
	var octets int64
	for _, f := range m.Files {
		octets += f.Size
	}
	fmt.Fprintf(w, "%-10s %d files, %d octets, made at %s\n", word, len(m.Files), octets, m.Made.Format(time.RFC3339))
	fmt.Fprintf(w, "log        %d leaves, root %s\n", m.Log.Size, line(m.Log.Root))
	if m.Room != nil {
		fmt.Fprintf(w, "key room   %d records or more, %d leaves read\n", m.Room.Sequence, m.Room.Size)
	} else {
		fmt.Fprintln(w, "key room   it did not run; its journal is as it was on the disk")
	}
	for _, path := range m.LeftOut {
		fmt.Fprintf(w, "not in it  %s\n", line(path))
	}
	return nil
}

// progress sets tell to something that shows on a terminal how far a copy is; nowhere else anything is
// shown. What it gives back clears the line.
func progress(w io.Writer, tell *func(int64)) (done func()) {
	if !isTerminal(w) {
		return func() {}
	}
	var shown time.Time
	*tell = func(octets int64) {
		if now := time.Now(); now.Sub(shown) > 200*time.Millisecond {
			shown = now
			fmt.Fprintf(w, "\r%d MiB", octets>>20)
		}
	}
	return func() { fmt.Fprint(w, "\r\x1b[K") }
}
