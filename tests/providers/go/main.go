// Command suite runs the scenarios of flagd's testbed through the released OpenFeature provider for Go, with the steps of OpenFeature's own
// test framework. What that framework starts in containers is a launchpad on this machine, and what its steps do not do is in steps.go.
//
//	suite rpc|in-process TESTBED_DIR PORTS
//	suite kill BINARY
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cucumber/godog"
	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	"github.com/open-feature/go-sdk-contrib/tests/flagd/testframework"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/compose"
)

func main() {
	tally, err := asked(os.Args[1:])
	if err != nil {
		// Standard error is the provider's.
		fmt.Println("suite:", err)
		os.Exit(2)
	}
	fmt.Printf("SUITE go-%s passed=%d failed=%d skipped=%d\n", os.Args[1], tally.passed, tally.failed, tally.skipped)
	if tally.failed > 0 {
		os.Exit(1)
	}
}

func asked(arguments []string) (*tally, error) {
	if len(arguments) == 2 && arguments[0] == "kill" {
		return kills(arguments[1])
	}
	if len(arguments) != 3 {
		return nil, errors.New("expected MODE TESTBED_DIR PORTS or kill BINARY, as tests/providers/go/run gives them")
	}
	mode, ok := modes[arguments[0]]
	if !ok {
		return nil, fmt.Errorf("there is no mode %q; expected rpc, in-process or kill", arguments[0])
	}
	var here ports
	if err := json.Unmarshal([]byte(arguments[2]), &here); err != nil {
		return nil, fmt.Errorf("the ports %q are no JSON: %w", arguments[2], err)
	}
	return run(mode, arguments[1], here)
}

func run(mode mode, testbed string, here ports) (*tally, error) {
	compose.Services = map[string]*testcontainers.DockerContainer{
		"flagd": {ID: "flagd", Ports: map[string]int{"8013": here.RPC, "8014": here.Management, "8015": here.Sync, "8080": here.Launchpad}},
		"envoy": {ID: "envoy", Ports: map[string]int{"9211": here.RPCTarget, "9212": here.Forbidden}},
	}
	container, err := testframework.NewFlagdContainer(context.Background(), testframework.FlagdContainerConfig{TestbedDir: testbed})
	if err != nil {
		return nil, err
	}
	supply := func(state testframework.TestState) (openfeature.FeatureProvider, error) {
		return flagd.NewProvider(mode.options(&state, here)...)
	}
	testframework.SetProviderSuppliers(supply, supply, supply)

	tally := newTally(mode)
	// By these words the framework looks for them.
	ctx := context.WithValue(context.WithValue(context.Background(), "resolver", mode.resolver), "flagDir", "")
	suite := godog.TestSuite{
		Name: mode.name,
		ScenarioInitializer: func(scenario *godog.ScenarioContext) {
			// The first definition that matches is taken, and the first hook that is registered runs first.
			scenario.Before(tally.before)
			(&steps{mode, here, container}).initialize(scenario)
			testframework.InitializeScenario(scenario)
			scenario.Before(func(ctx context.Context, _ *godog.Scenario) (context.Context, error) {
				testframework.GetStateFromContext(ctx).Container = container
				return ctx, nil
			})
			scenario.StepContext().After(tally.afterStep)
			scenario.After(tally.after)
		},
		Options: &godog.Options{
			Format:         "progress",
			Output:         io.Discard,
			Paths:          []string{filepath.Join(testbed, "gherkin")},
			Tags:           strings.Join(mode.tags, " && "),
			Concurrency:    1,
			NoColors:       true,
			DefaultContext: ctx,
		},
	}
	// Its answer is not asked for: it is not strict, as the framework defines some steps twice.
	suite.Run()
	return tally, tally.complete()
}
