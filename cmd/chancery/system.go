package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"github.com/chancery-ca/chancery/site"
)

// initSystem makes the installation of this machine, for the users that the package has made.
func initSystem(ctx context.Context, i site.Init, offline string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: init --system needs root: it gives files to the users chancery and chancery-keyroom", errUsage)
	}
	s := site.System{Init: i, Offline: offline}
	for name, account := range map[string]*site.Account{"chancery": &s.Daemon, "chancery-keyroom": &s.Room} {
		u, err := user.Lookup(name)
		if err != nil {
			return fmt.Errorf("%w: %w; the package makes it, and so does systemd-sysusers with deploy/systemd/chancery.sysusers", site.ErrConfig, err)
		}
		if account.UID, err = strconv.Atoi(u.Uid); err != nil {
			return fmt.Errorf("user %s: %w", name, err)
		}
		if account.GID, err = strconv.Atoi(u.Gid); err != nil {
			return fmt.Errorf("user %s: %w", name, err)
		}
	}
	return s.Run(ctx)
}
