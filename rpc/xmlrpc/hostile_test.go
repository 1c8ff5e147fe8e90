package xmlrpc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const declared = `<?xml version="1.0"?>`

// param is a call with one parameter.
func param(value string) string {
	return declared + "<methodCall><methodName>m</methodName><params><param>" + value + "</param></params></methodCall>"
}

// str is a call whose parameter is a string with this text.
func str(text string) string {
	return param("<value><string>" + text + "</string></value>")
}

func nested(depth int) string {
	return param(strings.Repeat("<value><array><data>", depth-1) + "<value/>" + strings.Repeat("</data></array></value>", depth-1))
}

// elements is a call of exactly n elements.
func elements(n int) string {
	return param("<value><array><data>" + strings.Repeat("<value/>", n-7) + "</data></array></value>")
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<member><name>m%d</name><value/></member>", i)
	}
	return param("<value><struct>" + b.String() + "</struct></value>")
}

func utf16(s string, high, low int) string {
	b := make([]byte, 2*len(s))
	for i := range len(s) {
		b[2*i+low] = s[i]
		b[2*i+high] = 0
	}
	return string(b)
}

type hostile struct {
	name string
	body string
	code int
	says string // part of the message
}

func checkHostile(t *testing.T, cases []hostile) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			call, err := DecodeCall([]byte(c.body))
			var fault *Fault
			if !errors.As(err, &fault) {
				t.Fatalf("accepted: %#v, error %v", call, err)
			}
			if fault.Code != c.code || !strings.Contains(fault.Message, c.says) {
				t.Errorf("got %v\nwant %d ... %s", fault, c.code, c.says)
			}
			if call.Method != "" || call.Params != nil {
				t.Errorf("a refused document still gives %#v", call)
			}
			checkMessage(t, fault.Message)
		})
	}
}

// checkMessage holds a message to the promise that nothing hostile gets out.
func checkMessage(t *testing.T, message string) {
	t.Helper()
	if len(message) > 700 {
		t.Errorf("message of %d bytes", len(message))
	}
	for _, c := range []byte(message) {
		if c < 0x20 || c > 0x7E {
			t.Fatalf("byte %#x in message %q", c, message)
		}
	}
}

func TestRefusesEncodings(t *testing.T) {
	plain := str("a")
	label := func(encoding, text string) string {
		return strings.Replace(str(text), declared, `<?xml version="1.0" encoding="`+encoding+`"?>`, 1)
	}
	checkHostile(t, []hostile{
		{"UTF-8 BOM", "\xEF\xBB\xBF" + plain, CodeEncoding, "byte order mark"},
		{"UTF-16BE BOM", "\xFE\xFF" + utf16(plain, 0, 1), CodeEncoding, "UTF-16"},
		{"UTF-16LE BOM", "\xFF\xFE" + utf16(plain, 1, 0), CodeEncoding, "UTF-16"},
		{"UTF-16BE", utf16(plain, 0, 1), CodeEncoding, "UTF-16"},
		{"UTF-16LE", utf16(plain, 1, 0), CodeEncoding, "UTF-16"},
		{"UTF-32BE", "\x00\x00\x00<", CodeEncoding, "UTF-32"},
		{"UTF-32LE BOM", "\xFF\xFE\x00\x00<\x00\x00\x00", CodeEncoding, "UTF-32"},
		{"EBCDIC", "\x4C\x6F\xA7\x94\x93", CodeEncoding, "EBCDIC"},
		{"UTF-16 declared", label("UTF-16", "a"), CodeEncoding, `"UTF-16" is declared`},
		{"UTF-7 declared", label("UTF-7", "a"), CodeEncoding, `"UTF-7" is declared`},
		{"windows-1252 declared", label("windows-1252", "a"), CodeEncoding, "send UTF-8"},
		{"hostile label", label("\x1b[31m\xff", "a"), CodeEncoding, `"\x1b[31m\xff" is declared`},
		{"Latin-1 declared and real", label("ISO-8859-1", "caf\xe9"), CodeEncoding, "not ASCII"},
		{"Latin-1 declared, UTF-8 real", label("iso-8859-1", "café"), CodeEncoding, "not ASCII"},
		{"ASCII declared, UTF-8 real", label("us-ascii", "café"), CodeEncoding, "not ASCII"},
		{"Latin-1 real", str("caf\xe9"), CodeCharacter, "byte 0xe9 is not UTF-8"},
		{"UTF-7 real", "+ADw-methodCall+AD4-", CodeNotWellFormed, "outside the root"},
		{"overlong", str("\xC0\xAF"), CodeCharacter, "not UTF-8"},
		{"surrogate in UTF-8", str("\xED\xA0\x80"), CodeCharacter, "not UTF-8"},
		{"beyond Unicode", str("\xF4\x90\x80\x80"), CodeCharacter, "not UTF-8"},
		{"cut in a character", plain + "\xC3", CodeCharacter, "not UTF-8"},
		{"NUL", str("a\x00b"), CodeCharacter, "U+0000"},
		{"escape character", str("\x1b[2J"), CodeCharacter, "U+001B"},
		{"vertical tab in markup", strings.Replace(plain, "<params>", "\v<params>", 1), CodeCharacter, "U+000B"},
		{"U+FFFE", str("\uFFFE"), CodeCharacter, "U+FFFE"},
		{"U+FFFF", str("\uFFFF"), CodeCharacter, "U+FFFF"},
		{"gzip", "\x1f\x8b\x08\x00\x00\x00", CodeCharacter, "U+001F"},
	})
}

func TestRefusesDeclarations(t *testing.T) {
	declare := func(d string) string { return strings.Replace(str("a"), declared, d, 1) }
	for _, d := range []string{
		`<?xml?>`, `<?xml ?>`, `<?xml version="1.1"?>`, `<?xml version="1.0'?>`, `<?xml version=1.0?>`, `<?xml version="1.0">`,
		`<?xml encoding="UTF-8"?>`, `<?xml encoding="UTF-8" version="1.0"?>`, `<?xml version="1.0"encoding="UTF-8"?>`,
		`<?xml version="1.0" encoding=""?>`, `<?xml version="1.0" encoding="UTF-8" encoding="UTF-8"?>`,
		`<?xml version="1.0" encoding="UTF-8?>`, `<?xml version="1.0" encoding?>`, `<?xml version="1.0" encoding "UTF-8"?>`,
		`<?xml version="1.0" standalone="maybe"?>`, `<?xml version="1.0" x="y"?>`, `<?xml version="1.0" ? >`,
		`<?XML version="1.0"?>`, ` <?xml version="1.0"?>`, `<?xml version="1.0"?><?xml version="1.0"?>`, `<?`, `<? xml?>`,
	} {
		t.Run(d, func(t *testing.T) {
			checkHostile(t, []hostile{{"declaration", declare(d), CodeNotWellFormed, "not well formed at byte"}})
		})
	}
}

func TestRefusesMarkup(t *testing.T) {
	bomb := `<!DOCTYPE l [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>`
	after := func(s string) string { return declared + s + strings.TrimPrefix(str("&b;"), declared) }
	checkHostile(t, []hostile{
		{"document type", after("<!DOCTYPE methodCall>"), CodeInvalid, "document type (DTD)"},
		{"entity bomb", after(bomb), CodeInvalid, "document type (DTD)"},
		{"external entity", after(`<!DOCTYPE m [<!ENTITY b SYSTEM "file:///etc/passwd">]>`), CodeInvalid, "document type (DTD)"},
		{"document type in text", str("<!DOCTYPE a>"), CodeInvalid, "document type (DTD)"},
		{"comment before", after("<!-- -->"), CodeInvalid, "comment"},
		{"comment splits text", str("admin<!-- -->istrator"), CodeInvalid, "comment"},
		{"comment after", str("a") + "<!-- -->", CodeInvalid, "comment"},
		{"CDATA", str("<![CDATA[<a>]]>"), CodeInvalid, "CDATA"},
		{"CDATA splits text", str("a<![CDATA[b]]>c"), CodeInvalid, "CDATA"},
		{"processing instruction", str("a<?b c?>d"), CodeInvalid, "processing instruction"},
		{"style sheet", after(`<?xml-stylesheet href="x"?>`), CodeInvalid, "processing instruction"},
		{"XML declaration later", str(declared), CodeNotWellFormed, "not at the very start"},
		{"unknown markup", str("<!ELEMENT a>"), CodeNotWellFormed, "unknown markup"},
		{"attribute", param(`<value type="int">1</value>`), CodeInvalid, `attributes are not allowed: element "value"`},
		{"attribute, self-closing", param(`<value><string a='b'/></value>`), CodeInvalid, "attributes"},
		{"namespace declared", declared + `<methodCall xmlns="urn:x"/>`, CodeInvalid, "attributes"},
		{"namespace prefix", param("<value><ex:nil/></value>"), CodeInvalid, `namespaces are not allowed: element "ex:nil"`},
		{"10,000 attributes", declared + "<methodCall" + strings.Repeat(" a=''", 10000) + "/>", CodeInvalid, "attributes"},
		{"upper case", declared + "<METHODCALL/>", CodeInvalid, `element "METHODCALL"`},
		{"terminal escape in a name", declared + "<\u009b31m/>", CodeInvalid, `element "\u009b31m"`},
		{"long name", declared + "<" + strings.Repeat("é", 1000) + "/>", CodeInvalid, `\u00e9"..., where`},
	})
}

func TestRefusesNotWellFormed(t *testing.T) {
	checkHostile(t, []hostile{
		{"empty", "", CodeNotWellFormed, "not well formed at byte 0: document has no element"},
		{"white space", " \r\n", CodeNotWellFormed, "no element"},
		{"declaration alone", declared, CodeNotWellFormed, "not well formed at byte 21: document has no element"},
		{"text", "hello", CodeNotWellFormed, "outside the root"},
		{"text before", declared + "x<methodCall/>", CodeNotWellFormed, "not well formed at byte 21: text outside"},
		{"reference before", declared + "&#32;<methodCall/>", CodeNotWellFormed, "outside the root"},
		{"trailing text", str("a") + "x", CodeNotWellFormed, "outside the root"},
		{"trailing reference", str("a") + "&#10;", CodeNotWellFormed, "outside the root"},
		{"second root", str("a") + strings.TrimPrefix(str("b"), declared), CodeNotWellFormed, "second root"},
		{"trailing end tag", str("a") + "</methodCall>", CodeNotWellFormed, "not open"},
		{"not closed", strings.TrimSuffix(str("a"), "</methodCall>"), CodeNotWellFormed, `ends inside "methodCall"`},
		{"cut in text", declared + "<methodCall><methodName>m", CodeNotWellFormed, `ends inside "methodName"`},
		{"cut in a tag", declared + "<methodCall><methodName", CodeNotWellFormed, "inside a tag"},
		{"cut in an end tag", declared + "<methodCall></methodCall", CodeNotWellFormed, "inside a tag"},
		{"cut after <", declared + "<", CodeNotWellFormed, "does not begin a tag"},
		{"cut after </", declared + "<methodCall></", CodeNotWellFormed, "inside a tag"},
		{"crossed", param("<value><string>a</value></string>"), CodeNotWellFormed, `end tag of "value" inside "string"`},
		{"end tag without name", str("a</>"), CodeNotWellFormed, `end tag of ""`},
		{"end tag with attribute", param(`<value></value a="b">`), CodeNotWellFormed, "inside an end tag"},
		{"space before name", declared + "< methodCall/>", CodeNotWellFormed, "does not begin a tag"},
		{"digit first in a name", declared + "<1a/>", CodeNotWellFormed, "does not begin a tag"},
		{"slash then space", declared + "<methodCall/ >", CodeNotWellFormed, `"/" inside a tag`},
		{"quote in a tag", declared + `<methodCall">`, CodeNotWellFormed, `"\"" inside a tag`},
		{"tag in a tag", declared + "<methodCall<a>", CodeNotWellFormed, `"<" inside a tag`},
		{"raw <", str("a < b"), CodeNotWellFormed, "write &lt;"},
		{"raw &", str("a & b"), CodeNotWellFormed, "write &amp;"},
		{"raw & later closed", str("a & b; c"), CodeNotWellFormed, `entity " b"`},
		{"]]> in text", str("a]]>b"), CodeNotWellFormed, "]]> in text"},
		{"]]> in the method name", declared + "<methodCall><methodName>]]></methodName></methodCall>", CodeNotWellFormed, "]]> in text"},
		{"]]> between elements", declared + "<methodCall>]]><methodName>m</methodName></methodCall>", CodeNotWellFormed, "]]> in text"},
		{"unknown entity", str("&nbsp;"), CodeNotWellFormed, `entity "nbsp"`},
		{"entity in upper case", str("&AMP;"), CodeNotWellFormed, `entity "AMP"`},
		{"empty entity", str("&;"), CodeNotWellFormed, `entity ""`},
		{"empty number", str("&#;"), CodeNotWellFormed, `reference "#"`},
		{"empty hexadecimal", str("&#x;"), CodeNotWellFormed, `reference "#x"`},
		{"upper-case X", str("&#X41;"), CodeNotWellFormed, `reference "#X41"`},
		{"letters in a decimal", str("&#4a;"), CodeNotWellFormed, `reference "#4a"`},
		{"signed number", str("&#-1;"), CodeNotWellFormed, `reference "#-1"`},
		{"NUL reference", str("&#0;"), CodeCharacter, `reference "#0"`},
		{"surrogate reference", str("&#xD800;"), CodeCharacter, `reference "#xD800"`},
		{"surrogate pair", str("&#xD83D;&#xDE00;"), CodeCharacter, `reference "#xD83D"`},
		{"U+FFFE reference", str("&#65534;"), CodeCharacter, `reference "#65534"`},
		{"escape reference", str("&#27;"), CodeCharacter, `reference "#27"`},
		{"beyond Unicode reference", str("&#x110000;"), CodeCharacter, "not a character"},
		{"overflowing reference", str("&#" + strings.Repeat("9", 1000) + ";"), CodeCharacter, "not a character"},
		{"reference wrapping to A", str("&#4294967361;"), CodeCharacter, "not a character"},
	})
}

func TestRefusesCalls(t *testing.T) {
	call := func(inside string) string { return declared + "<methodCall>" + inside + "</methodCall>" }
	const name = "<methodName>ca.issue</methodName>"
	checkHostile(t, []hostile{
		{"other root", declared + "<methodResponse/>", CodeInvalid, "where <methodCall> belongs"},
		{"no method name", call(""), CodeInvalid, "without its <methodName>"},
		{"params only", call("<params/>"), CodeInvalid, "where <methodName> belongs"},
		{"params first", call("<params/>" + name), CodeInvalid, "where <methodName> belongs"},
		{"second method name", call(name + "<methodName>ca.revoke</methodName>"), CodeInvalid, `element "methodName"`},
		{"second method name last", call(name + "<params/><methodName>ca.revoke</methodName>"), CodeInvalid, `element "methodName"`},
		{"second params", call(name + "<params/><params/>"), CodeInvalid, `element "params" is one too many`},
		{"unknown element", call(name + "<extra/>"), CodeInvalid, "where <params> belongs"},
		{"text in the call", call(name + "x"), CodeInvalid, `text in "methodCall"`},
		{"text in params", call(name + "<params>x</params>"), CodeInvalid, `text in "params"`},
		{"empty method name", call("<methodName/>"), CodeInvalid, `method name ""`},
		{"element in the method name", call("<methodName>ca<x/></methodName>"), CodeInvalid, "where only text belongs"},
		{"element first in the method name", call("<methodName><x/></methodName>"), CodeInvalid, "where only text belongs"},
		{"spaced method name", call("<methodName> ca.issue </methodName>"), CodeInvalid, `method name " ca.issue "`},
		{"method name with a dash", call("<methodName>ca-issue</methodName>"), CodeInvalid, "method name"},
		{"method name beyond ASCII", call("<methodName>cа.issue</methodName>"), CodeInvalid, `"c\u0430.issue"`},
		{"method name too long", call("<methodName>" + strings.Repeat("m", 129) + "</methodName>"), CodeInvalid, `m"...;`},
		{"method name long in four-byte characters", call("<methodName>" + strings.Repeat("😀", 41) + "</methodName>"), CodeInvalid,
			`method name "` + strings.Repeat(`\U0001f600`, 40) + `"...;`},
		{"value without param", call(name + "<params><value/></params>"), CodeInvalid, "where <param> belongs"},
		{"empty param", call(name + "<params><param/></params>"), CodeInvalid, "without its <value>"},
		{"text in param", param("x<value/>"), CodeInvalid, `text in "param"`},
		{"two values", param("<value/><value/>"), CodeInvalid, "one too many"},
		{"bare type", param("<int>1</int>"), CodeInvalid, "where <value> belongs"},
		{"too large", str(strings.Repeat("a", MaxBody)), CodeInvalid, "request larger than 65536 bytes"},
		{"too deep", nested(MaxDepth + 1), CodeInvalid, "deeper than 16"},
		{"far too deep", declared + "<methodCall><methodName>m</methodName><params><param>" + strings.Repeat("<value><array><data>", 3000), CodeInvalid, "deeper than 16"},
		{"too many elements", call(name + "<params>" + strings.Repeat("<param><value/></param>", 2048) + "</params>"), CodeInvalid, "more than 4096 elements"},
		{"one element too many", elements(MaxElements + 1), CodeInvalid, "more than 4096 elements"},
		{"too many members", members(MaxMembers + 1), CodeInvalid, "more than 256 members"},
	})
}

func TestRefusesValues(t *testing.T) {
	var cases []hostile
	add := func(name, value, says string) {
		cases = append(cases, hostile{name, param("<value>" + value + "</value>"), CodeInvalid, says})
	}
	add("double", "<double>1.5</double>", "<double> is not served")
	add("nil", "<nil/>", "leave the member out")
	add("i8", "<i8>1</i8>", "within 32 bits")
	add("unknown type", "<decimal>1</decimal>", `unknown type "decimal"`)
	add("value in value", "<value/>", `unknown type "value"`)
	add("text before a type", "x<int>1</int>", "text beside an element")
	add("text after a type", "<int>1</int>x", `text in "value"`)
	add("two types", "<int>1</int><int>2</int>", "one too many")
	add("element in a string", "<string>a<b/></string>", "where only text belongs")
	for _, n := range []string{"", " 1", "1 ", "1.0", "0x10", "1_000", "١", "--1", "2147483648", "-2147483649", "99999999999999999999", "1e3"} {
		add("int "+n, "<int>"+n+"</int>", "not an integer within 32 bits")
		add("i4 "+n, "<i4>"+n+"</i4>", "not an integer within 32 bits")
	}
	for _, b := range []string{"", "true", "2", "01", " 1", "-1"} {
		add("boolean "+b, "<boolean>"+b+"</boolean>", "neither 0 nor 1")
	}
	for _, b := range []string{"A", "AA", "AAA", "A===", "AA=A", "AA==AA==", "AB==", "AA=", "AA-_", "AAAA!", "AA\u00a0=="} {
		add("base64 "+b, "<base64>"+b+"</base64>", "not base64")
	}
	for _, d := range []string{
		"", "now", "2026-01-02", "20260102", "20260102T03:04", "20260102T030405", "20260102T03:04:05.000", "20260102T03:04:05,5Z",
		"20260102T03:04:05+01:00", "20260102T03:04:05+00:00", "2026-01-02T03:04:05", "2026-01-02T03:04:05.5Z", "20260102T03:04:05z",
		"20260102T03:04:60", "20260102T24:00:00", "20260230T00:00:00", "20261301T00:00:00", "00000101T00:00:00", " 20260102T03:04:05",
		"20260102T3:04:05", "99991231T23:59:59ZZ", "-0010102T03:04:05",
	} {
		add("time "+d, "<dateTime.iso8601>"+d+"</dateTime.iso8601>", "is not YYYYMMDDTHH:MM:SS")
	}
	add("array without data", "<array/>", "without its <data>")
	add("two data", "<array><data/><data/></array>", "one too many")
	add("value in array", "<array><value/></array>", "where <data> belongs")
	add("text in data", "<array><data>x</data></array>", `text in "data"`)
	add("unknown in data", "<array><data><int>1</int></data></array>", "where <value> belongs")
	add("unknown in struct", "<struct><name>a</name></struct>", "where <member> belongs")
	add("member without name", "<struct><member><value/></member></struct>", "where <name> belongs")
	add("member without value", "<struct><member><name>a</name></member></struct>", "without its <value>")
	add("value before name", "<struct><member><value/><name>a</name></member></struct>", "where <name> belongs")
	add("two names", "<struct><member><name>a</name><name>b</name><value/></member></struct>", "where <value> belongs")
	add("two values in a member", "<struct><member><name>a</name><value/><value/></member></struct>", "one too many")
	const twin = "<member><name>purpose</name><value>%s</value></member>"
	add("duplicate member", "<struct>"+fmt.Sprintf(twin, "a")+fmt.Sprintf(twin, "b")+"</struct>", `member "purpose" twice`)
	add("duplicate member by reference", "<struct>"+fmt.Sprintf(twin, "a")+"<member><name>&#112;urpose</name><value/></member></struct>", `member "purpose" twice`)
	checkHostile(t, cases)
}
