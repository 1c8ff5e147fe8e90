package name

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/ca/cert"
)

// rows reads a table of testdata and leaves the header out.
func rows(t testing.TB, file string, columns int) [][]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		row := strings.Split(line, "\t")
		if len(row) != columns {
			t.Fatalf("%s:%d: %d columns, want %d", file, i+1, len(row), columns)
		}
		out = append(out, row)
	}
	return out[1:]
}

func unquote(t testing.TB, s string) string {
	t.Helper()
	out, err := strconv.Unquote(s)
	if err != nil {
		t.Fatalf("unquoting %s: %v", s, err)
	}
	return out
}

// accept runs a name through the purpose alone ("user") or through one kind of SAN ("server dns").
func accept(where, s string) (Name, error) {
	purpose, kind, _ := strings.Cut(where, " ")
	cn := map[string]string{"user": "alice", "server": "www.example.org", "caller": "provisioning"}[purpose]
	if kind == "" {
		return Canonical(cert.Purpose(purpose), s)
	}
	host, err := Canonical(cert.Purpose(purpose), cn)
	if err != nil {
		return Name{}, err
	}
	in := map[string]cert.SANs{"dns": {DNS: []string{s}}, "ip": {IP: []string{s}}, "email": {Email: []string{s}}, "uri": {URI: []string{s}}}[kind]
	out, err := CanonicalSANs(cert.Purpose(purpose), host, in)
	all := slices.Concat(out.DNS, out.IP, out.Email)
	if err != nil || len(all) == 0 {
		return Name{}, err
	}
	if purpose == "server" && kind == "ip" {
		return Name{Text: out.IP[0]}, nil
	}
	return Name{Text: all[len(all)-1]}, nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// TestHostile wants every name of the catalogue refused with exactly its code, and the refusal itself
// harmless to print.
func TestHostile(t *testing.T) {
	table := rows(t, "testdata/hostile.tsv", 4)
	if len(table) < 150 {
		t.Fatalf("%d rows; the catalogue has at least 150", len(table))
	}
	seen := map[string]bool{}
	for _, row := range table {
		where, s, code := row[0], unquote(t, row[1]), row[2]
		seen[code] = true
		_, err := accept(where, s)
		var bad *Refusal
		if !errors.As(err, &bad) {
			t.Errorf("%s %.60s (%s): accepted, or %v; want %s", where, row[1], row[3], err, code)
			continue
		}
		if bad.Code != code {
			t.Errorf("%s %.60s (%s): %v; want %s", where, row[1], row[3], err, code)
		}
		if !printable(err.Error()) || len(err.Error()) > 700 {
			t.Errorf("%s %.60s: the refusal is not safe to print: %q", where, row[1], err)
		}
	}
	for _, code := range []string{
		codeEmpty, codeTooLong, codeNotUTF8, codeControl, codeInvisible, codeSpace, codeMixed, codeCharacters, codeWildcard, codeUnderscore,
		codeIPAsDNS, codeLabel, codeALabel, codeSingleLabel, codeReserved, codeSANType, codeSAN,
	} {
		if !seen[code] {
			t.Errorf("no row has %s", code)
		}
	}
}

func TestGood(t *testing.T) {
	for _, row := range rows(t, "testdata/good.tsv", 5) {
		want := Name{Text: unquote(t, row[2]), Key: unquote(t, row[3])}
		got, err := accept(row[0], unquote(t, row[1]))
		if err != nil || got != want {
			t.Errorf("%s %.60s (%s): %+q, %v; want %+q", row[0], row[1], row[4], got, err, want)
		}
	}
}

func TestRefusalHelps(t *testing.T) {
	tests := []struct {
		purpose     cert.Purpose
		name, field string
		says        string
	}{
		{cert.Server, "bücher.example.org", "cn", `"xn--bcher-kva.example.org"`},
		{cert.Server, "BU\u0308CHER.example.org", "cn", `"xn--bcher-kva.example.org"`},
		{cert.User, "a,+b", "cn", "U+002C"},
		{cert.User, "a\u202e\x00", "cn", "U+202E"},
		{cert.User, "\u0430lice", "cn", "Cyrillic and Latin"},
		{"printer", "a", "cn", `"printer"`},
	}
	for _, tt := range tests {
		_, err := Canonical(tt.purpose, tt.name)
		var bad *Refusal
		if !errors.As(err, &bad) || bad.Field != tt.field || !strings.Contains(bad.Reason, tt.says) {
			t.Errorf("%+q: %v; want the field %s and %s", tt.name, err, tt.field, tt.says)
		}
	}
}

// TestHugeNamesCostNothing counts what is allocated: looking at 100,000 characters would take at least
// one copy of them.
func TestHugeNamesCostNothing(t *testing.T) {
	for _, unit := range []string{"a", "e\u0301", "\u0430.", "\xff", "1.", "xn--a."} {
		huge := strings.Repeat(unit, 100_000)
		const calls = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			for _, where := range []string{"user", "server", "caller", "server dns", "server ip", "user email"} {
				var bad *Refusal
				if _, err := accept(where, huge); !errors.As(err, &bad) || bad.Code != codeTooLong {
					t.Fatalf("%s: %v", where, err)
				}
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / (6 * calls); each > 16<<10 {
			t.Errorf("%d octets allocated to refuse %d", each, len(huge))
		}
	}
}

// genPerson makes names near the border: most are accepted, many are not.
func genPerson() *rapid.Generator[string] {
	letters := []string{
		"aeioussßIJqzAÅÉñ", "ıİiI", "αάσςΣΩᾀΐ", "абвйЙё", "אבג", "أحم", "山田ひカー", "한국ᄀ", "नेहा", "สมชาย", "ԱաꭰᎠ",
	}
	return rapid.Custom(func(t *rapid.T) string {
		own := []rune(rapid.SampledFrom(letters).Draw(t, "script"))
		other := []rune("09 .-_'@\u0301\u0307\u0308\u0323\u0345\u0338é,*\u200d")
		return rapid.StringOfN(rapid.OneOf(rapid.SampledFrom(own), rapid.SampledFrom(own), rapid.SampledFrom(other)), 1, 70, -1).Draw(t, "name")
	})
}

// invariants holds for every name and purpose.
func invariants(t interface{ Fatalf(string, ...any) }, purpose cert.Purpose, s string) {
	name, err := Canonical(purpose, s)
	if err != nil {
		var bad *Refusal
		if !errors.As(err, &bad) || !strings.HasPrefix(bad.Code, "name.") || bad.Field != "cn" || bad.Reason == "" || !printable(err.Error()) {
			t.Fatalf("%+q: refused with %#v", s, err)
		}
		if name != (Name{}) {
			t.Fatalf("%+q: refused, and yet %+q", s, name)
		}
		return
	}
	if !utf8.ValidString(name.Text) || utf8.RuneCountInString(name.Text) > maxCommonName || !norm.NFC.IsNormalString(name.Text) || !norm.NFC.IsNormalString(name.Key) {
		t.Fatalf("%+q: accepted as %+q", s, name)
	}
	if strings.ContainsFunc(name.Text, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`,+"\<>;=*()/#|&!`, r) }) {
		t.Fatalf("%+q: accepted as %+q", s, name)
	}
	if again, err := Canonical(purpose, name.Text); err != nil || again != name {
		t.Fatalf("%+q: not idempotent: %+q, then %+q, %v", s, name, again, err)
	}
	if fold(name.Key) != name.Key && purpose == cert.User {
		t.Fatalf("%+q: the key %+q folds to %+q", s, name.Key, fold(name.Key))
	}
	if purpose == cert.User {
		for _, form := range []norm.Form{norm.NFC, norm.NFD} {
			if same, err := Canonical(purpose, form.String(s)); err != nil || same != name {
				t.Fatalf("%+q: %+q, and in another form %+q, %v", s, name, same, err)
			}
		}
	}
	if !Match("*", name.Key) || !Match(name.Key, name.Key) || !Match(name.Text, name.Key) {
		t.Fatalf("%+q: %+q does not match itself", s, name)
	}
}

func TestCanonicalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(genPerson(), rapid.String(), rapid.StringMatching(`(xn--)?[a-zA-Z0-9-]{1,9}(\.[a-z0-9-]{1,9}){0,3}`)).Draw(t, "name")
		for _, purpose := range cert.Purposes() {
			invariants(t, purpose, s)
		}
	})
}

// TestEveryCharacter checks all characters as a person's whole name against Python's copy of the
// Unicode tables and of RFC 3454: what a directory takes for one name has one Key, and nothing is
// accepted that the directory's preparation would drop or change beyond case.
func TestEveryCharacter(t *testing.T) {
	var names [][2]string
	for r := rune(0); r <= unicode.MaxRune; r++ {
		s := string(r)
		if unicode.IsMark(r) {
			s = "a" + s
		}
		if name, err := Canonical(cert.User, s); err == nil {
			names = append(names, [2]string{name.Text, name.Key})
		}
		if _, err := Canonical(cert.Server, s+".example.org"); err == nil && r >= utf8.RuneSelf {
			t.Errorf("%U is accepted in a host name", r)
		}
		if r == 0x3ffff {
			r = 0xe0000 - 1 // the planes between are not assigned
		} else if r == 0xe0fff {
			r = unicode.MaxRune - 0x100 // private use up to the last
		}
	}
	if len(names) < 100_000 {
		t.Fatalf("only %d names accepted", len(names))
	}
	in, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	const program = `
import json, stringprep, sys, unicodedata as now
then = now.ucd_3_2_0
def prepared(s):  # RFC 4518 section 2, case folded
    return then.normalize("NFKC", "".join(stringprep.map_table_b2(c) for c in s))
def folded(s):
    return now.normalize("NFC", now.normalize("NFD", s).casefold())
keys = {}
for text, key in json.load(sys.stdin):
    for c in text:
        known = then.category(c) != "Cn"
        if known and (stringprep.in_table_b1(c) or stringprep.in_table_c12(c) or stringprep.in_table_c21_c22(c)):
            print("accepted: U+%04X" % ord(c))
    for kind, form in (("RFC 3454", prepared(text)), ("casefold", folded(text))):
        if keys.setdefault((kind, form), key) != key:
            print(kind, ascii(text), "has the keys", ascii(keys[kind, form]), ascii(key))
    if now.category(text[-1]) != "Cn" and folded(key) != folded(text.replace("\u0130", "i")): # see fold
        print("the key", ascii(key), "folds to another name than", ascii(text))
`
	python := exec.Command("python3", "-c", program)
	python.Stdin = strings.NewReader(string(in))
	out, err := python.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("%v\n%.2000s", err, out)
	}
}

// TestOpenSSLReadsTheSame puts accepted names into certificate requests and reads them back.
func TestOpenSSLReadsTheSame(t *testing.T) {
	key := t.TempDir() + "/key.pem"
	openssl(t, "", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
	for _, row := range rows(t, "testdata/good.tsv", 5) {
		if strings.Contains(row[0], " ") {
			continue
		}
		text := unquote(t, row[2])
		csr := openssl(t, "", "req", "-new", "-utf8", "-key", key, "-config", "/dev/null", "-subj", "/CN="+text)
		got := openssl(t, csr, "req", "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb")
		if want := "subject=CN=" + text + "\n"; strings.ReplaceAll(got, "subject= ", "subject=") != want {
			t.Errorf("openssl reads %+q, want %+q", got, want)
		}
	}
}

func openssl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v", args, err)
	}
	return string(out)
}

func TestSANs(t *testing.T) {
	many := func(n int, domain string) (out []string) {
		for i := range n {
			out = append(out, "h"+strconv.Itoa(i)+domain)
		}
		return out
	}
	tests := []struct {
		what    string
		purpose cert.Purpose
		cn      string
		in, out cert.SANs
		code    string
		field   string
	}{
		{what: "cn is added", purpose: cert.Server, cn: "www.example.org", out: cert.SANs{DNS: []string{"www.example.org"}}},
		{what: "cn first, sorted, once", purpose: cert.Server, cn: "www.example.org",
			in:  cert.SANs{DNS: []string{"z.example.org", "A.example.org", "WWW.example.org", "a.example.org"}, IP: []string{"192.0.2.9", "192.0.2.1", "192.0.2.9"}},
			out: cert.SANs{DNS: []string{"www.example.org", "a.example.org", "z.example.org"}, IP: []string{"192.0.2.1", "192.0.2.9"}}},
		{what: "second is bad", purpose: cert.Server, cn: "www.example.org", in: cert.SANs{DNS: []string{"a.example.org", "*"}}, code: codeWildcard, field: "sans.dns[1]"},
		{what: "a name that is not canonical is not trusted", purpose: cert.Server, cn: "*.example.org", code: codeWildcard, field: "cn"},
		{what: "32 with the cn", purpose: cert.Server, cn: "h0.example.org", in: cert.SANs{DNS: many(32, ".example.org")},
			out: cert.SANs{DNS: append([]string{"h0.example.org"}, sorted(many(32, ".example.org")[1:])...)}},
		{what: "33 with the cn", purpose: cert.Server, cn: "www.example.org", in: cert.SANs{DNS: many(32, ".example.org")}, code: codeSANCount, field: "sans"},
		{what: "33", purpose: cert.Server, cn: "h0.example.org", in: cert.SANs{DNS: many(33, ".example.org")}, code: codeSANCount, field: "sans"},
		{what: "8 addresses", purpose: cert.User, cn: "alice", in: cert.SANs{Email: many(8, "@example.org")}, out: cert.SANs{Email: many(8, "@example.org")}},
		{what: "9 addresses", purpose: cert.User, cn: "alice", in: cert.SANs{Email: many(9, "@example.org")}, code: codeSANCount, field: "sans.email"},
		{what: "none", purpose: cert.User, cn: "alice"},
		{what: "none", purpose: cert.Caller, cn: "provisioning"},
		{what: "unknown purpose", purpose: "printer", cn: "a", code: codePurpose, field: "sans"},
	}
	for _, tt := range tests {
		got, err := CanonicalSANs(tt.purpose, Name{Text: tt.cn, Key: tt.cn}, tt.in)
		if diff := cmp.Diff(tt.out, got); diff != "" {
			t.Errorf("%s: %v %s", tt.what, err, diff)
		}
		var bad *Refusal
		if errors.As(err, &bad) != (tt.code != "") || bad != nil && (bad.Code != tt.code || bad.Field != tt.field) {
			t.Errorf("%s: %v; want %q for %q", tt.what, err, tt.code, tt.field)
		}
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func TestInDomain(t *testing.T) {
	for _, tt := range []struct {
		host, suffix string
		want         bool
	}{
		{"example.org", "example.org", true},
		{"www.example.org", "example.org", true},
		{"a.b.example.org", "example.org", true},
		{"evilexample.org", "example.org", false},
		{"example.org", "www.example.org", false},
		{"example.org.evil.example", "example.org", false},
		{"org", "example.org", false},
		{"www.example.org", "", false},
		{"", "", false},
	} {
		if got := InDomain(tt.host, tt.suffix); got != tt.want {
			t.Errorf("InDomain(%q, %q) = %v", tt.host, tt.suffix, got)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, key string
		want         bool
	}{
		{"*", "www.example.org", true},
		{"*", "alice.example", true},
		{"alice", "alice", true},
		{"Alice", "alice", true},
		{"Stra\u00dfe*", "strasse 1", true},
		{"alice", "alice2", false},
		{"", "alice", false},
		{"*.example.org", "www.example.org", true},
		{"*.example.org", "example.org", false},
		{"*.example.org", "a.b.example.org", false},
		{"*.example.org", "www.evilexample.org", false},
		{"web*", "web", true},
		{"web*", "web.example.net", false},
		{"web*.example.org", "web7.example.org", true},
		{"web*.example.org", "web7.evil.example.org", false},
		{"**", "a.b", false},
		{"**", "ab", true},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "axxbyy", false},
		{"ab*ba", "aba", false},
		{"*a*a*", "a", false},
		{"[a-z]", "b", false},
		{"?", "b", false},
	} {
		if got := Match(tt.pattern, tt.key); got != tt.want {
			t.Errorf("Match(%q, %q) = %v", tt.pattern, tt.key, got)
		}
	}
	if Match(strings.Repeat("a*", 5000)+"b", strings.Repeat("a", 10000)) {
		t.Error("a pattern that ends in b matches a name that does not")
	}
}

// FuzzCanonical checks the invariants of all purposes and kinds on any input.
func FuzzCanonical(f *testing.F) {
	for _, file := range []string{"testdata/hostile.tsv", "testdata/good.tsv"} {
		columns := map[string]int{"testdata/hostile.tsv": 4, "testdata/good.tsv": 5}[file]
		for _, row := range rows(f, file, columns) {
			f.Add(unquote(f, row[1]))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, purpose := range cert.Purposes() {
			invariants(t, purpose, s)
		}
		for _, where := range []string{"server dns", "server ip", "user email"} {
			name, err := accept(where, s)
			if err != nil {
				if !printable(err.Error()) {
					t.Fatalf("%s: %q", where, err)
				}
				continue
			}
			if again, err := accept(where, name.Text); err != nil || again != name || !printable(name.Text) {
				t.Fatalf("%s %+q: %+q, then %+q, %v", where, s, name, again, err)
			}
		}
	})
}

// genPattern makes a pattern that fits a key: stars for some of it, and other letters' case.
func genPattern(t *rapid.T, key string) string {
	runes, pattern := []rune(key), ""
	for i := 0; i < len(runes); i++ {
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 0:
			i += rapid.IntRange(0, 3).Draw(t, "left out") - 1
			pattern += "*"
		case 1:
			pattern += strings.ToUpper(string(runes[i]))
		default:
			pattern += string(runes[i])
		}
	}
	return pattern
}

// TestMatchable: no pattern that fits a name is said to fit none.
func TestMatchable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(genPerson(), rapid.StringMatching(`(xn--)?[a-zA-Z0-9-]{1,9}(\.[a-z0-9-]{1,9}){0,3}`)).Draw(t, "name")
		pattern := genPattern(t, fold(s))
		for _, purpose := range cert.Purposes() {
			if name, err := Canonical(purpose, s); err == nil && Match(pattern, name.Key) && !Matchable(purpose, pattern) {
				t.Fatalf("%q fits the %s %q", pattern, purpose, name.Key)
			}
		}
		if h, bad := host("", s, maxHost); bad == nil && Match(pattern, h) && !MatchableHost(pattern) {
			t.Fatalf("%q fits the host name %q", pattern, h)
		}
	})
	for _, tt := range []struct{ pattern, purposes string }{
		{"*", "user server caller"}, {"Alice", "user caller"}, {"*.example.org", "user server"}, {"WWW.Example.org", "user server"},
		{"b\u00fccher.*", "user"}, {"local*", "user server caller"}, {"web*", "user caller"}, {"a b*", "user"}, {"a_*", "user"}, {"o'*@x.org", "user"}, {"*-", "user caller"},
		{"a,*", ""}, {"a..b", "user"}, {"*..b", "user"}, {".example.org", ""}, {"-a*", ""}, {"a  b", ""}, {" *", ""}, {"a\x00*", ""}, {"root", ""}, {"192.0.2.1", "user"}, {"*.1", "user"},
		{"*.-a.org", "user"}, {"[ab]*", ""}, {"a?", ""}, {"*/a", ""}, {"...", ""}, {strings.Repeat("a", 64) + "*.o", ""}, {"a-.example.*", "user"}, {"*.a-", "user"}, {"*.0x1f", "user"}, {"ab--*.org", "user server"}, {"ab--c.*", "user"}, {strings.Repeat("a", 64) + "*", "user"},
	} {
		var got []string
		for _, purpose := range []cert.Purpose{cert.User, cert.Server, cert.Caller} {
			if Matchable(purpose, tt.pattern) {
				got = append(got, string(purpose))
			}
		}
		if s := strings.Join(got, " "); s != tt.purposes {
			t.Errorf("%q: %s, want %s", tt.pattern, s, tt.purposes)
		}
	}
}

// TestCovers wants patterns compared as keys are; TestCoversExactly compares all short ones.
func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow string
		want         bool
	}{
		{"*", "*", true}, {"*", "a.*", true}, {"a*", "*", false}, {"a*", "ab", true}, {"a*", "A*", true}, {"*.example.org", "www.example.org", true},
		{"*.example.org", "w*.example.org", true}, {"*.example.org", "a.b.example.org", false}, {"*.*", "a*.b*", true}, {"w*.*", "*.a", false}, {"ab", "a*", false},
		{"a*", "ab*", true}, {"*a*", "*ba*", true}, {"a*b", "a*c*b", true}, {"a*c*b", "a*b", false}, {"Stra\u00dfe*", "STRASSE 1*", true}, {"*\u00e9", "*e\u0301", true},
	} {
		if got := Covers(tt.wide, tt.narrow); got != tt.want {
			t.Errorf("%q covers %q: %v", tt.wide, tt.narrow, got)
		}
	}
}
