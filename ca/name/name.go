// Package name holds the one canonical form of a name. Policy, store, directory and revocation all
// compare names by it, so that a name means the same everywhere.
//
// The rule: check against an allow-list for the purpose, and refuse what is not on it. Nothing is
// repaired, with two exceptions that change no meaning: a person's name is brought to Unicode
// normalisation form C, and host names and mail domains to lower case. The length is checked first, so
// that a huge name costs nothing.
//
// It does no I/O and imports ca/cert, golang.org/x/text/unicode/norm, golang.org/x/net/idna and the
// standard library.
package name

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/ca/cert"
)

// maxCommonName is ub-common-name of RFC 5280 appendix A.1, in characters.
const maxCommonName = 64

// maxCaller is the longest name of a caller.
const maxCaller = 63

// Name is a canonical common name. Text stands in the certificate and the directory; Key is what names
// are compared and looked up by. For a person the Key is case folded, because a directory compares cn
// without case: "Alice" and "alice" are one name. For the other purposes both are the same.
type Name struct {
	Text string
	Key  string
}

// Refusal says why a name is not accepted. Code is a stable word of the form "name.xxx", Field is the
// value it is about ("cn", "sans.dns[1]"), and Reason tells a person what to do. Hostile input appears
// in Reason only escaped and clipped.
type Refusal struct {
	Code   string
	Field  string
	Reason string
}

// The codes. Each is given for one kind of fault and never changes its meaning.
const (
	codeEmpty       = "name.empty"
	codeTooLong     = "name.too_long"
	codeNotUTF8     = "name.not_utf8"
	codeControl     = "name.control"       // NUL, tab, line ends, C0, C1
	codeInvisible   = "name.invisible"     // format characters, fillers, private use, unassigned
	codeSpace       = "name.space"         // leading, trailing, double, other than U+0020, or any where none may be
	codeMixed       = "name.mixed_scripts" // letters of two scripts
	codeCharacters  = "name.characters"    // anything else that the allow-list does not have
	codeWildcard    = "name.wildcard"
	codeUnderscore  = "name.underscore"
	codeIPAsDNS     = "name.ip_as_dns"
	codeLabel       = "name.label"  // a DNS label of a wrong length or with hyphens in the wrong place
	codeALabel      = "name.alabel" // a U-label, or an A-label that is not the one form of its U-label
	codeSingleLabel = "name.single_label"
	codeReserved    = "name.reserved"
	codeSANType     = "name.san_type"
	codeSANCount    = "name.san_count"
	codeSAN         = "name.san"
	codePurpose     = "name.purpose"
)

// Error gives the code, the field and the reason on one line.
func (r *Refusal) Error() string { return r.Code + ": " + r.Field + ": " + r.Reason }

func refuse(field, code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Field: field, Reason: fmt.Sprintf(format, args...)}
}

// Canonical gives the canonical form of a common name, or a *Refusal.
//
// A user's is 1 to 64 characters: letters of one script with their marks, ASCII digits, single inner
// spaces and . - _ ' @, with at least one letter or digit and neither '-' nor '.' in front. A server's
// is a DNS host name of at most 64 characters in lower-case A-label form. A caller's matches
// [a-z0-9][a-z0-9-]{0,62}. "root", "ca" and "crl" are reserved.
//
// A whole name in one script that looks like a name in another is accepted: who may have which name is
// for grants and the directory to say.
func Canonical(purpose cert.Purpose, cn string) (Name, error) {
	name, bad := canonical(purpose, cn)
	if bad != nil {
		return Name{}, bad
	}
	return name, nil
}

func canonical(purpose cert.Purpose, cn string) (Name, *Refusal) {
	const field = "cn"
	var name Name
	var bad *Refusal
	switch purpose {
	case cert.User:
		name, bad = person(field, cn)
	case cert.Server:
		name.Text, bad = host(field, cn, maxCommonName)
		name.Key = name.Text
	case cert.Caller:
		name.Text, bad = caller(field, cn)
		name.Key = name.Text
	default:
		bad = refuse(field, codePurpose, "no names are defined for the purpose %s", quote(string(purpose)))
	}
	if bad == nil && reserved(name.Key) {
		bad = refuse(field, codeReserved, "%s is reserved for the CA itself; choose another name", quote(name.Text))
	}
	return name, bad
}

// reserved tells whether a key could be taken for a part of the CA: in a path, a report or a person's
// eye. The last one is Cyrillic and looks like "ca".
func reserved(key string) bool {
	switch key {
	case "root", "ca", "crl", "\u0441\u0430":
		return true
	}
	return false
}

// plausible makes the checks that cost nothing and come before all others. A character has at most four
// octets, and at most four characters become one in form C; so what is longer than 16 octets for each
// character that is allowed cannot become short enough.
func plausible(field, s string, maxChars int) *Refusal {
	switch {
	case len(s) > 16*maxChars:
		return refuse(field, codeTooLong, "%d octets; want at most %d characters", len(s), maxChars)
	case s == "":
		return refuse(field, codeEmpty, "empty; want 1 to %d characters", maxChars)
	case !utf8.ValidString(s):
		return refuse(field, codeNotUTF8, "%s is not UTF-8; send UTF-8", quote(s))
	}
	return nil
}

// short counts the characters.
func short(field, s string, maxChars int) *Refusal {
	if n := utf8.RuneCountInString(s); n > maxChars {
		return refuse(field, codeTooLong, "%d characters; want at most %d", n, maxChars)
	}
	return nil
}

// caller gives the canonical name of a client of the CA's RPC. There is no lower-casing: the name is
// the one that the configuration spells.
func caller(field, s string) (string, *Refusal) {
	if bad := plausible(field, s, maxCaller); bad != nil {
		return "", bad
	}
	if bad := short(field, s, maxCaller); bad != nil {
		return "", bad
	}
	for _, r := range s {
		if code := suspect(r); code != "" {
			return "", refuseRune(field, code, s, r)
		}
		if r == '_' {
			return "", refuseRune(field, codeUnderscore, s, r)
		}
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) {
			return "", refuse(field, codeCharacters, "%U in %s; a caller's name has only a-z, 0-9 and '-'", r, quote(s))
		}
	}
	if s[0] == '-' {
		return "", refuse(field, codeCharacters, "%U in front of %s; begin with a letter or a digit", '-', quote(s))
	}
	return s, nil
}

// quote makes hostile input safe to show: ASCII only, escaped, clipped.
func quote(s string) string {
	const most = 48
	if len(s) > most {
		return fmt.Sprintf("%+q...", s[:most])
	}
	return fmt.Sprintf("%+q", s)
}
