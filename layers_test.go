// Package chancery_test holds the rules that bind all packages.
package chancery_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/chancery-ca/chancery"

// floors gives every package its floor. A package imports only lower floors; packages on one floor do
// not know each other. The one exception is a command, which imports what it runs.
func floors() map[string]int {
	return map[string]int{
		"ca/cert": 0, "ca/name": 1, "crashpoint": 0, "credential": 0, "docs": 0, "nodump": 0, "sdnotify": 0, "rpc/xmlrpc": 0, "rpc/client": 0,
		"audit": 1, "ca/profile": 1, "crl/list": 1,
		"ca/signer": 2, "store": 2, "crl/gitrepo": 2,
		"ca": 3, "crl": 3, "ldapsync": 3, "ca/keyroom": 3,
		"rpc":  4,
		"site": 6, "audit/review": 5,
		"cmd/chancery": 7, "cmd/chanceryd": 7, "cmd/chancery-keyroom": 7, "cmd/crlcheck": 7, "scripts/demo": 7, "bench": 7, "docs/clients": 7,
	}
}

// keyRoomModules are the only third-party packages in the key room.
func keyRoomModules() []string {
	return []string{"golang.org/x/mod/sumdb/note", "golang.org/x/mod/sumdb/tlog", "golang.org/x/crypto/"}
}

// imports reads the import paths of every package of the module, test files apart. It parses the
// sources: go list would be answered from the test cache and miss a change.
func imports(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := make(map[string]map[string]bool)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(p))
		if found[pkg] == nil {
			found[pkg] = make(map[string]bool)
		}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			found[pkg][name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFloors(t *testing.T) {
	floor := floors()
	found := imports(t)
	for pkg, names := range found {
		own, ok := floor[pkg]
		if !ok {
			t.Errorf("%s has no floor: give it one in this test", pkg)
			continue
		}
		for name := range names {
			below, ok := strings.CutPrefix(name, module+"/")
			if !ok {
				continue
			}
			if theirs, ok := floor[below]; !ok || theirs >= own {
				t.Errorf("%s (floor %d) imports %s (floor %d)", pkg, own, below, theirs)
			}
		}
	}
	for pkg := range floor {
		if found[pkg] == nil {
			t.Errorf("%s has a floor and no code", pkg)
		}
	}
}

// TestWall checks that CA keys are out of reach of everything but the key room, and that hardly
// anything is within reach of them.
func TestWall(t *testing.T) {
	found := imports(t)
	for pkg, names := range found {
		if names[module+"/ca/keyroom"] && pkg != "cmd/chancery-keyroom" {
			t.Errorf("%s imports the key room", pkg)
		}
	}
	seen := make(map[string]bool)
	var visit func(pkg string)
	visit = func(pkg string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		for name := range found[pkg] {
			if below, ok := strings.CutPrefix(name, module+"/"); ok {
				visit(below)
				continue
			}
			if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") && !allowed(name, keyRoomModules()) {
				t.Errorf("the key room links %s, by way of %s", name, pkg)
			}
			if name == "net/http" || name == "os/exec" || name == "unsafe" {
				t.Errorf("the key room imports %s, by way of %s", name, pkg)
			}
		}
	}
	visit("cmd/chancery-keyroom")
	if seen["store"] || seen["rpc"] || !seen["ca/keyroom"] {
		t.Errorf("the key room reaches %v", seen)
	}
}

func allowed(name string, list []string) bool {
	for _, a := range list {
		if name == a || strings.HasSuffix(a, "/") && strings.HasPrefix(name, a) {
			return true
		}
	}
	return false
}

// TestOwnCodec checks that the XML-RPC codec and the Go client stand alone, so that others can read and
// import them.
func TestOwnCodec(t *testing.T) {
	for pkg, names := range imports(t) {
		if pkg != "rpc/xmlrpc" && pkg != "rpc/client" {
			continue
		}
		for name := range names {
			if strings.Contains(strings.SplitN(name, "/", 2)[0], ".") {
				t.Errorf("%s imports %s", pkg, name)
			}
		}
	}
}

// TestSmallChecker checks that what hosts run reads lists and nothing else of ours, and has no way to the
// network.
func TestSmallChecker(t *testing.T) {
	found := imports(t)
	for name := range found["cmd/crlcheck"] {
		below, ours := strings.CutPrefix(name, module+"/")
		switch {
		case ours && below != "crl/list" && below != "ca/cert",
			!ours && strings.Contains(strings.SplitN(name, "/", 2)[0], "."),
			name == "net" || strings.HasPrefix(name, "net/") || name == "os/exec":
			t.Errorf("cmd/crlcheck imports %s", name)
		}
	}
}
