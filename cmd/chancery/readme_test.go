package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestReadmeHasEveryCommand: a stranger finds each command in the table of README.md.
func TestReadmeHasEveryCommand(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			for _, below := range cmd.Commands() {
				visit(below)
			}
			return
		}
		if !strings.Contains(string(readme), "| `"+cmd.CommandPath()+"` |") {
			t.Errorf("README.md has no row for %s: %s", cmd.CommandPath(), cmd.Short)
		}
	}
	visit(newCommand())
}
