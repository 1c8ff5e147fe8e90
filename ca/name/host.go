package name

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

const (
	maxHost  = 253 // characters of a name without the root's dot (RFC 1035 section 2.3.4)
	maxLabel = 63
)

// host gives the canonical form of a DNS host name: lower-case labels of letters, digits and hyphens,
// internationalised ones as A-labels (RFC 5890 section 2.3.2.1), no dot at the end.
func host(field, s string, maxChars int) (string, *Refusal) {
	if bad := plausible(field, s, maxChars); bad != nil {
		return "", bad
	}
	if bad := short(field, s, maxChars); bad != nil {
		return "", bad
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return "", refuseIP(field, s)
	}
	if bad := hostCharacters(field, s); bad != nil {
		return "", bad
	}
	s = strings.ToLower(s)
	if endsInNumber(s) {
		return "", refuseIP(field, s)
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if bad := checkLabel(field, label); bad != nil {
			return "", bad
		}
	}
	if last := labels[len(labels)-1]; !strings.ContainsAny(last, "abcdefghijklmnopqrstuvwxyz") {
		return "", refuse(field, codeLabel, "the last label %s has no letter; send the full name of the host", quote(last))
	}
	if len(labels) == 1 && s != "localhost" {
		return "", refuse(field, codeSingleLabel, "%s has one label; send the full name of the host with its domain", quote(s))
	}
	return s, nil
}

func refuseIP(field, s string) *Refusal {
	return refuse(field, codeIPAsDNS, "%s is, or would be read as, an IP address; an address goes into sans.ip", quote(s))
}

// hostCharacters passes ASCII letters, digits, hyphens and dots, and refuses U-labels with the A-labels
// to use instead.
func hostCharacters(field, s string) *Refusal {
	ascii := true
	for _, r := range s {
		switch code := suspect(r); {
		case code != "":
			return refuseRune(field, code, s, r)
		case r == '_':
			return refuseRune(field, codeUnderscore, s, r)
		case r >= utf8.RuneSelf:
			ascii = false
		case !strings.ContainsRune("-.", r) && !('0' <= r && r <= '9') && !('a' <= r|0x20 && r|0x20 <= 'z'):
			return refuseRune(field, codeCharacters, s, r)
		}
	}
	if ascii {
		return nil
	}
	u := norm.NFC.String(strings.ToLower(s))
	for label := range strings.SplitSeq(u, ".") {
		if bad := word(field, label, "-"); bad != nil {
			return bad
		}
	}
	a, err := idna.Registration.ToASCII(u)
	if err != nil {
		return refuse(field, codeALabel, "%s is no internationalised host name that can be registered; choose another", quote(s))
	}
	return refuse(field, codeALabel, "%s has to be sent in A-label form: %q", quote(s), a)
}

// endsInNumber tells whether the last label is a number in decimal, octal or hexadecimal. URL parsers
// and inet_aton read such a name as an IPv4 address: 127.1, 0x7f.1, 0177.0.0.1, 2130706433.
func endsInNumber(s string) bool {
	s = strings.TrimSuffix(s, ".")
	last := s[strings.LastIndexByte(s, '.')+1:]
	if digits, hex := strings.CutPrefix(last, "0x"); hex {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// checkLabel checks one lower-case label of letters, digits and hyphens (RFC 5890 section 2.3.1).
func checkLabel(field, label string) *Refusal {
	switch {
	case label == "":
		return refuse(field, codeLabel, "an empty label: a dot in front, at the end, or two in a row; send it without")
	case len(label) > maxLabel:
		return refuse(field, codeLabel, "the label %s has %d characters; want at most %d", quote(label), len(label), maxLabel)
	case strings.HasPrefix(label, "xn--"):
		return checkALabel(field, label)
	case label[0] == '-' || label[len(label)-1] == '-':
		return refuse(field, codeLabel, "the label %s begins or ends with '-'; choose another", quote(label))
	case len(label) >= 4 && label[2:4] == "--":
		return refuse(field, codeLabel, "the label %s has \"--\" in the third place, which is reserved; choose another", quote(label))
	}
	return nil
}

// checkALabel accepts an A-label only if it stands for letters of one script, digits and hyphens, and is
// the very form that these are encoded to. That is stricter than the library, whose profiles also pass
// symbols and mixed scripts.
func checkALabel(field, label string) *Refusal {
	u, err := idna.Registration.ToUnicode(label)
	if err != nil {
		return refuse(field, codeALabel, "%s is no valid A-label; send what IDNA 2008 makes of the name", quote(label))
	}
	if a, err := idna.Registration.ToASCII(u); err != nil || a != label || a == u {
		return refuse(field, codeALabel, "%s is not the A-label of what it stands for; send what IDNA 2008 makes of the name", quote(label))
	}
	if bad := word(field, u, "-"); bad != nil {
		if bad.Code != codeMixed {
			bad.Code = codeALabel
		}
		return bad
	}
	return nil
}
