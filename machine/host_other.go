//go:build !linux

package machine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/coiled-jobs/coiled-jobs/wire"
)

// EC2 stands in for the rented machine on systems that are none.
type EC2 struct{ Path string }

var errSystem = errors.New("rented machines run Linux")

// NewEC2 makes a host that refuses.
func NewEC2(_, _, _ string, _ *slog.Logger) *EC2 { return &EC2{} }

// Identity refuses.
func (h *EC2) Identity(context.Context) (Identity, error) { return Identity{}, errSystem }

// Region refuses.
func (h *EC2) Region(context.Context) (string, error) { return "", errSystem }

// Notice refuses.
func (h *EC2) Notice(context.Context) (time.Time, error) { return time.Time{}, errSystem }

// Arm refuses.
func (h *EC2) Arm(time.Time) error { return errSystem }

// PowerOff does nothing.
func (h *EC2) PowerOff() {}

// Metrics is nothing.
func (h *EC2) Metrics() wire.Metrics { return wire.Metrics{} }

// Deadline returns: there is no machine to end.
func Deadline(string, *slog.Logger) {}
