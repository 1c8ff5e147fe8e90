// Command chanceryd is the daemon of a Chancery installation: it answers the RPC and publishes. It
// holds no CA key; the key room does, and must be running.
//
//	chanceryd --config chancery.yaml
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl"
	"github.com/chancery-ca/chancery/nodump"
	"github.com/chancery-ca/chancery/sdnotify"
	"github.com/chancery-ca/chancery/site"
)

// version is set by the linker.
var version = "dev"

func main() {
	err := run(os.Args[1:], os.Stdout)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "chanceryd:", err)
	var refusal *signer.Refusal // at start, only of the log as such
	switch {
	case errors.Is(err, site.ErrConfig):
		os.Exit(2)
	case errors.Is(err, signer.ErrUnreachable):
		os.Exit(3)
	case errors.Is(err, signer.ErrStoreBehind), errors.Is(err, signer.ErrFork), errors.Is(err, crl.ErrRolledBack), errors.As(err, &refusal):
		os.Exit(4)
	}
	os.Exit(1)
}

func run(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("chanceryd", flag.ContinueOnError)
	path := fs.String("config", "", "the configuration, chancery.yaml, in `FILE`")
	show := fs.Bool("version", false, "print the version")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "The daemon of a Chancery installation: it answers the RPC and publishes. It holds no CA key; the key room\n"+
			"does, and must be running. SIGHUP has it read the configuration anew, which is taken as a whole or not\n"+
			"at all. SIGTERM stops it.\n\n  chanceryd --config chancery.yaml\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", site.ErrConfig, err)
	}
	if *show {
		_, err := fmt.Fprintln(out, version)
		return err
	}
	if *path == "" || fs.NArg() > 0 {
		return fmt.Errorf("%w: usage: chanceryd --config FILE", site.ErrConfig)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	reload := make(chan os.Signal, 1) // several while one is under way count as one
	signal.Notify(reload, syscall.SIGHUP)
	if err := nodump.Set(); err != nil {
		return err
	}
	headroom := make([]byte, 8<<20) // for the collector, never touched: docs/adr/0026
	defer runtime.KeepAlive(headroom)
	config, err := site.LoadConfig(*path)
	if err != nil {
		return err
	}
	log := newLogger()
	defer func() { _ = log.Sync() }()                          // stderr cannot always be synced
	context.AfterFunc(ctx, func() { _ = sdnotify.Stopping() }) // systemd has asked for it, or sees the end
	told := func(err error) {
		if err != nil {
			log.Error("systemd is not told", zap.String("code", "systemd.notify"), zap.Error(err))
		}
	}
	answering := func() { told(sdnotify.Ready("answering at https://" + config.Listen)) }
	return site.Daemon{
		Config: config, Build: version, Log: log,
		Reload: reload, Reloading: func() { told(sdnotify.Reloading()) }, Reloaded: answering,
		Ready: func(url string) {
			fmt.Fprintln(out, "ready", url)
			answering()
		},
	}.Run(ctx)
}

// newLogger writes JSON to stderr, one line per event, with no sampling and no stack traces.
func newLogger() *zap.Logger {
	encoder := zap.NewProductionEncoderConfig()
	encoder.TimeKey = "time"
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.Lock(os.Stderr), zap.InfoLevel))
}
