package rpc

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A distinguished name is compared by its one spelling as RFC 4514 has it: attribute types by their short name
// or number, values character for character. The string type of a value does not count, where it is one that
// says which characters there are; any other value stands as the hex of its DER. Spellings are equal if and only
// if the names are.

// attributeTypes are those of RFC 4514 section 3, and two more that certificates have and tools name so.
func attributeTypes() [][2]string {
	return [][2]string{
		{"CN", "2.5.4.3"}, {"L", "2.5.4.7"}, {"ST", "2.5.4.8"}, {"O", "2.5.4.10"}, {"OU", "2.5.4.11"}, {"C", "2.5.4.6"},
		{"STREET", "2.5.4.9"}, {"DC", "0.9.2342.19200300.100.1.25"}, {"UID", "0.9.2342.19200300.100.1.1"},
		{"serialNumber", "2.5.4.5"}, {"emailAddress", "1.2.840.113549.1.9.1"},
	}
}

var dottedOID = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]*))+$`)

// parseDN gives the spelling of a name that somebody wrote, the last RDN first, as RFC 4514 wants it.
func parseDN(text string) (string, error) {
	var rdns []string
	for rest, more := text, true; more; {
		var rdn string
		var attributes []string
		rdn, rest, more = cutUnescaped(rest, ',')
		for rest, more := rdn, true; more; {
			var one string
			one, rest, more = cutUnescaped(rest, '+')
			attribute, err := parseAttribute(one)
			if err != nil {
				return "", err
			}
			attributes = append(attributes, attribute)
		}
		rdns = append(rdns, spellRDN(attributes))
	}
	return strings.Join(rdns, ","), nil
}

// spellRDN: the attributes of an RDN are a set.
func spellRDN(attributes []string) string {
	slices.Sort(attributes)
	return strings.Join(attributes, "+")
}

func cutUnescaped(s string, separator byte) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func parseAttribute(text string) (string, error) {
	kind, value, found := strings.Cut(text, "=")
	if !found {
		return "", fmt.Errorf("%.60q: want TYPE=VALUE, with \\ before what would otherwise end it", text)
	}
	name := ""
	for _, t := range attributeTypes() {
		if strings.EqualFold(kind, t[0]) || kind == t[1] {
			name = t[0]
		}
	}
	if name == "" && dottedOID.MatchString(kind) {
		name = kind
	}
	if name == "" {
		return "", fmt.Errorf("attribute type %.60q: want a short name of RFC 4514 or a number as in 2.5.4.3, with no space around it", kind)
	}
	if digits, isHex := strings.CutPrefix(value, "#"); isHex {
		der, err := hex.DecodeString(digits)
		if err != nil || !wholeElement(der) {
			return "", fmt.Errorf("%.60q: behind # the hex of one DER value is wanted", text)
		}
		return name + "=" + spellValue(der), nil
	}
	characters, err := unescape(value)
	if err != nil {
		return "", fmt.Errorf("%.60q: %w", text, err)
	}
	return name + "=" + escape(characters), nil
}

func wholeElement(der []byte) bool {
	rest := cryptobyte.String(der)
	return rest.ReadAnyASN1Element(new(cryptobyte.String), new(cbasn1.Tag)) && rest.Empty()
}

// special are the characters that RFC 4514 lets a \ stand before.
const special = "\"+,;<>\\ #="

func unescape(value string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == ' ' && (i == 0 || i == len(value)-1):
			return "", errors.New("a space at an end of a value is written as \\20")
		case strings.IndexByte("\";<>\x00", c) >= 0:
			return "", fmt.Errorf("%q needs a \\ before it", c)
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(value) && strings.IndexByte(special, value[i+1]) >= 0:
			b.WriteByte(value[i+1])
			i++
		default:
			octet, err := hex.DecodeString(value[min(i+1, len(value)):min(i+3, len(value))])
			if err != nil || len(octet) != 1 {
				return "", errors.New("behind \\ a special character or two hex digits are wanted")
			}
			b.Write(octet)
			i += 2
		}
	}
	if !utf8.ValidString(b.String()) {
		return "", errors.New("it is not UTF-8")
	}
	return b.String(), nil
}

func escape(characters string) string {
	var b strings.Builder
	for i, r := range characters {
		last := i+utf8.RuneLen(r) == len(characters)
		switch {
		case strings.ContainsRune("\"+,;<>\\", r), r == '#' && i == 0, r == ' ' && (i == 0 || last):
			b.WriteByte('\\')
			b.WriteRune(r)
		case !unicode.IsPrint(r):
			for _, octet := range []byte(string(r)) {
				fmt.Fprintf(&b, "\\%02x", octet)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// spellValue spells a value out of its DER.
func spellValue(der []byte) string {
	var content cryptobyte.String
	var tag cbasn1.Tag
	rest := cryptobyte.String(der)
	if rest.ReadAnyASN1(&content, &tag) {
		if characters, ok := charactersOf(tag, content); ok {
			return escape(characters)
		}
	}
	return "#" + hex.EncodeToString(der)
}

// charactersOf reads the string types that say which characters there are. A T61String does for ASCII; what
// stands for the rest, its writers do not agree on.
func charactersOf(tag cbasn1.Tag, content []byte) (string, bool) {
	switch tag {
	case cbasn1.UTF8String:
		return string(content), utf8.Valid(content)
	case cbasn1.PrintableString, cbasn1.IA5String, cbasn1.T61String, cbasn1.Tag(asn1.TagNumericString):
		return string(content), !slices.ContainsFunc(content, func(c byte) bool { return c >= utf8.RuneSelf })
	case cbasn1.Tag(asn1.TagBMPString):
		var runes []rune
		for i := 0; i+1 < len(content); i += 2 {
			r := rune(content[i])<<8 | rune(content[i+1])
			if !utf8.ValidRune(r) { // half of a surrogate pair, which a BMPString has no use for
				return "", false
			}
			runes = append(runes, r)
		}
		return string(runes), len(content)%2 == 0
	}
	return "", false
}

var errNoName = errors.New("it is no distinguished name")

// spellDN gives the spelling of a name out of its DER.
func spellDN(der []byte) (string, error) {
	var rdns []string
	var sequence, set cryptobyte.String
	rest := cryptobyte.String(der)
	if !rest.ReadASN1(&sequence, cbasn1.SEQUENCE) || !rest.Empty() {
		return "", errNoName
	}
	for !sequence.Empty() {
		if !sequence.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return "", errNoName
		}
		var attributes []string
		for !set.Empty() {
			var attribute, value cryptobyte.String
			var oid asn1.ObjectIdentifier
			if !set.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&oid) ||
				!attribute.ReadAnyASN1Element(&value, new(cbasn1.Tag)) || !attribute.Empty() {
				return "", errNoName
			}
			name := oid.String()
			for _, t := range attributeTypes() {
				if t[1] == name {
					name = t[0]
				}
			}
			attributes = append(attributes, name+"="+spellValue(value))
		}
		rdns = append(rdns, spellRDN(attributes))
	}
	slices.Reverse(rdns)
	return strings.Join(rdns, ","), nil
}
