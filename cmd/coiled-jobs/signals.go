package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalError is the cause with which a signal cancels the context.
type signalError struct{ sig os.Signal }

func (e *signalError) Error() string {
	if e.sig == syscall.SIGINT {
		return "Ctrl-C (SIGINT)"
	}
	return "SIGTERM"
}

// How long ending may take after a signal: a run that this process
// coordinates gets what it needs, a command that only looks does not.
const (
	graceRun  = 9500 * time.Millisecond
	graceLook = time.Second
)

// sameSignal is how long a signal that comes again is the first one: timeout(1)
// signals its child and the process group, so the child gets it twice at once.
const sameSignal = 30 * time.Millisecond

// watchSignals cancels the context at the first SIGINT or SIGTERM. A second
// one of the same kind, or the end of the grace time, ends the process.
//
// SIGPIPE is received and dropped, so that a closed pipe is an error of the
// write; ignoring it would be inherited by tasks.
func (a *app) watchSignals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		seen := map[os.Signal]time.Time{}
		var late <-chan time.Time
		for {
			select {
			case <-done:
				return
			case <-late:
				a.quit(exitCancelled, "ending took too long; what is left is cleaned up by itself")
			case sig := <-ch:
				if sig == syscall.SIGPIPE {
					continue
				}
				if first, again := seen[sig]; again {
					if time.Since(first) < sameSignal {
						continue
					}
					a.quit(exitCancelled, "")
				}
				seen[sig] = time.Now()
				if run := a.leaving.Load(); sig == syscall.SIGTERM && a.leaveOnTerm.Load() && run != nil {
					a.quit(exitCannot, fmt.Sprintf("left run %s as it is; go on with: %s resume %s", *run, a.command(), *run))
				}
				cancel(&signalError{sig})
				grace := graceLook
				if a.coordinating.Load() {
					grace = graceRun
				}
				if late == nil {
					late = time.After(grace)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(done)
		<-ended
		cancel(nil)
	}
}

// quit ends the process at once, with the terminal as it was.
func (a *app) quit(code int, text string) {
	a.messages.restore()
	if text != "" {
		fmt.Fprintf(a.stderr, "%s: %s\n", program, text)
	}
	os.Exit(code)
}
