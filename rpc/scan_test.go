package rpc

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestScan looks at the door with sslscan, which knows nothing of how it was made.
func TestScan(t *testing.T) {
	ciphers := map[bool][]string{
		false: {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
	}
	ciphers[true] = append(slices.Clone(ciphers[false]), "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305")
	for with12, want := range ciphers {
		w := newWorld(t, func(o *Options) { o.MinTLS12 = with12 })
		own, key := w.files(w.caller("provisioning"))
		said := string(w.tool(nil, "sslscan", "--no-colour", "--certs="+own, "--pk="+key, strings.TrimPrefix(w.url, "https://")))
		lines := []string{
			`SSLv2 +disabled`, `SSLv3 +disabled`, `TLSv1\.0 +disabled`, `TLSv1\.1 +disabled`, `TLSv1\.3 +enabled`,
			`(Session renegotiation not supported|Secure session renegotiation supported)`, `TLSv1\.3 not vulnerable to heartbleed`,
			`ECC Curve Name: +prime256v1`, `Signature Algorithm: ecdsa-with-SHA256`,
		}
		if with12 {
			lines = append(lines, `TLSv1\.2 +enabled`, `TLSv1\.2 not vulnerable to heartbleed`, `Server supports TLS Fallback SCSV`)
		} else {
			lines = append(lines, `TLSv1\.2 +disabled`)
		}
		for _, line := range lines {
			if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(said) {
				t.Errorf("TLS 1.2 %v: no line %s", with12, line)
			}
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^(?:Preferred|Accepted) +TLSv1\.[23] +\d+ bits +(\S+)`).FindAllStringSubmatch(said, -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("TLS 1.2 %v: the ciphers are %v, want %v", with12, got, want)
		}
		if t.Failed() {
			t.Log(said)
		}
	}
}
