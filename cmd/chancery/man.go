package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages of all commands",
		Long: `Write the manual pages of all commands into the folder DIR, which is made if it is not there, one file
chancery-COMMAND.1 for each. Pages of the same names are replaced.`,
		Example: `  chancery man man && man -l man/chancery-issue.1`,
		Args:    exactly(1, "DIR"), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writePages(args[0], cmd.Root())
		},
	}
}

// writePages writes the page of a command, and of all below it that are in its help.
func writePages(dir string, cmd *cobra.Command) error {
	page := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	if err := os.WriteFile(filepath.Join(dir, page), []byte(manPage(cmd)), 0o644); err != nil {
		return err
	}
	for _, sub := range documented(cmd) {
		if err := writePages(dir, sub); err != nil {
			return err
		}
	}
	return nil
}

func documented(cmd *cobra.Command) []*cobra.Command {
	var subs []*cobra.Command
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			subs = append(subs, sub)
		}
	}
	return subs
}

// manPage is a page of section 1 in the man macros, which every formatter knows.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"chancery %s\" \"Chancery\"\n", roff(strings.ToUpper(name)), roff(cmd.Root().Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(name), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n%s\n", roff(cmd.UseLine()))
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	b.WriteString(".SH DESCRIPTION\n")
	paragraphs(&b, about)
	options(&b, "OPTIONS", cmd.NonInheritedFlags())
	options(&b, "OPTIONS OF ALL COMMANDS", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	if cmd.HasParent() {
		b.WriteString(".SH EXIT STATUS\n")
		paragraphs(&b, exitCodes)
	}
	seeAlso(&b, cmd)
	return b.String()
}

// paragraphs keeps indented lines as they are and fills the others.
func paragraphs(b *strings.Builder, text string) {
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if block = strings.ReplaceAll(block, "\t", "    "); strings.HasPrefix(block, "  ") {
			fmt.Fprintf(b, ".nf\n%s\n.fi\n", roff(block))
			continue
		}
		fmt.Fprintln(b, roff(block))
	}
}

func options(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		words := "\\fB\\-\\-" + roff(f.Name) + "\\fR"
		if f.Shorthand != "" {
			words = "\\fB\\-" + roff(f.Shorthand) + "\\fR, " + words
		}
		if value != "" {
			words += " \\fI" + roff(value) + "\\fR"
		}
		if f.Value.Type() == "string" && f.DefValue != "" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", words, roff(usage))
	})
}

func seeAlso(b *strings.Builder, cmd *cobra.Command) {
	others := documented(cmd)
	if cmd.HasParent() {
		others = append([]*cobra.Command{cmd.Parent()}, others...)
	}
	if len(others) == 0 {
		return
	}
	b.WriteString(".SH SEE ALSO\n")
	for i, other := range others {
		end := ","
		if i == len(others)-1 {
			end = ""
		}
		fmt.Fprintf(b, "\\fB%s\\fR(1)%s\n", roff(strings.ReplaceAll(other.CommandPath(), " ", "-")), end)
	}
}

// roff escapes text: a dash is one that can be copied, and no line is a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
