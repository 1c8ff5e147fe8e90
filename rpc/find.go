package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

const findMethod = "ca.find"

const findHelp = `Find certificates by what they say and by what became of them, in the order in which they were announced, which never
changes. All that is there has to fit. A page can be shorter than its limit and still have a next: an answer is 2 MiB at
the most, and 65,536 elements of XML. Only what a grant of yours covers is
told. cn, san and caller are found at once; the rest looks at all certificates, 8,192 a call.`

type findParams struct {
	CN       string `json:"cn,omitempty" help:"common name, in any spelling of it" flag:"name" arg:"NAME"`
	SAN      string `json:"san,omitempty" help:"a further name: host name, IP address or mail address" flag:"san" arg:"NAME"`
	Purpose  string `json:"purpose,omitempty" help:"what it is for" values:"purposes" flag:"purpose" arg:"PURPOSE"`
	Caller   string `json:"caller,omitempty" help:"who asked for it: a configured name" flag:"by" arg:"NAME"`
	State    string `json:"state,omitempty" help:"what became of it" values:"open live expired revoked abandoned" flag:"state" arg:"STATE"`
	EndsFrom string `json:"ends_from,omitempty" help:"ends on this day or later: YYYY-MM-DD, UTC" flag:"ends-from" arg:"DAY"`
	EndsTo   string `json:"ends_to,omitempty" help:"ends on this day or before: YYYY-MM-DD, UTC" flag:"ends-to" arg:"DAY"`
	pageParams
}

// pageParams are what every method has that answers a page at a time.
type pageParams struct {
	Limit int    `json:"limit,omitempty" help:"certificates in an answer at the most, 1 to 1000; 0 is 100" flag:"limit" arg:"N"`
	After string `json:"after,omitempty" help:"the next of the answer before, unchanged" flag:"after" arg:"NEXT"`
}

// pageDetail tells whether there is another page.
type pageDetail struct {
	Next string `json:"next,omitempty" help:"if there may be more: ask again with it as after, and the same other members"`
}

type findDetail struct {
	head
	Certificates []foundCertificate `json:"certificates"`
	pageDetail
}

type foundCertificate struct {
	certificateDetail
	Caller string `json:"caller" help:"who asked for it"`
}

func (p findParams) about() about { return about{purpose: p.Purpose, cn: p.CN} }

func (s *Server) find(ctx context.Context, rq *request, p findParams) (msg string, d findDetail, err error) {
	if _, err := rq.caller.allow(wish{method: findMethod}); err != nil {
		return "", d, err
	}
	r, err := p.request()
	if err != nil {
		return "", d, err
	}
	r.See = func(c store.Certificate) bool {
		_, err := rq.caller.allow(concerning(findMethod, c))
		return err == nil
	}
	page, err := s.authority.Search(ctx, r)
	if err != nil {
		return "", d, err
	}
	d.head = head{Code: "find"}
	for _, c := range page.Certificates {
		d.Certificates = append(d.Certificates, foundCertificate{statusOf(c), c.Caller})
	}
	fit, err := fitting(rq.left, d.Certificates)
	if err != nil {
		return "", d, err
	}
	if fit < len(d.Certificates) {
		d.Certificates, page.Next = d.Certificates[:fit], page.Certificates[fit-1].Intent
	}
	msg = fmt.Sprintf("%d certificates", len(d.Certificates))
	if len(d.Certificates) == 1 {
		msg = "1 certificate"
	}
	if page.Next != 0 {
		d.Next = strconv.FormatInt(page.Next, 10)
		msg += "; there may be more: ask again with next as after"
	}
	return msg, d, nil
}

func (p findParams) request() (r ca.SearchRequest, err error) {
	if r.Most, err = pageSize(p.Limit); err != nil {
		return r, err
	}
	if p.Purpose != "" {
		if r.Purpose, err = readPurpose(p.Purpose); err != nil {
			return r, err
		}
	}
	if p.CN != "" {
		if r.Keys, err = readKeys(p.CN, r.Purpose); err != nil {
			return r, err
		}
	}
	if p.SAN != "" {
		if r.SAN, err = readSAN(p.SAN); err != nil {
			return r, err
		}
	}
	r.Caller, r.State = p.Caller, p.State
	if states := []string{"", "open", "live", "expired", "revoked", "abandoned"}; !slices.Contains(states, p.State) {
		return r, refuse("find.state", "state: want open, live, expired, revoked or abandoned")
	}
	if r.EndsFrom, err = readDay("ends_from", p.EndsFrom, 0); err != nil {
		return r, err
	}
	if r.EndsTo, err = readDay("ends_to", p.EndsTo, day-time.Microsecond); err != nil {
		return r, err
	}
	if p.After != "" {
		if r.After, err = strconv.ParseInt(p.After, 10, 64); err != nil || r.After < 0 {
			return r, badCursor()
		}
	}
	return r, nil
}

// The bounds of one page.
const (
	defaultPage = 100
	maxPage     = 1000
)

func pageSize(limit int) (int, error) {
	switch {
	case limit == 0:
		return defaultPage, nil
	case limit < 0 || limit > maxPage:
		return 0, refuse("page.limit", "limit: %d; want 1 to %d", limit, maxPage)
	}
	return limit, nil
}

func badCursor() error {
	return refuse("page.after", "after: want the next of an answer, unchanged")
}

// readDay gives the moment at an offset into a day, UTC; none if there is no text.
func readDay(member, text string, offset time.Duration) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, refuse("find.day", "%s: want a day as 2026-12-31", member)
	}
	return t.Add(offset), nil
}

// readKeys gives a name as the purposes that it may belong to spell it.
func readKeys(text string, purpose cert.Purpose) (map[cert.Purpose]string, error) {
	keys := make(map[cert.Purpose]string)
	var refused error
	for _, p := range cert.Purposes() {
		if purpose != "" && p != purpose {
			continue
		}
		n, err := name.Canonical(p, text)
		if err != nil {
			refused = firstError(refused, err)
			continue
		}
		keys[p] = n.Key
	}
	if len(keys) == 0 {
		return nil, refused
	}
	return keys, nil
}

// readSAN gives a further name as certificates spell it. What is wrong with one is said of the member that it is in.
func readSAN(text string) (string, error) {
	san, err := canonicalSAN(text)
	var wrong *name.Refusal
	switch {
	case !errors.As(err, &wrong):
		return san, err
	case wrong.Code == "name.ip_as_dns":
		return "", refuse("name.san", "san: %s is no IP address as certificates have it, and reads like one; send 192.0.2.7 or 2001:db8::7, or a name", quoted(text))
	}
	return "", &name.Refusal{Code: wrong.Code, Field: "san", Reason: wrong.Reason}
}

func canonicalSAN(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.String(), nil
	}
	if strings.Contains(text, "@") {
		sans, err := name.CanonicalSANs(cert.User, name.Name{}, cert.SANs{Email: []string{text}})
		if err != nil {
			return "", err
		}
		return sans.Email[0], nil
	}
	n, err := name.Canonical(cert.Server, text)
	return n.Text, err
}
