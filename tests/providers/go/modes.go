package main

import (
	"os"
	"strconv"
	"strings"

	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	"github.com/open-feature/go-sdk-contrib/tests/flagd/testframework"
)

// ports are where the launchpad has what flagd's testbed has in containers.
type ports struct {
	RPC        int    `json:"rpc"`
	Sync       int    `json:"sync"`
	Management int    `json:"management"`
	Launchpad  int    `json:"launchpad"`
	Envoy      int    `json:"envoy"`
	Forbidden  int    `json:"forbidden"`
	Socket     string `json:"socket"`
	SyncSocket string `json:"sync_socket"`
}

type mode struct {
	name     string
	resolver testframework.ProviderType
	tags     []string
	// Rows that no tag tells apart, with the reason why they are not run. See NOTES.md for the tags.
	skips []skip
}

// skip names a scenario by its name and by words that its steps have.
type skip struct{ scenario, words, reason string }

const olderDefaults = "provider 0.6.0 has the defaults of before testbed 3.10 in its own code; the server is not asked"

// In RPC mode the server deals; a provider in process has the arithmetic of its evaluator, and flagd/core 0.16 has the second.
var modes = map[string]mode{
	"rpc": {
		name:     "rpc",
		resolver: testframework.RPC,
		tags:     []string{"@rpc", "~@deprecated", "~@fractional-v1", "~@fractional-v" + other(fractional())},
	},
	"in-process": {
		name:     "in-process",
		resolver: testframework.InProcess,
		tags:     []string{"@in-process", "~@deprecated", "~@fractional-v1", "~@fractional-v3"},
	},
}

// fractional is the generation of flagd's arithmetic that the server has: the environment says so where it is not the newest.
func fractional() string {
	if version := os.Getenv("FRACTIONAL_VERSION"); version != "" {
		return version
	}
	return "3"
}

func other(version string) string {
	if version == "2" {
		return "3"
	}
	return "2"
}

func (m mode) options(state *testframework.TestState, here ports) []flagd.ProviderOption {
	port, resolver := here.RPC, flagd.WithRPCResolver()
	if m.resolver == testframework.InProcess {
		port, resolver = here.Sync, flagd.WithInProcessResolver()
	}
	options := []flagd.ProviderOption{resolver, flagd.WithHost("localhost"), flagd.WithPort(uint16(port))}
	for i, option := range state.ProviderOptions {
		switch {
		case option.Option == "targetUri":
			state.ProviderOptions[i].Value = strings.ReplaceAll(option.Value, "<port>", strconv.Itoa(here.Envoy))
		case option.Option == "port" && option.Value == "9212":
			state.ProviderOptions[i].Value = strconv.Itoa(here.Forbidden)
		}
	}
	options = append(options, state.GenerateOpts()...)
	// The longest that the framework waits for an event after a restart is shorter than what the provider waits by itself.
	return append(options, flagd.WithRetryBackoffMaxMs(3000))
}
