package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc/client"
)

// revokeOptions is a command line of chancery revoke, or of one of its kin.
type revokeOptions struct {
	service
	method  string
	done    string // the member of the answer that names what was hit
	members members
	cn      string
}

func revokeCommand() *cobra.Command {
	o := revokeOptions{method: "ca.revoke", done: "revoked"}
	cmd := &cobra.Command{
		Use:   "revoke (--dir DIR | --url URL) (NAME | --serial HEX)",
		Short: "Revoke a certificate, or all of a name",
		Long: `Ask the running service to revoke all certificates for NAME, or the one with a serial number. With exit
code 0 the revocation is durable; what is printed says whether the list in git holds it already.

The call has a request id: made again with it, nothing is done twice. If no answer comes that happens by
itself; if it stays unknown how the call ended, the exit code is 3 and the message is the command to ask
again.`,
		Example: `  chancery revoke --dir ca bob --purpose user --reason keyCompromise
  chancery revoke --dir ca --serial 288a308008211dda38cfaa4873028613 --plan`,
	}
	o.flags(cmd)
	return cmd
}

const changesOnce = `
The call has a request id, as in chancery revoke: made again with it, nothing is done twice.`

func holdCommand() *cobra.Command {
	o := revokeOptions{method: "ca.hold", done: "held"}
	cmd := &cobra.Command{
		Use:   "hold (--dir DIR | --url URL) (NAME | --serial HEX)",
		Short: "Revoke a certificate for as long as a doubt lasts",
		Long: `Ask the running service to put all certificates for NAME, or the one with a serial number, on hold: they are
revoked until chancery release. chancery revoke makes it final.
` + changesOnce,
		Example: "  chancery hold --dir ca bob --purpose user",
	}
	o.flags(cmd)
	return cmd
}

func releaseCommand() *cobra.Command {
	o := revokeOptions{method: "ca.release", done: "released"}
	cmd := &cobra.Command{
		Use:   "release (--dir DIR | --url URL) (NAME | --serial HEX)",
		Short: "Take a certificate off hold",
		Long: `Ask the running service to take all certificates for NAME, or the one with a serial number, off hold: they
are live again, and the next list leaves them out. No other revocation ends.
` + changesOnce,
		Example: "  chancery release --dir ca bob --purpose user",
	}
	o.flags(cmd)
	return cmd
}

func retireCommand() *cobra.Command {
	o := revokeOptions{method: "ca.retire", done: "retired"}
	cmd := &cobra.Command{
		Use:   "retire (--dir DIR | --url URL) NAME",
		Short: "Revoke everything that a person or a machine has",
		Long: `Ask the running service to revoke all certificates for NAME, of every purpose that the caller may retire, up
to 1000.
` + changesOnce,
		Example: "  chancery retire --dir ca bob",
	}
	o.flags(cmd)
	return cmd
}

// flags adds what all of them take.
func (o *revokeOptions) flags(cmd *cobra.Command) {
	cmd.Args, cmd.ValidArgsFunction = cobra.ArbitraryArgs, cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if o.cn, err = oneName(cmd, args, o.members.text("serial")); err != nil {
			return err
		}
		return o.run(cmd.Context(), cmd.OutOrStdout())
	}
	o.service.flags(cmd)
	o.members = memberFlags(cmd, o.method)
	if o.members["serial"] != nil {
		cmd.MarkFlagsMutuallyExclusive("serial", "purpose")
	}
}

// oneName gives the name in the arguments, which are one, or none if something else selects.
func oneName(cmd *cobra.Command, args []string, others ...string) (string, error) {
	given := len(args)
	for _, other := range others {
		if other != "" {
			given++
		}
	}
	if given != 1 {
		return "", fmt.Errorf("%w: say which certificates, in one way: %s", errUsage, cmd.UseLine())
	}
	if len(args) == 0 {
		return "", nil
	}
	return args[0], nil
}

func (o *revokeOptions) run(ctx context.Context, w io.Writer) error {
	params := o.members.params()
	requestID, err := requestIDIn(params)
	if err != nil {
		return err
	}
	if o.cn != "" {
		params["cn"] = o.cn
	}
	if err := o.open(); err != nil {
		return err
	}
	again := sameCommand(requestID)
	answer, err := o.ask(ctx, o.method, params, again)
	if err != nil {
		return errors.Join(printRefusal(w, answer, o.output), err)
	}
	if o.output == "json" {
		err = writeJSON(w, answer)
	} else {
		err = o.print(w, answer)
	}
	if err != nil {
		return fmt.Errorf("%w: the call was carried out; for the answer ask again: %s", err, again)
	}
	return nil
}

// listState is how far a list is.
type listState struct {
	Issuer string `json:"issuer"`
	Number string `json:"number"`
	State  string `json:"state"`
	Commit string `json:"commit"`
}

func (l listState) String() string {
	text := fmt.Sprintf("%s number %s %s", l.Issuer, l.Number, l.State)
	if l.Commit != "" {
		text += " in commit " + l.Commit
	}
	return text
}

func (o *revokeOptions) print(w io.Writer, answer client.Answer) error {
	var done struct {
		Code      string      `json:"code"`
		RequestID string      `json:"request_id"`
		LogIndex  int         `json:"log_index"`
		CRL       []listState `json:"crl"`
	}
	var members map[string]json.RawMessage
	var hit []struct {
		Serial  string `json:"serial"`
		CN      string `json:"cn"`
		Purpose string `json:"purpose"`
	}
	err := errors.Join(json.Unmarshal(answer.Detail, &done), json.Unmarshal(answer.Detail, &members))
	if err == nil {
		err = json.Unmarshal(members[o.done], &hit)
	}
	if err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	var rows [][2]string
	for _, c := range hit {
		rows = append(rows, [2]string{"certificate", c.Serial + " " + c.Purpose + " " + c.CN})
	}
	for _, l := range done.CRL {
		rows = append(rows, [2]string{"list", l.String()})
	}
	if strings.HasPrefix(done.Code, "plan.") {
		return printRows(w, answer.Msg, append(rows, [2]string{"plan", fmt.Sprintf("--planned %d", done.LogIndex)}))
	}
	return printRows(w, answer.Msg, append(rows, [2]string{"request id", done.RequestID}))
}
