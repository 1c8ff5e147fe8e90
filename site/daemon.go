package site

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/store"
)

// The daemon's own rhythm.
const (
	recoverEvery = 10 * time.Second
	sweepEvery   = time.Hour       // of the directory
	checkEvery   = 5 * time.Second // of the connection to it
)

// Daemon is the service: it answers the RPC, pays what is owed, and settles what a crash left open.
type Daemon struct {
	Config Config
	Build  string
	Log    *zap.Logger
	// Ready is called once, when calls are answered at this URL.
	Ready func(url string)
	// Reload has something to receive when the configuration is to be read anew; nil: never.
	Reload <-chan os.Signal
	// Reloading and Reloaded are called before and after that, whatever comes of it. Optional.
	Reloading, Reloaded func()
}

// Run serves until ctx ends and returns nil then, or the first error that the service cannot live with.
func (d Daemon) Run(ctx context.Context) error {
	h := newHealth(d.Config, d.Build, d.Log)
	d.Log, d.Ready = h.log, h.onReady(ctx, d.Ready)
	p, err := open(ctx, d.Config, d.Log)
	if err != nil {
		return d.unlessStopped(ctx, err)
	}
	h.attend(p)
	err = h.beside(func() error { return d.run(ctx, p) })
	return errors.Join(err, p.close())
}

// unlessStopped is why the daemon does not start. If it was asked to stop meanwhile, whatever broke off is only
// logged: not everything says that this was the reason, and what is truly wrong is found by the next start.
func (d Daemon) unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	d.Log.Warn("stopped before it was ready", zap.Error(err))
	return nil
}

func (d Daemon) run(ctx context.Context, p *parts) error {
	if err := d.begin(ctx, p); err != nil {
		return d.unlessStopped(ctx, err)
	}
	own, err := d.Config.identity()
	if err != nil {
		return err
	}
	p.own.Store(own)
	server, err := d.server(p)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", d.Config.Listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks := []func(context.Context) error{
		func(ctx context.Context) error { return server.Serve(ctx, listener) },
		p.lists.Run,
		p.renewal().run,
		func(ctx context.Context) error { return d.keepRecovering(ctx, p) },
		func(ctx context.Context) error { return d.keepWarning(ctx, p) },
		func(ctx context.Context) error { return d.keepReloading(ctx, p, server) },
		func(ctx context.Context) error { return d.signOfLife(ctx, p) },
	}
	if p.directory != nil {
		tasks = append(tasks, p.directory.Run, func(ctx context.Context) error { return d.keepSweeping(ctx, p) },
			func(ctx context.Context) error { return d.keepConnected(ctx, p) })
	}
	ended := make(chan error, len(tasks))
	for _, task := range tasks {
		go func() { ended <- task(ctx) }()
	}
	d.Log.Info("ready", zap.String("listen", listener.Addr().String()), zap.String("build", d.Build))
	d.Ready("https://" + d.Config.host() + "/RPC2")
	// One task that ends takes the others with it.
	var failed error
	for range tasks {
		failed = errors.Join(failed, <-ended)
		cancel()
	}
	return errors.Join(failed, d.note(context.WithoutCancel(ctx), p, &audit.ServiceStopped{}))
}

// begin makes the service fit to answer: it compares the log with what git has seen and shows the key room
// the whole of it, so that an old copy of either, or of both, is found before the first call; it settles
// what the last process left open, and says on the log that it started.
func (d Daemon) begin(ctx context.Context, p *parts) error {
	backup, err := d.Config.restored()
	if err != nil {
		return err
	}
	if backup != nil {
		if err := p.lists.Witness(ctx, p.publisher); err != nil {
			return backup.explain(err)
		}
	} else if err := d.witness(ctx, p, p.publisher); err != nil {
		return err
	}
	if err := p.store.FreeLeases(ctx); err != nil {
		return err
	}
	if _, err := p.signer.Checkpoint(ctx); err != nil {
		return fmt.Errorf("bringing the key room up to the end of the log: %w", err)
	}
	settled, err := p.authority.Recover(ctx, time.Now().AddDate(1, 0, 0))
	if err != nil {
		return fmt.Errorf("settling what was open: %w", err)
	}
	if settled > 0 {
		d.Log.Info("settled open intents", zap.Int("count", settled))
	}
	return d.noteStart(ctx, p, backup)
}

func (d Daemon) note(ctx context.Context, p *parts, e audit.Event) error {
	_, err := p.store.Update(ctx, audit.Actor{Kind: audit.ByDaemon}, func(*store.Tx) (audit.Event, error) { return e, nil })
	if err != nil {
		return fmt.Errorf("entering %s: %w", e.Type(), err)
	}
	return nil
}

func (d Daemon) server(p *parts) (*rpc.Server, error) {
	chain, err := p.authority.Chain(cert.Caller)
	if err != nil {
		return nil, err
	}
	callers, err := x509.ParseCertificate(chain.Certificates[0])
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of the callers' CA: %w", err)
	}
	config, err := d.Config.callers()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConfig, d.Config.Path, err)
	}
	server, err := rpc.New(rpc.Options{
		Authority: p.authority, Store: p.store, Config: config, CallersCA: callers,
		TLSCertificate: func() tls.Certificate { return p.own.Load().pair },
		MinTLS12:       d.Config.TLS12,
		Log:            d.Log, Now: time.Now, Rand: rand.Reader, Observe: p.health.metrics.call,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConfig, d.Config.Path, err)
	}
	return server, nil
}

// keepRecovering settles intents whose deadline has passed and forgets secrets whose time is over.
func (d Daemon) keepRecovering(ctx context.Context, p *parts) error {
	return every(ctx, recoverEvery, func() {
		if _, err := p.authority.Recover(ctx, time.Now()); err != nil && ctx.Err() == nil {
			d.Log.Error("an intent is still open", zap.String("code", "issue.open"), zap.Error(err))
		}
		if _, err := p.authority.ForgetSecrets(ctx); err != nil && ctx.Err() == nil {
			d.Log.Error("old secrets are not deleted", zap.String("code", "issue.secrets"), zap.Error(err))
		}
	})
}

// keepSweeping repairs what drifted in the directory from time to time.
func (d Daemon) keepSweeping(ctx context.Context, p *parts) error {
	return every(ctx, sweepEvery, func() { d.sweep(ctx, p) })
}

func (d Daemon) sweep(ctx context.Context, p *parts) {
	_, err := p.directory.Sweep(ctx)
	switch {
	case err == nil:
		p.health.marks.clear(codeSwept)
	case ctx.Err() == nil:
		d.Log.Error("the directory is not swept", zap.String("code", codeSwept), zap.Error(err))
	}
}

// keepConnected looks after the connection to LDAP servers, so that nobody who asks for a certificate
// is the first to find it lost. A server that is there again may have been put back, or be another one.
func (d Daemon) keepConnected(ctx context.Context, p *parts) error {
	look := func() {
		sweep, err := p.entries.look(ctx)
		p.health.reached(ctx, err) // who has something to write says in the log why it cannot
		if sweep {
			d.sweep(ctx, p)
		}
	}
	look()
	return every(ctx, checkEvery, look)
}

func every(ctx context.Context, interval time.Duration, do func()) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return nil
		}
	}
}

// host is where callers reach the RPC: the address it listens at, or this machine's if that is all.
func (c Config) host() string {
	host, port, _ := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
