package gitrepo

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fill makes a repository with that many files of others, packed as a server
// would have them.
func fill(b *testing.B, files int) string {
	path := newBare(b)
	var script strings.Builder
	script.WriteString("commit refs/heads/main\ncommitter Alice <alice@example.org> 1700000000 +0000\ndata 4\nbase\n")
	for i := range files {
		content := fmt.Sprintf("file %d", i)
		fmt.Fprintf(&script, "M 100644 inline modules/m%d/f%d\ndata %d\n%s\n", i%200, i, len(content), content)
	}
	gitIn(b, path, script.String()+"\n", "fast-import", "--quiet")
	git(b, path, "repack", "-adq")
	return path
}

func publishTimes(b *testing.B, l Remote, n int) (wall time.Duration, allocated uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range n {
		_, changed, err := publisher(l).Publish(context.Background(), func(Files) (Change, error) {
			now := strconv.FormatInt(time.Now().UnixNano(), 10)
			return Change{Files: Files{"users.crl": []byte(now), "users.crl.pem": []byte(now), "checkpoint": []byte(now)}, Message: "m"}, nil
		})
		if err != nil || !changed {
			b.Fatal(changed, err)
		}
	}
	wall = time.Since(start)
	runtime.ReadMemStats(&after)
	return wall, after.TotalAlloc - before.TotalAlloc
}

// BenchmarkPublish reports what one publication costs in a repository of
// 20,000 other files, and how many times what it costs beside 10. The two
// repositories take turns, so that a slow moment of the disk hits both.
// make bench has the same through git http-backend.
func BenchmarkPublish(b *testing.B) {
	small, large := openMain(b, fill(b, 10)), openMain(b, fill(b, 20_000))
	publishTimes(b, small, 3)
	publishTimes(b, large, 3)
	var wall [2]time.Duration
	var bytes [2]uint64
	for b.Loop() {
		for i, l := range []Remote{small, large} {
			w, a := publishTimes(b, l, 1)
			wall[i] += w
			bytes[i] += a
		}
	}
	b.ReportMetric(float64(wall[1].Microseconds())/float64(b.N)/1000, "ms/publish")
	b.ReportMetric(float64(wall[1])/float64(wall[0]), "wall-ratio")
	b.ReportMetric(float64(bytes[1])/float64(bytes[0]), "alloc-ratio")
}
