// Package engine wires the parts together: it plans a pipeline file, starts
// or joins its run, follows it to its end, and acts on runs of earlier days.
// It is what every face of the program (the command line, schedules, the web
// page) calls.
package engine

import (
	"fmt"
	"io"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// Engine holds what is the same for all commands of a process. The caller
// fills it; nothing here reads the environment by itself.
type Engine struct {
	Store    cloud.Store // where runs are created and looked for
	StateDir string      // pointers to the caller's own runs
	Environ  []string    // the caller's environment: what local tasks inherit, where secrets come from
	Exe      string      // this program, to start a detached coordinator and the warden
	Version  string
	Owner    string // user@host
	Stderr   io.Writer
	// OpenStore opens the store of a pointer to a run elsewhere.
	OpenStore func(url string) (cloud.Store, error)
	// S3 gives access to S3 maps; nil: an error says there is none.
	S3 func() (planner.S3, error)
	// AWS is what `cloud: aws` needs; nil: it cannot be had.
	AWS *AWS
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// ApplyOptions are the flags of apply and plan.
type ApplyOptions struct {
	File      string
	Params    map[string]string // source text of --param
	Cloud     string            // "", local or aws
	Functions []string          // --function: only these and what they need
	Key       string
	NoCache   bool
	First     int
	Only      map[string][]int
	MaxCost   *float64 // dollars, or NoLimit; nil: what the file says
	Detach    bool
	Scheduled time.Time
	// Confirm is asked before machines are rented; an error of it is returned,
	// and nothing was recorded. nil: nobody is asked.
	Confirm func(*Quote) error
}

// Planned is a checked file with its plan.
type Planned struct {
	Pipeline *spec.Pipeline
	Dir      string // absolute folder of the file
	Plan     *planner.Plan
	Warnings spec.Problems // of the file

	quote *Quote // of a run on aws, once it was asked for
}

// RunSummary is a line of runs.
type RunSummary struct {
	Run      string     `json:"run"`
	Pipeline string     `json:"pipeline"`
	Status   string     `json:"status"`
	Started  time.Time  `json:"started"`
	Finished *time.Time `json:"finished"`
	Seconds  float64    `json:"seconds"`
	CostUSD  float64    `json:"cost_usd"`
	Tasks    int        `json:"tasks"`
	Failed   int        `json:"failed"`
	Owner    string     `json:"owner"`
	Key      string     `json:"key,omitempty"`
	Store    string     `json:"store"`
}

// UsageError is a mistake of the caller: exit code 2.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

func usagef(format string, args ...any) error {
	return &UsageError{fmt.Sprintf(format, args...)}
}
