package site

import (
	"errors"
	"fmt"
)

// unsaid refuses a key that stands there with nothing, or with 0, where nothing is the widest: whoever wrote max: 0, or
// left signing_keys empty, did not mean what leaving it out means.
func (d *document) unsaid(c Config) error {
	var failed []error
	look := func(prefix, key string, nothing bool) {
		if at := prefix + key; nothing && d.places[at] != nil {
			failed = append(failed, wrong(at, "%s says nothing: give it a value, or leave it out", at))
		}
	}
	look("", "health", c.Health == "")
	look("", "directory", c.Directory == nil)
	for i, caller := range c.Callers {
		at := fmt.Sprintf("callers[%d].", i)
		look(at, "credentials", caller.Credentials == nil)
		look(at, "signing_keys", caller.SigningKeys == nil)
		look(at, "per_second", caller.PerSecond == 0)
		for j, g := range caller.Grants {
			at := fmt.Sprintf("%sgrants[%d].", at, j)
			look(at, "domains", g.Domains == nil)
			look(at, "networks", g.Networks == nil)
			look(at, "key_types", g.KeyTypes == nil)
			look(at, "max_days", g.MaxDays == 0)
			look(at, "reasons", g.Reasons == nil)
			look(at, "max", g.Max == 0)
			look(at, "per_hour", g.PerHour == 0)
		}
	}
	return errors.Join(failed...)
}
