// Command suite runs the scenarios of flagd's testbed through the released OpenFeature provider for Go, with the steps of OpenFeature's own
// test framework. What that framework starts in containers is a launchpad on this machine, and what its steps do not do is in steps.go.
//
//	suite MODE TESTBED_DIR PORTS
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	if len(os.Args) != 4 {
		fail(errors.New("expected MODE TESTBED_DIR PORTS, as tests/providers/go/run gives them"))
	}
	mode, ok := modes[os.Args[1]]
	if !ok {
		fail(fmt.Errorf("there is no mode %q; expected rpc or in-process", os.Args[1]))
	}
	var here ports
	if err := json.Unmarshal([]byte(os.Args[3]), &here); err != nil {
		fail(fmt.Errorf("the ports %q are no JSON: %w", os.Args[3], err))
	}
	tally, err := run(mode, os.Args[2], here)
	if err != nil {
		fail(err)
	}
	fmt.Printf("SUITE passed=%d failed=%d skipped=%d\n", tally.passed, tally.failed, tally.skipped)
	if tally.failed > 0 {
		os.Exit(1)
	}
}

func run(mode mode, testbed string, here ports) (*tally, error) {
	compose.Services = map[string]*testcontainers.DockerContainer{
		"flagd": {ID: "flagd", Ports: map[string]int{"8013": here.RPC, "8014": here.Management, "8015": here.Sync, "8080": here.Launchpad}},
		"envoy": {ID: "envoy", Ports: map[string]int{"9211": here.Envoy, "9212": here.Forbidden}},
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
	ctx := context.WithValue(context.Background(), "resolver", mode.resolver) //nolint:staticcheck // the framework looks for this string
	suite := godog.TestSuite{
		Name: mode.name,
		ScenarioInitializer: func(scenario *godog.ScenarioContext) {
			// The first definition that matches is taken, and the first hook that is registered runs first.
			scenario.Before(tally.before)
			initializeOwnSteps(scenario)
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
			Paths:          []string{filepath.Join(testbed, "gherkin")},
			Tags:           strings.Join(mode.tags, " && "),
			Concurrency:    1,
			NoColors:       true,
			DefaultContext: context.WithValue(ctx, "flagDir", ""), //nolint:staticcheck // as above
		},
	}
	// Its answer is not asked for: it is not strict, as the framework defines some steps twice.
	suite.Run()
	return tally, tally.complete()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "suite:", err)
	os.Exit(2)
}
