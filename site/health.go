package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Bounds of the health listener. Whoever is served is answered from what was found out before, in
// microseconds, so a connection that takes longer is no monitor's.
const (
	healthReadTime  = 3 * time.Second
	healthWriteTime = 5 * time.Second
	healthMaxHeader = 4 << 10
	healthMaxConns  = 64
)

// checkHealth checks the address of the health listener. Nobody is asked who he is there, so it does not
// leave this machine; and a name could be made to mean another address.
func (c *Config) checkHealth() error {
	if c.Health == "" {
		return nil
	}
	host, err := splitListen(c.Health)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return fmt.Errorf("health: %s is not a loopback address; nobody is asked who he is there, so want 127.0.0.1:PORT or [::1]:PORT", c.Health)
	}
	if c.Health == c.Listen {
		return errors.New("health: the RPC listens there; give it another port")
	}
	return nil
}

// serveHealth answers monitors until ctx ends. What goes wrong here ends nothing: the service is there for
// its callers.
func (h *health) serveHealth(ctx context.Context, l net.Listener) {
	lines, _ := zap.NewStdLogAt(h.log, zap.WarnLevel) // the level is one that there is
	var conns lastConns
	server := &http.Server{
		Handler:                      h.handler(),
		DisableGeneralOptionsHandler: true,
		ReadTimeout:                  healthReadTime,
		WriteTimeout:                 healthWriteTime,
		MaxHeaderBytes:               healthMaxHeader,
		ErrorLog:                     lines,
		ConnState:                    conns.note,
	}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		h.log.Error("health and metrics are not served any more; the service goes on", zap.Error(err))
	}
}

// lastConns keeps no more than the newest connections: those who only hold one make room.
type lastConns struct {
	mu    sync.Mutex
	conns []net.Conn // oldest first
}

func (l *lastConns) note(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		l.conns = append(l.conns, c)
		if len(l.conns) > healthMaxConns {
			_ = l.conns[0].Close() // its reader sees it
			l.conns = l.conns[1:]
		}
	case http.StateClosed:
		for i, other := range l.conns {
			if other == c {
				l.conns = append(l.conns[:i], l.conns[i+1:]...)
				break
			}
		}
	}
}

// handler is what is there to read.
func (h *health) handler() http.Handler {
	pages := http.NewServeMux()
	pages.HandleFunc("/livez", h.livez)
	pages.HandleFunc("/readyz", h.readyz)
	pages.Handle("/metrics", h.metrics.handler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "want GET", http.StatusMethodNotAllowed)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// livez says whether a restart is what the process needs.
func (h *health) livez(w http.ResponseWriter, _ *http.Request) {
	why := ""
	switch found := h.found(); {
	case found.at.IsZero():
		why = "nothing was looked at yet"
	case h.now().Sub(found.at) > stuckAfter:
		why = "nothing was looked at since " + found.at.Format(time.RFC3339)
	case found.has(codeStoreBroken):
		why = codeStoreBroken
	}
	if why != "" {
		http.Error(w, "not alive: "+why, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "alive")
}

// Health is what /readyz says as JSON.
type Health struct {
	Ready  bool   `json:"ready"`  // a call to issue would be heard
	Status string `json:"status"` // ready, degraded or not ready
	// Checked is when the dependencies were looked at.
	Checked      time.Time          `json:"checked"`
	Dependencies []HealthDependency `json:"dependencies"`
	Alarms       []Alarm            `json:"alarms"`
}

// HealthDependency is one part of the world that the service lives on.
type HealthDependency struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ready, degraded or not ready
}

// The three words for how a part, and the whole, is.
const (
	statusReady    = "ready"
	statusDegraded = "degraded"
	statusNotReady = "not ready"
)

// statusOf sums up the alarms of a part; of all parts if it is empty. What is merely worth knowing
// degrades nothing.
func statusOf(alarms []Alarm, part string) string {
	status := statusReady
	for _, a := range alarms {
		switch {
		case part != "" && a.Part != part:
		case a.stops:
			return statusNotReady
		case a.Severity == SeverityWarning || a.Severity == SeverityCritical:
			status = statusDegraded
		}
	}
	return status
}

// say puts a survey into words. A survey that is too old says nothing of now.
func (h *health) say() Health {
	found := h.found()
	said := Health{Status: statusOf(found.alarms, ""), Checked: found.at, Alarms: found.alarms}
	door := HealthDependency{"rpc", statusReady}
	if !h.answering.Load() {
		door.Status, said.Status = statusNotReady, statusNotReady // it starts, or stops
	}
	if h.now().Sub(found.at) > stuckAfter {
		said.Status = statusNotReady
	}
	said.Dependencies = append(said.Dependencies, door)
	said.Ready = said.Status != statusNotReady
	for _, part := range alarmParts() {
		if part == partDirectory && h.config.Directory == nil {
			continue
		}
		said.Dependencies = append(said.Dependencies, HealthDependency{part, statusOf(found.alarms, part)})
	}
	return said
}

// readyz says whether calls can be served. It stays 200 while only the world outside is in trouble: what
// is owed to it is kept.
func (h *health) readyz(w http.ResponseWriter, r *http.Request) {
	said := h.say()
	asJSON := strings.Contains(r.Header.Get("Accept"), "application/json")
	kind := "text/plain; charset=utf-8"
	if asJSON {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	if !said.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if asJSON {
		_ = json.NewEncoder(w).Encode(said) // a monitor that has gone asks again
		return
	}
	fmt.Fprintln(w, said.Status)
	if !r.URL.Query().Has("verbose") {
		return
	}
	for _, d := range said.Dependencies {
		fmt.Fprintf(w, "%-12s %s\n", d.Name, d.Status)
	}
	for _, a := range said.Alarms {
		subject := ""
		if a.Subject != "" {
			subject = " of " + a.Subject
		}
		fmt.Fprintf(w, "%s %s%s for %s: %s; %s\n", a.Severity, a.Code, subject, h.now().Sub(a.Since).Round(time.Second), a.Reason, a.Fix)
	}
}
