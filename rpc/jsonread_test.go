package rpc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// dearJSON are bodies of the greatest size, each dear in another way.
func dearJSON() map[string][]byte {
	fill := func(head, text, tail string) []byte {
		const begin, end = `{"jsonrpc":"2.0","id":1,"method":"m","params":`, "}"
		room := xmlrpc.MaxBody - len(begin+head+tail+end)
		return []byte(begin + head + strings.Repeat(text, room/len(text)) + tail + end)
	}
	all := map[string][]byte{
		"a number":          fill("[", "9", "]"),
		"an id":             []byte(`{"id":` + strings.Repeat("9", xmlrpc.MaxBody-7) + "}"),
		"a fraction":        fill("[1.", "9", "]"),
		"a text":            fill(`["`, "x", `"]`),
		"a text of escapes": fill(`["`, `\u00e9`, `"]`),
		"half characters":   fill(`["`, `\ud800`, `"]`),
		"white space":       fill("[", " ", "]"),
	}
	for _, value := range []string{
		"1", "1000", "2147483647", "2147483648", "1234567890123456", "1e3", "0.5", "-0.1e-12", `""`, `"x"`, `"0123456789ab"`, `"\u00e9"`, `"\n"`, `"\ud83d\ude00"`,
		"{}", "[]", "[0]", `{"a":1}`, `{"":""}`, `{"a":{}}`, `{"a":{"a":{"a":1}}}`, `[[[[[[[[]]]]]]]]`, strings.Repeat("[", 15) + strings.Repeat("]", 15), "null", "true",
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`,
	} {
		all["many of "+value] = fill("[", value+",", value+"]")
		fits := min(4000/(1+strings.Count(value, ":")*2+strings.Count(value, "[")+strings.Count(value, "{")), 60000/len(value+","))
		all["as many of "+value+" as fit"] = []byte(`{"params":[` + strings.Repeat(value+",", fits) + value + "]}")
	}
	for _, n := range []int{8, 9, 255, 256, 257, 2000} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"m%d":1`, i)
		}
		one := "{" + b.String()[1:] + "}"
		all[fmt.Sprintf("objects of %d", n)] = fill("[", one+",", one+"]")
		fits := min(4000/(2*n+1), 60000/len(one))
		all[fmt.Sprintf("as many objects of %d as fit", n)] = []byte(`{"params":[` + strings.Repeat(one+",", fits) + one + "]}")
	}
	return all
}

// TestMemoryIsBounded: what a body costs is bounded, whatever is in it; half of what a request may allocate in all.
func TestMemoryIsBounded(t *testing.T) {
	for name, body := range dearJSON() {
		if len(body) > xmlrpc.MaxBody {
			t.Fatalf("%s: body of %d bytes", name, len(body))
		}
		if used := costOf(body); used > 1<<19 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}

// costOf is how much reading a body allocates.
func costOf(body []byte) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = jsonWire{}.decode(body)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
