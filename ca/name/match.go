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

// Covers tells whether pattern fits every key that other fits. It may say no where only the length of names, or the
// few characters that they have, makes it so.
//
// No key has a '*'. So a run that a star of other stands for can be as strange as the '*' itself is to a pattern, whose
// own letters do not fit it: only a star can, and that fits any other run in its place as well.
func Covers(pattern, other string) bool {
	return pattern == "*" || other != "*" && Match(pattern, fold(other))
}

// Pointless gives the first of some patterns that another one covers, and that one; of two that are the same the
// later; -1 if each may matter.
func Pointless(patterns []string) (i, by int) {
	first := make(map[string]int)
	var starred []int // only these cover what is not the same
	for i, p := range patterns {
		if strings.Contains(p, "*") {
			starred = append(starred, i)
		}
		if _, twice := first[fold(p)]; !twice {
			first[fold(p)] = i
		}
	}
	for i, p := range patterns {
		if j := first[fold(p)]; j != i {
			return i, j
		}
		for _, j := range starred {
			if i != j && Covers(patterns[j], p) && (j < i || !Covers(p, patterns[j])) {
				return i, j
			}
		}
	}
	return -1, -1
}

// Narrow gives the pattern that fits those host names which pattern fits and which are in a domain, as InDomain has
// it; some tells whether there can be any. No pattern is "*" below a domain, so that "*" stays as it is.
func Narrow(pattern, domain string) (narrow string, some bool) {
	if pattern == "*" {
		return pattern, true
	}
	labels, below := strings.Split(fold(pattern), "."), strings.Split(domain, ".")
	above := len(labels) - len(below)
	if above < 0 {
		return "", false
	}
	for i, label := range below {
		if !matchPart(labels[above+i], label) {
			return "", false
		}
	}
	return strings.Join(append(labels[:above], below...), "."), true
}

// Matchable tells whether a pattern could fit the common name of a certificate of the purpose. It says no only where
// that is certain.
func Matchable(purpose cert.Purpose, pattern string) bool {
	if pattern == "*" {
		return true
	}
	pattern = fold(pattern)
	switch purpose {
	case cert.User:
		return matchablePerson(pattern)
	case cert.Server:
		return matchableHost(pattern, maxCommonName)
	case cert.Caller:
		plain := strings.ReplaceAll(pattern, "*", "")
		return len(plain) <= maxCaller && strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.HasPrefix(pattern, "-") && !reserved(pattern)
	}
	return false
}

// MatchableHost tells the same of the further host names of a server, which may be longer.
func MatchableHost(pattern string) bool {
	return pattern == "*" || matchableHost(fold(pattern), maxHost)
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
	return !tooLong(pattern) && !strings.HasPrefix(pattern, " ") && !strings.HasSuffix(pattern, " ") && !strings.Contains(pattern, "  ") &&
		!strings.HasPrefix(pattern, "-") && !strings.HasPrefix(pattern, ".") && strings.Trim(pattern, punctuation) != "" && !reserved(pattern)
}

// tooLong tells whether a folded pattern has more characters than the key of any person. A key can be longer than its
// name: folding makes "ss" of one character, and decomposing makes up to four of one, of which one at most is ASCII.
func tooLong(pattern string) bool {
	ascii, sharp, all := 0, 0, 0
	for _, r := range pattern {
		switch {
		case r == '*':
			continue
		case r == 's':
			sharp++
		case r < utf8.RuneSelf:
			ascii++
		}
		all++
	}
	return ascii+(sharp+1)/2 > maxCommonName || all > 4*maxCommonName
}

func matchableHost(pattern string, most int) bool {
	if !strings.Contains(pattern, "*") {
		s, bad := host("", pattern, most)
		return bad == nil && s == pattern
	}
	labels := strings.Split(pattern, ".")
	shortest := len(labels) - 1
	for _, label := range labels {
		if !matchableLabel(label) {
			return false
		}
		shortest += max(1, len(strings.ReplaceAll(label, "*", "")))
	}
	last := labels[len(labels)-1]
	return shortest <= most && (strings.Contains(last, "*") || strings.ContainsAny(last, "abcdefghijklmnopqrstuvwxyz") && !endsInNumber(last)) &&
		(len(labels) > 1 || Match(pattern, "localhost"))
}

func matchableLabel(pattern string) bool {
	if !strings.Contains(pattern, "*") && checkLabel("", pattern) != nil {
		return false
	}
	plain := strings.ReplaceAll(pattern, "*", "")
	return len(plain) <= maxLabel && strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" &&
		!strings.HasPrefix(pattern, "-") && !strings.HasSuffix(pattern, "-")
}
