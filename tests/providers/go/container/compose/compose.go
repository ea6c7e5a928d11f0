// Package compose stands in for docker compose: its services are processes that the caller has started on this machine.
package compose

import (
	"context"
	"fmt"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// Services by name. Set before the first stack is made.
var Services map[string]*testcontainers.DockerContainer

type (
	StackUpOption   any
	StackDownOption any
	ComposeStack    interface {
		Up(context.Context, ...StackUpOption) error
		Down(context.Context, ...StackDownOption) error
		ServiceContainer(context.Context, string) (*testcontainers.DockerContainer, error)
	}
	DockerCompose struct{}
)

func NewDockerCompose(...string) (*DockerCompose, error) { return &DockerCompose{}, nil }

func (d *DockerCompose) WithEnv(map[string]string) ComposeStack { return d }

func (d *DockerCompose) WaitForService(string, wait.Strategy) ComposeStack { return d }

func (d *DockerCompose) Up(context.Context, ...StackUpOption) error { return nil }

func (d *DockerCompose) Down(context.Context, ...StackDownOption) error { return nil }

func (d *DockerCompose) ServiceContainer(_ context.Context, name string) (*testcontainers.DockerContainer, error) {
	service, ok := Services[name]
	if !ok {
		return nil, fmt.Errorf("there is no service %s", name)
	}
	return service, nil
}
