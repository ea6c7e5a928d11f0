// Measures Yardarm beside flagd: both start with the same command line and the same flags, on one core, and are asked the same from another.
// `run` builds both tools and calls this in a network of its own.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Questions in flight at a time: one that waits for each answer, and an application under load.
var depths = []int{64, 1}

// Files whose changes are timed.
var sizes = []int{100, 1000}

const (
	// What the process holds whose memory is read.
	heldFlags = 10_000
	streams   = 1000
)

type options struct {
	flagd, yardarm, dir, only string
	core, rounds, changes     int
	seconds                   float64
	check, json               bool
}

func main() {
	var o options
	flag.StringVar(&o.flagd, "flagd", "", "flagd's binary")
	flag.StringVar(&o.yardarm, "yardarm", "", "Yardarm's binary")
	flag.StringVar(&o.dir, "dir", "", "an empty directory for their files and logs")
	flag.StringVar(&o.only, "only", "requests,events,memory", "parts to measure")
	flag.IntVar(&o.core, "core", 0, "CPU of the servers; this program must run on another")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of requests")
	flag.Float64Var(&o.seconds, "seconds", 1, "how long one load lasts")
	flag.IntVar(&o.changes, "changes", 50, "changes of a file to time")
	flag.BoolVar(&o.check, "check", false, "exit with 1 when a bar is missed")
	flag.BoolVar(&o.json, "json", false, "print one JSON object")
	flag.Parse()
	pass, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "flagd/run:", err)
		os.Exit(2)
	}
	if o.check && !pass {
		os.Exit(1)
	}
}

func run(o options) (bool, error) {
	if o.rounds < 1 || o.changes < 1 || o.seconds <= 0 {
		return false, fmt.Errorf("-rounds, -changes and -seconds must be more than nothing")
	}
	parts := strings.Split(o.only, ",")
	for _, part := range parts {
		if !slices.Contains([]string{"requests", "events", "memory"}, part) {
			return false, fmt.Errorf("-only has %q; its parts are requests, events and memory", part)
		}
	}
	contenders := []contender{
		{name: "flagd", binary: o.flagd, port: 9013},
		{name: "yardarm", binary: o.yardarm, port: 8013},
	}
	report := struct {
		Versions []string     `json:"versions"`
		Requests []comparison `json:"requests,omitempty"`
		Events   []comparison `json:"events,omitempty"`
		Memory   []footprint  `json:"memory,omitempty"`
	}{}
	for _, c := range contenders {
		version, err := version(c)
		if err != nil {
			return false, err
		}
		report.Versions = append(report.Versions, version)
	}
	for _, part := range parts {
		var err error
		switch part {
		case "requests":
			report.Requests, err = requests(o, contenders)
		case "events":
			report.Events, err = events(o, contenders)
		case "memory":
			report.Memory, err = memory(o, contenders)
		}
		if err != nil {
			return false, err
		}
	}
	if o.json {
		if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
			return false, err
		}
	} else {
		fmt.Printf("%s\n\n", strings.Join(report.Versions, "; "))
		if report.Requests != nil {
			printRequests(os.Stdout, report.Requests)
		}
		if report.Events != nil {
			printEvents(os.Stdout, report.Events, o.changes)
		}
		if report.Memory != nil {
			printMemory(os.Stdout, report.Memory, heldFlags, streams)
		}
	}
	missed := func(c comparison) bool { return !c.Pass }
	return !slices.ContainsFunc(report.Requests, missed) && !slices.ContainsFunc(report.Events, missed), nil
}

// version is what a binary says of itself, on one line.
func version(c contender) (string, error) {
	argument := "--version"
	if c.name == "flagd" {
		argument = "version"
	}
	said, err := exec.Command(c.binary, argument).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", c.binary, argument, err, said)
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	last, _, _ := strings.Cut(lines[len(lines)-1], " (")
	return strings.ReplaceAll(last, ":", ""), nil
}

// both starts the two with the same flags.
func both(o options, contenders []contender, flags int) ([]*server, func(), error) {
	file, err := flagFile(flags, true)
	if err != nil {
		return nil, nil, err
	}
	var servers []*server
	end := func() {
		for _, s := range servers {
			s.stop()
		}
	}
	for _, c := range contenders {
		s, err := start(c, o.core, o.dir, file)
		if err != nil {
			end()
			return nil, nil, err
		}
		servers = append(servers, s)
	}
	return servers, end, nil
}

// requests asks every row at every depth of both in turn, and that in rounds, about another person in each.
func requests(o options, contenders []contender) ([]comparison, error) {
	servers, end, err := both(o, contenders, bulk)
	if err != nil {
		return nil, err
	}
	defer end()
	measured := make([][][2]sample, len(rows)*len(depths))
	for round := range o.rounds {
		for number, r := range rows {
			person := round * 1000
			sizes, err := alike(servers, r, person)
			if err != nil {
				return nil, err
			}
			for depth, inFlight := range depths {
				var pair [2]sample
				for turn := range servers {
					// Who goes first changes, so that neither is always the one after the pause.
					at := (turn + round) % len(servers)
					pair[at], err = servers[at].load(o.dir, r, person, sizes[at], inFlight, time.Duration(o.seconds*float64(time.Second)))
					if err != nil {
						return nil, err
					}
				}
				at := number*len(depths) + depth
				measured[at] = append(measured[at], pair)
			}
		}
		fmt.Fprintf(os.Stderr, "requests: round %d of %d\n", round+1, o.rounds)
	}
	var all []comparison
	for at, rounds := range measured {
		all = append(all, asked(rows[at/len(depths)], depths[at%len(depths)], rounds))
	}
	return all, nil
}

func events(o options, contenders []contender) ([]comparison, error) {
	var all []comparison
	for _, flags := range sizes {
		servers, end, err := both(o, contenders, flags)
		if err != nil {
			return nil, err
		}
		took, lost, err := delays(servers, flags, o.changes)
		end()
		if err != nil {
			return nil, err
		}
		all = append(all, noticed(flags, took, lost))
		fmt.Fprintf(os.Stderr, "events: %d flags\n", flags)
	}
	return all, nil
}

// memory starts one after the other, alone and afresh.
func memory(o options, contenders []contender) ([]footprint, error) {
	file, err := flagFile(heldFlags, true)
	if err != nil {
		return nil, err
	}
	var all []footprint
	for _, c := range contenders {
		s, err := start(c, o.core, o.dir, file)
		if err != nil {
			return nil, err
		}
		held, err := occupied(s, heldFlags, streams)
		s.stop()
		if err != nil {
			return nil, err
		}
		all = append(all, held)
		fmt.Fprintf(os.Stderr, "memory: %s\n", c.name)
	}
	return all, nil
}
