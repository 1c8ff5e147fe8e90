package name

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
)

// texts are all texts of up to most of the letters.
func texts(letters string, most int) []string {
	all, last := []string{""}, []string{""}
	for range most {
		var longer []string
		for _, s := range last {
			for _, r := range letters {
				longer = append(longer, s+string(r))
			}
		}
		all, last = append(all, longer...), longer
	}
	return all
}

// languages are which of some keys each pattern fits.
func languages(patterns, keys []string) map[string][]bool {
	all := make(map[string][]bool)
	for _, p := range patterns {
		for _, k := range keys {
			all[p] = append(all[p], Match(p, k))
		}
	}
	return all
}

// within tells whether all keys of one language are in another.
func within(wide, narrow []bool) bool {
	for i, fits := range narrow {
		if fits && !wide[i] {
			return false
		}
	}
	return true
}

// TestCoversExactly compares Covers with all short keys. One letter is in no pattern, as there is one for every pattern
// of a person's names.
func TestCoversExactly(t *testing.T) {
	patterns := texts("ab.*", 4)
	fits := languages(patterns, texts("abc.", 5))
	yes := 0
	for _, wide := range patterns {
		for _, narrow := range patterns {
			want := within(fits[wide], fits[narrow])
			if want {
				yes++
			}
			if got := Covers(wide, narrow); got != want {
				t.Fatalf("Covers(%q, %q) = %v", wide, narrow, got)
			}
		}
	}
	if yes < 4000 {
		t.Errorf("only %d pairs", yes)
	}
}

// TestNarrowExactly wants of the narrowed pattern all keys that both the pattern and the domain have, and no other.
func TestNarrowExactly(t *testing.T) {
	patterns, keys := texts("ab.*", 4), texts("abc.", 5)
	fits := languages(patterns, keys)
	for _, pattern := range patterns {
		for _, domain := range []string{"a", "b", "c", "ab", "a.b", "b.c", "a.b.c"} {
			narrow, some := Narrow(pattern, domain)
			if pattern == "*" {
				if !some || narrow != "*" {
					t.Fatalf("%q %v", narrow, some)
				}
				continue
			}
			for i, k := range keys {
				if want := fits[pattern][i] && InDomain(k, domain); want != (some && Match(narrow, k)) {
					t.Fatalf("Narrow(%q, %q) = %q, %v; and %q: %v", pattern, domain, narrow, some, k, want)
				}
			}
		}
	}
}

// TestPointless: what is said to be pointless is, and where nothing is said each pattern has a key of its own.
func TestPointless(t *testing.T) {
	patterns := texts("a.*", 3)
	fits := languages(patterns, texts("ac.", 4))
	found := 0
	for _, a := range patterns {
		for _, b := range patterns {
			i, by := Pointless([]string{a, "x.x.x.x", b}) // only "*" fits that
			want := -1
			switch {
			case a == "*":
				want = 1
			case within(fits[b], fits[a]) && !within(fits[a], fits[b]):
				want = 0
			case within(fits[a], fits[b]):
				want = 2
			}
			if i != want || i == 0 && by != 2 || i > 0 && by != 0 {
				t.Fatalf("%q and %q: %d by %d, want %d", a, b, i, by, want)
			}
			if i >= 0 {
				found++
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d", found)
	}
	if i, by := Pointless([]string{"b", "Stra\u00dfe", "STRASSE"}); i != 2 || by != 1 {
		t.Error(i, by)
	}
}

// TestTooLong: patterns longer than any name of their purpose fit none, and those that are just as long may.
func TestTooLong(t *testing.T) {
	label := strings.Repeat("a", 60)
	for _, c := range []struct {
		purposes, pattern string
		more              string // that makes it too long
	}{
		{"user", strings.Repeat("a", 64), "b"}, {"user", strings.Repeat("a", 64) + "*", "b"}, {"user", strings.Repeat("s", 128), "s"},
		{"user", strings.Repeat("s", 127) + "*", "ss"}, {"user", strings.Repeat("\u00e9", 256), "\u00e9"},
		{"caller", strings.Repeat("a", 63), "b"}, {"server", label + ".org", "a"}, {"server", "*." + label + ".o", "a"}, {"host", "*." + label + "." + label + "." + label + "." + label + ".org*", "aaaaa"},
	} {
		for more, want := range map[string]bool{"": true, c.more: false} {
			got := c.purposes == "host" && MatchableHost(c.pattern+more)
			for _, p := range purposes(c.purposes) {
				got = Matchable(p, c.pattern+more)
			}
			if got != want {
				t.Errorf("%s %q: %v", c.purposes, c.pattern+more, got)
			}
		}
	}
	for s := range strings.FieldsSeq(strings.Repeat("\u00df", 64) + " " + strings.Repeat("\u1fb3", 64) + " " + strings.Repeat("\u1e9e", 64)) {
		if n, bad := person("cn", s); bad != nil || !Matchable("user", n.Key) {
			t.Errorf("%q: %v", s, bad)
		}
	}
}

// TestMatchableNetwork compares with what single addresses are allowed.
func TestMatchableNetwork(t *testing.T) {
	for text, want := range map[string]bool{
		"0.0.0.0/0": true, "192.0.2.0/24": true, "192.0.2.1/32": true, "::/0": true, "2001:db8::/32": true, "::/127": true, "0.0.0.0/31": true, "224.0.0.0/3": true, "fe00::/7": true,
		"::ffff:0:0/95": true, "255.255.255.255/32": true,
		"224.0.0.0/4": false, "239.1.2.0/24": false, "ff00::/8": false, "ff02::1/128": false, "0.0.0.0/32": false, "::/128": false, "::ffff:0:0/96": false, "::ffff:192.0.2.0/120": false,
	} {
		n := netip.MustParsePrefix(text).Masked()
		if got := MatchableNetwork(n); got != want {
			t.Errorf("%s: %v", text, got)
		}
		last := n.Addr().AsSlice()
		for i := n.Bits(); i < 8*len(last); i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		one := slices.ContainsFunc([]netip.Addr{n.Addr(), n.Addr().Next(), end.Prev(), end}, func(ip netip.Addr) bool {
			_, bad := address("ip", ip.String())
			return n.Contains(ip) && bad == nil
		})
		if one != want {
			t.Errorf("%s: addresses %v", text, one)
		}
	}
}

func purposes(of string) []cert.Purpose {
	return slices.DeleteFunc(slices.Clone(cert.Purposes()), func(p cert.Purpose) bool { return string(p) != of })
}
