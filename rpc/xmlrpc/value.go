package xmlrpc

import (
	"encoding/base64"
	"strconv"
	"time"
)

// value reads a <value>. Depth is checked before anything else: it bounds the
// recursion of value, array and structure.
func (d *decoder) value(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, invalid(d.pos, "values nested deeper than %d", MaxDepth)
	}
	tok, err := d.next()
	if err != nil {
		return nil, err
	}
	if tok.kind == charData {
		before := tok
		if tok, err = d.next(); err != nil {
			return nil, err
		}
		// Reading a tag leaves the text before it alone.
		if tok.kind == endTag {
			return string(before.text), nil
		}
		if indexNonSpace(before.text) >= 0 {
			return nil, invalid(before.at, "text beside an element in <value>")
		}
	}
	if tok.kind == endTag {
		return "", nil
	}
	v, err := d.typed(tok, depth)
	if err != nil {
		return nil, err
	}
	return v, d.close()
}

// typed reads the element inside a <value>.
func (d *decoder) typed(tok token, depth int) (any, error) {
	switch string(tok.name) {
	case "array":
		return d.array(depth)
	case "struct":
		return d.structure(depth)
	case "string", "int", "i4", "boolean", "base64", "dateTime.iso8601":
		text, err := d.text()
		if err != nil {
			return nil, err
		}
		return scalar(string(tok.name), text, tok.at)
	case "double":
		return nil, invalid(tok.at, "<double> is not served; send an <int> or a <string>")
	case "nil":
		return nil, invalid(tok.at, "<nil/> is not served; leave the member out")
	case "i8":
		return nil, invalid(tok.at, "<i8> is not served; send an <int> within 32 bits or a <string>")
	}
	return nil, invalid(tok.at, "unknown type %s", quote(tok.name))
}

func (d *decoder) array(depth int) (any, error) {
	if err := d.child("data"); err != nil {
		return nil, err
	}
	items := []any{}
	err := d.each("value", func(int) error {
		v, err := d.value(depth + 1)
		items = append(items, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return items, d.close()
}

func (d *decoder) structure(depth int) (any, error) {
	members := map[string]any{}
	err := d.each("member", func(at int) error {
		name, v, err := d.member(depth)
		if err != nil {
			return err
		}
		if _, twice := members[name]; twice {
			return invalid(at, "member %s twice in one struct", quote(name))
		}
		if len(members) == MaxMembers {
			return invalid(at, "more than %d members in one struct", MaxMembers)
		}
		members[name] = v
		return nil
	})
	if err != nil {
		return nil, err
	}
	return members, nil
}

func (d *decoder) member(depth int) (string, any, error) {
	if err := d.child("name"); err != nil {
		return "", nil, err
	}
	text, err := d.text()
	if err != nil {
		return "", nil, err
	}
	name := string(text)
	if err := d.child("value"); err != nil {
		return "", nil, err
	}
	v, err := d.value(depth + 1)
	if err != nil {
		return "", nil, err
	}
	return name, v, d.close()
}

// scalar turns the text of a typed element into its value.
func scalar(name string, text []byte, at int) (any, error) {
	switch name {
	case "string":
		return string(text), nil
	case "boolean":
		if string(text) != "0" && string(text) != "1" {
			return nil, invalid(at, "boolean %s is neither 0 nor 1", quote(text))
		}
		return text[0] == '1', nil
	case "base64":
		return decodeBase64(text, at)
	case "dateTime.iso8601":
		return decodeTime(string(text), at)
	}
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil {
		return nil, invalid(at, "%s is not an integer within 32 bits; send a larger one as <string>", quote(text))
	}
	return int(n), nil
}

// decodeBase64 reads the alphabet of RFC 4648 section 4 with padding, white
// space anywhere: clients break lines at 60 or 76 columns.
func decodeBase64(text []byte, at int) (any, error) {
	packed := make([]byte, 0, len(text))
	for _, c := range text {
		if !isSpace(c) {
			packed = append(packed, c)
		}
	}
	n, err := base64.StdEncoding.Strict().Decode(packed, packed)
	if err != nil {
		return nil, invalid(at, "not base64")
	}
	return packed[:n:n], nil
}

// Layouts of dateTime.iso8601. The first is the one of the specification and
// the only one written: Python reads no other.
const (
	layout         = "20060102T15:04:05"
	layoutZone     = "20060102T15:04:05Z"
	layoutExtended = "2006-01-02T15:04:05Z"
)

// decodeTime reads a time of the years 1 to 9999. One without a zone is UTC,
// as all times of this service are.
func decodeTime(text string, at int) (any, error) {
	for _, l := range []string{layout, layoutZone, layoutExtended} {
		t, err := time.Parse(l, text)
		// Parse takes fractions of a second and other spellings too; Format
		// writes one only.
		if err == nil && t.Year() > 0 && t.Format(l) == text {
			return t, nil
		}
	}
	return nil, invalid(at, "time %s is not YYYYMMDDTHH:MM:SS in UTC", quote(text))
}
