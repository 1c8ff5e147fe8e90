package cert

import (
	"fmt"
	"io"
	"strings"
)

// readable has no letter that people take for another when they read it out: Crockford's base 32, in
// lower case.
const readable = "0123456789abcdefghjkmnpqrstvwxyz"

// NewPassword draws a password of 150 bits from rand, a CSPRNG, as six groups of five letters and
// digits that a person can read out.
func NewPassword(rand io.Reader) (string, error) {
	var b [30]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing a password: %w", err)
	}
	var s strings.Builder
	for i, v := range b {
		if i > 0 && i%5 == 0 {
			s.WriteByte('-')
		}
		s.WriteByte(readable[v%32])
	}
	return s.String(), nil
}
