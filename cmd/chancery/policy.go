package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/site"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Tell what the grants in the configuration allow, and why", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(policyExplainCommand(), policyTestCommand(), policyWhoCouldCommand(), policyReplayCommand())
	return cmd
}

// questionFlags adds what a call would be about.
func questionFlags(cmd *cobra.Command, q *rpc.Question) {
	f := cmd.Flags()
	f.StringVar(&q.CN, "cn", "", "common name `NAME`; ca.chain has none")
	f.StringArrayVar(&q.SANs.Email, "email", nil, "further name: mail address `ADDRESS`; can be repeated")
	f.StringArrayVar(&q.SANs.DNS, "dns", nil, "further name: host name `HOST`; can be repeated")
	f.StringArrayVar(&q.SANs.IP, "ip", nil, "further name: IP address `ADDRESS`; can be repeated")
	f.IntVar(&q.ValidDays, "days", 0, "validity of `N` days, for ca.issue and ca.renew; 0: none is asked for")
	f.StringVar(&q.Owner, "owner", "", "`CALLER` that asked for the certificate which it is about; without it that hinders nobody")
	f.IntVar(&q.Certificates, "certificates", 0, "`N` certificates that the call hits, for those that revoke, hold or release")
	f.StringVar(&q.KeyType, "key-type", "", "`TYPE` of the certificate's key, for ca.issue and ca.renew: P-256, P-384, RSA-2048 or RSA-3072")
	f.StringVar(&q.Reason, "reason", "", "`REASON` of a ca.revoke or ca.retire, as RFC 5280 names it")
	f.StringVar(&q.Purpose, "purpose", "", "what the certificate is for, `PURPOSE`: user, server or caller")
	for _, name := range []string{"cn", "email", "dns", "ip", "owner", "certificates"} {
		complete(cmd, name)
	}
	for _, m := range slices.Concat(paramsOf("ca.issue"), paramsOf("ca.revoke")) {
		complete(cmd, m.Flag, m.Values...)
	}
}

func methodFlag(cmd *cobra.Command, method *string, usage string) {
	cmd.Flags().StringVar(method, "method", "", usage)
	complete(cmd, "method", rpc.Methods()...)
}

// asked makes a question that cannot be asked a usage error.
func asked(err error) error {
	var malformed *rpc.ConfigError
	if errors.As(err, &malformed) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}

// errNotAllowed says that the policy refuses; why has been printed.
var errNotAllowed = errors.New("not allowed")

func policyExplainCommand() *cobra.Command {
	var q rpc.Question
	var output string
	cmd := &cobra.Command{
		Use:   "explain DIR --caller CALLER --method METHOD --purpose PURPOSE --cn NAME",
		Short: "Tell whether a caller may do something, and what each of its grants says",
		Long: `Tell whether the grants in the chancery.yaml of DIR, which can be the file itself, allow CALLER a call, and by
which rule; and for each grant of CALLER how far it goes along: at the method, the purpose, the name, the owner, the
further names or a bound it stops. What is not said, such as who asked for the certificate, hinders nobody, but for
the reason, which is then the method's default as in a call; how many calls an hour are left only the service knows.

It is the code by which the service decides, on the file as it is now; the service is not asked, and no file that is
named there is read. What the CA and the key room refuse for reasons of their own is not looked at.

Exit code 0 if it is allowed, 1 if it is refused.`,
		Example: `  chancery policy explain ca --caller hr --method ca.issue --purpose user --cn alice --email alice@example.org
  chancery policy explain ca --caller helpdesk --method ca.revoke --purpose server --cn www.example.org -o json`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Caller == "" || q.Method == "" || q.Purpose == "" {
				return fmt.Errorf("%w: --caller, --method and --purpose are needed", errUsage)
			}
			policy, err := site.LoadPolicy(configFile(args[0]))
			if err != nil {
				return err
			}
			decision, err := policy.Explain(q)
			if err != nil {
				return asked(err)
			}
			return printDecision(cmd.OutOrStdout(), decision, output)
		},
	}
	cmd.Flags().StringVar(&q.Caller, "caller", "", "`CALLER` in the configuration")
	complete(cmd, "caller")
	methodFlag(cmd, &q.Method, "`METHOD` that it would call, such as ca.issue")
	questionFlags(cmd, &q)
	outputFlag(cmd, &output)
	return cmd
}

func printDecision(w io.Writer, d rpc.Decision, output string) error {
	if output == "json" {
		if err := writeJSON(w, d); err != nil {
			return err
		}
	} else if err := writeDecision(w, d); err != nil {
		return err
	}
	if !d.Allowed {
		return errNotAllowed
	}
	return nil
}

func writeDecision(w io.Writer, d rpc.Decision) error {
	fmt.Fprintln(w, line(decided(d)))
	var rows [][]string
	for _, v := range d.Grants {
		row := []string{"  " + v.Rule, "allows it", ""}
		if !v.Allowed {
			row = []string{"  " + v.Rule, "stops at " + v.Fails, line(v.Reason)}
		}
		rows = append(rows, row)
	}
	return writeTable(w, rows)
}

func decided(d rpc.Decision) string {
	if d.Allowed {
		return "allowed by rule " + d.Rule
	}
	return "refused (" + d.Code + "): " + d.Reason
}

func policyTestCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "test DIR FILE",
		Short: "Compare what the grants allow with a list of expected decisions",
		Long: `Compare what the grants in the chancery.yaml of DIR, which can be the file itself, decide with what FILE
expects, and show each decision that differs and why. FILE is a list in YAML, as strict as chancery.yaml:

  - caller: hr
    method: ca.issue
    purpose: user
    cn: alice
    email: [alice@example.org]   # also dns and ip; optional
    want: allow                  # or refuse
    rule: hr/2                   # that allows it; optional

A decision can also have key_type, valid_days, reason, owner and certificates, as policy explain has them. Nothing
is asked over the network. Exit code 1 if a decision differs, 2 if FILE or the configuration is wrong.`,
		Args: exactly(2, "DIR FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := site.LoadPolicy(configFile(args[0]))
			if err != nil {
				return err
			}
			report, err := site.TestPolicy(policy, args[1])
			if err != nil {
				return err
			}
			return printPolicyTest(cmd.OutOrStdout(), report, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func printPolicyTest(w io.Writer, report site.PolicyReport, output string) error {
	if output == "json" {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		for _, d := range report.Differs {
			fmt.Fprintf(w, "%s:%d: %s: want %s, but it is ", line(d.File), d.Line, line(d.Asked), line(d.Want))
			if err := writeDecision(w, d.Decision); err != nil {
				return err
			}
		}
		fmt.Fprintf(w, "decisions: %d, as expected: %d\n", report.Tests, report.Tests-len(report.Differs))
	}
	if n := len(report.Differs); n > 0 {
		return fmt.Errorf("decisions that differ: %d", n)
	}
	return nil
}

func policyWhoCouldCommand() *cobra.Command {
	var q rpc.Question
	var output string
	cmd := &cobra.Command{
		Use:   "who-could DIR --purpose PURPOSE --cn NAME",
		Short: "List the callers that could get or touch a certificate, and by which rules",
		Long: `List each caller and method for which the grants in the chancery.yaml of DIR, which can be the file itself,
allow a certificate for NAME, and every rule that allows it. Without --method all methods that concern a name are
looked at; further names count for ca.issue and ca.renew only. What is not said hinders nobody. Nothing is asked
over the network.

Exit code 0 also if nobody could, 1 if no certificate can have the name.`,
		Example: `  chancery policy who-could ca --purpose server --cn www.example.org --dns example.org
  chancery policy who-could ca --purpose caller --cn provisioning --method ca.issue`,
		Args: exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Purpose == "" || q.CN == "" && q.Method == "" {
				return fmt.Errorf("%w: --purpose and --cn are needed", errUsage)
			}
			policy, err := site.LoadPolicy(configFile(args[0]))
			if err != nil {
				return err
			}
			could, err := policy.WhoCould(q)
			if err != nil {
				return asked(err)
			}
			return printWhoCould(cmd.OutOrStdout(), could, output)
		},
	}
	methodFlag(cmd, &q.Method, "only the `METHOD`, such as ca.issue")
	questionFlags(cmd, &q)
	outputFlag(cmd, &output)
	return cmd
}

func printWhoCould(w io.Writer, could []rpc.Permission, output string) error {
	if output == "json" {
		return writeJSON(w, could)
	}
	if len(could) == 0 {
		fmt.Fprintln(w, "nobody")
		return nil
	}
	rows := [][]string{{"CALLER", "METHOD", "RULE"}}
	for _, one := range could {
		rows = append(rows, []string{one.Caller, one.Method, one.Rule})
	}
	return writeTable(w, rows)
}
