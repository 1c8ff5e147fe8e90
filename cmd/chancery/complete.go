package main

import (
	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca/cert"
)

// complete offers these values for a flag and no file names. It does nothing for a flag that is not there.
func complete(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// completeDir offers folders for a flag.
func completeDir(cmd *cobra.Command, flag string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, folders)
}

// folders offers folders, for a flag or for the one argument of a command.
func folders(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func purposeFlag(cmd *cobra.Command, purpose *string, usage string) {
	cmd.Flags().StringVar(purpose, "purpose", "", usage)
	var names []cobra.Completion
	for _, p := range cert.Purposes() {
		names = append(names, string(p))
	}
	complete(cmd, "purpose", names...)
}

func completeKeyTypes(cmd *cobra.Command) {
	var kinds []cobra.Completion
	for _, k := range cert.SubjectKeyTypes() {
		kinds = append(kinds, string(k))
	}
	complete(cmd, "key-type", kinds...)
}

func completeReasons(cmd *cobra.Command) {
	var reasons []cobra.Completion
	for _, r := range cert.Reasons() {
		reasons = append(reasons, r.String())
	}
	complete(cmd, "reason", reasons...)
}
