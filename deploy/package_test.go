package deploy_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackagesAreClean: Debian's own checker finds nothing in them.
func TestPackagesAreClean(t *testing.T) {
	t.Parallel()
	debs, err := filepath.Glob(filepath.Join(built(t), "*.deb"))
	if err != nil || len(debs) != 2 {
		t.Fatalf("%v %v", debs, err)
	}
	out, err := exec.CommandContext(t.Context(), "lintian", append([]string{"--allow-root", "--fail-on", "error,warning"}, debs...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "W:") || strings.Contains(string(out), "E:") {
		t.Errorf("%v\n%s", err, out)
	}
}
