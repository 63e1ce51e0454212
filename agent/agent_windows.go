package agent

import (
	"context"
	"errors"

	"github.com/coiled-jobs/coiled-jobs/task"
)

var errSystem = errors.New("tasks run on Linux and macOS; from Windows use cloud: aws, or run this program inside WSL")

// Agent stands in for the one of other systems.
type Agent struct{}

// Supported says why tasks cannot run on this machine; nil if they can.
func Supported() error { return errSystem }

// New makes an agent that refuses to work.
func New(Config) *Agent { return &Agent{} }

// Work refuses.
func (a *Agent) Work(context.Context) error { return errSystem }

// Live is nothing.
func (a *Agent) Live() []task.Live { return nil }

// KillLeftovers has nothing to do: no agent has ever run here.
func KillLeftovers(string) {}

// WardenMain returns: there is nothing to guard.
func WardenMain() {}
