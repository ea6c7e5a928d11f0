package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	"github.com/open-feature/go-sdk/openfeature"
)

const (
	// Of the first flag a provider may keep the answer: nothing says that it is meant to be killed.
	killFlags = `{"flags": {
		"kept": {"variants": {"new": "two", "old": "one"}, "defaultVariant": "new", "offVariant": "old"},
		"armed": {"variants": {"new": "two", "old": "one", "safe": "none"}, "defaultVariant": "new", "offVariant": "old", "killVariant": "safe"}
	}}`
	// Reached only when a test fails.
	killWait = 30 * time.Second
)

// dev is a control plane and a sidecar of ours, as `yardarm dev` starts them.
type dev struct {
	binary, control, sidecar string
	process                  *exec.Cmd
}

func startDev(binary, directory string) (*dev, error) {
	flags := filepath.Join(directory, "flags.json")
	if err := os.WriteFile(flags, []byte(killFlags), 0o600); err != nil {
		return nil, err
	}
	process := exec.Command(binary, "dev", "--output", "json", "--port-base", "0", "--data", filepath.Join(directory, "data"), "--flags", flags)
	process.Env, process.Stderr = ownEnvironment(), os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	var said struct {
		Control  struct{ GRPC string }
		Sidecars []struct{ TCP string }
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &said)
	}
	if err != nil || len(said.Sidecars) == 0 {
		process.Process.Kill()
		return nil, fmt.Errorf("%s dev said %q and not where it listens: %v", binary, line, err)
	}
	return &dev{binary, "http://" + said.Control.GRPC, said.Sidecars[0].TCP, process}, nil
}

func (d *dev) run(arguments ...string) error {
	command := exec.Command(d.binary, append(arguments, "--output", "json", "--control-plane", d.control)...)
	command.Env = ownEnvironment()
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return nil
}

func (d *dev) end() error {
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.process.Wait()
}

// ownEnvironment is that of the test without what it says of settings.
func ownEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "YARDARM_") || strings.HasPrefix(variable, "FLAGD_")
	})
}

// application is a client over a provider that keeps answers, with the changes that it is told of.
type application struct {
	client  *openfeature.Client
	changes chan []string
}

func (a *application) decides(flag, value, variant, reason string) error {
	details, err := a.client.StringValueDetails(context.Background(), flag, "of the code", openfeature.EvaluationContext{})
	if found := [3]string{details.Value, details.Variant, string(details.Reason)}; err != nil || found != [3]string{value, variant, reason} {
		return fmt.Errorf("%s: expected %s, %s, %s; found %v, and %v", flag, value, variant, reason, found, err)
	}
	return nil
}

// keeps waits until the answer comes from what the provider keeps. A stream of ours begins with the name of every flag, which a provider may
// hear after the first answer.
func (a *application) keeps(flag, value, variant string) error {
	for end := time.Now().Add(killWait); ; {
		details, err := a.client.StringValueDetails(context.Background(), flag, "of the code", openfeature.EvaluationContext{})
		if err != nil || details.Value != value || details.Variant != variant || time.Now().After(end) {
			return fmt.Errorf("%s: expected %s of the cache, found %+v, and %v", flag, value, details, err)
		}
		if details.Reason == "CACHED" {
			return nil
		}
	}
}

// told waits for the event of this flag alone: the one that a stream begins with names every flag, and may be heard late.
func (a *application) told(flag string) error {
	end := time.After(killWait)
	for {
		select {
		case flags := <-a.changes:
			// The provider gives an empty name for each flag before the names.
			named := slices.DeleteFunc(flags, func(name string) bool { return name == "" })
			if slices.Equal(named, []string{flag}) {
				return nil
			}
		case <-end:
			return fmt.Errorf("expected to be told of %s within %s", flag, killWait)
		}
	}
}

// kills asks what a scenario of flagd cannot: what is kept is not served once the flag is killed.
func kills(binary string) (*tally, error) {
	directory, err := os.MkdirTemp("", "yardarm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	ours, err := startDev(binary, directory)
	if err != nil {
		return nil, err
	}
	scenarios := []struct {
		name string
		play func(*application, *dev) error
	}{
		{"a flag that the provider has kept is killed and restored", keptIsKilled},
		{"a flag with a kill variant serves that when it is killed", armedIsKilled},
	}
	tally := newTally(mode{})
	for _, scenario := range scenarios {
		err := withApplication(ours, func(a *application) error { return scenario.play(a, ours) })
		if err != nil {
			tally.failed++
			fmt.Printf("FAIL %s\n  %v\n", scenario.name, err)
		} else {
			tally.passed++
		}
	}
	openfeature.Shutdown()
	return tally, ours.end()
}

func withApplication(dev *dev, play func(*application) error) error {
	host, port, err := net.SplitHostPort(dev.sidecar)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	provider, err := flagd.NewProvider(flagd.WithRPCResolver(), flagd.WithHost(host), flagd.WithPort(uint16(number)), flagd.WithLRUCache(100))
	if err != nil {
		return err
	}
	a := &application{client: openfeature.NewClient("kill"), changes: make(chan []string, 100)}
	handler := func(details openfeature.EventDetails) { a.changes <- details.FlagChanges }
	a.client.AddHandler(openfeature.ProviderConfigChange, &handler)
	defer a.client.RemoveHandler(openfeature.ProviderConfigChange, &handler)
	if err := openfeature.SetNamedProviderAndWait("kill", provider); err != nil {
		return err
	}
	return play(a)
}

func keptIsKilled(a *application, dev *dev) error {
	return inOrder(
		func() error { return a.keeps("kept", "two", "new") },
		func() error { return dev.run("kill", "kept", "--reason", "provider suite", "--wait", "10s") },
		func() error { return a.told("kept") },
		func() error { return a.decides("kept", "one", "old", "TARGETING_MATCH") },
		func() error { return a.decides("kept", "one", "old", "TARGETING_MATCH") },
		func() error { return dev.run("restore", "kept", "--reason", "provider suite", "--wait", "10s") },
		func() error { return a.told("kept") },
		func() error { return a.decides("kept", "two", "new", "STATIC") },
	)
}

func armedIsKilled(a *application, dev *dev) error {
	return inOrder(
		func() error { return a.decides("armed", "two", "new", "DEFAULT") },
		func() error { return a.decides("armed", "two", "new", "DEFAULT") },
		func() error { return dev.run("kill", "armed", "--reason", "provider suite", "--wait", "10s") },
		func() error { return a.told("armed") },
		func() error { return a.decides("armed", "none", "safe", "TARGETING_MATCH") },
		func() error { return a.decides("armed", "none", "safe", "TARGETING_MATCH") },
		func() error { return dev.run("restore", "armed", "--reason", "provider suite", "--wait", "10s") },
		func() error { return a.told("armed") },
		func() error { return a.decides("armed", "two", "new", "DEFAULT") },
	)
}

func inOrder(steps ...func() error) error {
	for at, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", at+1, err)
		}
	}
	return nil
}
