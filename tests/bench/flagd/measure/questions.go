package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	evaluationv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v1"
	evaluationv2 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// How many flags a bulk request answers.
const bulk = 100

// The kinds of flags, in equal parts in every file.
var kinds = []string{"static", "equals", "in", "ends-with", "fractional"}

func flagKey(number int) string {
	return fmt.Sprintf("%s-%05d", kinds[number%len(kinds)], number/len(kinds))
}

// flagFile is a file of count flags; `on` is the default of the first one, which is what changes.
func flagFile(count int, on bool) ([]byte, error) {
	flags := map[string]any{}
	for number := range count {
		flag := map[string]any{"state": "ENABLED", "variants": map[string]any{"on": true, "off": false}, "defaultVariant": "on"}
		if number == 0 && !on {
			flag["defaultVariant"] = "off"
		}
		attribute := func(name string) any { return map[string]any{"var": name} }
		choose := func(operator string, arguments ...any) any {
			return map[string]any{"if": []any{map[string]any{operator: arguments}, "on", "off"}}
		}
		switch kinds[number%len(kinds)] {
		case "equals":
			flag["targeting"] = choose("==", attribute("plan"), "premium")
		case "in":
			flag["targeting"] = choose("in", attribute("country"), []any{"AT", "CH", "DE", "FR"})
		case "ends-with":
			flag["targeting"] = choose("ends_with", attribute("email"), "@customer.net")
		case "fractional":
			flag["variants"] = map[string]any{"a": "blue", "b": "green", "c": "red", "d": "white"}
			flag["defaultVariant"] = "a"
			// As this flagd deals; it does not read the word.
			flag["fractionalVersion"] = 2
			flag["targeting"] = map[string]any{"fractional": []any{
				[]any{"a", 25}, []any{"b", 25}, []any{"c", 25}, []any{"d", 25},
			}}
		}
		flags[flagKey(number)] = flag
	}
	return json.Marshal(map[string]any{"flags": flags})
}

// attributes are what an application says of a person: the five that rules read, and others up to count.
func attributes(person, count int) map[string]any {
	said := map[string]any{
		"targetingKey": fmt.Sprintf("user-%08d", person),
		"email":        fmt.Sprintf("user-%d@customer.net", person),
		"plan":         "premium",
		"country":      "DE",
		"appVersion":   "2.4.1",
	}
	for number := len(said); number < count; number++ {
		said[fmt.Sprintf("attribute-%03d", number)] = fmt.Sprintf("value-%08d", person+number)
	}
	return said
}

// A row is one question that both are asked.
type row struct {
	name string
	// Where it is asked: a gRPC method, or a path of OFREP.
	path string
	// The one flag that it asks about; empty for all.
	key string
	// How many attributes its context has.
	attributes int
}

func (r row) ofrep() bool { return r.path[1] == 'o' }

const (
	boolean    = "/flagd.evaluation.v2.Service/ResolveBoolean"
	text       = "/flagd.evaluation.v2.Service/ResolveString"
	resolveAll = "/flagd.evaluation.v1.Service/ResolveAll"
	ofrepOne   = "/ofrep/v1/evaluate/flags/"
	ofrepBulk  = "/ofrep/v1/evaluate/flags"
)

var rows = []row{
	{"boolean, static", boolean, "static-00000", 5},
	{"`==`, 5 attributes", boolean, "equals-00000", 5},
	{"`==`, 100 attributes", boolean, "equals-00000", 100},
	{"`in`, 5 attributes", boolean, "in-00000", 5},
	{"`ends_with`, 5 attributes", boolean, "ends-with-00000", 5},
	{"`ends_with`, 100 attributes", boolean, "ends-with-00000", 100},
	{"`fractional`, 5 attributes", text, "fractional-00000", 5},
	{"`ResolveAll`, 100 flags", resolveAll, "", 5},
	{"OFREP, boolean, static", ofrepOne + "static-00000", "static-00000", 5},
	{"OFREP, `==`, 5 attributes", ofrepOne + "equals-00000", "equals-00000", 5},
	{"OFREP, bulk of 100 flags", ofrepBulk, "", 5},
}

// message is the question as gRPC's or HTTP's body without its frame.
func (r row) message(person int) ([]byte, error) {
	said := attributes(person, r.attributes)
	if r.ofrep() {
		return json.Marshal(map[string]any{"context": said})
	}
	context, err := structpb.NewStruct(said)
	if err != nil {
		return nil, err
	}
	switch r.path {
	case boolean:
		return proto.Marshal(&evaluationv2.ResolveBooleanRequest{FlagKey: r.key, Context: context})
	case text:
		return proto.Marshal(&evaluationv2.ResolveStringRequest{FlagKey: r.key, Context: context})
	default:
		return proto.Marshal(&evaluationv1.ResolveAllRequest{Context: context})
	}
}

// framed is a message as gRPC sends it: not compressed, and its length.
func framed(message []byte) []byte {
	frame := make([]byte, 5, 5+len(message))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(message)))
	return append(frame, message...)
}
