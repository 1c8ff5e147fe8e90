package rpc

import (
	"encoding/asn1"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// attribute is one of an RDN, as a certificate has it.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// someName makes the DER of a name, and how it is told from others.
func someName(t *rapid.T) (der []byte, sign string) {
	types := []asn1.ObjectIdentifier{{2, 5, 4, 3}, {2, 5, 4, 12}, {1, 2, 840, 113549, 1, 9, 1}}
	characters := rapid.StringOfN(rapid.SampledFrom([]rune(" #+,;<>=\\\"\x00\nab\u00eb\u2028\U0001F511")), 0, 6, -1)
	var rdns [][]byte
	for range rapid.IntRange(1, 3).Draw(t, "rdns") {
		var set [][]byte
		var signs []string
		for range rapid.IntRange(1, 3).Draw(t, "attributes") {
			oid, text := rapid.SampledFrom(types).Draw(t, "type"), characters.Draw(t, "characters")
			tag := rapid.SampledFrom([]int{asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagOctetString}).Draw(t, "tag")
			one, err := asn1.Marshal(attribute{oid, asn1.RawValue{Tag: tag, Bytes: []byte(text)}})
			if err != nil {
				t.Fatal(err)
			}
			// Equal characters are equal, in whatever string type; what is no characters is equal to itself.
			mark := oid.String() + "\x01" + text
			if tag == asn1.TagOctetString || tag != asn1.TagUTF8String && strings.ContainsAny(text, "\u00eb\u2028\U0001F511") {
				mark += "\x01" + string(rune('0'+tag))
			}
			set, signs = append(set, one), append(signs, mark)
		}
		slices.Sort(signs)
		sign += "\x02" + strings.Join(signs, "\x03")
		rdn, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: slices.Concat(set...)})
		if err != nil {
			t.Fatal(err)
		}
		rdns = append(rdns, rdn)
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(rdns...)})
	if err != nil {
		t.Fatal(err)
	}
	return der, sign
}

// TestSpelling: what a name is spelled as reads as that name, and two names are spelled alike only if they are the
// same.
func TestSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, signA := someName(t)
		b, signB := someName(t)
		spelled, err := spellDN(a)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseDN(spelled); err != nil || again != spelled {
			t.Errorf("%q reads as %q: %v", spelled, again, err)
		}
		other, err := spellDN(b)
		if err != nil || (spelled == other) != (signA == signB) {
			t.Errorf("%q and %q of %q and %q: %v", spelled, other, signA, signB, err)
		}
	})
}

func TestParseDN(t *testing.T) {
	for text, want := range map[string]string{
		`cn=hr,o=Example`:                  `CN=hr,O=Example`,
		`2.5.4.3=hr`:                       `CN=hr`,
		`OU=b+CN=a`:                        `CN=a+OU=b`,
		`CN=a\,b\+c\\d\"e\;f\<g\>h\=i`:     `CN=a\,b\+c\\d\"e\;f\<g\>h=i`,
		`CN=\2C\23\20`:                     `CN=\,#\ `,
		`CN=\#a\ `:                         `CN=\#a\ `,
		`CN=Zo\C3\AB`:                      `CN=Zo\u00eb`,
		`CN=#0C026869`:                     `CN=hi`,
		`CN=#14045a6feb21`:                 `CN=#14045a6feb21`,
		`CN=#14025a6f`:                     `CN=Zo`,
		`CN=#1302c3ab`:                     `CN=#1302c3ab`,
		`CN=#1e0400e9006f`:                 `CN=\u00e9o`,
		`CN=#1e02d800`:                     `CN=#1e02d800`,
		`CN=#1e0300e900`:                   `CN=#1e0300e900`,
		`CN=#04026869`:                     `CN=#04026869`,
		`CN=a b`:                           `CN=a b`,
		`CN=`:                              `CN=`,
		`1.2.3=x`:                          `1.2.3=x`,
		`CN=a=b`:                           `CN=a=b`,
		"CN=a\x01":                         `CN=a\01`,
		`1.2.840.113549.1.9.1=#1603614062`: `emailAddress=a@b`,
		"":                                 "",
		"hr":                               "",
		"CN=a,":                            "",
		",CN=a":                            "",
		"CN=a++CN=b":                       "",
		"CN =a":                            "",
		"CN= a":                            "",
		"CN=a ":                            "",
		"CN=a, O=b":                        "",
		`CN="a"`:                           "",
		"CN=a;O=b":                         "",
		`CN=a\`:                            "",
		`CN=a\z`:                           "",
		`CN=a\C3`:                          "",
		`CN=#`:                             "",
		`CN=#0C02686`:                      "",
		`CN=#0C0268690C00`:                 "",
		`XX=a`:                             "",
		`2.5.04.3=a`:                       "",
		"CN=\xff":                          "",
	} {
		got, err := parseDN(text)
		if want = strings.NewReplacer("\\u00eb", "\u00eb", "\\u00e9", "\u00e9").Replace(want); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v, want %q", text, got, err, want)
		}
	}
	for _, der := range []string{"", "\x30", "\x30\x00x", "\x30\x02\x31\x00", "\x31\x00", "\x30\x04\x31\x02\x30\x00"} {
		if got, err := spellDN([]byte(der)); err == nil {
			t.Errorf("%x: %q", der, got)
		}
	}
}
