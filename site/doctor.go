package site

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Doctor looks at an installation from all sides and says what to fix. It changes nothing, and the
// service may run or not.
type Doctor struct {
	Dir   string
	Quick bool // ask no server
	Now   func() time.Time
	// Limit is how long one check may take; zero is twelve seconds.
	Limit time.Duration
	// UnitDirs are where systemd finds units; nil means its own folders.
	UnitDirs []string
}

// DoctorReport is what was looked at and found, the worst first.
type DoctorReport struct {
	Checks   []string  `json:"checks"`
	Findings []Finding `json:"findings"`
}

// Count gives how many findings have a severity.
func (r DoctorReport) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Contradicts tells whether a finding says that parts of the installation contradict each other, so that
// somebody may have altered or exchanged one.
func (r DoctorReport) Contradicts() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return findingKindOf(f.Code).contradiction })
}

// Misconfigured tells whether chancery.yaml could not be used, so that most could not be looked at.
func (r DoctorReport) Misconfigured() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == "config" })
}

// check is one look at one side of an installation.
type check struct {
	name   string
	asks   bool // servers, which may be slow
	needed need
	look   func(*examination, context.Context) ([]Finding, error)
}

// need is what has to be there for a check to make sense. That it is not there is another one's finding.
type need int

const (
	nothing need = iota
	aConfig
	aStore
)

func checks() []check {
	return []check{
		{"config", false, nothing, (*examination).checkConfig},
		{"service", false, nothing, (*examination).checkService},
		{"room", false, aStore, (*examination).checkRoom},
		{"clock", false, nothing, (*examination).checkClock},
		{"keys", false, nothing, (*examination).checkKeys},
		{"separation", false, nothing, (*examination).checkSeparation},
		{"offline", false, nothing, (*examination).checkOffline},
		{"modes", false, nothing, (*examination).checkModes},
		{"disk", false, nothing, (*examination).checkDisk},
		{"expiry", false, aStore, (*examination).checkExpiry},
		{"debts", false, aStore, (*examination).checkDebts},
		{"directory", true, aConfig, (*examination).checkDirectory},
		{"git", true, aConfig, (*examination).checkGit},
		{"units", false, nothing, (*examination).checkUnits},
		{"host", false, nothing, (*examination).checkHost},
	}
}

// checkTime is above the time that a connection to an LDAP server may take.
const checkTime = 12 * time.Second

// grace is how much later a check may come with what it has found so far.
const grace = time.Second

// examination is one run of Doctor, with what several checks look at.
type examination struct {
	Doctor
	dir       string // absolute
	config    Config // what init writes if the file cannot be used
	unusable  error  // why it cannot
	roomFiles roomFiles

	// The key room says hello before the store is opened: what it has read, that store must hold.
	hello func() (signer.Hello, error)
	store func() (*store.Store, error)
}

// Run looks. It fails only when ctx ends: whatever else is in its way is a finding.
func (d Doctor) Run(ctx context.Context) (DoctorReport, error) {
	e, err := d.examination(ctx)
	if err != nil {
		return DoctorReport{}, err
	}
	report := DoctorReport{Checks: []string{}, Findings: []Finding{}}
	findings := make(chan []Finding)
	started := 0
	for _, c := range checks() {
		if c.asks && d.Quick {
			continue
		}
		report.Checks = append(report.Checks, c.name)
		started++
		go func() { findings <- e.perform(ctx, c) }()
	}
	for range started {
		report.Findings = append(report.Findings, <-findings...)
	}
	if ctx.Err() != nil {
		return DoctorReport{}, ctx.Err()
	}
	rank := map[Severity]int{SeverityCritical: 0, SeverityWarning: 1, SeverityInfo: 2}
	slices.SortFunc(report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.Severity], rank[b.Severity]), strings.Compare(a.Code, b.Code), strings.Compare(a.Subject, b.Subject))
	})
	return report, e.close(report)
}

func (d Doctor) examination(ctx context.Context) (*examination, error) {
	dir, err := filepath.Abs(d.Dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("%w: looking into the installation: %w", ErrConfig, err)
	}
	if d.Limit == 0 {
		d.Limit = checkTime
	}
	e := &examination{Doctor: d, dir: dir}
	if e.config, e.unusable = LoadConfig(filepath.Join(dir, ConfigName)); e.unusable != nil {
		at := func(name string) string { return filepath.Join(dir, name) }
		e.config = Config{Path: at(ConfigName), KeyRoom: at("keyroom/socket"), State: at("state"), Secrets: at("secrets"), Trust: at("trust")}
	}
	_, e.roomFiles, _ = loadRoomFiles(dir) // it is often not for this user to read; the key room itself says what is wrong with it
	for _, folder := range []*string{&e.config.State, &e.config.Secrets, &e.config.Trust, &e.roomFiles.State} {
		if real, err := filepath.EvalSymlinks(*folder); err == nil { // who moved it to another disk may have left a link
			*folder = real
		}
	}
	e.hello = sync.OnceValues(func() (signer.Hello, error) {
		ctx, cancel := context.WithTimeout(ctx, d.Limit/2)
		defer cancel()
		room, err := signer.DialReader(ctx, e.config.KeyRoom)
		if err != nil {
			return signer.Hello{}, err
		}
		defer room.Close()
		return room.Hello(), nil
	})
	e.store = sync.OnceValues(func() (*store.Store, error) {
		_, _ = e.hello() // what is wrong with it is said by checkService
		return store.OpenReader(ctx, e.config.StorePath(), e.Now)
	})
	return e, nil
}

// close leaves the store to the end of the process if a check may still be reading it.
func (e *examination) close(report DoctorReport) error {
	if slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Code == "check.slow" }) {
		return nil
	}
	if s, err := e.store(); err == nil {
		return s.Close()
	}
	return nil
}

// perform makes one check, whatever becomes of it, in its time.
func (e *examination) perform(ctx context.Context, c check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, e.Limit)
	defer cancel()
	done := make(chan []Finding, 1)
	go func() { done <- e.attempt(ctx, c) }()
	late := time.NewTimer(e.Limit + grace)
	defer late.Stop()
	select {
	case findings := <-done:
		return findings
	case <-late.C:
		return []Finding{e.find("check.slow", c.name, "it took longer than %s", e.Limit)}
	}
}

func (e *examination) attempt(ctx context.Context, c check) (findings []Finding) {
	defer func() {
		if p := recover(); p != nil {
			findings = append(findings, e.find("check.failed", c.name, "a fault in this program: %v", p))
		}
	}()
	if c.needed >= aConfig && e.unusable != nil {
		return nil
	}
	if c.needed >= aStore {
		if _, err := e.store(); err != nil {
			return nil
		}
	}
	findings, err := c.look(e, ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		findings = append(findings, e.find("check.denied", c.name, "%v", err))
	case err != nil:
		findings = append(findings, e.find("check.failed", c.name, "%v", err))
	}
	return findings
}

// find makes a finding, with the severity and the fix that its code has.
func (e *examination) find(code, subject, format string, args ...any) Finding {
	known := findingKindOf(code)
	// The daemon chooses the names of its files, and whoever reads this copies it into a shell of root.
	fix := strings.NewReplacer("{dir}", ShellWord(e.dir), "{store}", ShellWord(e.config.StorePath()), "{room}", ShellWord(e.roomFiles.State),
		"{subject}", ShellWord(subject)).Replace(known.fix)
	return Finding{Code: code, Severity: known.severity, Subject: subject, Reason: fmt.Sprintf(format, args...), Fix: fix}
}

func (e *examination) checkConfig(context.Context) ([]Finding, error) {
	if e.unusable == nil {
		return nil, nil
	}
	return []Finding{e.find("config", e.config.Path, "%v", e.unusable)}, nil
}

func (e *examination) checkExpiry(ctx context.Context) ([]Finding, error) {
	s, err := e.store()
	if err != nil {
		return nil, err
	}
	deadlines, err := Deadlines(ctx, e.config, s)
	var found []Finding
	now := e.Now()
	for _, d := range deadlines {
		severity := d.Severity(now)
		if severity == SeverityFine {
			continue
		}
		verb := "ends"
		if now.After(d.NotAfter) {
			verb = "ended"
		}
		found = append(found, Finding{
			Code: d.Code, Severity: severity, Subject: d.Subject, Fix: d.Fix,
			Reason: fmt.Sprintf("it %s at %s", verb, d.NotAfter.UTC().Format(time.RFC3339)),
		})
	}
	if errors.Is(err, errOwnPair) { // of which checkKeys tells
		err = nil
	}
	return found, err
}

// checkDebts folds what is owed: one place that is down owes thousands.
func (e *examination) checkDebts(ctx context.Context) ([]Finding, error) {
	s, err := e.store()
	if err != nil {
		return nil, err
	}
	debts, err := s.Debts(ctx)
	if err != nil {
		return nil, err
	}
	folded := make(map[string][]store.Debt)
	for _, d := range debts {
		age := e.Now().Sub(d.Since)
		code := "owed"
		switch {
		case d.Topic == store.CRL && age >= tooLateAfter:
			code = "owed.list"
		case d.Parked:
			code = "owed.parked"
		case age >= lateAfter:
			code = "owed.late"
		}
		key := code + " " + string(d.Topic)
		folded[key] = append(folded[key], d)
	}
	var found []Finding
	for key, some := range folded {
		code, topic, _ := strings.Cut(key, " ")
		oldest := slices.MinFunc(some, func(a, b store.Debt) int { return a.Since.Compare(b.Since) })
		found = append(found, e.find(code, topic, "%d owed; the oldest, %s, since %s, %d attempts failed%s",
			len(some), oldest.Key, oldest.Since.Format(time.RFC3339), oldest.Attempts, colon(oldest.LastError)))
	}
	return found, nil
}

// opened is the first leaf of the log, which names its keys.
func (e *examination) opened(ctx context.Context) (*audit.LogOpened, error) {
	s, err := e.store()
	if err != nil {
		return nil, err
	}
	leaf, err := s.Leaf(ctx, 0)
	if err != nil {
		return nil, err
	}
	opened, ok := leaf.Event.(*audit.LogOpened)
	if !ok {
		return nil, fmt.Errorf("the log begins with %s", leaf.Event.Type())
	}
	return opened, nil
}

// readCertificates reads the certificates of a PEM file.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readAtMost(path, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return all, nil
}
