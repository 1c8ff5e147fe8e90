package site

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/chancery-ca/chancery/rpc"
)

// callersText is the text of chancery.yaml, and where in it the callers are.
type callersText struct {
	lines  []string // with their ends
	key    int      // the line with the key, from 0
	end    int      // the line behind all that belongs to it
	items  []int    // the line that each caller begins with
	indent string   // before the dash of each
}

// errByHand says that the callers are written in a way that only their author can change well.
var errByHand = fmt.Errorf("%w: callers is not a plain list with one - for each caller, in lines of its own: change it by hand", ErrConfig)

var callersKey = regexp.MustCompile(`^callers:[ \t]*(\[[ \t]*\])?[ \t]*((#.*)?\r?\n?)$`)

// findCallers reads where the callers are in a text that is one document with a mapping.
func findCallers(text []byte) (*callersText, error) {
	t := &callersText{indent: "  "}
	for line := range strings.Lines(string(text)) {
		t.lines = append(t.lines, line)
	}
	if last := len(t.lines) - 1; !strings.HasSuffix(t.lines[last], "\n") {
		t.lines[last] += "\n"
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	top, ok := file.Docs[0].Body.(*ast.MappingNode)
	if !ok {
		return nil, errByHand
	}
	t.end = -1
	var list ast.Node
	for _, pair := range top.Values {
		at := pair.Key.GetToken().Position.Line - 1
		if list != nil {
			t.end = at
			break
		}
		if pair.Key.GetToken().Value == "callers" {
			t.key, list = at, pair.Value
		}
	}
	if t.end < 0 {
		t.end = len(t.lines)
	}
	if !callersKey.MatchString(t.lines[t.key]) {
		return nil, errByHand
	}
	callers, ok := list.(*ast.SequenceNode)
	if !ok {
		return nil, errByHand
	}
	return t, t.findItems(callers)
}

func (t *callersText) findItems(list *ast.SequenceNode) error {
	for i, entry := range list.Entries {
		at := entry.Start.Position
		t.items = append(t.items, at.Line-1)
		before, _, dashed := strings.Cut(t.lines[at.Line-1], "-")
		if !dashed || strings.Trim(before, " ") != "" || i > 0 && before != t.indent {
			return errByHand
		}
		t.indent = before
	}
	return nil
}

// last is the line behind the last one that is a caller's. A comment that is not indented, or not more than the list,
// is about what follows.
func (t *callersText) last() int {
	for at := t.end - 1; at > t.key; at-- {
		line := t.lines[at]
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(strings.TrimPrefix(line, t.indent), "#") {
			return at + 1
		}
	}
	return t.key + 1
}

// head is the line where a caller begins, with the comment right above it. What is above the first is about all.
func (t *callersText) head(item int) int {
	at := t.items[item]
	for item > 0 && strings.HasPrefix(t.lines[at-1], t.indent+"#") {
		at--
	}
	return at
}

func (t *callersText) add(c rpc.Caller) {
	at := t.last()
	if len(t.items) == 0 {
		t.lines[t.key] = callersKey.ReplaceAllString(t.lines[t.key], "callers: $2")
		at = t.key + 1
	}
	t.splice(at, at, callerLines(c, t.indent))
}

func (t *callersText) remove(item int) {
	to := t.last()
	if item+1 < len(t.items) {
		to = t.head(item + 1)
	}
	t.splice(t.head(item), to, nil)
	if len(t.items) == 1 {
		t.lines[t.key] = callersKey.ReplaceAllString(t.lines[t.key], "callers: [] $2")
	}
}

func (t *callersText) splice(from, to int, lines []string) {
	t.lines = append(append(append([]string{}, t.lines[:from]...), lines...), t.lines[to:]...)
}

func (t *callersText) bytes() []byte { return []byte(strings.Join(t.lines, "")) }

// callerLines writes a caller as YAML.
func callerLines(c rpc.Caller, indent string) []string {
	lines := []string{"- name: " + quoted([]string{c.Name})[0]}
	if len(c.Credentials) > 0 {
		lines = append(lines, "  credentials:")
	}
	for _, one := range c.Credentials {
		if one.SPKI != "" {
			lines = append(lines, "    - spki: "+strconv.Quote(one.SPKI))
			continue
		}
		lines = append(lines, "    - issuer: "+strconv.Quote(one.Issuer), "      subject: "+strconv.Quote(one.Subject))
	}
	if len(c.Grants) > 0 {
		lines = append(lines, "  grants:")
	}
	for _, g := range c.Grants {
		dash := "- "
		for _, member := range []struct {
			key    string
			values []string
		}{{"methods", quoted(g.Methods)}, {"purposes", quoted(g.Purposes)}, {"names", quoted(g.Names)}, {"domains", quoted(g.Domains)}, {"networks", quoted(g.Networks)}, {"key_types", quoted(g.KeyTypes)}, {"reasons", quoted(g.Reasons)}} {
			if len(member.values) > 0 {
				lines = append(lines, "    "+dash+member.key+": ["+strings.Join(member.values, ", ")+"]")
				dash = "  "
			}
		}
		for _, member := range []struct {
			key   string
			value int
		}{{"max_days", g.MaxDays}, {"max", g.Max}, {"per_hour", g.PerHour}} {
			if member.value != 0 {
				lines = append(lines, fmt.Sprintf("    %s%s: %d", dash, member.key, member.value))
				dash = "  "
			}
		}
		if g.Own {
			lines = append(lines, "    "+dash+"own: true")
		}
	}
	for i, l := range lines {
		lines[i] = indent + l + "\n"
	}
	return lines
}

var plainText = regexp.MustCompile(`^[a-z][a-z0-9.-]*[a-z0-9]$`)

// quoted leaves plain words as they are.
func quoted[S ~string](words []S) []string {
	var all []string
	for _, w := range words {
		if one := string(w); plainText.MatchString(one) && one != "null" && one != "true" && one != "false" {
			all = append(all, one)
		} else {
			all = append(all, strconv.Quote(one))
		}
	}
	return all
}
