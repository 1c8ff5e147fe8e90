package site

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/crl"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/store"
)

// codeConfig marks a configuration that was not taken. An alarm is bound to it, so it never changes.
const codeConfig = "config.refused"

// keepReloading takes up the configuration anew each time that it is asked to.
func (d Daemon) keepReloading(ctx context.Context, p *parts, server *rpc.Server) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.Reload:
		}
		if d.Reloading != nil {
			d.Reloading()
		}
		inForce := *p.inForce.Load()
		next, err := d.reload(ctx, p, server, inForce)
		switch {
		case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken):
			return err
		case err != nil:
			d.Log.Error("the configuration is not taken, and the one before stays in force", zap.String("code", codeConfig), zap.Error(err))
		default:
			d.Log.Info("config reloaded", zap.String("from", inForce.SHA256), zap.String("to", next.SHA256))
			p.health.reloaded()
			// What did not work may work now.
			if err := p.store.Hurry(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		if d.Reloaded != nil {
			d.Reloaded()
		}
	}
}

// reload reads the configuration and all files that it names. If any of it cannot be used, nothing changes.
// Calls and publications that are under way end as they began.
func (d Daemon) reload(ctx context.Context, p *parts, server *rpc.Server, inForce Config) (next Config, err error) {
	next, doc, err := readConfig(d.Config.Path)
	if err != nil {
		return next, err
	}
	rules, err := next.rules(server)
	if err := doc.problems(errors.Join(inForce.fixed(&next), err)); err != nil {
		return next, err
	}
	n, err := d.prepare(ctx, p, &inForce, &next)
	if err != nil {
		return next, fmt.Errorf("%w: %s: %w", ErrConfig, next.Path, err)
	}
	// Whatever becomes of ctx: a leaf that was given up on would be in force on the log, and not here.
	if err := d.note(context.WithoutCancel(ctx), p, &audit.ConfigReloaded{From: inForce.SHA256, To: next.SHA256}); err != nil {
		return next, errors.Join(err, n.discard())
	}
	rules()
	p.serve(n.own)
	p.inForce.Store(&next)
	p.lists.Use(n.publisher, inForce.Git.elsewhere(&next.Git))
	if n.directory != nil {
		p.entries.replace(n.directory, !reflect.DeepEqual(inForce.Directory, next.Directory))
	}
	return next, nil
}

// fixed refuses to change what the service is bound to while it runs.
func (c *Config) fixed(next *Config) error {
	var failed []error
	for _, k := range []struct{ key, was, is string }{
		{"listen", c.Listen, next.Listen}, {"keyroom", c.KeyRoom, next.KeyRoom}, {"state", c.State, next.State}, {"trust", c.Trust, next.Trust}, {"health", c.Health, next.Health},
	} {
		if k.was != k.is {
			failed = append(failed, wrong(k.key, "%s was %s: it cannot change while the service runs; restart it", k.key, cmp.Or(k.was, "not set")))
		}
	}
	if (c.Directory == nil) != (next.Directory == nil) {
		failed = append(failed, wrong("directory", "directory: it cannot be added or taken away while the service runs; restart it"))
	}
	return errors.Join(failed...)
}

// replacement is everything of a new configuration that has to be put into place.
type replacement struct {
	own       *identity
	publisher *gitrepo.Publisher
	directory directory // nil without one
}

func (n *replacement) discard() error {
	if n.directory == nil {
		return nil
	}
	return n.directory.Close()
}

func (d Daemon) prepare(ctx context.Context, p *parts, inForce, next *Config) (n replacement, err error) {
	if n.own, err = next.identity(); err != nil {
		return n, err
	}
	if n.publisher, err = next.publisher(p.signer.Hello().Origin); err != nil {
		return n, err
	}
	if inForce.Git.elsewhere(&next.Git) {
		if err := d.witness(ctx, p, n.publisher); err != nil {
			return n, err
		}
	}
	if next.Directory == nil {
		return n, nil
	}
	if n.directory, err = next.Directory.open(); err != nil {
		return n, err
	}
	if err := checkFiles(n.directory); err != nil {
		return n, errors.Join(err, n.discard())
	}
	return n, nil
}

// witness refuses a repository that has seen more of the log than there is. One that cannot be asked refuses
// nothing: the service starts without it as well.
func (d Daemon) witness(ctx context.Context, p *parts, from *gitrepo.Publisher) error {
	err := p.lists.Witness(ctx, from)
	if errors.Is(err, crl.ErrRolledBack) {
		return err
	}
	if err != nil && !errors.Is(err, crl.ErrNoWitness) { // an emptied repository is told of as the lists in it are
		d.Log.Error("git cannot be asked whether the log is whole", zap.String("code", "crl.witness"), zap.Error(err))
	}
	return nil
}
