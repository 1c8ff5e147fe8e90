package site_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/site"
)

// TestDoctorAsksTheGitServer has the repository behind git's own http-backend, and breaks the server's side
// of it.
func TestDoctorAsksTheGitServer(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(run(t, "git", "--exec-path")), "git-http-backend"), Stderr: io.Discard, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=chancery", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent"},
	}
	date := ""
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "chancery" || password != "horse" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if date != "" {
			w.Header().Set("Date", date)
		}
		backend.ServeHTTP(w, r)
	}))
	defer web.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	run(t, "sh", "-ec", `cd "$1"; printf horse >git.password; chmod 0400 git.password; printf %s "$2" >git.pem
sed -i "s,^  repository: config.git,  url: $3/config.git\n  username: chancery\n  password_file: git.password\n  ca: git.pem," chancery.yaml`, "sh", dir, ca, web.URL)
	want := func(what string, codes ...string) {
		t.Helper()
		before := run(t, "git", "-C", dir+"/config.git", "for-each-ref") + run(t, "git", "-C", dir+"/config.git", "count-objects", "-v")
		if got := diagnose(t, site.Doctor{Dir: dir}); !slices.Equal(got, plus(evaluation(), append(codes, "service.stopped")...)) {
			t.Errorf("%s: %q", what, got)
		}
		if after := run(t, "git", "-C", dir+"/config.git", "for-each-ref") + run(t, "git", "-C", dir+"/config.git", "count-objects", "-v"); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", what, before, after)
		}
	}
	set := func(script string) {
		t.Helper()
		run(t, "sh", "-ec", fmt.Sprintf("cd %q; %s", dir, script))
	}
	want("all as it should be")
	date = "Sat, 01 Jan 2000 00:00:00 GMT"
	want("another clock", "clock.server")
	date = ""
	set(`git -C config.git config http.receivepack false`)
	want("reading only", "git.push")
	set(`git -C config.git config --unset http.receivepack; chmod u+w git.password; printf cow >git.password; chmod 0400 git.password`)
	want("another password", "git.unreachable")
	set(`chmod u+w git.password; printf horse >git.password; chmod 0444 git.password`)
	want("a password that everybody can read", "git.unreachable", "mode.secret")
	set(`chmod 0400 git.password`)
	want("all is well again")
	web.Close()
	want("it is down", "git.unreachable")
}
