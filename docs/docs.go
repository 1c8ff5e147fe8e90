// Package docs holds the pages that programs read: the reference of the configuration is written once, in
// CONFIG.md.
package docs

import _ "embed"

// Config is CONFIG.md.
//
//go:embed CONFIG.md
var Config string
