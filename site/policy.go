package site

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc"
)

// LoadPolicy reads who may do what from chancery.yaml at path, and looks at nothing else that stands there or
// is named there. Its errors are Problems.
func LoadPolicy(path string) (*rpc.Policy, error) {
	c, d, err := parseConfig(path)
	if err != nil {
		return nil, err
	}
	p, err := c.policy()
	return p, d.problems(errors.Join(d.unsaid(c), err))
}

func (c *Config) policy() (*rpc.Policy, error) {
	if c.Callers == nil {
		// It stands at the end: without this, half a file would be taken, and shut everybody out.
		return nil, wrong("callers", "callers is missing; write callers: [] if there are none")
	}
	return rpc.NewPolicy(rpc.Config{Callers: c.Callers, ForeignCAs: c.ForeignCAs})
}

// PolicyTest is one decision that is expected, an element of the list in a file of them.
type PolicyTest struct {
	Caller  string   `yaml:"caller"`
	Method  string   `yaml:"method"`
	Purpose string   `yaml:"purpose"`
	CN      string   `yaml:"cn"`
	DNS     []string `yaml:"dns"`
	IP      []string `yaml:"ip"`
	Email   []string `yaml:"email"`

	KeyType      string `yaml:"key_type"`
	ValidDays    int    `yaml:"valid_days"`
	Reason       string `yaml:"reason"`
	Owner        string `yaml:"owner"`
	Certificates int    `yaml:"certificates"`

	Want string `yaml:"want"` // allow or refuse
	Rule string `yaml:"rule"` // that allows it; empty: any
}

// PolicyReport is what came of them.
type PolicyReport struct {
	Tests   int            `json:"tests"`
	Differs []PolicyDiffer `json:"differs"`
}

// PolicyDiffer is one that was decided otherwise.
type PolicyDiffer struct {
	File     string       `json:"file"`
	Line     int          `json:"line"` // from 1
	Asked    string       `json:"asked"`
	Want     string       `json:"want"`
	Decision rpc.Decision `json:"decision"`
}

// The decisions that can be wanted.
const (
	wantAllow  = "allow"
	wantRefuse = "refuse"
)

// TestPolicy compares the decisions that the file at path expects with those of a policy. The file is as strict
// as chancery.yaml, and errors are Problems as there: a test that cannot be asked is one.
func TestPolicy(policy *rpc.Policy, path string) (PolicyReport, error) {
	r := PolicyReport{Differs: []PolicyDiffer{}}
	tests, d, err := readPolicyTests(path)
	if err != nil {
		return r, err
	}
	var failed []error
	for i, t := range tests {
		key := fmt.Sprintf("[%d]", i)
		if err := t.check(); err != nil {
			failed = append(failed, below(key, err))
			continue
		}
		decision, err := policy.Explain(t.question())
		if err != nil {
			failed = append(failed, below(key, err))
			continue
		}
		r.Tests++
		if !t.agrees(decision) {
			r.Differs = append(r.Differs, PolicyDiffer{path, d.problem(key, "").Line, asked(t.question()), t.wanted(), decision})
		}
	}
	return r, d.problems(errors.Join(failed...))
}

func readPolicyTests(path string) (tests []PolicyTest, d *document, err error) {
	d = &document{file: path}
	if d.text, err = readText(path); err == nil {
		d.places, err = locate(d.text)
	}
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(d.text), yaml.Strict()).Decode(&tests)
	}
	if err == nil && len(tests) == 0 {
		err = errors.New("it is empty: no decision is expected")
	}
	return tests, d, d.problems(err)
}

// below puts the key of an error below that of the test which it is about.
func below(key string, err error) error {
	var at *rpc.ConfigError
	if !errors.As(err, &at) {
		return wrong(key, "%s: %w", key, err)
	}
	return wrong(key+"."+at.Key, "%s: %w", key, at.Err)
}

func (t PolicyTest) check() error {
	switch {
	case t.Want != wantAllow && t.Want != wantRefuse:
		return wrong("want", "want is %.60q; it must be %s or %s", t.Want, wantAllow, wantRefuse)
	case t.Want == wantRefuse && t.Rule != "":
		return wrong("rule", "no rule refuses: leave rule out, or want %s", wantAllow)
	}
	return nil
}

func (t PolicyTest) question() rpc.Question {
	return rpc.Question{
		Caller: t.Caller, Method: t.Method, Purpose: t.Purpose, CN: t.CN, SANs: cert.SANs{DNS: t.DNS, IP: t.IP, Email: t.Email},
		KeyType: t.KeyType, ValidDays: t.ValidDays, Reason: t.Reason, Owner: t.Owner, Certificates: t.Certificates,
	}
}

func (t PolicyTest) agrees(d rpc.Decision) bool {
	return d.Allowed == (t.Want == wantAllow) && (t.Rule == "" || t.Rule == d.Rule)
}

// asked is a question in one line.
func asked(q rpc.Question) string {
	parts := []string{q.Caller, q.Method}
	if q.Purpose != "" {
		parts = append(parts, q.Purpose)
	}
	if q.CN != "" {
		parts = append(parts, strconv.Quote(q.CN))
	}
	parts = append(append(parts, q.SANs.All()...), q.KeyType)
	if q.ValidDays != 0 {
		parts = append(parts, fmt.Sprintf("%d days", q.ValidDays))
	}
	parts = append(parts, q.Reason)
	if q.Certificates != 0 {
		parts = append(parts, fmt.Sprintf("%d certificates", q.Certificates))
	}
	if q.Owner != "" {
		parts = append(parts, "of "+q.Owner)
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}

func (t PolicyTest) wanted() string {
	if t.Rule != "" {
		return t.Want + " by rule " + t.Rule
	}
	return t.Want
}
