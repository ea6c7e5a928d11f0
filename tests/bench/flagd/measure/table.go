package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	// The most of flagd's CPU that a request may take.
	cpuBar = 0.5
	// The most of flagd's time that a change may take to the event.
	eventBar = 0.2
)

// A comparison is a line of the report that has a bar: flagd's figures, ours, and the ratio.
type comparison struct {
	What     string  `json:"what"`
	InFlight int     `json:"in_flight,omitempty"`
	Flags    int     `json:"flags,omitempty"`
	Flagd    figures `json:"flagd"`
	Yardarm  figures `json:"yardarm"`
	Ratio    float64 `json:"ratio"`
	Bar      float64 `json:"bar"`
	Pass     bool    `json:"pass"`
}

// figures are microseconds.
type figures struct {
	CPU  float64 `json:"cpu_us,omitempty"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	Lost int     `json:"lost,omitempty"`
}

func median[T cmp.Ordered](of []T) T {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// asked compares a row at one depth over its rounds: the medians of each, and the median of each round's ratio.
func asked(r row, inFlight int, rounds [][2]sample) comparison {
	said := comparison{What: r.name, InFlight: inFlight, Bar: cpuBar}
	var ratios []float64
	for _, round := range rounds {
		ratios = append(ratios, float64(round[1].cpu)/float64(round[0].cpu))
	}
	said.Ratio = median(ratios)
	said.Pass = said.Ratio <= said.Bar
	for at, into := range []*figures{&said.Flagd, &said.Yardarm} {
		of := func(pick func(sample) time.Duration) float64 {
			var all []time.Duration
			for _, round := range rounds {
				all = append(all, pick(round[at]))
			}
			return microseconds(median(all))
		}
		into.CPU = of(func(s sample) time.Duration { return s.cpu })
		into.P50 = of(func(s sample) time.Duration { return s.p50 })
		into.P99 = of(func(s sample) time.Duration { return s.p99 })
	}
	return said
}

// noticed compares the delays of changes. A change of ours that never came is a miss; one of flagd's is said.
func noticed(flags int, took [][]time.Duration, lost []int) comparison {
	said := comparison{What: "file change to `configuration_change`", Flags: flags, Bar: eventBar}
	for at, into := range []*figures{&said.Flagd, &said.Yardarm} {
		into.Lost = lost[at]
		if len(took[at]) == 0 {
			continue
		}
		slices.Sort(took[at])
		into.P50 = microseconds(took[at][len(took[at])/2])
		into.P99 = microseconds(took[at][len(took[at])*99/100])
	}
	if said.Flagd.P50 > 0 {
		said.Ratio = said.Yardarm.P50 / said.Flagd.P50
	}
	said.Pass = said.Yardarm.Lost == 0 && said.Yardarm.P50 > 0 && said.Flagd.P50 > 0 && said.Ratio <= said.Bar
	return said
}

func verdict(pass bool) string {
	if pass {
		return "pass"
	}
	return "**MISS**"
}

// printRequests has a line for each row, with all its depths beside one another; flagd's figures stand first.
func printRequests(to io.Writer, all []comparison) {
	fmt.Fprint(to, "| request |")
	for _, inFlight := range depths {
		fmt.Fprintf(to, " CPU, %d in flight (us) | ratio |", inFlight)
	}
	for _, inFlight := range depths {
		fmt.Fprintf(to, " p50; p99, %d in flight (ms) |", inFlight)
	}
	fmt.Fprintf(to, " ratios <= %.1f |\n|%s\n", cpuBar, strings.Repeat("---|", 2+3*len(depths)))
	for row := range slices.Chunk(all, len(depths)) {
		pass := true
		fmt.Fprintf(to, "| %s |", row[0].What)
		for _, c := range row {
			fmt.Fprintf(to, " %.1f / %.1f | %.2f |", c.Flagd.CPU, c.Yardarm.CPU, c.Ratio)
			pass = pass && c.Pass
		}
		for _, c := range row {
			fmt.Fprintf(to, " %.2f; %.2f / %.2f; %.2f |", c.Flagd.P50/1e3, c.Flagd.P99/1e3, c.Yardarm.P50/1e3, c.Yardarm.P99/1e3)
		}
		fmt.Fprintf(to, " %s |\n", verdict(pass))
	}
}

func printEvents(to io.Writer, all []comparison, changes int) {
	fmt.Fprintf(to, "\n| a change of a file of | p50; p99 until `configuration_change` (ms) | ratio of p50 | bar | |\n|---|---|---|---|---|\n")
	milliseconds := func(f figures) string {
		text := fmt.Sprintf("%.2f; %.2f", f.P50/1e3, f.P99/1e3)
		if f.Lost > 0 {
			text += fmt.Sprintf(", %d of %d never came", f.Lost, changes)
		}
		return text
	}
	for _, c := range all {
		fmt.Fprintf(to, "| %d flags | %s / %s | %.3f | <= %.1f | %s |\n", c.Flags, milliseconds(c.Flagd), milliseconds(c.Yardarm), c.Ratio, c.Bar, verdict(c.Pass))
	}
}

func printMemory(to io.Writer, held []footprint, flags, streams int) {
	fmt.Fprintf(to, "\n| one process | flagd / Yardarm | ratio |\n|---|---|---|\n")
	line := func(what string, pick func(footprint) float64) {
		var said []string
		for _, of := range held {
			text := fmt.Sprintf("%.1f", pick(of))
			if pick(of) == 0 {
				text = fmt.Sprintf("ended when it passed %.0f GB", ceiling/1e9)
			}
			said = append(said, text)
		}
		ratio := ""
		if pick(held[0]) > 0 && pick(held[1]) > 0 {
			ratio = fmt.Sprintf("%.3f", pick(held[1])/pick(held[0]))
		}
		fmt.Fprintf(to, "| %s | %s | %s |\n", what, strings.Join(said, " / "), ratio)
	}
	line(fmt.Sprintf("%d flags: RSS (MB)", flags), func(f footprint) float64 { return f.Flags / 1e6 })
	line(fmt.Sprintf("and %d EventStreams, a connection each", streams), func(f footprint) float64 { return f.Streams / 1e6 })
	line("and after a change came to all of them", func(f footprint) float64 { return f.Changed / 1e6 })
	line("that change until the last of them has it (ms)", func(f footprint) float64 { return f.Last / 1e3 })
}
