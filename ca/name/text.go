package name

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxMarks is how many marks may follow one letter (Unicode Technical Standard 39 section 5.4).
const maxMarks = 4

// person gives the canonical name of a person.
func person(field, s string) (Name, *Refusal) {
	if bad := plausible(field, s, maxCommonName); bad != nil {
		return Name{}, bad
	}
	s = norm.NFC.String(s)
	if bad := short(field, s, maxCommonName); bad != nil {
		return Name{}, bad
	}
	if strings.HasPrefix(s, " ") || strings.HasSuffix(s, " ") || strings.Contains(s, "  ") {
		return Name{}, refuse(field, codeSpace, "%s has a space in front, at the end, or two in a row; send it without", quote(s))
	}
	if bad := word(field, s, " .-_'@"); bad != nil {
		return Name{}, bad
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
		return Name{}, refuse(field, codeCharacters, "%s has neither a letter nor a digit; send a name that has", quote(s))
	}
	// Tools read the one as an option and the other as a hidden file or a step up.
	if s[0] == '-' || s[0] == '.' {
		return Name{}, refuse(field, codeCharacters, "%U in front of %s; begin with a letter or a digit", s[0], quote(s))
	}
	return Name{Text: s, Key: fold(s)}, nil
}

// fold gives the form in which people's names are compared. It is at least as coarse as the
// caseIgnoreMatch of a directory (RFC 4518 section 2, RFC 3454 table B.2), so two names that a directory
// takes for one are never two here. Decomposing first makes one-to-one folding enough for all letters
// but the sharp s. The dotted capital I is i, as OpenLDAP has it, though table B.2 keeps its dot.
func fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	var b strings.Builder
	for _, r := range norm.NFD.String(strings.ReplaceAll(norm.NFC.String(s), "\u0130", "i")) {
		switch r {
		case 'ß', 'ẞ':
			b.WriteString("ss")
		case 'ı': // its capital is the I of i, and yet it is another letter
			b.WriteRune(r)
		default:
			b.WriteRune(unicode.ToLower(unicode.ToUpper(r)))
		}
	}
	return norm.NFC.String(b.String())
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// suspect gives the code for a character that no name may have, whatever its purpose, and "" for the
// others. U+0020 counts as one; where it is allowed, the caller knows.
func suspect(r rune) string {
	switch {
	case unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp):
		return codeControl
	case unicode.In(r, unicode.C, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector),
		!unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z):
		return codeInvisible
	case unicode.Is(unicode.Zs, r):
		return codeSpace
	case r == '*':
		return codeWildcard
	case r >= utf8.RuneSelf && norm.NFKC.String(string(r)) != string(r):
		return codeCharacters // a compatibility character: another way to write what has a plain form
	}
	return ""
}

// refuseRune refuses s for one character.
func refuseRune(field, code, s string, r rune) *Refusal {
	what := "is not allowed; leave it out"
	switch code {
	case codeControl:
		what = "is a control character; leave it out"
	case codeInvisible:
		what = "cannot be seen, or is no assigned character; leave it out"
	case codeSpace:
		what = "is a space where none may be, or another than U+0020; leave it out, or send U+0020"
	case codeWildcard:
		what = "is a wildcard; ask for each name by itself"
	case codeUnderscore:
		what = "is an underscore; use '-'"
	}
	return refuse(field, code, "%U in %s %s", r, quote(s), what)
}

// word accepts letters of one script with their marks, ASCII digits, and the given punctuation. s is in
// form C. The first character that it does not accept is named.
func word(field, s, punctuation string) *Refusal {
	var scripts []string
	var marks []rune // that follow the letter base
	base := rune(0)
	for _, r := range s {
		plain := '0' <= r && r <= '9' || strings.ContainsRune(punctuation, r)
		if plain {
			base = 0
			continue
		}
		if code := suspect(r); code != "" {
			return refuseRune(field, code, s, r)
		}
		script := scriptOf(r, scripts)
		switch {
		case unicode.IsLetter(r) && script != "":
			base, marks = r, marks[:0]
		case base != 0 && markFits(base, marks, r):
			marks = append(marks, r)
		default:
			return refuseRune(field, codeCharacters, s, r)
		}
		if script != "" && !slices.Contains(scripts, script) {
			scripts = append(scripts, script)
		}
	}
	if !oneWriting(scripts) {
		return refuse(field, codeMixed, "%s mixes %s letters; write it in one script", quote(s), strings.Join(scripts, " and "))
	}
	return nil
}

// markFits tells whether a mark can be seen where it stands: not an enclosing mark, a stroke through the
// letter, the same mark again, one too many, or a dot over a letter that has one.
func markFits(base rune, marks []rune, r rune) bool {
	const overlay = 1 // canonical combining class
	switch {
	case !unicode.In(r, unicode.Mn, unicode.Mc),
		unicode.Is(unicode.Common, r),
		len(marks) == maxMarks,
		len(marks) > 0 && marks[len(marks)-1] == r,
		norm.NFC.PropertiesString(string(r)).CCC() == overlay,
		r == '\u0307' && unicode.Is(unicode.Soft_Dotted, base):
		return false
	}
	return true
}

// scriptOf names the script of a letter or mark, looking first among those already seen; "" if the
// character belongs to several.
func scriptOf(r rune, seen []string) string {
	if r == 'ー' {
		return "Katakana" // Unicode calls it common, as Hiragana has it too
	}
	for _, script := range seen {
		if unicode.Is(unicode.Scripts[script], r) {
			return script
		}
	}
	for script, table := range unicode.Scripts {
		if unicode.Is(table, r) && script != "Common" && script != "Inherited" {
			return script
		}
	}
	return ""
}

// oneWriting tells whether the scripts are one, or those that Japanese, Chinese or Korean are written in
// together (Unicode Technical Standard 39 section 5.1).
func oneWriting(scripts []string) bool {
	if len(scripts) <= 1 {
		return true
	}
	together := [][]string{{"Han", "Hiragana", "Katakana"}, {"Han", "Bopomofo"}, {"Han", "Hangul"}}
	return slices.ContainsFunc(together, func(group []string) bool {
		return !slices.ContainsFunc(scripts, func(script string) bool { return !slices.Contains(group, script) })
	})
}
