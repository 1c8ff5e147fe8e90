package rpc

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
)

// withNames tells whether all of a certificate's names count for a method; for the others only its common name.
// The same methods make a certificate, with a key and a validity.
func withNames(method string) bool { return method == issueMethod || method == renewMethod }

// withReason tells whether a caller gives a method a reason.
func withReason(method string) bool { return method == revokeMethod || method == retireMethod }

// hitsSeveral tells whether a call of a method can hit more than one certificate.
func hitsSeveral(method string) bool {
	return withReason(method) || method == holdMethod || method == releaseMethod
}

// changes tells whether a method can change something.
func changes(method string) bool { return withNames(method) || hitsSeveral(method) }

// ofExisting tells whether a method is about certificates that there are.
func ofExisting(method string) bool { return method != issueMethod && method != chainMethod }

// maxPerHour is more than any installation issues.
const maxPerHour = 1_000_000

// checkBounds refuses bounds that bound nothing: whoever wrote one thinks that it matters.
func (conf Grant) checkBounds() *ConfigError {
	longest := 0
	for _, p := range conf.Purposes {
		longest = max(longest, int(profile.MaxValidity(p)/day))
	}
	for i, k := range conf.KeyTypes {
		if _, err := cert.ParseKeyType(string(k)); err != nil {
			return wrongAt(fmt.Sprintf("key_types[%d]", i), "key_types: %w", err)
		}
	}
	for i, r := range conf.Reasons {
		if _, err := cert.ParseReason(r); err != nil {
			return wrongAt(fmt.Sprintf("reasons[%d]", i), "reasons: %w", err)
		}
	}
	for _, b := range []struct {
		key         string
		value, most int
	}{{"max_days", conf.MaxDays, longest}, {"max", conf.Max, maxRevoke}, {"per_hour", conf.PerHour, maxPerHour}} {
		if b.value < 0 || b.value > b.most {
			return wrongAt(b.key, "%s %d: want 1 to %d, or leave it out", b.key, b.value, b.most)
		}
	}
	for _, b := range []struct {
		key     string
		set     bool
		matters func(method string) bool
	}{
		{"key_types", conf.KeyTypes != nil, withNames}, {"max_days", conf.MaxDays != 0, withNames}, {"reasons", conf.Reasons != nil, withReason},
		{"max", conf.Max != 0, hitsSeveral}, {"per_hour", conf.PerHour != 0, changes},
	} {
		if b.set && !slices.ContainsFunc(conf.Methods, b.matters) {
			return wrongAt(b.key, "%s cannot matter for %s; leave it out", b.key, strings.Join(conf.Methods, ", "))
		}
	}
	return conf.checkLists()
}

func (conf Grant) checkLists() *ConfigError {
	for _, list := range []struct {
		key   string
		empty bool
	}{
		{"domains", conf.Domains != nil && len(conf.Domains) == 0}, {"networks", conf.Networks != nil && len(conf.Networks) == 0},
		{"key_types", conf.KeyTypes != nil && len(conf.KeyTypes) == 0}, {"reasons", conf.Reasons != nil && len(conf.Reasons) == 0},
	} {
		if list.empty {
			return wrongAt(list.key, "%s is empty: leave it out, or name some", list.key)
		}
	}
	for _, m := range conf.Methods {
		if conf.Own && !ofExisting(m) {
			return wrongAt("own", "own is about certificates that there are, and %s is not: give it a grant of its own", m)
		}
	}
	return nil
}

// beyond tells the bound that a wish is beyond, if there is one.
func (g *grant) beyond(w wish) (how int, what string) {
	switch c := g.conf; {
	case w.keyType != "" && c.KeyTypes != nil && !slices.Contains(c.KeyTypes, w.keyType):
		return otherKeyType, fmt.Sprintf("a key of the type %s, only %s", w.keyType, strings.Join(texts(c.KeyTypes), ", "))
	case c.MaxDays > 0 && w.days > c.MaxDays:
		return otherDays, fmt.Sprintf("%d days, at most %d", w.days, c.MaxDays)
	case w.reason != "" && c.Reasons != nil && !slices.Contains(c.Reasons, w.reason):
		return otherReason, fmt.Sprintf("the reason %s, only %s", w.reason, strings.Join(c.Reasons, ", "))
	case c.Max > 0 && w.hits > c.Max:
		return otherMax, fmt.Sprintf("%d certificates in one call, at most %d", w.hits, c.Max)
	}
	return allowed, ""
}

// boundsCover tells whether the bounds of a grant certainly let pass what another's let, for a method.
func (g *grant) boundsCover(other *grant, method string) bool {
	wide, narrow := g.conf, other.conf
	within := func(wide, narrow int) bool { return wide == 0 || narrow != 0 && narrow <= wide }
	switch {
	case wide.Own && !narrow.Own:
		return false
	case withNames(method) && !(subset(narrow.KeyTypes, wide.KeyTypes, len(cert.SubjectKeyTypes())) && within(wide.MaxDays, narrow.MaxDays)):
		return false
	case withReason(method) && !subset(narrow.Reasons, wide.Reasons, len(cert.Reasons())):
		return false
	case hitsSeveral(method) && !within(wide.Max, narrow.Max):
		return false
	}
	return wide.PerHour == 0 || !changes(method) // what one has spent, the next has not
}

// subset tells whether a list, where none means all, has nothing that another has not. all is how many there are.
func subset[S comparable](narrow, wide []S, all int) bool {
	if wide == nil {
		return true
	}
	if narrow == nil {
		distinct := make(map[S]bool)
		for _, s := range wide {
			distinct[s] = true
		}
		return len(distinct) == all
	}
	return !slices.ContainsFunc(narrow, func(s S) bool { return !slices.Contains(wide, s) })
}

// hourly is what is left of a grant's calls an hour. It fills up evenly.
type hourly struct {
	most float64

	mu   sync.Mutex
	left float64
	at   time.Time // of left
}

// take takes one, if there is one.
func (h *hourly) take(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.any(now) {
		return false
	}
	h.left--
	return true
}

// giveBack is for one that was taken for nothing.
func (h *hourly) giveBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left++
}

// has tells whether there is one to take.
func (h *hourly) has(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.any(now)
}

func (h *hourly) any(now time.Time) bool {
	if passed := now.Sub(h.at); passed > 0 {
		h.left = min(h.most, h.left+h.most*min(1, passed.Hours()))
		h.at = now
	}
	return h.left >= 1
}

// spend takes one of the calls an hour of each of some rules, or refuses. What is given back was taken by a call
// that changed nothing.
func (c *caller) spend(rules ...string) (giveBack func(), err error) {
	var taken []*hourly
	giveBack = func() {
		for _, h := range taken {
			h.giveBack()
		}
	}
	for i := range c.grants {
		g := &c.grants[i]
		if g.hourly == nil || !slices.Contains(rules, g.rule) {
			continue
		}
		if !g.hourly.take(c.now()) {
			giveBack()
			return nil, refuse("policy.rate", "rule %s allows %d calls an hour that change something, and no more now; ask again later, also with the same request_id", g.rule, g.conf.PerHour)
		}
		taken = append(taken, g.hourly)
	}
	return giveBack, nil
}

// keepHourly takes over what is left of the grants that stay as they are.
func (c *caller) keepHourly(was *caller) {
	left := slices.Clone(was.grants) // of equal grants each has its own
	for i := range c.grants {
		same := slices.IndexFunc(left, func(g grant) bool { return reflect.DeepEqual(g.conf, c.grants[i].conf) })
		if same >= 0 {
			c.grants[i].hourly = left[same].hourly
			left = slices.Delete(left, same, same+1)
		}
	}
}
