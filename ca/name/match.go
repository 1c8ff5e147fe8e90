package name

import "strings"

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
