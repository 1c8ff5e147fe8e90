package site

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNamesAreTakenBack: the last name cannot be had, so the first one is given up, and nobody else's is.
func TestNamesAreTakenBack(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, folder := range []string{"draft1", "draft2", "taken", "taken/by somebody"} {
		if err := os.Mkdir(path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	err := giveNames([]drafted{{path("draft1"), path("state")}, {path("draft2"), path("taken")}})
	if err == nil {
		t.Error("a folder of somebody else's was replaced")
	}
	left, _ := filepath.Glob(path("*"))
	if len(left) != 2 || left[0] != path("draft2") || left[1] != path("taken") {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(path("taken/by somebody")); err != nil {
		t.Error(err)
	}
}
