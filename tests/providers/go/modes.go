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
	RPC              int    `json:"rpc"`
	Sync             int    `json:"sync"`
	Management       int    `json:"management"`
	Launchpad        int    `json:"launchpad"`
	Forbidden        int    `json:"forbidden"`
	RPCTarget        int    `json:"rpc_target"`
	SyncTarget       int    `json:"sync_target"`
	EvaluationSocket string `json:"evaluation_socket"`
	SyncSocket       string `json:"sync_socket"`
	Authority        string `json:"authority"`
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

const (
	graceSeconds = 3
	// The default is half a second, and little for a machine that does other things at the same time.
	deadlineMs = 5000
	// What the provider sleeps after a stream has failed. Its default is twelve seconds.
	backoffMaxMs = 1000
)

const (
	olderDefaults = "the provider has the defaults of before testbed 3.10 in its own code; the server is not asked"
	noStale       = "in RPC mode the provider goes from ready to error: it has no stale"
	noEnrichment  = "in process the provider takes no context from the server"
)

// In RPC mode the server deals; a provider in process has the arithmetic of its evaluator, and that of flagd/core 0.16 is the second.
var modes = map[string]mode{
	"rpc": {
		name:     "rpc",
		resolver: testframework.RPC,
		tags:     []string{"@rpc", "~@deprecated", "~@fractional-v1", "~@fractional-v" + other(fractional())},
		skips: []skip{
			{"Default Config", "retryBackoffMaxMs", olderDefaults},
			{"Default Config", "retryGracePeriod", olderDefaults},
			{"Provider forbidden", "fatalStatusCodes", "in RPC mode the provider takes no status for fatal"},
			{"Use enriched context on connection error for RPC", "stale", noStale},
			{"Provider events chain ready -> stale -> error -> ready", "stale", noStale},
			{"Provider events chain ready -> stale -> ready", "stale", noStale},
			{"Stale and Error stage", "stale", noStale},
		},
	},
	"in-process": {
		name:     "in-process",
		resolver: testframework.InProcess,
		tags:     []string{"@in-process", "~@deprecated", "~@fractional-v1", "~@fractional-v3"},
		skips: []skip{
			{"Default Config", "retryBackoffMaxMs", olderDefaults},
			{"Default Config", "retryGracePeriod", olderDefaults},
			{"Connection", "a socket flagd provider", "in process the provider has no Unix sockets"},
			{"Use enriched context", "stable", noEnrichment},
			{"Use enriched context", "syncpayload", noEnrichment},
			{"Use enriched context on connection error for IN-PROCESS", "stable", noEnrichment},
			{"Use enriched context on connection error for IN-PROCESS", "syncpayload", noEnrichment},
		},
	},
}

// fractional is the generation of flagd's arithmetic that the server has: the environment says so where it is not the newest.
func fractional() string {
	if version := os.Getenv("FRACTIONAL"); version != "" {
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
	port, target, resolver := here.RPC, here.RPCTarget, flagd.WithRPCResolver()
	if m.resolver == testframework.InProcess {
		port, target, resolver = here.Sync, here.SyncTarget, flagd.WithInProcessResolver()
	}
	// An address and no name: for a name the provider asks DNS for settings too, and that can take seconds.
	options := []flagd.ProviderOption{resolver, flagd.WithHost("127.0.0.1"), flagd.WithPort(uint16(port)), flagd.WithDeadline(deadlineMs)}
	for i, option := range state.ProviderOptions {
		switch {
		case option.Option == "targetUri":
			state.ProviderOptions[i].Value = strings.ReplaceAll(option.Value, "<port>", strconv.Itoa(target))
		case option.Option == "port" && option.Value == "9212":
			state.ProviderOptions[i].Value = strconv.Itoa(here.Forbidden)
		}
	}
	options = append(options, state.GenerateOpts()...)
	// A connection that is lost for a second is back before the grace ends, and one that is lost for six is not.
	return append(options, flagd.WithRetryGracePeriod(graceSeconds), flagd.WithRetryBackoffMaxMs(backoffMaxMs))
}
