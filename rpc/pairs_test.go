package rpc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ldapsync"
	"github.com/chancery-ca/chancery/store"
)

// TestPairs and BenchmarkPairs compare every spelling of a pool with every other: what is one name to Unicode is one
// name to a grant, to the store, to the directory and to ca.revoke, and nothing else is.
func TestPairs(t *testing.T) { comparePairs(t, 320, 160, 80) }

// BenchmarkPairs is for make pairs: ten million pairs.
func BenchmarkPairs(b *testing.B) {
	for b.Loop() {
		if n := comparePairs(b, 2900, 1300, 500); n < 10_000_000 {
			b.Errorf("only %d pairs", n)
		} else {
			b.ReportMetric(float64(n), "pairs")
		}
	}
}

// spelling is a name as somebody wrote it, which the purpose accepts.
type spelling struct {
	raw    string
	name   name.Name
	form   string // that equal names share, by other means than the service's
	serial cert.Serial
	rank   int // among those of its form
}

func comparePairs(t testing.TB, users, servers, callers int) (pairs int) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(7, 8))
	for _, of := range []struct {
		purpose cert.Purpose
		n       int
	}{{cert.User, users}, {cert.Server, servers}, {cert.Caller, callers}} {
		pool := newPool(t, r, of.purpose, of.n)
		w.reserve(of.purpose, pool)
		same := make(map[string][]cert.Serial)
		for _, s := range pool {
			same[s.form] = append(same[s.form], s.serial)
		}
		for _, list := range same {
			slices.Sort(list)
		}
		grantsAgree(t, of.purpose, pool)
		w.booksAgree(of.purpose, pool, same)
		if of.purpose != cert.Caller {
			directoryAgrees(t, of.purpose, pool)
		}
		pairs += len(pool) * len(pool)
		twins := len(pool) - len(same) // a caller's name has one spelling
		if of.purpose != cert.Caller && twins < len(pool)/4 || len(same) < len(pool)/10 {
			t.Errorf("%s: %d names of %d spellings", of.purpose, len(same), len(pool))
		}
	}
	return pairs
}

func newPool(t testing.TB, r *rand.Rand, p cert.Purpose, n int) (pool []spelling) {
	form := func(s string) string { return s }
	switch p {
	case cert.User: // D145 of the Unicode Standard, section 3.13: canonical caseless matching; a directory leaves the dot away
		fold := cases.Fold()
		form = func(s string) string {
			return norm.NFD.String(fold.String(norm.NFD.String(strings.ReplaceAll(norm.NFC.String(s), "\u0130", "I"))))
		}
	case cert.Server:
		form = strings.ToLower
	}
	ranks := make(map[string]int)
	seen := make(map[string]bool)
	var base []string
	for tries := 0; len(pool) < n; tries++ {
		if tries > 1000*n {
			t.Fatalf("%s: no more than %d spellings", p, len(pool))
		}
		if tries%40 == 0 {
			base = []string{baseName(r, p)}
		}
		raw := base[r.IntN(len(base))]
		for range r.IntN(3) {
			raw = respell(r, p, raw)
		}
		canonical, err := name.Canonical(p, raw)
		if seen[raw] || err != nil {
			continue
		}
		base = append(base, raw)
		seen[raw] = true
		f := form(raw)
		s := spelling{raw, canonical, f, cert.Serial(fmt.Sprintf("7f%02x%028x", p[0], len(pool)+1)), ranks[f]}
		ranks[f]++
		pool = append(pool, s)
	}
	return pool
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func baseName(r *rand.Rand, p cert.Purpose) string {
	switch p {
	case cert.Server:
		return pick(r, "www", "mail", "l1", "xn--bcher-kva", "a-b") + fmt.Sprint(r.IntN(30)) + "." + pick(r, "example", "xn--strae-oqa", "b.example") + ".org"
	case cert.Caller:
		return pick(r, "hr", "web-1", "a--b", "l1l") + fmt.Sprint(r.IntN(1000))
	}
	words := []string{"Zoë", "Straße", "Ångström", "O'Neill", "José", "Ilse", "d.o'connor", "Sissi", "naïve"}
	if r.IntN(3) == 0 {
		words = []string{"Σίσυφος", "ΆΙΔΗΣ", "ᾠδή", "Ωμέγα"}
	} else if r.IntN(3) == 0 {
		words = []string{"Йосиф", "соёл", "Ѐлена", "ѵѷ"}
	}
	return pick(r, words...) + pick(r, "", " "+pick(r, words...)) + pick(r, "", " ", "-", ".") + fmt.Sprint(r.IntN(10))
}

// respell changes a little: what means the same, what looks the same, and what is nearly the same.
func respell(r *rand.Rand, p cert.Purpose, s string) string {
	runes := []rune(s)
	if len(runes) == 0 {
		return s
	}
	at := r.IntN(len(runes))
	switch r.IntN(9) {
	case 0, 1:
		runes[at] = unicode.SimpleFold(runes[at])
	case 2:
		return pick(r, strings.ToUpper(s), strings.ToLower(s), strings.ToTitle(s))
	case 3:
		return pick(r, norm.NFD.String(s), norm.NFC.String(s), norm.NFKD.String(s))
	case 4:
		return pick(r, s+".", s+" ", " "+s, strings.Replace(s, " ", "  ", 1), strings.Replace(s, " ", "\u00a0", 1), s+"\u200d")
	case 5:
		return replaced(r, s)
	case 6:
		return string(runes[:at]) + pick(r, "\u0301", "\u0308", "\u0323", "-", ".", "'", "1", "l") + string(runes[at:])
	case 7:
		return string(runes[:at]) + string(runes[at+1:])
	case 8:
		if p == cert.User {
			letters := []rune("aAàÀáιΙΐςσΣйЙиſıİKÅ")
			runes[at] = letters[r.IntN(len(letters))]
		} else {
			runes[at] = rune("abl1-"[r.IntN(5)])
		}
	}
	return string(runes)
}

func replaced(r *rand.Rand, s string) string {
	pairs := [][2]string{
		{"ß", "ss"}, {"ß", "ẞ"}, {"ss", "ß"}, {"a", "а"}, {"o", "ο"}, {"o", "о"}, {"i", "ı"}, {"I", "İ"}, {"I", "l"}, {"s", "ſ"}, {"ς", "σ"}, {"σ", "ς"},
		{"К", "K"}, {"K", "K"}, {"Å", "Å"}, {"fi", "ﬁ"}, {"ᾠ", "ὠι"}, {"é", "e\u0301"}, {"xn--bcher-kva", "bücher"}, {"xn--bcher-kva", "XN--Bcher-KVA"},
		{"xn--strae-oqa", "straße"}, {"xn--strae-oqa", "strasse"}, {".", "\u3002"}, {"1", "１"}, {"l", "1"}, {"1", "l"},
	}
	r.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	for _, pair := range pairs {
		if strings.Contains(s, pair[0]) {
			return strings.Replace(s, pair[0], pair[1], 1)
		}
	}
	return s
}

// grantsAgree has a grant for each spelling, and judges all others by it.
func grantsAgree(t testing.TB, p cert.Purpose, pool []spelling) {
	t.Helper()
	for i, a := range pool {
		g, err := newGrant("c", Grant{Methods: []string{revokeMethod}, Purposes: []cert.Purpose{p}, Names: []string{a.raw}}, Methods())
		if err != nil && a.raw == a.name.Text {
			t.Fatalf("a grant for %+q: %v", a.raw, err)
		}
		if err != nil { // only canonical names of servers can be patterns
			g, err = newGrant("c", Grant{Methods: []string{revokeMethod}, Purposes: []cert.Purpose{p}, Names: []string{a.name.Text}}, Methods())
		}
		if err != nil {
			t.Fatalf("a grant for %+q: %v", a.name.Text, err)
		}
		for j, b := range pool {
			same := a.form == b.form
			if g.matches(b.name.Key) != same || (a.name.Key == b.name.Key) != same {
				t.Fatalf("%s: %+q and %+q are one name: %v; keys %+q %+q, a grant: %v", p, a.raw, b.raw, same, a.name.Key, b.name.Key, !same)
			}
			if same || (i+j)%64 == 0 {
				if how, why := g.judge(namedWish(revokeMethod, p, b.name)); (how == allowed) != same {
					t.Fatalf("%s: a grant for %+q and the name %+q: %s", p, a.raw, b.raw, why)
				}
			}
		}
	}
}

// reserve announces a certificate for each spelling, as it is now.
func (w *world) reserve(p cert.Purpose, pool []spelling) {
	w.Helper()
	chain, err := w.authority.Chain(p)
	w.must(err)
	now := w.store.Now().Truncate(time.Second)
	var all sync.WaitGroup
	for part := range slices.Chunk(pool, len(pool)/32+1) {
		all.Go(func() {
			for _, s := range part {
				row := store.Certificate{
					Serial: s.serial, Issuer: chain.Issuer, Purpose: p, CN: s.name.Text, Key: s.name.Key, KeyType: cert.P256, Caller: "c", RequestID: string(s.serial),
					BodySHA256: cert.SHA256(nil), NotBefore: now, NotAfter: now.Add(time.Hour), Deadline: now.Add(time.Hour), SPKISHA256: cert.SHA256(nil), TBSSHA256: cert.SHA256(nil), CSR: []byte("csr"),
				}
				_, err := w.store.Update(w.Context(), operator, func(tx *store.Tx) (audit.Event, error) {
					return &audit.IssueIntent{Serial: row.Serial, Issuer: row.Issuer, Purpose: p, CN: row.CN}, tx.Reserve(row)
				})
				if err != nil {
					w.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// booksAgree asks store and ca.revoke for each spelling.
func (w *world) booksAgree(p cert.Purpose, pool []spelling, same map[string][]cert.Serial) {
	w.Helper()
	c, wrong := newCaller(Caller{Name: "c", Grants: []Grant{{Methods: []string{revokeMethod}, Purposes: []cert.Purpose{p}, Names: []string{"*"}}}}, Methods(), time.Now)
	if len(wrong) > 0 {
		w.Fatal(wrong[0])
	}
	for _, s := range pool {
		var found, hit []cert.Serial
		rows, err := w.store.Find(w.Context(), store.Query{Purpose: p, Key: s.name.Key})
		w.must(err)
		for _, row := range rows {
			found = append(found, row.Serial)
		}
		chosen, err := choose(c, revokeMethod, selector{cn: s.raw, purpose: string(p)})
		w.must(err)
		call := ca.Call{Who: operator, RequestID: "pairs", BodySHA256: cert.SHA256(nil), Plan: true}
		plan, err := w.authority.Revoke(w.Context(), call, ca.RevokeRequest{
			Names: chosen.names, Max: maxRevoke, May: func(store.Certificate, int) (string, error) { return "", nil },
		})
		w.must(err)
		for _, one := range plan.Revoked {
			hit = append(hit, one.Serial)
		}
		slices.Sort(found)
		slices.Sort(hit)
		if !slices.Equal(found, same[s.form]) || !slices.Equal(hit, same[s.form]) {
			w.Fatalf("%s: %+q is the name of %v; the store finds %v, ca.revoke hits %v", p, s.raw, same[s.form], found, hit)
		}
	}
}

// directoryAgrees has an entry for each spelling, in one file those of different names, and asks every file for every
// spelling.
func directoryAgrees(t testing.TB, p cert.Purpose, pool []spelling) {
	t.Helper()
	unit, class := "people", "inetOrgPerson"
	if p == cert.Server {
		unit, class = "hosts", "device"
	}
	var texts []*strings.Builder
	entries := make(map[string]string) // by form and rank
	for i, s := range pool {
		for len(texts) <= s.rank {
			texts = append(texts, new(strings.Builder))
		}
		id := fmt.Sprintf("00000000-0000-4000-8000-%012x", i)
		entries[fmt.Sprint(s.form, "/", s.rank)] = id
		fmt.Fprintf(texts[s.rank], "dn: l=%d,ou=%s,dc=example,dc=org\nobjectClass: %s\ncn:: %s\nentryUUID: %s\n\n",
			i, unit, class, base64.StdEncoding.EncodeToString([]byte(s.raw)), id)
	}
	for rank, text := range texts {
		path := filepath.Join(t.TempDir(), "directory.ldif")
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := ldapsync.OpenLDIF("ldif://"+path, false, "dc=example,dc=org")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range pool {
			want := entries[fmt.Sprint(s.form, "/", rank)]
			got, err := d.Find(t.Context(), p, s.name)
			if errors.Is(err, ldapsync.ErrNoEntry) && want == "" {
				continue
			}
			if err != nil || got != want {
				t.Fatalf("%s: %+q in the directory: %q %v, want %q", p, s.raw, got, err, want)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
