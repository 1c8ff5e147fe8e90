package site

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A check that panics, one that fails and one that does not end are findings, and the others are made.
func TestChecksThatGoWrong(t *testing.T) {
	t.Parallel()
	e, err := Doctor{Dir: t.TempDir(), Now: time.Now, Limit: 10 * time.Millisecond}.examination(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	var nobody *examination
	for want, look := range map[string]func(*examination, context.Context) ([]Finding, error){
		"check.failed a fault in this program": func(*examination, context.Context) ([]Finding, error) {
			return []Finding{nobody.find("config", "", "")}, nil
		},
		"check.failed permission to fail": func(*examination, context.Context) ([]Finding, error) { return nil, errString("permission to fail") },
		"check.denied open /x": func(*examination, context.Context) ([]Finding, error) {
			return nil, &os.PathError{Op: "open", Path: "/x", Err: os.ErrPermission}
		},
		"check.slow it took longer than 10ms": func(*examination, context.Context) ([]Finding, error) { <-forever; return nil, nil },
		"owed what it has found when time is up": func(e *examination, ctx context.Context) ([]Finding, error) {
			<-ctx.Done()
			return []Finding{e.find("owed", "x", "what it has found when time is up")}, nil
		},
	} {
		found := e.perform(t.Context(), check{name: "x", look: look})
		if len(found) != 1 || !strings.HasPrefix(found[0].Code+" "+found[0].Reason, want) || found[0].Fix == "" || found[0].Severity == "" {
			t.Errorf("%s: %+v", want, found)
		}
	}
}

type errString string

func (e errString) Error() string { return string(e) }

func TestSwapDevices(t *testing.T) {
	t.Parallel()
	const head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for text, want := range map[string][]string{
		"": nil, head: nil,
		head + "/dev/zram0                              partition\t8\t0\t100\n":                        nil,
		head + "/dev/sda2  partition\t8\t0\t-2\n/swapfile file 8 0 -3\n/dev/zram0 partition 1 0 100\n": {"/dev/sda2", "/swapfile"},
	} {
		if got := swapDevices(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Every code that the sources name is known, every known one is named, and docs/DOCTOR.md says of each
// what the program says.
func TestDoctorCodes(t *testing.T) {
	t.Parallel()
	sources, err := filepath.Glob("doctor*.go")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile(`"((?:config|owed|(?:check|service|store|room|clock|owed|key|split|offline|mode|disk|directory|git|unit|host)\.[a-z_]+))"`)
	used := map[string]bool{
		codeExpiryService: true, codeExpiryCaller: true, codeExpiryForeign: true, codeExpiryIssuer: true,
		codeExpiryRoot: true, codeExpiryRootList: true, codeExpiryList: true,
	}
	for _, source := range sources {
		if source == "doctorcodes.go" || strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range quoted.FindAllStringSubmatch(string(text), -1) {
			used[match[1]] = true
		}
	}
	doc, err := os.ReadFile("../docs/DOCTOR.md")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	var table strings.Builder
	for _, c := range findingKinds() {
		if known[c.code] {
			t.Errorf("%s is there twice", c.code)
		}
		known[c.code] = true
		if !used[c.code] {
			t.Errorf("%s is never said", c.code)
		}
		table.WriteString(documented(c))
	}
	for code := range used {
		if !known[code] && !strings.HasSuffix(code, ".key") && !strings.HasSuffix(code, ".pem") && !strings.HasSuffix(code, ".crl") {
			t.Errorf("%s is said, and not known", code)
		}
	}
	if !strings.Contains(string(doc), "|---|---|---|---|\n"+table.String()+"\n") {
		t.Errorf("docs/DOCTOR.md has to have these lines:\n%s", &table)
	}
}

func documented(c findingKind) string {
	severity := string(c.severity)
	if severity == "" {
		severity = "by time"
	}
	if c.contradiction {
		severity += ", exit code 4"
	}
	fix := strings.NewReplacer("{dir}", "DIR", "{store}", "STORE", "{room}", "ROOM", "{subject}", "SUBJECT", "|", `\|`).Replace(c.fix)
	return "| `" + c.code + "` | " + severity + " | " + c.meaning + " | " + fix + " |\n"
}

// What is to be done goes into a shell of root, and the daemon names its files.
func TestFixQuotesNames(t *testing.T) {
	t.Parallel()
	e := &examination{dir: "/ca"}
	for subject, want := range map[string]string{
		"/ca/secrets/a.key":             "chmod 0400 /ca/secrets/a.key",
		"/ca/secrets/a;id #.key":        "chmod 0400 '/ca/secrets/a;id #.key'",
		"/ca/secrets/$(id) it's `x`":    "chmod 0400 '/ca/secrets/$(id) it'\\''s `x`'",
		"/ca/secrets/two\nlines; id \n": "chmod 0400 '/ca/secrets/two\nlines; id \n'",
	} {
		if got := e.find("mode.secret", subject, "").Fix; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
