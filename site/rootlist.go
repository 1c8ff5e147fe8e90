package site

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// SignRootList has the next CRL of the root signed in the folder of the offline keys, which opens with the
// passphrase. It needs no installation. days is the life of the list, 0 for 400.
func SignRootList(ctx context.Context, bin, offline string, days int, passphrase *os.File, out io.Writer) error {
	err := runKeyRoom(ctx, bin, passphrase, out, "root-crl", "--offline", offline, "--days", strconv.Itoa(days))
	if err != nil {
		return fmt.Errorf("signing the root's CRL: %w", err)
	}
	return nil
}

// InstallRootList puts a CRL of the root in the PEM file at path into the key room of the installation in
// dir. The daemon enters it on the log and then publishes it, at its next look at the lists or at its start.
func InstallRootList(ctx context.Context, bin, dir, path string, out io.Writer) error {
	config := filepath.Join(dir, RoomConfigName)
	if err := runKeyRoom(ctx, bin, nil, out, "install-root-crl", "--config", config, "--crl", path); err != nil {
		return fmt.Errorf("installing the root's CRL: %w", err)
	}
	return nil
}
