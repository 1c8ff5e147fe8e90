package deploy_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestFirewall loads the rules on a machine that has a network beside it, and tries what must pass and what
// must not, in both directions and as different users.
func TestFirewall(t *testing.T) {
	t.Parallel()
	m := boot(t, "nftables/chancery.nft", "testdata/net.py", "systemd/chancery.sysusers")
	// The network beside it is a namespace of its own, which has all the addresses that the rules name.
	m.run(t, `systemd-sysusers /payload/chancery.sysusers
		ip netns add beside
		ip link add here type veth peer name there netns beside
		ip addr add 192.0.2.100/24 dev here; ip -6 addr add 2001:db8::100/32 dev here nodad; ip link set here up
		for host in 5 77 20 30 53 123 241; do ip -n beside addr add 192.0.2.$host/24 dev there; done
		for host in 1::5 9::5 2::20 2::30 2::53 2::123; do ip -n beside -6 addr add 2001:db8:0:$host/32 dev there nodad; done
		ip -n beside link set there up; ip -n beside link set lo up
		nft -c -f /payload/chancery.nft
		nft -f /payload/chancery.nft
		nft -f /payload/chancery.nft # again: it replaces itself
		setsid ip netns exec beside python3 /payload/net.py listen 22 443 389 636 80 8443 53 udp/53@192.0.2.53 udp/123@192.0.2.123 >/tmp/beside 2>&1 &
		setsid python3 /payload/net.py listen 8443 22 80 >/tmp/here 2>&1 &`)
	m.becomes(t, "ss -Hltn 'sport = 8443' | wc -l; ip netns exec beside ss -Hltn 'sport = 8443' | wc -l", "1\n1")

	in := "ip netns exec beside python3 /payload/net.py reach "
	out := func(user string) string {
		return fmt.Sprintf("setpriv --reuid %s --regid nogroup --clear-groups python3 /payload/net.py reach ", user)
	}
	daemon, room, other := out("chancery"), out("chancery-keyroom"), out("nobody")
	var script strings.Builder
	var want []string
	for _, c := range []struct{ from, what, want string }{
		{in, "192.0.2.5 192.0.2.100 8443", "open"},
		{in, "2001:db8:0:1::5 2001:db8::100 8443", "open"},
		{in, "192.0.2.77 192.0.2.100 8443", "silent"}, // not the provisioning network
		{in, "2001:db8:0:9::5 2001:db8::100 8443", "silent"},
		{in, "192.0.2.5 192.0.2.100 22", "silent"},
		{in, "192.0.2.5 192.0.2.100 80", "silent"},
		{in, "192.0.2.241 192.0.2.100 22", "open"},
		{daemon, "- 192.0.2.20 636", "open"},
		{daemon, "- 192.0.2.20 389", "open"},
		{daemon, "- 2001:db8:0:2::20 636", "open"},
		{daemon, "- 192.0.2.30 443", "open"},
		{daemon, "- 192.0.2.30 22", "open"},
		{daemon, "- 192.0.2.53 udp/53", "open"},
		{daemon, "- 192.0.2.53 53", "open"},
		{daemon, "- 127.0.0.1 8443", "open"},
		{daemon, "- 192.0.2.20 80", "closed"},
		{daemon, "- 192.0.2.77 443", "closed"},
		{daemon, "- 2001:db8:0:9::5 443", "closed"},
		{other, "- 192.0.2.123 udp/123", "open"},
		{other, "- 192.0.2.20 636", "closed"}, // not the daemon
		{other, "- 192.0.2.30 443", "closed"},
		{room, "- 192.0.2.53 udp/53", "closed"},
		{room, "- 192.0.2.20 636", "silent"},
		{room, "- 127.0.0.1 8443", "silent"},
		{room, "- ::1 8443", "silent"},
	} {
		fmt.Fprintf(&script, "echo %q $(%s)\n", c.what, c.from+c.what)
		want = append(want, c.what+" "+c.want)
	}
	got := strings.Split(strings.TrimSpace(m.run(t, script.String())), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d answers to %d questions:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %s, want %s", i, got[i], want[i])
		}
	}
}
