package gitrepo

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// splitPath checks a path that we are going to write and returns its names.
// It admits less than git does: every name must be safe on whatever file system
// a consumer checks it out to.
func splitPath(path string) ([]string, error) {
	names := strings.Split(path, "/")
	if len(names) > maxDepth {
		return nil, fmt.Errorf("path %q: more than %d names", path, maxDepth)
	}
	for _, name := range names {
		if hostileName(name) {
			return nil, fmt.Errorf("path %q: the name %q is not allowed", path, name)
		}
		if len(name) > 255 || !utf8.ValidString(name) || strings.ContainsAny(name, `\:*?"<>|`) {
			return nil, fmt.Errorf("path %q: the name %q is not portable", path, name)
		}
		for _, r := range name {
			if !unicode.IsPrint(r) {
				return nil, fmt.Errorf("path %q: the name %q has an unprintable character", path, name)
			}
		}
	}
	return names, nil
}

// hostileName says that a name would lead out of a checkout or into its
// repository: the names git itself refuses to check out, with the spellings
// that Windows and macOS take for ".git".
func hostileName(name string) bool {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return true
	}
	visible := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) { // HFS+ ignores these
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	visible, _, _ = strings.Cut(visible, ":") // NTFS streams
	visible = strings.TrimRight(visible, ". ")
	return visible == ".git" || visible == "git~1" || visible == ""
}
