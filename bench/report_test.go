package bench_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// BenchmarkReport prints the table. It measures once, whatever b.N is: each section states how often it
// did what it measures.
func BenchmarkReport(b *testing.B) {
	begin := time.Now()
	r := &report{}
	fmt.Println()
	y := newYardstick(b)
	reportParts(b, r, y)
	reportLists(b, r)
	reportDirectory(b, r, y)
	reportGit(b, r)
	s := install(b)
	s.start(b)
	reportCalls(b, r, s)
	reportIssues(b, r, s, y)
	reportRevokes(b, r, s)
	reportConsumer(b, r, s)
	reportSiege(b, r, s)
	reportPreloaded(b, r, s, y)
	s.stop(b)
	r.close(time.Since(begin))
	b.ReportMetric(0, "ns/op")
}

// report is the table as it is printed, and what comes last in it.
type report struct {
	targets [][]string
	memory  [][]string
	most    float64 // MiB
	flat    [][]string
	overs   []float64 // CPU over parts, in the order of flat
}

// section prints one block. The first column is text, the others are figures.
func (r *report) section(title string, notes []string, rows [][]string) {
	fmt.Printf("%s\n", strings.ToUpper(title))
	for _, n := range notes {
		fmt.Printf("  %s\n", n)
	}
	printRows(rows)
	fmt.Println()
}

func printRows(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		line := fmt.Sprintf("  %-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			line += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		fmt.Fprintln(os.Stdout, strings.TrimRight(line, " "))
	}
}

// target notes one target and whether it was met.
func (r *report) target(what string, got, most float64, unit string) {
	verdict := "ok"
	if got > most {
		verdict = "MISS"
	}
	r.targets = append(r.targets, []string{what, fmt.Sprintf("%.2f%s", got, unit), fmt.Sprintf("<= %.2f%s", most, unit), verdict})
}

func (r *report) close(took time.Duration) {
	r.section("targets", nil, append([][]string{{"", "measured", "target", ""}}, r.targets...))
	fmt.Printf("measured in %s\n\n", took.Round(time.Second))
}

func micro(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/float64(time.Microsecond)) }

func milli(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

func times(a, b time.Duration) string { return fmt.Sprintf("%.2fx", ratio(a, b)) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
