// Package wait is there because the test framework says what it waits for; the launchpad is ready before the framework is started.
package wait

import "time"

type Strategy any

type Port struct{}

func ForListeningPort(string) Port { return Port{} }

func (p Port) WithStartupTimeout(time.Duration) Port { return p }
