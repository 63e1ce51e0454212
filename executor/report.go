package executor

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// RunStatus is the status of a run.
type RunStatus string

// The statuses of a run.
const (
	RunPending     RunStatus = "pending"
	RunRunning     RunStatus = "running"
	RunSucceeded   RunStatus = "succeeded"
	RunFailed      RunStatus = "failed"
	RunStopped     RunStatus = "stopped" // by a limit
	RunCancelled   RunStatus = "cancelled"
	RunInterrupted RunStatus = "interrupted" // not finished, and no live coordinator
)

// Final says whether the status is one that a finished run has.
func (s RunStatus) Final() bool {
	switch s {
	case RunSucceeded, RunFailed, RunStopped, RunCancelled:
		return true
	}
	return false
}

// FunctionReport counts the tasks of a function. The counts from Succeeded to
// Pending add up to Tasks; cached tasks are among Succeeded.
type FunctionReport struct {
	Name      string  `json:"-"`
	Status    string  `json:"status"`
	Tasks     int     `json:"tasks"` // 0 until known
	Succeeded int     `json:"succeeded"`
	Failed    int     `json:"failed"`
	Skipped   int     `json:"skipped"`
	Cancelled int     `json:"cancelled"`
	Running   int     `json:"running"`
	Pending   int     `json:"pending"`
	Cached    int     `json:"cached"`
	Retries   int     `json:"retries"`
	Seconds   float64 `json:"seconds"` // sum over attempts
	// CostUSD is its part of what the machines cost while tasks ran.
	CostUSD float64 `json:"cost_usd,omitempty"`
	// Planned says whether Tasks is known.
	Planned bool `json:"-"`
	// Reason says why the function was skipped or failed as a whole; "" else.
	Reason string `json:"reason,omitempty"`
}

// Report is the state of a run as apply, status and wait give it.
type Report struct {
	Run      string     `json:"run"`
	Pipeline string     `json:"pipeline"`
	Status   RunStatus  `json:"status"`
	Started  time.Time  `json:"started"`
	Finished *time.Time `json:"finished"`
	Seconds  float64    `json:"seconds"`
	CostUSD  float64    `json:"cost_usd"`
	// IdleUSD is the part of CostUSD for the time in which no task ran; the
	// rest is that of the functions.
	IdleUSD   float64          `json:"idle_usd,omitempty"`
	Machines  int              `json:"machines"`
	Functions []FunctionReport `json:"-"` // in file order
	// Reason says why the run stopped before its end: a limit, a cancel; "" else.
	Reason string `json:"reason,omitempty"`
}

// MarshalJSON writes functions as an object in file order.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	head, err := json.Marshal(plain(r))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Write(head[:len(head)-1])
	b.WriteString(`,"functions":{`)
	for i, f := range r.Functions {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(f.Name)
		fn, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(fn)
	}
	b.WriteString("}}")
	return b.Bytes(), nil
}

// TaskReport is the state of one task.
type TaskReport struct {
	Index    int
	Status   task.Status
	Cause    task.Cause
	Attempts int // started attempts; 0 for a cached or never started task
	Cached   bool
	Seconds  float64 // of the last attempt
	// Pos is the journal position of the last outcome, -1 if there is none.
	Pos int64
}

// Notice is something that happened in a run and is worth a line.
type Notice struct {
	Time     time.Time
	Kind     NoticeKind
	Function string
	Outcome  *task.Outcome // NoticeFailed, NoticeRetry
	Delay    time.Duration // NoticeRetry: until the next attempt
	Text     string        // one line for people, without time and function
}

// NoticeKind is the kind of a Notice.
type NoticeKind string

// The kinds of notices.
const (
	NoticeStarted  NoticeKind = "started"  // the run, with its number of tasks
	NoticePlanned  NoticeKind = "planned"  // a function's tasks are known
	NoticeRetry    NoticeKind = "retry"    // an attempt failed and will be repeated
	NoticeFailed   NoticeKind = "failed"   // a task failed for good
	NoticeFunction NoticeKind = "function" // a function reached its final status
	NoticeWarning  NoticeKind = "warning"
	NoticeStopping NoticeKind = "stopping" // cancel or limit
	NoticeFinished NoticeKind = "finished"
)

// Header is what is recorded of a run when it is created; immutable but for
// what retry and resume record as changes.
type Header struct {
	Run       string            `json:"run"`
	Pipeline  string            `json:"pipeline"`
	File      string            `json:"file"` // absolute path of the pipeline file on the machine that applied it
	Dir       string            `json:"dir"`
	Params    map[string]string `json:"params,omitempty"` // as given by --param, source text
	Cloud     string            `json:"cloud"`
	Key       string            `json:"key,omitempty"`
	Owner     string            `json:"owner"` // user@host
	Version   string            `json:"version"`
	Created   time.Time         `json:"created"`
	Scheduled time.Time         `json:"scheduled,omitzero"`
	Functions []string          `json:"functions,omitempty"` // --function
	First     int               `json:"first,omitempty"`
	Only      map[string][]int  `json:"only,omitempty"`
	NoCache   bool              `json:"no_cache,omitempty"`
	MaxCost   *float64          `json:"max_cost,omitempty"`
	Token     string            `json:"token"` // marks the processes of this run
	// Planned is the number of tasks of functions whose items (if mapped) are
	// recorded; the others are expanded during the run.
	Planned map[string]int `json:"planned"`
	// Values is the bound parameters as JSON, to compare with later.
	Values string `json:"values"`
}

// Info is the header as expressions see it.
func (h *Header) Info() *spec.RunInfo {
	return &spec.RunInfo{ID: h.Run, Started: h.Created, Scheduled: h.Scheduled}
}
