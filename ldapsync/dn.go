package ldapsync

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// ava is one attribute and value of a relative distinguished name. The type is in lower case.
type ava struct{ kind, value string }

// dn is a distinguished name, the leaf first. An RDN usually has one ava.
type dn [][]ava

// attributeOIDs are the numeric forms of the types that RFC 4514 section 3 gives a name.
var attributeOIDs = map[string]string{
	"2.5.4.3": "cn", "2.5.4.6": "c", "2.5.4.7": "l", "2.5.4.8": "st", "2.5.4.9": "street",
	"2.5.4.10": "o", "2.5.4.11": "ou",
	"0.9.2342.19200300.100.1.1": "uid", "0.9.2342.19200300.100.1.25": "dc",
}

// parseDN reads the string form of RFC 4514, and allows the spaces around separators that RFC 2253
// section 4 asks readers to accept.
func parseDN(s string) (dn, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if !utf8.ValidString(s) {
		return nil, errors.New("a distinguished name that is not UTF-8")
	}
	var name dn
	var rdn []ava
	for {
		kind, rest, found := strings.Cut(s, "=")
		kind = strings.ToLower(strings.TrimSpace(kind))
		if !found || !isDescription(kind) || strings.Contains(kind, ";") {
			return nil, fmt.Errorf("a distinguished name with no attribute type at %.40q", s)
		}
		if short, ok := attributeOIDs[kind]; ok {
			kind = short
		}
		value, rest, err := cutValue(strings.TrimLeft(rest, " "))
		if err != nil {
			return nil, err
		}
		rdn = append(rdn, ava{kind, value})
		if rest == "" {
			return append(name, rdn), nil
		}
		if rest[0] != '+' {
			name, rdn = append(name, rdn), nil
		}
		s = rest[1:]
	}
}

// cutValue takes one value off s, undoing its escapes; rest starts with the separator.
func cutValue(s string) (value, rest string, err error) {
	var b []byte
	keep := 0 // trailing spaces count only as far as they were escaped
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ',', '+', ';':
			return string(b[:keep]), s[i:], checkValue(b[:keep])
		case '"', '<', '>', 0:
			return "", "", fmt.Errorf("a distinguished name with a bare %q", c)
		case '\\':
			plain, n := unescape(s[i+1:])
			if n == 0 {
				return "", "", fmt.Errorf("a distinguished name with a bad escape at %.10q", s[i:])
			}
			b = append(b, plain)
			keep = len(b)
			i += n
		default:
			b = append(b, c)
			if c != ' ' {
				keep = len(b)
			}
		}
	}
	return string(b[:keep]), "", checkValue(b[:keep])
}

func checkValue(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("a distinguished name whose escapes are not UTF-8")
	}
	return nil
}

// unescape reads what follows a backslash: a special character or two hexadecimal digits. n is the
// number of octets read, 0 if it is neither.
func unescape(s string) (plain byte, n int) {
	if s == "" {
		return 0, 0
	}
	if strings.IndexByte(` "#+,;<=>\`, s[0]) >= 0 {
		return s[0], 1
	}
	if len(s) < 2 {
		return 0, 0
	}
	b, err := hex.DecodeString(s[:2])
	if err != nil {
		return 0, 0
	}
	return b[0], 2
}

// escapeValue writes a value as RFC 4514 section 2.4 wants it. Control characters, which it would
// allow, are escaped as well, so that a DN stays one line of text.
func escapeValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case strings.IndexByte(`"+,;<>\`, c) >= 0,
			c == '#' && i == 0,
			c == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// below tells whether d is a descendant of parent.
func (d dn) below(parent dn) bool {
	return len(d) > len(parent) && d[len(d)-len(parent):].equal(parent)
}

// equal compares as caseIgnoreMatch does: case and runs of spaces do not count (RFC 4517 section
// 4.2.11). The order of the parts of one RDN does not count either.
func (d dn) equal(other dn) bool {
	return slices.EqualFunc(d, other, func(a, b []ava) bool { return slices.Equal(folded(a), folded(b)) })
}

func folded(rdn []ava) []string {
	out := make([]string, len(rdn))
	for i, a := range rdn {
		out[i] = a.kind + "=" + strings.ToLower(strings.Join(strings.Fields(a.value), " "))
	}
	slices.Sort(out)
	return out
}

// values gives the values of one attribute type in the first RDN.
func (d dn) values(kind string) []string {
	var out []string
	if len(d) > 0 {
		for _, a := range d[0] {
			if a.kind == kind {
				out = append(out, a.value)
			}
		}
	}
	return out
}
