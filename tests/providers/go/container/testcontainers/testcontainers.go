// Package testcontainers stands in for the module of that name: as much of it as the test framework calls, over processes of this machine.
package testcontainers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/docker/go-connections/nat"
)

// DockerContainer is what listens on the ports of one service.
type DockerContainer struct {
	ID string
	// Ports that the service has in a container, and where they are here.
	Ports map[string]int
}

type State struct{ Running bool }

func (c *DockerContainer) GetContainerID() string { return c.ID }

func (c *DockerContainer) MappedPort(_ context.Context, port nat.Port) (nat.Port, error) {
	here, ok := c.Ports[port.Port()]
	if !ok {
		return "", fmt.Errorf("%s: port %s is not mapped; there are %v", c.ID, port.Port(), c.Ports)
	}
	return nat.NewPort("tcp", strconv.Itoa(here))
}

func (c *DockerContainer) State(context.Context) (*State, error) { return &State{Running: true}, nil }

func (c *DockerContainer) Logs(context.Context) (io.ReadCloser, error) {
	return nil, errors.New("the launchpad logs to its standard error")
}
