package name

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/ca/cert"
)

// InDomain tells whether a canonical host name is suffix or lies below it, label by label:
// "www.example.org" is in "example.org", "evilexample.org" is not. suffix is a canonical host name too,
// without a dot in front; nothing is in "".
func InDomain(host, suffix string) bool {
	return suffix != "" && (host == suffix || strings.HasSuffix(host, "."+suffix))
}

// Match tells whether a key fits the pattern of a grant. The pattern "*" fits every key. In any other
// pattern '*' stands for any run of characters, the empty one included, other than '.': "*.example.org"
// fits "www.example.org", and neither "a.b.example.org" nor "example.org"; "web*" does not fit
// "web.example.net". All other characters stand for themselves; the pattern is case folded as keys are.
func Match(pattern, key string) bool {
	if pattern == "*" {
		return true
	}
	patterns, parts := strings.Split(fold(pattern), "."), strings.Split(key, ".")
	if len(patterns) != len(parts) {
		return false
	}
	for i := range parts {
		if !matchPart(patterns[i], parts[i]) {
			return false
		}
	}
	return true
}

// matchPart finds the pieces between the stars from left to right. The leftmost place for each piece
// leaves the most room for the next, so nothing is ever tried twice.
func matchPart(pattern, s string) bool {
	pieces := strings.Split(pattern, "*")
	last := len(pieces) - 1
	if last == 0 {
		return pattern == s
	}
	rest, ok := strings.CutPrefix(s, pieces[0])
	if !ok {
		return false
	}
	for _, piece := range pieces[1:last] {
		_, after, found := strings.Cut(rest, piece)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, pieces[last])
}

// Covers tells whether pattern certainly fits every key that other fits. Where it cannot tell, it says no.
func Covers(pattern, other string) bool {
	if pattern == "*" || fold(pattern) == fold(other) {
		return true
	}
	if other == "*" {
		return false
	}
	wide, narrow := strings.Split(fold(pattern), "."), strings.Split(fold(other), ".")
	if len(wide) != len(narrow) {
		return false
	}
	for i := range wide {
		literal := !strings.Contains(narrow[i], "*")
		if wide[i] != "*" && wide[i] != narrow[i] && !(literal && matchPart(wide[i], narrow[i])) {
			return false
		}
	}
	return true
}

// Matchable tells whether a pattern could fit a name of a certificate of the purpose: its common name, or a
// host name of a server. It says no only where that is certain.
func Matchable(purpose cert.Purpose, pattern string) bool {
	if pattern == "*" {
		return true
	}
	pattern = fold(pattern)
	switch purpose {
	case cert.User:
		return matchablePerson(pattern)
	case cert.Server:
		return matchableHost(pattern)
	case cert.Caller:
		plain := strings.ReplaceAll(pattern, "*", "")
		return len(plain) <= maxCaller && strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.HasPrefix(pattern, "-") && !reserved(pattern)
	}
	return false
}

// matchablePerson looks at what folding leaves as it is.
func matchablePerson(pattern string) bool {
	const punctuation = " .-_'@"
	for _, r := range pattern {
		ascii := 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '*' || strings.ContainsRune(punctuation, r)
		if r < utf8.RuneSelf && !ascii || unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) || r >= utf8.RuneSelf && unicode.Is(unicode.Zs, r) {
			return false
		}
	}
	return !strings.HasPrefix(pattern, " ") && !strings.HasSuffix(pattern, " ") && !strings.Contains(pattern, "  ") &&
		!strings.HasPrefix(pattern, "-") && !strings.HasPrefix(pattern, ".") && strings.Trim(pattern, punctuation) != "" && !reserved(pattern)
}

func matchableHost(pattern string) bool {
	if !strings.Contains(pattern, "*") {
		s, bad := host("", pattern, maxHost)
		return bad == nil && s == pattern
	}
	labels := strings.Split(pattern, ".")
	for _, label := range labels {
		plain := strings.ReplaceAll(label, "*", "")
		if label == "" || len(plain) > maxLabel || strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' {
			return false
		}
	}
	last := labels[len(labels)-1]
	return (strings.Contains(last, "*") || strings.ContainsAny(last, "abcdefghijklmnopqrstuvwxyz")) &&
		(len(labels) > 1 || Match(pattern, "localhost"))
}
