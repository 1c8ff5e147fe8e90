package rpc

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/store"
)

const expiringMethod = "ca.expiring"

const expiringHelp = `Tell which live certificates end from now on within some days, the first to end first. Certificates that are issued or
revoked between two pages neither repeat nor hide others. A page can be shorter than its limit and still have a next, as
in ca.find. Only what a grant of yours covers is told.`

type expiringParams struct {
	WithinDays int    `json:"within_days,omitempty" help:"what ends within so many days, 1 to 825; 0 is 30" flag:"within" arg:"DAYS"`
	Purpose    string `json:"purpose,omitempty" help:"only for it, all that you have a grant for if it is not there" values:"purposes" flag:"purpose" arg:"PURPOSE"`
	pageParams
}

type expiringDetail struct {
	head
	Certificates []endingCertificate `json:"certificates"`
	pageDetail
}

type endingCertificate struct {
	certificateDetail
	Superseded bool `json:"superseded" help:"a live certificate of the same purpose and name, which you may see too, ends later"`
}

func (p expiringParams) about() about { return about{purpose: p.Purpose} }

// The bounds of what may be asked for. No certificate is valid for longer.
const (
	expiringDays    = 30
	expiringMaxDays = 825
)

func (s *Server) expiring(ctx context.Context, rq *request, p expiringParams) (msg string, d expiringDetail, err error) {
	r, err := p.request()
	if err != nil {
		return "", d, err
	}
	if _, err := rq.caller.allow(wish{method: expiringMethod, purpose: r.Purpose}); err != nil {
		return "", d, err
	}
	r.See = func(c store.Certificate) bool {
		_, err := rq.caller.allow(concerning(expiringMethod, c))
		return err == nil
	}
	page, err := s.authority.Expiring(ctx, r)
	if err != nil {
		return "", d, err
	}
	d.head = head{Code: "expiring"}
	for _, c := range page.Certificates {
		d.Certificates = append(d.Certificates, endingCertificate{statusOf(c.CertificateStatus), c.Superseded})
	}
	fit, err := fitting(rq.left, d.Certificates)
	if err != nil {
		return "", d, err
	}
	if fit < len(d.Certificates) {
		last := page.Certificates[fit-1]
		d.Certificates, page.Next = d.Certificates[:fit], &store.Place{NotAfter: last.NotAfter, Intent: last.Intent}
	}
	renewed := 0
	for _, c := range d.Certificates {
		if c.Superseded {
			renewed++
		}
	}
	msg = fmt.Sprintf("within %d days end, and you may see: %d, of which %d have a successor", r.Within/day, len(d.Certificates), renewed)
	if page.Next != nil {
		d.Next = cursor(*page.Next)
		msg += "; there may be more: ask again with next as after"
	}
	return msg, d, nil
}

const day = 24 * time.Hour

func (p expiringParams) request() (r ca.ExpiringRequest, err error) {
	days := p.WithinDays
	if days == 0 {
		days = expiringDays
	}
	if days < 1 || days > expiringMaxDays {
		return r, refuse("expiring.window", "within_days: %d; want 1 to %d", days, expiringMaxDays)
	}
	page, err := pageSize(p.Limit)
	if err != nil {
		return r, err
	}
	r = ca.ExpiringRequest{Within: time.Duration(days) * day, Most: page}
	if p.Purpose != "" {
		if r.Purpose, err = readPurpose(p.Purpose); err != nil {
			return r, err
		}
	}
	if p.After != "" {
		if r.After, err = readCursor(p.After); err != nil {
			return r, badCursor()
		}
	}
	return r, nil
}

// cursor is a place as callers hand it back: microseconds since 1970, and the index of the intent.
func cursor(p store.Place) string {
	return strconv.FormatInt(p.NotAfter.UnixMicro(), 10) + "." + strconv.FormatInt(p.Intent, 10)
}

func readCursor(text string) (store.Place, error) {
	end, intent, _ := strings.Cut(text, ".")
	micros, err := strconv.ParseInt(end, 10, 64)
	if err != nil {
		return store.Place{}, err
	}
	index, err := strconv.ParseInt(intent, 10, 64)
	return store.Place{NotAfter: time.UnixMicro(micros), Intent: index}, err
}
