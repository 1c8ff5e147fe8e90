package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManPages has groff set every page, and looks for every option in what a reader sees.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	root := newCommand()
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		pages++
		text := set(t, filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		want := []string{cmd.Short, strings.Fields(cmd.Use)[0]}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			want = append(want, "--"+f.Name+" "+value, usage)
		})
		want = append(want, strings.Split(cmd.Example, "\n")...)
		for _, w := range want {
			if w = strings.Join(strings.Fields(w), " "); !strings.Contains(text, w) {
				t.Errorf("%s does not say %q:\n%s", cmd.CommandPath(), w, text)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	if files, err := os.ReadDir(dir); err != nil || len(files) != pages || pages < 12 {
		t.Errorf("%d pages for %d commands: %v", len(files), pages, err)
	}
}

// set gives the words of a page as groff sets it on long lines. A warning is an error.
func set(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.Command("groff", "-man", "-Tutf8", "-P-cbou", "-rLL=2000n", "-rHY=0", "-ww", path)
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Errorf("groff %s (make deps installs it): %v\n%s", path, err, warnings.String())
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// TestRoff: whatever a text holds, a page shows it and obeys nothing in it.
func TestRoff(t *testing.T) {
	hostile := "a -b\n.so /etc/passwd\n'so /etc/passwd\n\\n(.x \\X'y' ^~`-'\n..\n"
	path := filepath.Join(t.TempDir(), "x.1")
	page := ".TH X 1\n.SH NAME\n" + roff(hostile) + "\n"
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, want := set(t, path), strings.Join(strings.Fields(hostile), " "); !strings.Contains(text, want) {
		t.Errorf("groff shows %q, want %q in it", text, want)
	}
}
