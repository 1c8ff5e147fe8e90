package site

import (
	"regexp"
	"strings"

	"github.com/chancery-ca/chancery/docs"
)

// Reference is what there is to know of one key.
type Reference struct {
	File    string `json:"file"` // chancery.yaml or keyroom.json
	Key     string `json:"key"`  // as in callers[].name
	Meaning string `json:"meaning"`
	Needed  string `json:"needed"` // yes; no, with what is the default; or when
}

// link is one in Markdown.
var link = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)

// References gives every key of both files in the order of docs/CONFIG.md, whose tables they are.
func References() []Reference {
	var all []Reference
	file := ""
	for line := range strings.Lines(docs.Config) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			file, _, _ = strings.Cut(strings.TrimSpace(heading), ",")
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		key := strings.TrimSpace(cells[0])
		if (file != ConfigName && file != RoomConfigName) || len(cells) != 3 || !strings.HasPrefix(key, "`") {
			continue
		}
		plain := func(cell string) string {
			return strings.ReplaceAll(link.ReplaceAllString(strings.TrimSpace(cell), "$1"), "`", "")
		}
		all = append(all, Reference{file, plain(key), plain(cells[1]), plain(cells[2])})
	}
	return all
}
