package main

import (
	"fmt"
	"os"
	"time"
)

const (
	// How long a process is left alone before its memory is read.
	settled = 3 * time.Second
	// How long a change may take until it came to all streams.
	delivery = 5 * time.Minute
	// A server that comes to hold more than this while a change is delivered is ended, for the sake of the machine.
	ceiling = 6e9
)

// A footprint is what one process holds, in bytes, at three times.
type footprint struct {
	Name string `json:"name"`
	// With its flags, and with the streams that are open.
	Flags   float64 `json:"flags_bytes"`
	Streams float64 `json:"streams_bytes"`
	// After one change came to all of them, and how long that took to the last; nothing when it was ended at the ceiling.
	Changed float64 `json:"changed_bytes,omitempty"`
	Last    float64 `json:"last_us,omitempty"`
}

// occupied measures a server with so many flags that has just been started.
func occupied(s *server, flags, streams int) (footprint, error) {
	held := footprint{Name: s.name}
	read := func(into *float64) error {
		time.Sleep(settled)
		resident, err := s.resident()
		*into = resident
		return err
	}
	if err := read(&held.Flags); err != nil {
		return held, err
	}
	var subscribers []*subscriber
	for range streams {
		to, err := s.subscribe()
		if err != nil {
			return held, fmt.Errorf("after %d streams: %w", len(subscribers), err)
		}
		defer to.connection.Close()
		subscribers = append(subscribers, to)
	}
	if err := read(&held.Streams); err != nil {
		return held, err
	}
	fmt.Fprintf(os.Stderr, "memory: %s has %d streams\n", s.name, streams)
	file, err := flagFile(flags, false)
	if err != nil {
		return held, err
	}
	for _, to := range subscribers {
		to.forget()
	}
	replaced, err := s.replaceAt(file)
	if err != nil {
		return held, err
	}
	type arrival struct {
		last time.Duration
		err  error
	}
	arrived := make(chan arrival, 1)
	go func() {
		last, err := s.everyone(subscribers, replaced)
		arrived <- arrival{last, err}
	}()
	for {
		select {
		case all := <-arrived:
			if all.err != nil {
				return held, all.err
			}
			held.Last = microseconds(all.last)
			err := read(&held.Changed)
			return held, err
		case <-time.After(50 * time.Millisecond):
			if resident, err := s.resident(); err != nil || resident > ceiling {
				return held, err
			}
		}
	}
}

// everyone waits until all have the change of that time, and says how long the last one took.
func (s *server) everyone(subscribers []*subscriber, replaced time.Time) (time.Duration, error) {
	var last time.Duration
	for number, to := range subscribers {
		at, came, err := to.next(time.Until(replaced.Add(delivery)))
		if err != nil {
			return 0, err
		}
		if !came {
			return 0, fmt.Errorf("%s: stream %d of %d got no event within %s", s.name, number, len(subscribers), delivery)
		}
		last = max(last, at.Sub(replaced))
	}
	return last, nil
}
