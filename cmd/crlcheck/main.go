// Command crlcheck tells a host whether a file of revocation lists may be given to its servers.
//
//	crlcheck NEW [--installed OLD] --trust CHAIN [--json]
//
// It reads files and nothing else: no network, no configuration, no key.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/chancery-ca/chancery/crl/list"
)

// version is set by the linker.
var version = "dev"

const usage = `crlcheck NEW [--installed OLD] --trust CHAIN [--json]

Tells whether NEW, a file of revocation lists, may be given to servers. NEW is a bundle in PEM, or a single
list in PEM or DER. It holds exactly one full list for each CA certificate in CHAIN, in the order of CHAIN,
each signed by that CA and current. For a single list, CHAIN is the certificate of its issuer alone.

With --installed, NEW must also be able to replace OLD: no number falls, and no entry disappears that
cannot have expired. A file OLD that does not exist is a first installation; one that cannot be read as
lists of CHAIN is refused, until somebody has looked at it and removed it.

CHAIN is what the host trusts: it comes with the host's configuration, never from the repository of NEW.

One line on stdout says the verdict, with a stable code unless NEW is accepted. Warnings are on stderr.

  0  accepted
  1  refused
  2  the command line is wrong
  3  a file cannot be read, or CHAIN is no chain

`

// The exit codes.
const (
	accepted = iota
	refused
	badUsage
	unreadable
)

// maxTrust bounds the file of CA certificates, in octets.
const maxTrust = 1 << 20

// maxLists bounds a file of lists: one octet more than what package list reads is enough to be refused.
const maxLists = 2*list.MaxSize + 1

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, time.Now())) }

func run(args []string, stdout, stderr io.Writer, now time.Time) int {
	var o options
	err := o.parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return accepted
	case err != nil:
		fmt.Fprintln(stderr, "crlcheck:", err)
		return badUsage
	case o.version:
		fmt.Fprintln(stdout, version)
		return accepted
	}
	v := o.judge(now)
	if o.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetEscapeHTML(false)
		err = encoder.Encode(v)
	} else {
		_, err = fmt.Fprintln(stdout, v)
		for _, w := range v.Warnings {
			fmt.Fprintln(stderr, "crlcheck: warning:", w)
		}
	}
	if err != nil {
		// A verdict that nobody can read is none.
		fmt.Fprintln(stderr, "crlcheck: writing the verdict:", err)
		return unreadable
	}
	return v.exit
}

// options is the command line.
type options struct {
	file, installed, trust string
	json, version          bool
}

// parse takes NEW before, between or after the flags. Help that is asked for goes to stdout.
func (o *options) parse(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("crlcheck", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.installed, "installed", "", "the lists that NEW replaces, in `FILE`")
	flags.StringVar(&o.trust, "trust", "", "the CA certificates in PEM, leaf issuer first, root last, in `FILE`")
	flags.BoolVar(&o.json, "json", false, "the verdict as one JSON object")
	flags.BoolVar(&o.version, "version", false, "print the version")
	var files []string
	for {
		if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			flags.SetOutput(stdout)
			flags.PrintDefaults()
			return err
		} else if err != nil {
			return err
		}
		if flags.NArg() == 0 {
			break
		}
		files, args = append(files, flags.Arg(0)), flags.Args()[1:]
	}
	installed := false
	flags.Visit(func(f *flag.Flag) { installed = installed || f.Name == "installed" })
	switch {
	case o.version:
		return nil
	case len(files) != 1:
		return fmt.Errorf("one file to check, not %d; --help says more", len(files))
	case o.trust == "":
		return errors.New("--trust is missing; --help says more")
	case installed && o.installed == "":
		// An unset variable in a script must not turn the comparison off.
		return errors.New("--installed names no file")
	}
	o.file = files[0]
	return nil
}

// judge reads the files and gives the verdict.
func (o *options) judge(now time.Time) *verdict {
	chain, err := readTrust(o.trust)
	if err != nil {
		return decline(unreadable, codeTrust, err)
	}
	file, err := readFile(o.file, maxLists)
	if err != nil {
		return decline(unreadable, codeUnreadable, err)
	}
	var old []byte
	if o.installed != "" {
		old, err = readFile(o.installed, maxLists)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return decline(unreadable, codeUnreadable, err)
		}
	}
	return compare(bundled(file), bundled(old), chain, now, o.installed != "" && err == nil)
}

// readFile reads at most limit octets.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		b.Grow(int(min(info.Size(), limit)) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(io.LimitReader(f, limit)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readTrust reads CA certificates. Text beside the blocks is passed over, as every reader of such files
// does; anything else that is not a certificate is a mistake.
func readTrust(path string) ([]*x509.Certificate, error) {
	text, err := readFile(path, maxTrust+1)
	if err != nil {
		return nil, err
	}
	if len(text) > maxTrust {
		return nil, fmt.Errorf("%s: more than %d octets", path, maxTrust)
	}
	var chain []*x509.Certificate
	names := make(map[string]bool)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: a PEM block %q; only certificates belong there", path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(chain)+1, err)
		}
		// A list says its issuer by name: with two keys of one name it is not clear whose it is.
		if names[string(c.RawSubject)] {
			return nil, fmt.Errorf("%s: two certificates of %q", path, c.Subject)
		}
		names[string(c.RawSubject)] = true
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s: no certificate in it", path)
	}
	return chain, nil
}
