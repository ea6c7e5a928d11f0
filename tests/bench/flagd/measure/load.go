package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A sample is what one run of the load generator shows.
type sample struct {
	// CPU of the server for each answer, and how long answers took to come.
	cpu, p50, p99 time.Duration
}

// Requests from which the number is taken that makes a run as long as it shall be.
const probe = 500

var (
	counted = regexp.MustCompile(`(\d+) succeeded, (\d+) failed, (\d+) errored`)
	carried = regexp.MustCompile(`\((\d+)\) data`)
)

// load asks a row over and over with so many questions in flight, for about as long as is wanted.
func (s *server) load(dir string, r row, person, size, inFlight int, wanted time.Duration) (sample, error) {
	began := time.Now()
	if _, err := s.h2load(dir, r, person, size, inFlight, probe); err != nil {
		return sample{}, err
	}
	requests := max(probe, int(float64(probe)*float64(wanted)/float64(time.Since(began))))
	return s.h2load(dir, r, person, size, inFlight, requests)
}

func (s *server) h2load(dir string, r row, person, size, inFlight, requests int) (sample, error) {
	message, err := r.message(person)
	if err != nil {
		return sample{}, err
	}
	log, body := filepath.Join(dir, "h2load.log"), filepath.Join(dir, "body")
	arguments := []string{"--threads=1", "--requests=" + strconv.Itoa(requests), "--data=" + body, "--log-file=" + log}
	depth := strconv.Itoa(inFlight)
	if r.ofrep() {
		// HTTP/1.1, as OFREP's clients speak: a connection for each question that is in flight.
		arguments = append(arguments, "--h1", "--clients="+depth, "--header=content-type: application/json", s.ofrepURL()+r.path)
	} else {
		message = framed(message)
		arguments = append(arguments, "--clients=1", "--max-concurrent-streams="+depth,
			"--header=content-type: application/grpc", "--header=te: trailers", "http://"+s.grpcAddress()+r.path)
	}
	if err := os.WriteFile(body, message, 0o644); err != nil {
		return sample{}, err
	}
	if err := os.RemoveAll(log); err != nil {
		return sample{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	said, err := exec.Command("h2load", arguments...).CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("h2load: %w: %s", err, said)
	}
	after, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	// An error of gRPC comes with HTTP 200: the answers must be as long as the one that was checked, too.
	counts, bytes := counted.FindSubmatch(said), carried.FindSubmatch(said)
	if counts == nil || bytes == nil || string(counts[1]) != strconv.Itoa(requests) {
		return sample{}, fmt.Errorf("%s, %s: not every one of %d requests was answered: %s", s.name, r.name, requests, said)
	}
	if data, err := strconv.Atoi(string(bytes[1])); err != nil || data < requests*size*98/100 || data > requests*size*102/100 {
		return sample{}, fmt.Errorf("%s, %s: %s bytes of data in %d answers, but the one that was checked has %d",
			s.name, r.name, bytes[1], requests, size)
	}
	latencies, err := latencies(log)
	if err != nil {
		return sample{}, err
	}
	if len(latencies) != requests {
		return sample{}, fmt.Errorf("h2load logged %d of %d requests", len(latencies), requests)
	}
	return sample{
		cpu: (after - before) / time.Duration(requests),
		p50: latencies[len(latencies)/2],
		p99: latencies[len(latencies)*99/100],
	}, nil
}

// latencies are in the third column of h2load's log, in microseconds; here they are sorted.
func latencies(log string) ([]time.Duration, error) {
	file, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []time.Duration
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) < 3 {
			return nil, fmt.Errorf("h2load logged %q, and not start, status and time", lines.Text())
		}
		microseconds, err := strconv.Atoi(columns[2])
		if err != nil {
			return nil, err
		}
		all = append(all, time.Duration(microseconds)*time.Microsecond)
	}
	slices.Sort(all)
	return all, lines.Err()
}
