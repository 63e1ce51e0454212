package agent

import (
	"context"
	"log/slog"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Config is what an Agent works with.
type Config struct {
	Run    *Run
	Queue  cloud.Queue
	Slots  int // tasks at a time; at least 1
	Report Reporter
	Logger *slog.Logger // nil: nothing is logged
	// Name tells agents of one run apart: it is part of the keys of logs and
	// the Machine of outcomes. "" on this machine.
	Name string
	// Token marks every process of the run in its environment, so that they
	// can be found when nobody else knows them any more. "": a random one.
	Token string
	// Warden is the command of the process that ends all others if this one
	// dies: usually this program and "__warden", which must call
	// warden.Main. Empty: there is no warden.
	Warden []string
	// OOMKills counts how often the system has killed a process for want of
	// memory. nil: what the kernel says.
	OOMKills func() int64
	// Look looks up a URI among a function's outputs; nil: they cannot be
	// checked, which is an error.
	Look func(ctx context.Context, uri string) (cloud.S3Look, error)
}
