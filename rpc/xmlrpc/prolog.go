package xmlrpc

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// checkText looks at a whole document before any of it is parsed: its encoding
// (XML 1.0 section 4.3.3 and appendix F) and its characters (section 2.2). It
// returns where the XML declaration ends.
func checkText(body []byte) (int, error) {
	if err := checkFamily(body); err != nil {
		return 0, err
	}
	encoding, start, err := declaration(body)
	if err != nil {
		return 0, err
	}
	ascii := false
	switch strings.ToLower(encoding) {
	case "", "utf-8":
	case "us-ascii", "iso-8859-1":
		// Old Perl and PHP clients declare these by habit; ASCII means the
		// same in all of them.
		ascii = true
	default:
		return 0, unsupportedEncoding("%s is declared; send UTF-8", quote(encoding))
	}
	for i := 0; i < len(body); {
		if c := body[i]; c >= 0x20 && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRune(body[i:])
		switch {
		case r >= utf8.RuneSelf && ascii:
			return 0, unsupportedEncoding("%s is declared and byte %d is not ASCII; send UTF-8", quote(encoding), i)
		case r == utf8.RuneError && size == 1:
			return 0, invalidCharacter(i, "byte %#02x is not UTF-8", body[i])
		case !isChar(r):
			return 0, invalidCharacter(i, "%U is not allowed in XML", r)
		}
		i += size
	}
	return start, nil
}

// checkFamily refuses the byte order marks and the encodings which can be told
// from their first bytes (XML 1.0 appendix F.1).
func checkFamily(body []byte) error {
	for _, bom := range []struct{ mark, name string }{
		{"\xEF\xBB\xBF", "a byte order mark; send UTF-8 without it"},
		{"\xFE\xFF", "UTF-16; send UTF-8"},
		{"\xFF\xFE", "UTF-16 or UTF-32; send UTF-8"},
		{"\x4C\x6F\xA7\x94", "EBCDIC; send UTF-8"},
	} {
		if bytes.HasPrefix(body, []byte(bom.mark)) {
			return unsupportedEncoding("%s", bom.name)
		}
	}
	if bytes.IndexByte(body[:min(len(body), 2)], 0) >= 0 {
		return unsupportedEncoding("UTF-16 or UTF-32; send UTF-8")
	}
	return nil
}

// declaration reads the XML declaration (productions [23] to [26], [32], [80]
// and [81] of XML 1.0), if there is one, and returns the encoding it names and
// the offset after it.
func declaration(body []byte) (encoding string, end int, err error) {
	const mark = "<?xml"
	if !bytes.HasPrefix(body, []byte(mark)) || len(body) == len(mark) || !isSpace(body[len(mark)]) {
		return "", 0, nil
	}
	inside, _, found := bytes.Cut(body[len(mark):], []byte("?>"))
	if !found {
		return "", 0, notWellFormed(0, "XML declaration without end")
	}
	end = len(mark) + len(inside) + len("?>")
	rest := inside
	version, rest := pseudoAttribute(rest, "version")
	label, rest := pseudoAttribute(rest, "encoding")
	standalone, rest := pseudoAttribute(rest, "standalone")
	switch {
	case version != "1.0":
		return "", 0, notWellFormed(0, "XML declaration must begin with version 1.0")
	case label == "" && bytes.Contains(inside, []byte("encoding")):
		return "", 0, notWellFormed(0, "broken XML declaration")
	case standalone != "" && standalone != "yes" && standalone != "no":
		return "", 0, notWellFormed(0, "standalone is neither yes nor no")
	case len(bytes.TrimLeft(rest, " \t\r\n")) != 0:
		return "", 0, notWellFormed(0, "broken XML declaration")
	}
	return label, end, nil
}

// pseudoAttribute takes ` name = "text"` from the front of s. If s does not
// begin with it, the text is empty and s is returned whole.
func pseudoAttribute(s []byte, name string) (text string, rest []byte) {
	t := bytes.TrimLeft(s, " \t\r\n")
	if len(t) == len(s) || !bytes.HasPrefix(t, []byte(name)) {
		return "", s
	}
	t = bytes.TrimLeft(t[len(name):], " \t\r\n")
	if len(t) == 0 || t[0] != '=' {
		return "", s
	}
	t = bytes.TrimLeft(t[1:], " \t\r\n")
	if len(t) == 0 || (t[0] != '"' && t[0] != '\'') {
		return "", s
	}
	inside, rest, found := bytes.Cut(t[1:], t[:1])
	if !found {
		return "", s
	}
	return string(inside), rest
}
