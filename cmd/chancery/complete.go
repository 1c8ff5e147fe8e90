package main

import "github.com/spf13/cobra"

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
