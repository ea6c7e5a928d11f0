// flagd as its release builds it, for the benchmark beside it.
package main

import "github.com/open-feature/flagd/flagd/cmd"

// Set by the linker to the version that go.mod pins.
var version = "unknown"

func main() {
	cmd.Execute(version, "", "")
}
