package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/cucumber/godog"
	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	"github.com/open-feature/go-sdk-contrib/tests/flagd/testframework"
	"github.com/open-feature/go-sdk/openfeature"
)

const (
	changed = "CONFIGURATION_CHANGE"
	// Reached only when a scenario fails: connections are lost for 8 s, and this provider comes back after 1, 3, 7 and 15.
	eventWait = 20 * time.Second
)

// heard is every event of a scenario that a handler was asked for: a wait of the framework forgets what it passes over.
type heard struct {
	lock   sync.Mutex
	events []testframework.EventRecord
}

type heardKey struct{}

// steps are what the framework leaves undefined, passes unseen, or does too late for a server that is fast.
type steps struct {
	mode      mode
	here      ports
	container *testframework.FlagdTestContainer
}

func (s *steps) initialize(scenario *godog.ScenarioContext) {
	scenario.Before(func(ctx context.Context, _ *godog.Scenario) (context.Context, error) {
		return context.WithValue(ctx, heardKey{}, &heard{}), nil
	})
	scenario.Step(`^a (ssl|socket|metadata|syncpayload) flagd provider$`, s.provider)
	scenario.Step(`^a (ready|stale|error|change) event handler$`, listen)
	scenario.Step(`^the flag was modified$`, s.modified)
	scenario.Step(`^a (\w+) event was fired$`, fired)
	scenario.Step(`^the (\w+) event handler should have been executed$`, fired)
	scenario.Step(`^the (\w+) event handler should not have been executed$`, notFired)
	scenario.Step(`^a context containing a key "([^"]*)", with type "String" and with value "null"$`, textNull)
	scenario.Step(`^a context containing a key "([^"]*)", with type "Object" and with value "(\{.*\})"$`, objectContext)
	scenario.Step(`^the resolved details value should be "(\{.*\})"$`, objectIs)
	scenario.Step(`^the resolved metadata is empty$`, func(ctx context.Context) error { return metadataIs(ctx, nil) })
	scenario.Step(`^the resolved metadata should contain$`, metadataIs)
}

// The framework starts these with the default configuration, or looks for a file that only its own container has.
func (s *steps) provider(ctx context.Context, kind string) error {
	configuration := kind
	if kind == "syncpayload" {
		configuration = "sync-payload"
	}
	if err := s.container.StartFlagdWithConfig(configuration); err != nil {
		return err
	}
	state := testframework.GetStateFromContext(ctx)
	options := s.mode.options(state, s.here)
	switch kind {
	case "ssl":
		options = append(options, flagd.WithTLS(s.here.Authority))
	case "socket":
		socket := s.here.EvaluationSocket
		if s.mode.resolver == testframework.InProcess {
			socket = s.here.SyncSocket
		}
		options = append(options, flagd.WithSocketPath(socket))
	}
	provider, err := flagd.NewProvider(options...)
	if err != nil {
		return err
	}
	domain := fmt.Sprintf("%s-%d", kind, time.Now().UnixNano())
	state.Provider, state.Client = provider, openfeature.NewClient(domain)
	return openfeature.SetNamedProviderAndWait(domain, provider)
}

// Without an event for so long, what a stream begins with was heard.
const quiet = 300 * time.Millisecond

// What was told before is not of this change: a stream of ours begins with the name of every flag, and the provider hands it on in its own
// time.
func (s *steps) modified(ctx context.Context) error {
	state := testframework.GetStateFromContext(ctx)
	for {
		select {
		case <-state.EventChannel:
		case <-time.After(quiet):
			return s.container.TriggerFlagChange()
		}
	}
}

// For a change, the framework listens only when it waits, after the flag was modified: what was told by then would be missed.
func listen(ctx context.Context, kind string) error {
	events := map[string]openfeature.EventType{
		"ready":  openfeature.ProviderReady,
		"stale":  openfeature.ProviderStale,
		"error":  openfeature.ProviderError,
		"change": openfeature.ProviderConfigChange,
	}
	state, heard := testframework.GetStateFromContext(ctx), ctx.Value(heardKey{}).(*heard)
	handler := func(details openfeature.EventDetails) {
		event := testframework.EventRecord{Type: named(kind), Timestamp: time.Now(), Details: details}
		heard.lock.Lock()
		defer heard.lock.Unlock()
		heard.events = append(heard.events, event)
		state.EventChannel <- event
	}
	state.Client.AddHandler(events[kind], &handler)
	return nil
}

func notFired(ctx context.Context, kind string) error {
	heard := ctx.Value(heardKey{}).(*heard)
	heard.lock.Lock()
	defer heard.lock.Unlock()
	for _, event := range heard.events {
		if event.Type == named(kind) {
			return fmt.Errorf("expected no %s event, found %q", kind, event.Details.Message)
		}
	}
	return nil
}

func fired(ctx context.Context, kind string) error {
	state := testframework.GetStateFromContext(ctx)
	end := time.After(eventWait)
	for {
		select {
		case event := <-state.EventChannel:
			state.LastEvent = &event
			if event.Type == named(kind) {
				return nil
			}
		case <-end:
			return fmt.Errorf("expected %s within %s, found none", kind, eventWait)
		}
	}
}

// named is what the framework's steps call an event.
func named(kind string) string {
	if kind == "change" {
		return changed
	}
	return strings.ToUpper(kind)
}

// The framework has no metadata in what it keeps of an evaluation, so the flag is evaluated once more.
func metadataIs(ctx context.Context, table *godog.Table) error {
	state := testframework.GetStateFromContext(ctx)
	details, err := state.Client.BooleanValueDetails(ctx, state.FlagKey, state.DefaultValue.(bool), openfeature.EvaluationContext{})
	if err != nil {
		return err
	}
	if table == nil {
		if len(details.FlagMetadata) > 0 {
			return fmt.Errorf("expected no metadata, found %v", details.FlagMetadata)
		}
		return nil
	}
	for _, row := range table.Rows[1:] {
		key, kind, text := row.Cells[0].Value, row.Cells[1].Value, row.Cells[2].Value
		// A number is one type in JSON.
		if kind == "Integer" {
			kind = "Float"
		}
		expected, err := testframework.DefaultConverter.ConvertForSteps(text, kind)
		if err != nil {
			return err
		}
		if found := details.FlagMetadata[key]; !reflect.DeepEqual(expected, found) {
			return fmt.Errorf("expected %s to be %v in the metadata, found %v of %v", key, expected, found, details.FlagMetadata)
		}
	}
	return nil
}

// The framework takes this text for nothing, as the table of options means it.
func textNull(ctx context.Context, key string) error {
	testframework.GetStateFromContext(ctx).EvalContext[key] = "null"
	return nil
}

// The framework has no word for a value that has quotes itself.
func objectContext(ctx context.Context, key, text string) error {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return err
	}
	testframework.GetStateFromContext(ctx).EvalContext[key] = value
	return nil
}

// The framework compares no objects.
func objectIs(ctx context.Context, text string) error {
	state := testframework.GetStateFromContext(ctx)
	var expected any
	if err := json.Unmarshal([]byte(text), &expected); err != nil {
		return err
	}
	if !reflect.DeepEqual(expected, state.LastEvaluation.Value) {
		return fmt.Errorf("expected the object %v, found %v", expected, state.LastEvaluation.Value)
	}
	return nil
}
