package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// revokeOptions is a command line of chancery revoke.
type revokeOptions struct {
	service
	cn, purpose, serial, reason, requestID string
	max                                    int
	plan                                   bool
}

func revokeCommand() *cobra.Command {
	var o revokeOptions
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
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.cn, err = oneName(cmd, args, o.serial); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.serial, "serial", "", "revoke the certificate with the serial number `HEX`")
	purposeFlag(cmd, &o.purpose, "only certificates for `PURPOSE`: user, server or caller; without it all that the caller may revoke")
	f.StringVar(&o.reason, "reason", "", "`REASON` as RFC 5280 names it, for instance keyCompromise; without it unspecified")
	f.IntVar(&o.max, "max", 0, "refuse if this hits more than `N` certificates; 0 is 10, at most 1000")
	f.StringVar(&o.requestID, "request-id", "", "`ID` of the call, 1 to 128 of A-Z a-z 0-9 . _ : -; without it one is made")
	f.BoolVar(&o.plan, "plan", false, "say what would happen; nothing is revoked")
	var reasons []cobra.Completion
	for _, r := range cert.Reasons() {
		reasons = append(reasons, r.String())
	}
	complete(cmd, "reason", reasons...)
	for _, name := range []string{"serial", "max", "request-id"} {
		complete(cmd, name)
	}
	cmd.MarkFlagsMutuallyExclusive("serial", "purpose")
	return cmd
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
	if o.requestID == "" {
		var err error
		if o.requestID, err = newRequestID(); err != nil {
			return err
		}
	}
	params := map[string]any{"request_id": o.requestID}
	for name, value := range map[string]string{"cn": o.cn, "serial": o.serial, "purpose": o.purpose, "reason": o.reason} {
		if value != "" {
			params[name] = value
		}
	}
	if o.max != 0 {
		params["max"] = o.max
	}
	if o.plan {
		params["plan"] = true
	}
	if err := o.open(); err != nil {
		return err
	}
	answer, err := o.ask(ctx, "ca.revoke", params, sameCommand(o.requestID))
	if err != nil {
		return errors.Join(printRefusal(w, answer, o.output), err)
	}
	if o.output == "json" {
		return writeJSON(w, answer)
	}
	return printRevoked(w, answer)
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

func printRevoked(w io.Writer, answer client.Answer) error {
	var done struct {
		RequestID string `json:"request_id"`
		Revoked   []struct {
			Serial  string `json:"serial"`
			CN      string `json:"cn"`
			Purpose string `json:"purpose"`
		} `json:"revoked"`
		CRL []listState `json:"crl"`
	}
	if err := json.Unmarshal(answer.Detail, &done); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	var rows [][2]string
	for _, c := range done.Revoked {
		rows = append(rows, [2]string{"certificate", c.Serial + " " + c.Purpose + " " + c.CN})
	}
	for _, l := range done.CRL {
		rows = append(rows, [2]string{"list", l.String()})
	}
	return printRows(w, answer.Msg, append(rows, [2]string{"request id", done.RequestID}))
}
