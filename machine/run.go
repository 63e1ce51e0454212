package machine

import "context"

// Run is the whole life of a machine. It returns nil after it has asked the
// host to power off, and an error if the machine could not start to work; then
// powering off is left to the caller.
func Run(ctx context.Context, cfg Config) error {
	_ = cfg
	return context.Cause(ctx)
}
