package main

import (
	"fmt"
	"time"
)

// How long a process is left alone before its memory is read.
const settled = 3 * time.Second

// A footprint is what one process holds, in bytes, at three times.
type footprint struct {
	// With its flags; with the streams that are open; after one change came to all of them.
	flags, streams, changed float64
	// How long that change took to the last of them.
	last time.Duration
}

// occupied measures a server with so many flags that has just been started.
func occupied(s *server, flags, streams int) (footprint, error) {
	var held footprint
	read := func(into *float64) error {
		time.Sleep(settled)
		resident, err := s.resident()
		*into = resident
		return err
	}
	if on, err := s.first(); err != nil || !on {
		return held, fmt.Errorf("%s answers %v of its first flag: %w", s.name, on, err)
	}
	if err := read(&held.flags); err != nil {
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
	if err := read(&held.streams); err != nil {
		return held, err
	}
	file, err := flagFile(flags, false)
	if err != nil {
		return held, err
	}
	replaced, err := s.replaceAt(file)
	if err != nil {
		return held, err
	}
	for number, to := range subscribers {
		at, came, err := to.next()
		if err != nil {
			return held, err
		}
		if !came {
			return held, fmt.Errorf("%s: stream %d of %d got no event within %s", s.name, number, streams, patience)
		}
		held.last = max(held.last, at.Sub(replaced))
	}
	return held, read(&held.changed)
}
