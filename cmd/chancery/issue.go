package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc/client"
)

// issueOptions is a command line of chancery issue.
type issueOptions struct {
	service
	method                     string
	members                    members
	cn, requestID, csr         string
	plan                       bool
	email, dns, ip             []string
	out, passwordFile, certOut string
}

func issueCommand() *cobra.Command {
	o := issueOptions{method: "ca.issue"}
	cmd := &cobra.Command{
		Use:   "issue (--dir DIR | --url URL) --purpose PURPOSE NAME",
		Short: "Issue a certificate",
		Long: `Ask the running service for a certificate for NAME, and write it to new files: without --csr the PKCS#12
with key, certificate and chain to NAME.p12, with mode 0600, and its password to standard output; with
--csr the certificate and its chain to NAME.pem. A file that exists is refused before anything is asked.

The call has a request id. With the same --request-id and the same members the same certificate, PKCS#12
and password are answered again, for 24 hours unless the CA is set up otherwise. If no answer comes the call
is made again with its id; if it stays unknown how it ended, the exit code is 3 and the message is the
command to ask again.`,
		Example: `  chancery issue --dir ca --purpose user alice --email alice@example.org
  chancery issue --dir ca --purpose server www.example.org --csr www.csr --cert-out www.pem
  chancery issue --url https://ca.example.org:8443 --cert hr.pem --key hr.key --trust root.pem \
    --purpose user bob --request-id hr-1002 --out bob.p12 --password-file bob.password`,
		Args:              exactly(1, "NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.cn = args[0]
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.email, "email", nil, "further name: mail address `ADDRESS`; can be repeated")
	f.StringArrayVar(&o.dns, "dns", nil, "further name: host name `HOST`; can be repeated")
	f.StringArrayVar(&o.ip, "ip", nil, "further name: IP address `ADDRESS`; can be repeated")
	for _, name := range []string{"email", "dns", "ip"} {
		complete(cmd, name)
	}
	return cmd
}

func renewCommand() *cobra.Command {
	o := issueOptions{method: "ca.renew"}
	cmd := &cobra.Command{
		Use:   "renew (--dir DIR | --url URL) (NAME | --serial HEX)",
		Short: "Issue a certificate with the names of one that there is",
		Long: `Ask the running service for a certificate with all the names of the newest one for NAME, or of the one with a
serial number, and with a new key. The old one stays as it is. Files and request id are as in chancery issue.`,
		Example: `  chancery renew --dir ca www.example.org --purpose server --csr www.csr
  chancery renew --dir ca --serial 288a308008211dda38cfaa4873028613 --out bob.p12`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.cn, err = oneName(cmd, args, o.members.text("serial")); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("serial", "purpose")
	return cmd
}

// flags adds what both of them take.
func (o *issueOptions) flags(cmd *cobra.Command) {
	o.service.flags(cmd)
	f := cmd.Flags()
	o.members = memberFlags(cmd, o.method)
	f.StringVar(&o.out, "out", "", "new `FILE` for the PKCS#12, mode 0600; without it NAME.p12, or with --output json none")
	f.StringVar(&o.passwordFile, "password-file", "", "new `FILE` for the password, mode 0400, instead of standard output")
	f.StringVar(&o.certOut, "cert-out", "", "new `FILE` for the certificate and its chain, PEM; without it NAME.pem with --csr, or none")
	for _, name := range []string{"out", "password-file", "key-type"} {
		cmd.MarkFlagsMutuallyExclusive("csr", name)
	}
}

func (o *issueOptions) run(ctx context.Context, w io.Writer) error {
	params, err := o.params()
	if err != nil {
		return err
	}
	if err := o.open(); err != nil {
		return err
	}
	files, err := o.reserve()
	if err != nil {
		return err
	}
	again := sameCommand(o.requestID)
	answer, err := o.ask(ctx, o.method, params, again)
	if err != nil {
		files.discard()
		return errors.Join(printRefusal(w, answer, o.output), err)
	}
	if o.plan {
		return o.printPlan(w, answer)
	}
	err = o.hand(w, answer, files)
	if err != nil {
		files.discard()
	}
	if errors.Is(err, errUnsettled) {
		err = fmt.Errorf("%w; get it again soon, within 24 hours unless the CA is set up otherwise: %s", err, again)
	}
	return err
}

const maxCSR = 32 << 10 // the service takes bodies of 64 KiB

// params makes the call's one parameter. Whether a name is one, the service decides.
func (o *issueOptions) params() (map[string]any, error) {
	if o.members.text("purpose") == "" && o.method == "ca.issue" {
		return nil, fmt.Errorf("%w: --purpose is needed: user, server or caller", errUsage)
	}
	p := o.members.params()
	var err error
	if o.requestID, err = requestIDIn(p); err != nil {
		return nil, err
	}
	o.csr, o.plan = o.members.text("csr"), p["plan"] == true
	if o.cn != "" {
		p["cn"] = o.cn
	}
	sans := make(map[string]any)
	for kind, names := range map[string][]string{"email": o.email, "dns": o.dns, "ip": o.ip} {
		if len(names) > 0 {
			sans[kind] = names
		}
	}
	if len(sans) > 0 {
		p["sans"] = sans
	}
	if o.csr == "" {
		return p, nil
	}
	p["csr"], err = readCSR(o.csr)
	return p, err
}

// readCSR gives a CSR as the call takes it.
func readCSR(path string) (any, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: --csr: %w", errUsage, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCSR+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: --csr: %w", errUsage, err)
	case len(text) == 0 || len(text) > maxCSR:
		return nil, fmt.Errorf("%w: --csr: %s is no PKCS#10 request: want 1 to %d octets", errUsage, path, maxCSR)
	case bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")):
		return string(text), nil
	}
	return text, nil // DER, which JSON carries as base64
}

// issueFiles are the files of one call, nil where none is wanted.
type issueFiles struct{ pkcs12, password, certificate *newFile }

// reserve makes the files before the call is: one that cannot be made must not cost a serial number.
func (o *issueOptions) reserve() (files issueFiles, err error) {
	if o.plan {
		return files, nil
	}
	out, certOut := o.out, o.certOut
	if o.output != "json" {
		switch {
		case o.csr == "" && out == "":
			out, err = o.named(".p12", "--out")
		case o.csr != "" && certOut == "":
			certOut, err = o.named(".pem", "--cert-out")
		}
		if err != nil {
			return files, err
		}
	}
	for _, want := range []struct {
		file *(*newFile)
		path string
		mode os.FileMode
	}{{&files.pkcs12, out, 0o600}, {&files.password, o.passwordFile, 0o400}, {&files.certificate, certOut, 0o644}} {
		if want.path == "" {
			continue
		}
		if *want.file, err = createNew(want.path, want.mode); err != nil {
			files.discard()
			return issueFiles{}, err
		}
	}
	return files, nil
}

// named makes a file name of the common name, if that is one on every system.
func (o *issueOptions) named(suffix, flag string) (string, error) {
	if o.cn == "" {
		return "", fmt.Errorf("%w: there is no name to call the file by: name it with %s", errUsage, flag)
	}
	plain := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	if len(o.cn) > 100 || strings.Trim(o.cn, plain) != "" || strings.ContainsRune(".-", rune(o.cn[0])) {
		return "", fmt.Errorf("%w: %q makes no good file name: name the file with %s", errUsage, o.cn, flag)
	}
	return o.cn + suffix, nil
}

func (f issueFiles) discard() {
	for _, file := range []*newFile{f.pkcs12, f.password, f.certificate} {
		file.discard()
	}
}

// issued is what the service answers.
type issued struct {
	Serial      string    `json:"serial"`
	Issuer      string    `json:"issuer"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Certificate string    `json:"certificate"`
	Chain       string    `json:"chain"`
	PKCS12      []byte    `json:"pkcs12"`
	Password    string    `json:"password"`
	RequestID   string    `json:"request_id"`
	RevokedAt   string    `json:"revoked_at"`
	Directory   struct {
		State string `json:"state"`
		Entry string `json:"entry"`
	} `json:"directory"`
}

// hand writes an answer to its files and prints the rest. After an error in which errUnsettled is, the
// same answer can be had again.
func (o *issueOptions) hand(w io.Writer, answer client.Answer, files issueFiles) error {
	var got issued
	if err := json.Unmarshal(answer.Detail, &got); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	if got.RevokedAt != "" || o.csr == "" && len(got.PKCS12) == 0 {
		if o.output == "json" {
			return errors.Join(printIssued(w, answer, files), errors.New(answer.Msg))
		}
		return fmt.Errorf("nothing was written: %s", answer.Msg)
	}
	err := errors.Join(
		files.pkcs12.fill(got.PKCS12),
		files.password.fill([]byte(got.Password+"\n")),
		files.certificate.fill([]byte(got.Certificate+got.Chain)))
	if err != nil {
		return fmt.Errorf("%w: certificate %s was issued, and not written: %w", errUnsettled, got.Serial, err)
	}
	if err := o.print(w, answer, got, files); err != nil {
		return fmt.Errorf("%w: certificate %s was issued, and the answer not printed: %w", errUnsettled, got.Serial, err)
	}
	return nil
}

func (o *issueOptions) print(w io.Writer, answer client.Answer, got issued, files issueFiles) error {
	if o.output == "json" {
		return printIssued(w, answer, files)
	}
	rows := [][2]string{
		{"serial", got.Serial}, {"issuer", got.Issuer}, {"not after", got.NotAfter.Format(time.RFC3339)}, {"request id", got.RequestID},
	}
	if got.Directory.Entry != "" {
		rows = append(rows, [2]string{"directory", got.Directory.State + " " + got.Directory.Entry})
	}
	if files.pkcs12 != nil {
		rows = append(rows, [2]string{"pkcs12", files.pkcs12.path})
	}
	if files.certificate != nil {
		rows = append(rows, [2]string{"certificate", files.certificate.path})
	}
	switch {
	case files.password != nil:
		rows = append(rows, [2]string{"password in", files.password.path})
	case got.Password != "":
		rows = append(rows, [2]string{"password", got.Password})
	}
	return printRows(w, answer.Msg, rows)
}

// printIssued does not show what has a file of its own mode to whoever reads the output.
func printIssued(w io.Writer, answer client.Answer, files issueFiles) (err error) {
	drop := map[string]bool{"pkcs12": files.pkcs12 != nil, "password": files.password != nil}
	if answer.Detail, err = without(answer.Detail, drop); err != nil {
		return err
	}
	return writeJSON(w, answer)
}

func (o *issueOptions) printPlan(w io.Writer, answer client.Answer) error {
	if o.output == "json" {
		return writeJSON(w, answer)
	}
	var got struct {
		issued
		LogIndex int `json:"log_index"`
		Plan     struct {
			Rule string `json:"rule"`
			SANs struct {
				DNS   []string `json:"dns"`
				IP    []string `json:"ip"`
				Email []string `json:"email"`
			} `json:"sans"`
			KeyType   string `json:"key_type"`
			Renews    string `json:"renews"`
			Attribute string `json:"attribute"`
		} `json:"plan"`
	}
	if err := json.Unmarshal(answer.Detail, &got); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	rows := [][2]string{
		{"rule", got.Plan.Rule}, {"issuer", got.Issuer}, {"key type", got.Plan.KeyType},
		{"not before", got.NotBefore.Format(time.RFC3339)}, {"not after", got.NotAfter.Format(time.RFC3339)},
	}
	sans := got.Plan.SANs
	if further := slices.Concat(sans.DNS, sans.IP, sans.Email); len(further) > 0 {
		rows = append(rows, [2]string{"names", strings.Join(further, " ")})
	}
	if got.Plan.Renews != "" {
		rows = append(rows, [2]string{"renews", got.Plan.Renews})
	}
	if got.Plan.Attribute != "" {
		rows = append(rows, [2]string{"directory", got.Plan.Attribute + " of " + got.Directory.Entry})
	}
	return printRows(w, answer.Msg, append(rows, [2]string{"plan", fmt.Sprintf("--planned %d", got.LogIndex)}))
}

// without leaves members out of an object.
func without(object json.RawMessage, drop map[string]bool) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, err
	}
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool { return drop[name] })
	return json.Marshal(members)
}
