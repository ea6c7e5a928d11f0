package main

import (
	"context"
	"fmt"
	"time"

	"buf.build/gen/go/open-feature/flagd/grpc/go/flagd/evaluation/v1/evaluationv1grpc"
	evaluationv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v1"
	"google.golang.org/grpc"
)

const (
	// How long a change may take to come as an event before it counts as lost.
	patience = 10 * time.Second
	// Rest between changes, so that none finds its predecessor still at work; ours keeps 50 ms between two events of a stream.
	rest = 100 * time.Millisecond
)

// A subscriber is a provider as it listens: one EventStream on a connection of its own.
type subscriber struct {
	connection *grpc.ClientConn
	// When each `configuration_change` had been read.
	changes chan time.Time
	broken  chan error
}

// subscribe opens a stream and waits for its `provider_ready`.
func (s *server) subscribe() (*subscriber, error) {
	connection, err := s.connect()
	if err != nil {
		return nil, err
	}
	stream, err := evaluationv1grpc.NewServiceClient(connection).EventStream(context.Background(), &evaluationv1.EventStreamRequest{})
	if err == nil {
		var first *evaluationv1.EventStreamResponse
		first, err = stream.Recv()
		if err == nil && first.GetType() != "provider_ready" {
			err = fmt.Errorf("the first event is %q", first.GetType())
		}
	}
	if err != nil {
		connection.Close()
		return nil, fmt.Errorf("EventStream of %s: %w", s.name, err)
	}
	to := &subscriber{connection, make(chan time.Time, 16), make(chan error, 1)}
	go func() {
		for {
			event, err := stream.Recv()
			now := time.Now()
			if err != nil {
				to.broken <- err
				return
			}
			if event.GetType() == "configuration_change" {
				to.changes <- now
			}
		}
	}()
	return to, nil
}

// next is when the next change had been read; the second value is false when none came.
func (to *subscriber) next(patience time.Duration) (time.Time, bool, error) {
	select {
	case at := <-to.changes:
		return at, true, nil
	case err := <-to.broken:
		return time.Time{}, false, fmt.Errorf("an EventStream ended: %w", err)
	case <-time.After(patience):
		return time.Time{}, false, nil
	}
}

// forget drops events that nobody waited for, which would be taken for the next change.
func (to *subscriber) forget() {
	for len(to.changes) > 0 {
		<-to.changes
	}
}

// first asks for the flag that changes.
func (s *server) first() (bool, error) {
	r := rows[0]
	body, err := s.answer(r, 0)
	if err != nil {
		return false, err
	}
	decided, err := r.decisions(body)
	value, _ := decided[r.key].Value.(bool)
	return value, err
}

// delays are the times from a file's replacement to the event, of each server in turn, and how many never came.
func delays(servers []*server, flags, changes int) ([][]time.Duration, []int, error) {
	files := [2][]byte{}
	for at, on := range []bool{false, true} {
		file, err := flagFile(flags, on)
		if err != nil {
			return nil, nil, err
		}
		files[at] = file
	}
	took, lost := make([][]time.Duration, len(servers)), make([]int, len(servers))
	var subscribers []*subscriber
	for _, s := range servers {
		to, err := s.subscribe()
		if err != nil {
			return nil, nil, err
		}
		defer to.connection.Close()
		subscribers = append(subscribers, to)
	}
	for change := range changes {
		for at, s := range servers {
			time.Sleep(rest)
			subscribers[at].forget()
			replaced, err := s.replaceAt(files[change%2])
			if err != nil {
				return nil, nil, err
			}
			seen, came, err := subscribers[at].next(patience)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if !came {
				lost[at]++
				continue
			}
			took[at] = append(took[at], seen.Sub(replaced))
			on, err := s.first()
			if err != nil {
				return nil, nil, err
			}
			if on != (change%2 == 1) {
				return nil, nil, fmt.Errorf("%s sent the event of change %d and answers as before", s.name, change)
			}
		}
	}
	return took, lost, nil
}
