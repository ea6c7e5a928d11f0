package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	evaluationv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v1"
	evaluationv2 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// A decision is what both must say of a flag.
type decision struct {
	Value   any
	Variant string
	Reason  string
}

// answer asks once, as the load is going to, and gives the bytes of the body that came.
func (s *server) answer(r row, person int) ([]byte, error) {
	message, err := r.message(person)
	if err != nil {
		return nil, err
	}
	if !r.ofrep() {
		var body []byte
		err := s.connection.Invoke(context.Background(), r.path, &message, &body, grpc.ForceCodec(raw{}))
		return body, err
	}
	response, err := http.Post(s.ofrepURL()+r.path, "application/json", bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s with %s: %s", s.name, r.path, response.Status, body)
	}
	return body, err
}

// decisions reads them out of the body of an answer.
func (r row) decisions(body []byte) (map[string]decision, error) {
	switch {
	case r.path == boolean:
		var said evaluationv2.ResolveBooleanResponse
		err := proto.Unmarshal(body, &said)
		return map[string]decision{r.key: {said.GetValue(), said.GetVariant(), said.GetReason()}}, err
	case r.path == text:
		var said evaluationv2.ResolveStringResponse
		err := proto.Unmarshal(body, &said)
		return map[string]decision{r.key: {said.GetValue(), said.GetVariant(), said.GetReason()}}, err
	case r.path == resolveAll:
		var said evaluationv1.ResolveAllResponse
		err := proto.Unmarshal(body, &said)
		all := map[string]decision{}
		for key, flag := range said.GetFlags() {
			decided := decision{Variant: flag.GetVariant(), Reason: flag.GetReason()}
			switch value := flag.GetValue().(type) {
			case *evaluationv1.AnyFlag_BoolValue:
				decided.Value = value.BoolValue
			case *evaluationv1.AnyFlag_StringValue:
				decided.Value = value.StringValue
			}
			all[key] = decided
		}
		return all, err
	}
	type flag struct {
		Key string
		decision
	}
	said := struct{ Flags []flag }{make([]flag, 1)}
	var into any = &said.Flags[0]
	if r.path == ofrepBulk {
		into = &said
	}
	err := json.Unmarshal(body, into)
	all := map[string]decision{}
	for _, flag := range said.Flags {
		all[flag.Key] = flag.decision
	}
	return all, err
}

// right says what is wrong with decisions about a person of `attributes`, if anything is.
func (r row) right(decided map[string]decision) error {
	keys := []string{r.key}
	if r.key == "" {
		keys = keys[:0]
		for number := range bulk {
			keys = append(keys, flagKey(number))
		}
	}
	if len(decided) != len(keys) {
		return fmt.Errorf("%d flags were answered and not %d", len(decided), len(keys))
	}
	colours := map[string]any{"a": "blue", "b": "green", "c": "red", "d": "white"}
	for _, key := range keys {
		found := decided[key]
		expected := decision{true, "on", "TARGETING_MATCH"}
		switch {
		case strings.HasPrefix(key, "static"):
			expected.Reason = "STATIC"
		case strings.HasPrefix(key, "fractional"):
			// Any of the four; that it is the other server's too is compared.
			expected.Value, expected.Variant = colours[found.Variant], found.Variant
		}
		if found != expected || found.Value == nil {
			return fmt.Errorf("%s is %+v and not %+v", key, found, expected)
		}
	}
	return nil
}

// alike checks that both answer a row rightly and alike, and gives the bytes of the answer of each.
func alike(servers []*server, r row, person int) ([]int, error) {
	var sizes []int
	var first map[string]decision
	for _, s := range servers {
		body, err := s.answer(r, person)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", s.name, r.name, err)
		}
		decided, err := r.decisions(body)
		if err == nil {
			err = r.right(decided)
		}
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", s.name, r.name, err)
		}
		if first == nil {
			first = decided
		}
		for key := range decided {
			if decided[key] != first[key] {
				return nil, fmt.Errorf("%s, user %d, %s: %s says %+v and %s %+v",
					r.name, person, key, servers[0].name, first[key], s.name, decided[key])
			}
		}
		size := len(body)
		if !r.ofrep() {
			size += len(framed(nil))
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// raw hands messages of gRPC over as the bytes that they are.
type raw struct{}

func (raw) Name() string                     { return "proto" }
func (raw) Marshal(from any) ([]byte, error) { return *from.(*[]byte), nil }
func (raw) Unmarshal(data []byte, into any) error {
	*into.(*[]byte) = append([]byte(nil), data...)
	return nil
}
