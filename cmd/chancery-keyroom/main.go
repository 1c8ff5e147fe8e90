// Command chancery-keyroom is the key room of a Chancery installation: the only process that holds CA
// keys. It has no network; the daemon reaches it over a Unix socket.
//
//	chancery-keyroom --config keyroom.json          serve
//	chancery-keyroom check --config FILE            tell what is wrong with the configuration
//	chancery-keyroom confirm-clock --config FILE    let expired entries leave lists again after a clock step
//	chancery-keyroom init --dir DIR --org NAME      make the keys of a new installation
//	chancery-keyroom root-crl --offline DIR         sign the root's next CRL, where the root key is
//	chancery-keyroom install-root-crl --config FILE --crl FILE
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/keyroom"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/nodump"
	"github.com/chancery-ca/chancery/sdnotify"
)

// version is set by the linker.
var version = "dev"

// errUsage marks what exit code 2 stands for.
var errUsage = errors.New("usage")

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage), errors.Is(err, keyroom.ErrConfig):
		fmt.Fprintln(os.Stderr, "chancery-keyroom:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "chancery-keyroom:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	command := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "serve":
		return serve(args)
	case "check":
		return check(args, out)
	case "confirm-clock":
		return confirmClock(args)
	case "init":
		return initialise(args, out)
	case "root-crl":
		return signRootList(args, out)
	case "install-root-crl":
		return installRootList(args, out)
	case "version":
		_, err := fmt.Fprintln(out, version)
		return err
	}
	return fmt.Errorf("%w: there is no command %q; the commands are init, check, root-crl, install-root-crl, confirm-clock and version, and without one it serves", errUsage, command)
}

func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: %q is one argument too many", errUsage, fs.Arg(0))
	}
	return nil
}

const usage = `The key room of a Chancery installation: the only process that holds CA keys.

  chancery-keyroom --config FILE                  serve on the Unix socket that FILE names
  chancery-keyroom confirm-clock --config FILE    after a clock step, let entries of expired certificates leave lists
  chancery-keyroom check --config FILE            tell what is wrong with FILE, and with the keys that it names
  chancery-keyroom init --dir DIR --org NAME      make the keys of a new installation; chancery init runs it
  chancery-keyroom root-crl --offline DIR         sign the root's next CRL; chancery root-crl sign runs it
  chancery-keyroom install-root-crl --config FILE --crl FILE    take that CRL; chancery root-crl install runs it
  chancery-keyroom version

`

func options(name string, args []string) (keyroom.Options, error) {
	fs := flag.NewFlagSet("chancery-keyroom "+name, flag.ContinueOnError)
	path := fs.String("config", "", "the configuration, keyroom.json, in `FILE`")
	if name == "serve" {
		fs.Usage = func() {
			fmt.Fprint(fs.Output(), usage)
			fs.PrintDefaults()
		}
	}
	if err := parse(fs, args); err != nil {
		return keyroom.Options{}, err
	}
	if *path == "" {
		return keyroom.Options{}, fmt.Errorf("%w: --config FILE is needed", errUsage)
	}
	if err := nodump.Set(); err != nil {
		return keyroom.Options{}, err
	}
	config, err := keyroom.LoadConfig(*path)
	return keyroom.Options{
		Config: config, Build: version, Now: time.Now, Rand: rand.Reader, Log: newLogger(os.Stderr), Reading: reading(time.Now),
	}, err
}

func open(name string, args []string) (*keyroom.Room, *slog.Logger, error) {
	o, err := options(name, args)
	if err != nil {
		return nil, nil, err
	}
	room, err := keyroom.Open(o)
	return room, o.Log, err
}

// newLogger writes JSON, one line per event, with the daemon's names for time and level.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
		}
		return a
	}}))
}

// reading keeps the start from being given up while a long journal is read, as long as it is.
func reading(now func() time.Time) func(leaves int64) {
	told := now()
	return func(leaves int64) {
		if now().Sub(told) >= 5*time.Second {
			told = now()
			_ = sdnotify.Starting(time.Minute, fmt.Sprintf("reading the journal: %d leaves", leaves)) // Ready fails too, and says so
		}
	}
}

func serve(args []string) error {
	room, log, err := open("serve", args)
	if err != nil {
		return err
	}
	// One batch at a time: a second processor would only be woken and put to sleep.
	runtime.GOMAXPROCS(1)
	headroom := make([]byte, 4<<20) // for the collector, never touched: docs/adr/0026
	defer runtime.KeepAlive(headroom)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := room.Listen()
	if err != nil {
		return errors.Join(err, room.Close())
	}
	hello := room.Hello()
	log.Info("serving", "room", hello.Room, "leaves", hello.State.Size, "sequence", hello.State.Sequence,
		"wire", signer.Version, "socket", listener.Addr().String())
	manage(ctx, room, log)
	err = room.Serve(ctx, listener)
	tell(log, sdnotify.Stopping())
	return errors.Join(err, room.Close())
}

// manage tells systemd that the room serves, and that it lives: a batch that does not come to its end
// keeps Hello waiting, and with it the sign of life.
func manage(ctx context.Context, room *keyroom.Room, log *slog.Logger) {
	tell(log, sdnotify.Ready(fmt.Sprintf("serving from leaf %d on", room.Hello().State.Size)))
	healthy := func(context.Context) error {
		room.Hello()
		return nil
	}
	go func() { tell(log, sdnotify.Watch(ctx, healthy, func(err error) { tell(log, err) })) }()
}

// tell logs that systemd could not be told something. The room serves all the same.
func tell(log *slog.Logger, err error) {
	if err != nil {
		log.Error("systemd is not told", "code", "systemd.notify", "error", err.Error())
	}
}

func confirmClock(args []string) error {
	room, log, err := open("confirm-clock", args)
	if err != nil {
		return err
	}
	if err := room.ConfirmClock(); err != nil {
		return err // what the journal holds is unknown now, so the process ends without closing it
	}
	log.Info("clock confirmed")
	return room.Close()
}

// check tells what is wrong with the configuration and the files that it names, and starts nothing.
func check(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("chancery-keyroom check", flag.ContinueOnError)
	path := fs.String("config", "", "the configuration, keyroom.json, in `FILE`")
	output := fs.String("output", "table", "`FORMAT` of the output: table or json")
	if err := parse(fs, args); err != nil {
		return err
	}
	if *path == "" || *output != "table" && *output != "json" {
		return fmt.Errorf("%w: chancery-keyroom check --config FILE [--output table|json]", errUsage)
	}
	if err := nodump.Set(); err != nil {
		return err
	}
	config, err := keyroom.LoadConfig(*path)
	if err == nil {
		if wrong := config.CheckFiles(); wrong != nil {
			err = &keyroom.Problem{File: *path, Reason: wrong.Error()}
		}
	}
	if *output == "table" {
		if err == nil {
			_, err = fmt.Fprintln(out, "clean")
		}
		return err
	}
	problems := []keyroom.Problem{}
	var one *keyroom.Problem
	if errors.As(err, &one) {
		problems = append(problems, *one)
	} else if err != nil {
		problems = append(problems, keyroom.Problem{File: *path, Reason: err.Error()})
	}
	return errors.Join(json.NewEncoder(out).Encode(problems), err)
}

// repeated is a flag that may be given more than once.
type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, ",") }
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

func initialise(args []string, out io.Writer) error {
	var domains, hosts, networks repeated
	fs := flag.NewFlagSet("chancery-keyroom init", flag.ContinueOnError)
	dir := fs.String("dir", "", "folder of the installation; it exists and holds no keys yet")
	org := fs.String("org", "", "organisation in the names of the CAs")
	fd := fs.Int("passphrase-fd", -1, "file descriptor to read the passphrase of the offline keys from; without it one is made and printed")
	fs.Var(&domains, "domain", "domain that the issued names are constrained to; may be repeated")
	fs.Var(&hosts, "host", "further `NAME` that servers may have where a domain is given; may be repeated")
	fs.Var(&networks, "network", "network that server addresses are constrained to where a domain is given; may be repeated")
	if err := parse(fs, args); err != nil {
		return err
	}
	if *dir == "" || *org == "" {
		return fmt.Errorf("%w: --dir and --org are needed", errUsage)
	}
	ceremony := keyroom.Ceremony{Dir: *dir, Org: *org, Now: time.Now, Rand: rand.Reader}
	var err error
	if ceremony.Domains, err = keyroom.ParseDomains(domains); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if ceremony.Hosts, err = keyroom.ParseDomains(hosts); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	for _, n := range networks {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return fmt.Errorf("%w: --network: %w", errUsage, err)
		}
		ceremony.Networks = append(ceremony.Networks, prefix)
	}
	if ceremony.OfflinePassphrase, err = offlinePassphrase(*fd, out); err != nil {
		return err
	}
	if err := nodump.Set(); err != nil {
		return err
	}
	return ceremony.Init()
}

func offlinePassphrase(fd int, out io.Writer) (string, error) {
	if fd < 0 {
		passphrase, err := cert.NewPassword(rand.Reader)
		if err != nil {
			return "", err
		}
		_, err = fmt.Fprintf(out, "passphrase of the offline keys, printed this once: %s\n", passphrase)
		return passphrase, err
	}
	passphrase, err := readPassphrase(fd)
	if err != nil {
		return "", err
	}
	if len(passphrase) < 12 {
		return "", fmt.Errorf("%w: the passphrase of the offline keys has %d characters; give at least 12", errUsage, len(passphrase))
	}
	return passphrase, nil
}

func readPassphrase(fd int) (string, error) {
	text, err := io.ReadAll(io.LimitReader(os.NewFile(uintptr(fd), "passphrase"), 1024))
	if err != nil {
		return "", fmt.Errorf("reading the passphrase of the offline keys: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
