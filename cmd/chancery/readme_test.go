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
	root := newCommand()
	visit(root)
	for _, group := range root.Groups() {
		title := strings.ToLower(strings.TrimSuffix(group.Title, ":"))
		if !strings.Contains(string(readme), "\n| "+title+" | |\n") {
			t.Errorf("README.md has no table %q", title)
		}
	}
}
