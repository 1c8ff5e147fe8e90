package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/site"
)

// addOptions is a command line of chancery caller add.
type addOptions struct {
	credential         rpc.Credential
	keyFile, nameFile  string
	returning          bool
	grant              rpc.Grant
	purposes, keyTypes []string // of the grant
}

func addCallerCommand() *cobra.Command {
	var o addOptions
	cmd := &cobra.Command{
		Use:   "add DIR NAME",
		Short: "Add a caller to the configuration, and have the daemon take it up",
		Long: `Add the caller NAME to chancery.yaml of the installation in DIR, whose comments and order stay, check what comes of
it as chancery config check does, put it in place, and have the daemon take it up if it runs. Run it as a user
who may write the file and read what it names, such as root.

Without a credential NAME comes in with certificates of the callers CA for its name; what is printed says how it gets
the first. With one it comes in by that alone: a key (--spki, --key-of), or an exact name by the callers CA or a CA in
foreign_cas (--issuer and --subject, --named-as). Nobody asks a foreign CA what it has revoked: the only revocation
of its certificates, and of a key, is their removal from the configuration.

The flags from --method to --own make one grant; without any there is none. Further grants are written into the file.
docs/CONFIG.md says what each means.

A name belongs to one caller for ever. One that was a caller's before, as far as the books and the log tell, is
refused, unless --returning says that it is the same one. Whoever edits the file by hand has to look to that.`,
		Example: `  chancery caller add /etc/chancery hr --method ca.issue --method ca.status --purpose user --name '*' --domain example.org
  chancery caller add /etc/chancery jobs --named-as jobs.pem --method ca.status --purpose user --name '*'
  chancery caller add /etc/chancery desk --method ca.hold --purpose user --name '*' --per-hour 20 --max 1`,
		Args: exactly(2, "DIR NAME"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noneZero(cmd.Flags(), "max-days", "max", "per-hour"); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.credential.SPKI, "spki", "", "let in whoever has the key whose SubjectPublicKeyInfo has this SHA-256, `HEX`")
	f.StringVar(&o.keyFile, "key-of", "", "let in whoever has the key of the certificate in `FILE`, PEM")
	f.StringVar(&o.credential.Issuer, "issuer", "", "with --subject: let in the certificate by the CA with exactly this name, `DN` as in RFC 4514")
	f.StringVar(&o.credential.Subject, "subject", "", "with --issuer: the exact name in that certificate, `DN` as in RFC 4514")
	f.StringVar(&o.nameFile, "named-as", "", "let in certificates with both names of the one in `FILE`, PEM, its issuer's and its subject's")
	g := &o.grant
	f.StringArrayVar(&g.Methods, "method", nil, "grant: `METHOD` such as ca.issue; can be repeated, as all of the grant")
	f.StringArrayVar(&o.purposes, "purpose", nil, "grant: `PURPOSE`, user, server or caller")
	f.StringArrayVar(&g.Names, "name", nil, "grant: `PATTERN` for common names and host names; * alone is every name")
	f.StringArrayVar(&g.Domains, "domain", nil, "grant: `DOMAIN` that host names and mail addresses must be in")
	f.StringArrayVar(&g.Networks, "network", nil, "grant: `NETWORK` such as 192.0.2.0/24 that IP addresses must be in")
	f.StringArrayVar(&o.keyTypes, "key-type", nil, "grant: `TYPE` that the key of a certificate may have, such as P-256")
	f.IntVar(&g.MaxDays, "max-days", 0, "grant: the longest validity of a certificate, `DAYS`")
	f.StringArrayVar(&g.Reasons, "reason", nil, "grant: `REASON` that a certificate may be revoked for, such as superseded")
	f.IntVar(&g.Max, "max", 0, "grant: `NUMBER` of certificates that one call may revoke, hold or release")
	f.IntVar(&g.PerHour, "per-hour", 0, "grant: `NUMBER` of calls in an hour that change something")
	f.BoolVar(&g.Own, "own", false, "grant: only certificates that the caller itself asked for")
	f.BoolVar(&o.returning, "returning", false, "NAME was a caller before, and is the same one that comes back")
	complete(cmd, "method", rpc.Methods()...)
	for _, name := range []string{"spki", "issuer", "subject", "name", "domain", "network", "max-days", "max", "per-hour"} {
		complete(cmd, name)
	}
	for _, m := range slices.Concat(paramsOf("ca.issue"), paramsOf("ca.revoke")) {
		complete(cmd, m.Flag, m.Values...)
	}
	return cmd
}

func (o *addOptions) run(ctx context.Context, w io.Writer, dir, name string) error {
	caller, err := o.caller(name)
	if err != nil {
		return err
	}
	path := configFile(dir)
	config, err := site.LoadConfig(path)
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(config.Callers, func(c rpc.Caller) bool { return c.Name == name }) // which AddCaller refuses
	if !o.returning && !known {
		if err := unused(ctx, config, name); err != nil {
			return err
		}
	}
	after, err := site.AddCaller(path, caller)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "added caller %s to %s\n", name, path)
	if err := takenUp(ctx, w, after); err != nil {
		return err
	}
	if len(caller.Credentials) > 0 {
		fmt.Fprintf(w, "next: %s comes in by its credential; chancery whoami --url ... shows it\n", name)
		return nil
	}
	return printFirstCertificate(w, after, dir, name)
}

// caller is what the flags say.
func (o *addOptions) caller(name string) (rpc.Caller, error) {
	c := rpc.Caller{Name: name}
	kinds := 0
	for _, given := range []bool{o.credential.SPKI != "", o.keyFile != "", o.credential.Issuer+o.credential.Subject != "", o.nameFile != ""} {
		if given {
			kinds++
		}
	}
	var err error
	switch {
	case kinds > 1:
		return c, fmt.Errorf("%w: one credential of --spki, --key-of, --issuer with --subject, and --named-as; further ones are written into the file", errUsage)
	case o.keyFile != "":
		o.credential, err = site.CredentialFile(o.keyFile, true)
	case o.nameFile != "":
		o.credential, err = site.CredentialFile(o.nameFile, false)
	}
	if err != nil {
		return c, err
	}
	if kinds == 1 {
		c.Credentials = []rpc.Credential{o.credential}
	}
	for _, p := range o.purposes {
		o.grant.Purposes = append(o.grant.Purposes, cert.Purpose(p))
	}
	for _, t := range o.keyTypes {
		o.grant.KeyTypes = append(o.grant.KeyTypes, cert.KeyType(t))
	}
	if !reflect.ValueOf(o.grant).IsZero() {
		c.Grants = []rpc.Grant{o.grant}
	}
	return c, nil
}

// unused refuses a name that was a caller's.
func unused(ctx context.Context, config site.Config, name string) error {
	past, err := site.PastCaller(ctx, config, name)
	if err != nil || past.Certificates+past.Leaves == 0 {
		return err
	}
	said := fmt.Sprintf("%d certificates of callers were issued for it", past.Certificates)
	if past.Leaves > 0 {
		said += fmt.Sprintf(", and %d leaves of the log are by it, the last of %s", past.Leaves, past.Last.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("%s was a caller before: %s; take another name, or say --returning if it is the same one that comes back", name, said)
}

// takenUp has a running daemon take a configuration up, and says what is so.
func takenUp(ctx context.Context, w io.Writer, c site.Config) error {
	err := site.HangUp(ctx, c)
	switch {
	case errors.Is(err, site.ErrStopped):
		fmt.Fprintln(w, "the daemon does not run; it takes it up when it starts")
	case err != nil:
		return fmt.Errorf("%w: the file is changed, and the daemon may go on with what was before: %w; run systemctl reload chanceryd, or send chanceryd SIGHUP, and look for config.refused in its log", errUnsettled, err)
	default:
		fmt.Fprintln(w, "the daemon has taken it up")
	}
	return nil
}

// printFirstCertificate says how a caller gets its first certificate.
func printFirstCertificate(w io.Writer, c site.Config, dir, name string) error {
	who, err := whoMay(c, "ca.issue", name, name)
	if err != nil {
		return err
	}
	if who != "" {
		fmt.Fprintf(w, "next: %s makes a key and a CSR, and one who may asks for its certificate: %s, as in\n  chancery issue %s --purpose caller %s --csr %s.csr\n", name, who, asCaller(c, dir), name, name)
		return nil
	}
	fmt.Fprintf(w, "next: no other caller may ask for its first certificate; give one a grant for ca.issue, the purpose caller and the name %s,\nor with the daemon stopped and the key room running:\n  chancery caller rotate %s %s --out FOLDER [--csr FILE]\n", name, site.ShellWord(dir), name)
	return nil
}

// whoMay names the callers but one that may call a method for a caller's certificate, with their rules.
func whoMay(c site.Config, method, name, but string) (string, error) {
	policy, err := site.LoadPolicy(c.Path)
	if err != nil {
		return "", err
	}
	could, err := policy.WhoCould(rpc.Question{Method: method, Purpose: string(cert.Caller), CN: name})
	if err != nil {
		return "", asked(err)
	}
	var who []string
	for _, p := range could {
		if p.Caller != but {
			who = append(who, p.Caller+" (rule "+p.Rule+")")
		}
	}
	return strings.Join(who, ", "), nil
}

// asCaller is how a command asks the service as a caller: with the files beside the configuration, if init has
// left any there.
func asCaller(c site.Config, dir string) string {
	if _, err := os.Stat(filepath.Join(filepath.Dir(c.Path), "callers")); err == nil {
		return "--dir " + site.ShellWord(dir) + " --caller CALLER"
	}
	return "--url https://" + c.Listen + " --cert CALLER.pem --key CALLER.key --trust " + site.ShellWord(filepath.Join(c.Trust, "root.pem"))
}

func removeCallerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove DIR NAME",
		Short: "Take a caller out of the configuration, and have the daemon take that up",
		Long: `Take the caller NAME, with its credentials and grants, out of chancery.yaml of the installation in DIR, and have the
daemon take that up if it runs, as chancery caller add does. Its connections end with their next request, and
nothing that it holds lets it in any more. What it had issued stays as it is.

Certificates of the callers CA for its name are of no use from then on. They are told, because revoking them is
cleaner: they would be good again if the name came back.`,
		Example: `  chancery caller remove /etc/chancery hr`,
		Args:    exactly(2, "DIR NAME"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, name, w := args[0], args[1], cmd.OutOrStdout()
			path := configFile(dir)
			before, err := site.LoadConfig(path)
			if err != nil {
				return err
			}
			after, err := site.RemoveCaller(path, name)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "removed caller %s from %s\n", name, path)
			taken := takenUp(cmd.Context(), w, after)
			if slices.ContainsFunc(before.Callers, func(c rpc.Caller) bool { return c.Name == name && len(c.SigningKeys) > 0 }) {
				fmt.Fprintf(w, "left: the signing_keys of %s in keyroom.json; take them out there, and restart the key room\n", name)
			}
			return errors.Join(taken, printLeft(cmd.Context(), w, after, dir, name))
		},
	}
}

// printLeft tells what is left of a caller.
func printLeft(ctx context.Context, w io.Writer, c site.Config, dir, name string) error {
	all, err := site.Callers(ctx, c, time.Now())
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.Name != name {
			continue
		}
		for _, left := range one.Certificates {
			fmt.Fprintf(w, "left: certificate %s until %s, which opens nothing now\n", line(string(left.Serial)), left.NotAfter.UTC().Format(time.RFC3339))
		}
		who, err := whoMay(c, "ca.revoke", name, name)
		if err != nil {
			return err
		}
		if who == "" {
			fmt.Fprintf(w, "next: no caller may revoke it; give one a grant for ca.revoke, the purpose caller and the name %s, which asks for it:\n", name)
		} else {
			fmt.Fprintf(w, "next: one who may asks to revoke it: %s, as in\n", who)
		}
		fmt.Fprintf(w, "  chancery revoke %s --purpose caller %s --reason cessationOfOperation\n", asCaller(c, dir), name)
	}
	return nil
}
