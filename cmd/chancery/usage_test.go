package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestMistakes makes each mistake on a command line that people make, and looks for what they have to know.
func TestMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"revok --dir ca bob":                         `there is no command "revok"; did you mean revoke?`,
		"audit shwo --dir ca":                        `there is no command "shwo"; did you mean show?`,
		"frobnicate":                                 `there is no command "frobnicate"; chancery --help tells which there are`,
		"--frobnicate":                               "unknown flag: --frobnicate",
		"issue --dir ca --purpose user":              "got 0 arguments, want 1: chancery issue NAME; chancery issue --help tells more",
		"restore night.age":                          "got 1 arguments, want 2: chancery restore FILE DIR",
		"audit verify ca":                            "chancery audit verify takes no argument; --dir DIR names the installation",
		"find --dir ca alice":                        "chancery find takes no argument; --name NAME is the common name",
		"status alice":                               "say which service: --dir DIR for one on this machine, or --url, --cert, --key and --trust",
		"status --url https://ca alice":              "missing [cert key trust]",
		"status --dir= alice":                        "--dir is empty",
		"status --dir ca -o xml alice":               `--output is table or json, not "xml"`,
		"init ca --domain=":                          "--domain is empty; leave it out instead",
		"caller add ca hr --spki=":                   "--spki is empty",
		"caller add ca hr --method=":                 "--method is empty",
		"caller add ca hr --max 0":                   "--max is 1 or more; leave it out instead",
		"caller add ca hr --per-hour 0":              "--per-hour is 1 or more",
		"caller add ca hr --max-days 0":              "--max-days is 1 or more",
		"caller rotate ca hr --csr=":                 "--csr is empty",
		"audit show --dir ca --cn=":                  "--cn is empty",
		"find --dir ca --limit x":                    `--limit: "x" is not a whole number`,
		"find --dir ca --limit 99999999999999999999": `--limit: "99999999999999999999" is too large`,
		"caller add ca hr --max x":                   `--max: "x" is not a whole number`,
		"caller add ca hr --key-of /dev/zero":        "reading /dev/zero: it has more than 262144 octets",
		"issue --dir ca --plan=perhaps":              `--plan: "perhaps" is neither true nor false`,
		"issue --dir ca alice":                       "--purpose is needed: user, server or caller",
		"revoke --dir ca alice --days 1":             "unknown flag: --days",
	} {
		root := newCommand()
		root.SetArgs(strings.Fields(line))
		root.SetOut(io.Discard)
		if err := root.Execute(); err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("chancery %s: %v\nwant %s", line, err, want)
		}
	}
}

// TestExpiringCounts: one is one, and none is said too.
func TestExpiringCounts(t *testing.T) {
	one := json.RawMessage(`{"cn": "alice", "purpose": "user", "serial": "1f", "not_after": "2027-01-01T00:00:00Z"}`)
	for want, all := range map[string][]json.RawMessage{"0 certificates\n": nil, "\n1 certificate\n": {one}, "\n2 certificates\n": {one, one}} {
		var out strings.Builder
		if err := printExpiring(&out, all, time.Now()); err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%v\n%swant %s", err, &out, want)
		}
	}
}

// TestFlagsNameTheirValues: a help says what a value is, and not of which type Go has it.
func TestFlagsNameTheirValues(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if value, usage := pflag.UnquoteUsage(f); value == strings.ToLower(value) && value != "" {
				t.Errorf("%s --%s %s: %s", cmd.CommandPath(), f.Name, value, usage)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newCommand())
}
