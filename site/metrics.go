package site

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// maxWords is how many values a label may take that comes from codes of other packages. They are constants
// there; this holds even if one of them is not.
const maxWords = 100

// metrics counts what happens, from the events that enter the log and from the calls at the door, and shows
// what the last survey found. No label holds what a caller wrote.
type metrics struct {
	registry *prometheus.Registry
	health   *health
	gauges   gauges

	calls     *prometheus.CounterVec
	durations *prometheus.HistogramVec
	issued    *prometheus.CounterVec
	revoked   *prometheus.CounterVec
	denials   *prometheus.CounterVec
	strangers *prometheus.CounterVec
	failures  *prometheus.CounterVec
	keyUses   *prometheus.CounterVec
	configAt  prometheus.Gauge // when the configuration in use was read

	mu    sync.Mutex
	words map[string]bool
	open  map[int64]purposeOf // intents by the index of their leaf
}

type purposeOf struct {
	purpose cert.Purpose
	issuer  cert.Issuer
}

func newMetrics(h *health, build string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), health: h, gauges: newGauges(), words: make(map[string]bool), open: make(map[int64]purposeOf)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	m.calls = counter("chancery_rpc_requests_total", "Requests of known callers, by how they ended.", "method", "transport", "result")
	m.issued = counter("chancery_certificates_issued_total", "Certificates signed and entered, since the start.", "purpose")
	m.revoked = counter("chancery_certificates_revoked_total", "Certificates revoked, since the start.", "reason")
	m.denials = counter("chancery_policy_denials_total", "Requests of known callers that were refused, by the code of the answer.", "rule")
	m.strangers = counter("chancery_strangers_total", "Connections and requests of nobody who is known, by cause; counted a minute late.", "cause")
	m.failures = counter("chancery_publish_failures_total", "Failed attempts to publish, by the code of the log line.", "target", "kind")
	m.keyUses = counter("chancery_key_operations_total", "What the key room's keys did, as the log has it, since the start.", "key", "result")
	m.durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "chancery_rpc_duration_seconds", Help: "Time from the request's header to the written answer.",
		Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"method"})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "chancery_build_info", Help: "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": build, "revision": revision(), "goversion": runtime.Version()},
	})
	info.Set(1)
	m.configAt = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "chancery_config_reload_success_timestamp_seconds", Help: "When the configuration in use was read.",
	})
	m.configAt.SetToCurrentTime()
	m.registry.MustRegister(m.durations, info, m.configAt, m, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// A rate over a counter that is not there yet misses its first step.
	for _, p := range cert.Purposes() {
		m.issued.WithLabelValues(string(p))
	}
	for _, k := range alarmKinds() {
		if target, kind, ok := target(k.code); ok && k.lasts > 0 {
			m.failures.WithLabelValues(target, kind)
		}
	}
	return m
}

// revision is the commit that the program was built from, if the build knew.
func revision() string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

func (m *metrics) handler() http.Handler {
	lines, _ := zap.NewStdLogAt(m.health.log, zap.WarnLevel) // the level is one that there is
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: lines, ErrorHandling: promhttp.ContinueOnError, DisableCompression: true, MaxRequestsInFlight: 4,
	})
}

// call counts one request at the door.
func (m *metrics) call(method, transport, result string, took time.Duration) {
	m.calls.WithLabelValues(method, transport, result).Inc()
	m.durations.WithLabelValues(method).Observe(took.Seconds())
}

// word gives a code as the value of a label, or "other" if there are too many.
func (m *metrics) word(code string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.words[code] && len(m.words) >= maxWords {
		return "other"
	}
	m.words[code] = true
	return code
}

// event counts what entered the log, and ends the alarms that it disproves.
func (m *metrics) event(index int64, event audit.Event) {
	switch e := event.(type) {
	case *audit.IssueIntent:
		m.mu.Lock()
		m.open[index] = purposeOf{e.Purpose, e.Issuer}
		m.mu.Unlock()
	case *audit.IssueDone:
		of := m.ended(e.Intent, e.Serial)
		m.issued.WithLabelValues(string(of.purpose)).Inc()
		m.keyUses.WithLabelValues(string(of.issuer), "signed").Inc()
		if e.Revocation != nil {
			m.revoked.WithLabelValues(e.Revocation.Reason.String()).Inc()
		}
	case *audit.IssueAbandoned:
		m.keyUses.WithLabelValues(string(m.ended(e.Intent, e.Serial).issuer), "voided").Inc()
	case *audit.IssueRedelivered:
		m.keyUses.WithLabelValues("delivery", "asked").Inc()
	case *audit.RevokeDone:
		for _, r := range e.Revoked {
			m.revoked.WithLabelValues(r.Reason.String()).Inc()
		}
	case *audit.CRLSigned:
		m.keyUses.WithLabelValues(string(e.Issuer), "signed").Inc()
	case *audit.CRLPublished:
		m.keyUses.WithLabelValues("log", "signed").Inc()
		m.health.marks.clear("crl.publish", "crl.sign", "crl.witness")
	case *audit.DirectoryPublished:
		m.health.marks.clear(codeDirectoryDown)
	case *audit.RequestRefused:
		m.denials.WithLabelValues(m.word(e.Code)).Add(float64(max(1, e.Count)))
	case *audit.StrangersTurnedAway:
		m.strangers.WithLabelValues(m.word(e.Cause)).Add(float64(e.Count))
	}
}

// ended tells what an intent was for. One from before the start is looked up.
func (m *metrics) ended(intent int64, serial cert.Serial) purposeOf {
	m.mu.Lock()
	of, ok := m.open[intent]
	delete(m.open, intent)
	m.mu.Unlock()
	if ok {
		return of
	}
	found, err := m.health.parts.store.Find(context.Background(), store.Query{Serial: serial})
	if err != nil || len(found) == 0 {
		return purposeOf{"unknown", "unknown"} // the store counts its failures itself
	}
	return purposeOf{found[0].Purpose, found[0].Issuer}
}

// failed counts a failure to publish under its code, and under what is known of its cause.
func (m *metrics) failed(code string, err error) {
	to, kind, ok := target(code)
	if !ok {
		return
	}
	for _, c := range []struct {
		is   error
		kind string
	}{{gitrepo.ErrRefused, "refused"}, {gitrepo.ErrHostile, "hostile"}, {signer.ErrUnreachable, "keyroom"}} {
		if to == partGit && errors.Is(err, c.is) {
			kind = c.kind
		}
	}
	m.failures.WithLabelValues(to, m.word(kind)).Inc()
}

// gauges are the metrics that show a survey.
type gauges struct {
	certNotAfter, crlNextUpdate, crlThisUpdate, crlNumber, crlStale *prometheus.Desc
	ready, surveyed, alarm, lag, depth, treeSize, checkpoint, store *prometheus.Desc
}

func newGauges() gauges {
	return gauges{
		certNotAfter:  gauge("x509_cert_not_after", "When the certificate ends, seconds since 1970.", "filename"),
		crlNextUpdate: gauge("x509_crl_next_update", "nextUpdate of the published list, seconds since 1970.", "filename"),
		crlThisUpdate: gauge("x509_crl_this_update", "thisUpdate of the published list, seconds since 1970; not there while a newer list is signed and not published.", "filename"),
		crlNumber:     gauge("x509_crl_number", "Number of the published list.", "filename"),
		crlStale:      gauge("x509_crl_stale", "1 if the nextUpdate of the published list is over.", "filename"),
		ready:         gauge("chancery_ready", "1 if /readyz says 200."),
		surveyed:      gauge("chancery_survey_timestamp_seconds", "When the service last looked at itself and its dependencies."),
		alarm:         gauge("chancery_alarm", "1 while an alarm of severity warning or critical is on.", "code"),
		lag:           gauge("chancery_publish_lag_seconds", "Age of the oldest change that the target does not show yet; 0 if there is none.", "target"),
		depth:         gauge("chancery_outbox_depth", "Places of the target that are owed a visit.", "target", "state"),
		treeSize:      gauge("chancery_audit_tree_size", "Leaves on the log."),
		checkpoint:    gauge("chancery_audit_last_checkpoint_timestamp_seconds", "When a checkpoint was last read back from git; 0 if never."),
		store:         gauge("chancery_store_errors_total", "Failures of the database engine since the start."),
	}
}

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe names the gauges.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	g := m.gauges
	for _, d := range []*prometheus.Desc{
		g.certNotAfter, g.crlNextUpdate, g.crlThisUpdate, g.crlNumber, g.crlStale,
		g.ready, g.surveyed, g.alarm, g.lag, g.depth, g.treeSize, g.checkpoint, g.store,
	} {
		to <- d
	}
}

// Collect shows the last survey. It reads nothing but memory.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	found, now := m.health.found(), m.health.now()
	show := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	show(m.gauges.ready, number01(m.health.say().Ready))
	show(m.gauges.surveyed, seconds(found.at))
	on := make(map[string]bool)
	for _, a := range found.alarms {
		on[a.Code] = on[a.Code] || a.Severity == SeverityWarning || a.Severity == SeverityCritical
	}
	for _, k := range alarmKinds() {
		show(m.gauges.alarm, number01(on[k.code]), k.code)
	}
	for topic, target := range map[store.Topic]string{store.CRL: partGit, store.Directory: partDirectory} {
		b, lag := found.backlogs[topic], 0.0
		if !b.Oldest.IsZero() {
			lag = now.Sub(b.Oldest).Seconds()
		}
		show(m.gauges.lag, lag, target)
		show(m.gauges.depth, float64(b.Debts-b.Failing-b.Parked), target, "due")
		show(m.gauges.depth, float64(b.Failing), target, "failing")
		show(m.gauges.depth, float64(b.Parked), target, "parked")
	}
	size, _ := m.health.parts.store.Head()
	show(m.gauges.treeSize, float64(size))
	to <- prometheus.MustNewConstMetric(m.gauges.store, prometheus.CounterValue, float64(m.health.parts.store.Failures()))
	var checkpoint time.Time
	for _, l := range found.lists {
		if l.PublishedAt.After(checkpoint) {
			checkpoint = l.PublishedAt
		}
	}
	show(m.gauges.checkpoint, seconds(checkpoint))
	m.collectX509(found, now, show)
}

// collectX509 shows the certificates of the service and the CAs, and the lists that hosts can pull, under
// the names of the x509-certificate-exporter, which many sites have dashboards and alerts for. Files are
// named as in the git folder.
func (m *metrics) collectX509(found *survey, now time.Time, show func(*prometheus.Desc, float64, ...string)) {
	for _, d := range found.deadlines {
		switch d.Code {
		case codeExpiryService:
			show(m.gauges.certNotAfter, seconds(d.NotAfter), serverCertFile)
		case codeExpiryIssuer, codeExpiryRoot:
			show(m.gauges.certNotAfter, seconds(d.NotAfter), d.Subject+".pem")
		}
	}
	showList := func(file string, number string, this, next time.Time) {
		value, err := strconv.ParseFloat(number, 64)
		if err == nil {
			show(m.gauges.crlNumber, value, file)
		}
		if !this.IsZero() {
			show(m.gauges.crlThisUpdate, seconds(this), file)
		}
		show(m.gauges.crlNextUpdate, seconds(next), file)
		show(m.gauges.crlStale, number01(now.After(next)), file)
	}
	for _, l := range found.lists {
		switch {
		case l.PublishedNumber == "":
		case l.PublishedNumber == l.Number:
			showList(string(l.Issuer)+".crl", l.Number, l.ThisUpdate, l.NextUpdate)
		default:
			showList(string(l.Issuer)+".crl", l.PublishedNumber, time.Time{}, l.PublishedNextUpdate)
		}
	}
	if root, err := list.Parse(found.rootList); err == nil {
		showList(string(cert.Root)+".crl", root.Number.String(), root.ThisUpdate, root.NextUpdate)
	}
}

// seconds since 1970, and 0 for no time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

func number01(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
