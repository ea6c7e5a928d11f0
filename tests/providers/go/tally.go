package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cucumber/godog"
	"github.com/open-feature/go-sdk-contrib/tests/flagd/testframework"
)

// tally counts scenarios, each once. godog itself tells of the last step, and that is none of a failure if an earlier step is undefined.
type tally struct {
	skips                   []skip
	met                     map[skip]bool
	passed, failed, skipped int
	// Of the scenario that runs.
	left      bool
	undefined []string
}

func newTally(mode mode) *tally { return &tally{skips: mode.skips, met: map[skip]bool{}} }

func (t *tally) before(ctx context.Context, scenario *godog.Scenario) (context.Context, error) {
	t.left, t.undefined = false, nil
	words := spelled(scenario)
	for _, skip := range t.skips {
		if scenario.Name == skip.scenario && strings.Contains(words, skip.words) {
			t.met[skip], t.left = true, true
			fmt.Printf("SKIP %s: %s: %s\n", scenario.Name, skip.words, skip.reason)
			return ctx, godog.ErrSkip
		}
	}
	return ctx, nil
}

func (t *tally) afterStep(ctx context.Context, step *godog.Step, status godog.StepResultStatus, _ error) (context.Context, error) {
	if status == godog.StepUndefined && !t.left {
		t.undefined = append(t.undefined, step.Text)
	}
	return ctx, nil
}

func (t *tally) after(ctx context.Context, scenario *godog.Scenario, err error) (context.Context, error) {
	if len(t.undefined) > 0 {
		err = fmt.Errorf("no step is defined for %q", t.undefined)
	}
	switch {
	case t.left:
		t.skipped++
	case err != nil:
		t.failed++
		fmt.Printf("FAIL %s (%s)\n%s\n  %v\n", scenario.Name, filepath.Base(scenario.Uri), spelled(scenario), err)
		if state := testframework.GetStateFromContext(ctx); state != nil && state.LastEvaluation.FlagKey != "" {
			fmt.Printf("  evaluated: %+v\n", state.LastEvaluation)
		}
	default:
		t.passed++
	}
	return ctx, nil
}

// complete tells of what makes the counts worthless.
func (t *tally) complete() error {
	for _, skip := range t.skips {
		if !t.met[skip] {
			return fmt.Errorf("no scenario is %q with %q, which was to be skipped", skip.scenario, skip.words)
		}
	}
	if t.passed+t.failed == 0 {
		return errors.New("no scenario was run")
	}
	return nil
}

func spelled(scenario *godog.Scenario) string {
	lines := make([]string, len(scenario.Steps))
	for i, step := range scenario.Steps {
		lines[i] = "    " + step.Text
	}
	return strings.Join(lines, "\n")
}
