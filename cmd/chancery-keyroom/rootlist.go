package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/nodump"
)

func signRootList(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("chancery-keyroom root-crl", flag.ContinueOnError)
	offline := fs.String("offline", "", "folder with root.key, root.pem and root.crl.pem, which is replaced")
	days := fs.Int("days", 0, "days until the list expires; 0 is 400")
	fd := fs.Int("passphrase-fd", -1, "file descriptor to read the passphrase of the offline keys from")
	if err := parse(fs, args); err != nil {
		return err
	}
	if *offline == "" || *fd < 0 {
		return fmt.Errorf("%w: --offline and --passphrase-fd are needed", errUsage)
	}
	passphrase, err := readPassphrase(*fd)
	if err != nil {
		return err
	}
	if err := nodump.Set(); err != nil {
		return err
	}
	signed, err := keyroom.RootList{Offline: *offline, Days: *days, Passphrase: passphrase, Now: time.Now, Rand: rand.Reader}.Sign()
	if err != nil {
		return err
	}
	return report(out, "signed", signed)
}

func installRootList(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("chancery-keyroom install-root-crl", flag.ContinueOnError)
	path := fs.String("config", "", "the configuration, keyroom.json, in `FILE`")
	crl := fs.String("crl", "", "the root's CRL, PEM, in `FILE`")
	if err := parse(fs, args); err != nil {
		return err
	}
	if *path == "" || *crl == "" {
		return fmt.Errorf("%w: --config and --crl are needed", errUsage)
	}
	config, err := keyroom.LoadConfig(*path)
	if err != nil {
		return err
	}
	installed, err := keyroom.InstallRootList(config, *crl, time.Now())
	if err != nil {
		return err
	}
	return report(out, "installed", installed)
}

func report(out io.Writer, what string, l *list.List) error {
	_, err := fmt.Fprintf(out, "%s list %s of the root, valid until %s\n", what, l.Number, l.NextUpdate.Format(time.RFC3339))
	return err
}
