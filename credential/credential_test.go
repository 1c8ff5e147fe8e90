package credential

import (
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	for _, c := range []struct{ dir, value, want, says string }{
		{"", "a/b", "/etc/ca/a/b", ""},
		{"", "/a/b", "/a/b", ""},
		{"/run/credentials/x", "a", "/etc/ca/a", ""},
		{"/run/credentials/x", "credential:deploy", "/run/credentials/x/deploy", ""},
		{"/run/credentials/x", "./credential:deploy", "/etc/ca/credential:deploy", ""},
		{"", "credential:deploy", "", "LoadCredential=deploy:PATH"},
		{"run", "credential:deploy", "", "not an absolute path"},
		{"/run/credentials/x", "credential:", "", "plain file name"},
		{"/run/credentials/x", "credential:..", "", "plain file name"},
		{"/run/credentials/x", "credential:../shadow", "", "plain file name"},
		{"/run/credentials/x", "credential:/etc/shadow", "", "plain file name"},
	} {
		t.Setenv("CREDENTIALS_DIRECTORY", c.dir)
		got, err := Path(c.value, "/etc/ca")
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s in %q: %q %v, want %q %q", c.value, c.dir, got, err, c.want, c.says)
		}
		if held := Holds(got); held != (c.dir != "" && strings.HasPrefix(got, c.dir+"/")) {
			t.Errorf("%s in %q: held %v", got, c.dir, held)
		}
	}
}
