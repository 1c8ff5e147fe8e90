package review

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// maxWord is how much of one text in a leaf is shown, in characters.
const maxWord = 160

// word makes a text out of a leaf fit for a terminal. What is not plainly one word is quoted, with
// escapes for everything that cannot be seen, directions of writing included.
func word(s string) string {
	if runes := []rune(s); len(runes) > maxWord {
		s = string(runes[:maxWord]) + "..."
	}
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-+:@/*[]", r)
	}) < 0
	if plain {
		return s
	}
	return strconv.Quote(s)
}

func actor(a audit.Actor) string {
	text := word(string(a.Kind))
	if a.Name != "" {
		text += " " + word(a.Name)
	}
	if a.Peer != "" {
		text += " " + word(a.Peer)
	}
	return text
}

func serials(list []cert.Serial) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = word(string(s))
	}
	return strings.Join(words, " ")
}

// subject says what an event is about, in one line.
func subject(event audit.Event) string {
	switch e := event.(type) {
	case *audit.LogOpened:
		return fmt.Sprintf("log %s, key room %s", word(e.Origin), word(e.Room))
	case *audit.RootNamed:
		return "root " + word(e.Subject)
	case *audit.IssuerNamed:
		return fmt.Sprintf("issuer %s, %s, in key room %s", word(string(e.Issuer)), word(e.Subject), word(e.Room))
	case *audit.RootListNamed:
		return "list " + word(e.Number) + " of the root"
	case *audit.ServiceStarted:
		return started(e)
	case *audit.ConfigReloaded:
		return fmt.Sprintf("configuration %s, was %s", word(e.To), word(e.From))
	case *audit.LogRecovered:
		return fmt.Sprintf("leaves %d to %d, as the key room had kept them", e.From, e.Size-1)
	case *audit.RequestRefused:
		return refused(e)
	case *audit.RequestPlanned:
		return fmt.Sprintf("%s %s: %s", word(e.Method), word(e.Code), word(e.Effect))
	case *audit.StrangersTurnedAway:
		return fmt.Sprintf("%d within a minute: %s", e.Count, word(e.Cause))
	case *audit.RevokeDone:
		return revoked(e)
	case *audit.ReleaseDone:
		return released(e)
	case *audit.CRLIntent:
		return fmt.Sprintf("list %s of %s", word(e.Number), word(string(e.Issuer)))
	case *audit.CRLSigned:
		return fmt.Sprintf("list %s of %s, %d revoked, announced at %d", word(e.Number), word(string(e.Issuer)), e.Entries, e.Intent)
	case *audit.CRLPublished:
		return published(e)
	case *audit.DirectoryPublished:
		return directory(e)
	}
	return issue(event)
}

// issue says what an event in the making of a certificate is about.
func issue(event audit.Event) string {
	switch e := event.(type) {
	case *audit.IssueIntent:
		return fmt.Sprintf("%s for %s %s, by %s, request %s", word(string(e.Serial)), word(string(e.Purpose)), word(e.CN), word(string(e.Issuer)), word(e.RequestID))
	case *audit.IssueDone:
		text := fmt.Sprintf("%s signed, as announced at %d", word(string(e.Serial)), e.Intent)
		if e.Revocation != nil {
			text += fmt.Sprintf(", and revoked (%s)", e.Revocation.Reason)
		}
		return text
	case *audit.IssueAbandoned:
		return fmt.Sprintf("%s never will be signed: %s", word(string(e.Serial)), word(e.Why))
	case *audit.IssueAnswering:
		text := fmt.Sprintf("%s to request %s", word(string(e.Serial)), word(e.RequestID))
		if e.Secrets {
			text += ", with key and password"
		}
		if e.Published {
			text += ", in the directory"
		}
		return text
	case *audit.IssueRedelivered:
		return fmt.Sprintf("%s: secrets opened again for request %s", word(string(e.Serial)), word(e.RequestID))
	}
	return ""
}

func refused(e *audit.RequestRefused) string {
	text := ""
	for _, s := range []string{e.Method, e.Purpose, e.CN} {
		if s != "" {
			text += word(s) + " "
		}
	}
	return fmt.Sprintf("%s%s: %s", text, word(e.Code), word(e.Reason))
}

func revoked(e *audit.RevokeDone) string {
	var parts []string
	for _, r := range e.Revoked {
		parts = append(parts, fmt.Sprintf("%s (%s)", word(string(r.Serial)), r.Reason))
	}
	if len(e.Pending) > 0 {
		parts = append(parts, "as they are signed: "+serials(e.Pending))
	}
	return strings.Join(parts, ", ")
}

func released(e *audit.ReleaseDone) string {
	off := make([]cert.Serial, len(e.Released))
	for i, r := range e.Released {
		off[i] = r.Serial
	}
	return serials(off) + " off hold"
}

func published(e *audit.CRLPublished) string {
	var parts []string
	for _, l := range e.Lists {
		parts = append(parts, fmt.Sprintf("list %s of %s", word(l.Number), word(string(l.Issuer))))
	}
	return fmt.Sprintf("%s, commit %s, checkpoint %d", strings.Join(parts, ", "), word(e.Commit), e.Checkpoint)
}

func directory(e *audit.DirectoryPublished) string {
	text := word(string(e.Purpose)) + " " + word(e.CN)
	if len(e.Added) > 0 {
		text += ", added " + serials(e.Added)
	}
	if len(e.Removed) > 0 {
		text += ", removed " + serials(e.Removed)
	}
	if len(e.Added)+len(e.Removed) == 0 {
		text += ", nothing to change"
	}
	return text
}

func started(e *audit.ServiceStarted) string {
	if r := e.Restored; r != nil {
		return fmt.Sprintf("build %s, restored from a backup of %d leaves made at %s",
			word(e.Build), r.Size, r.Made.Format(time.RFC3339))
	}
	return "build " + word(e.Build)
}
