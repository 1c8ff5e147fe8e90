package chancery_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompletion asks real shells what they offer behind a command line.
func TestCompletion(t *testing.T) {
	// Each gets the words as arguments, the last one unfinished, and prints what it would offer.
	shells := map[string]string{
		"bash": `source /usr/share/bash-completion/bash_completion; source <(chancery completion bash)
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMP_KEY=9
			compopt() { :; }; __start_chancery; printf '%s\n' "${COMPREPLY[@]}"`,
		"zsh": `autoload -U compinit; compinit -u -D; source <(chancery completion zsh)
			_describe() { print -l -- "${(M)completions[@]:#${words[-1]}*}" }; _arguments() { :; }; _files() { :; }
			words=("$@"); CURRENT=$#; _chancery`,
		"fish": `chancery completion fish | source; complete -C "$(string join ' ' -- $argv)"`,
	}
	bin := built(t, released)
	for shell, script := range shells {
		for line, want := range map[string]string{
			"issue --purpose ":      "caller server user",
			"issue --purpose s":     "server",
			"issue --key-type ":     "P-256 P-384 RSA-2048 RSA-3072",
			"status --output ":      "json table",
			"fsck ca --output ":     "json table",
			"revoke --reason a":     "aACompromise affiliationChanged",
			"revoke --reason key":   "keyCompromise",
			"chain --dir ca --purp": "--purpose",
			"rev":                   "revoke",
			"audit ":                "show verify",
		} {
			words := append([]string{"chancery"}, strings.Split(line, " ")...)
			args := []string{"-c", script, shell}
			if shell == "fish" {
				args = args[:2]
			}
			cmd := exec.Command(shell, append(args, words...)...)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+cmd.Dir)
			if err := os.WriteFile(filepath.Join(cmd.Dir, "some-file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s (make deps installs it, with bash-completion): %v\n%s", shell, err, out)
				continue
			}
			var got []string
			for offer := range strings.Lines(string(out)) {
				// A description stands behind the word, apart in each shell's own way.
				if word, _, _ := strings.Cut(strings.NewReplacer("\t", " ", ":", " ").Replace(offer), " "); strings.TrimSpace(word) != "" {
					got = append(got, strings.TrimSpace(word))
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != want {
				t.Errorf("%s offers %q behind %q, want %q", shell, got, line, want)
			}
		}
	}
}
