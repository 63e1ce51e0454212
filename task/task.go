// Package task holds the plain facts about tasks: what an attempt ended with,
// and where its traces lie. Agents make them, the executor folds them into a
// run, everybody else reads them.
package task

import "fmt"

// Status is the state of a task or function.
type Status uint8

// The states. A pending task waits for its turn or its next attempt; the
// executor moves it on. The other states but Running are final.
const (
	Pending Status = iota
	Running
	Succeeded
	Failed
	Skipped   // never started: a dependency, an if, a where, on_failure: stop
	Cancelled // never started because of a cancel, or ended by it
)

var statusNames = [...]string{"pending", "running", "succeeded", "failed", "skipped", "cancelled"}

// String is the name used in JSON and on screen.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", s)
}

// Final says whether the state is never left.
func (s Status) Final() bool { return s >= Succeeded }

// Cause says why an attempt failed.
type Cause uint8

// The causes of failure.
const (
	NoCause        Cause = iota
	CauseExit            // the program ended with a code other than 0, the function raised
	CauseSignal          // it was killed by a signal that nobody here sent
	CauseTimeout         // it took longer than timeout
	CauseOOM             // the system killed it for want of memory
	CauseMachine         // its machine was lost or reclaimed, or the agent died
	CauseSetup           // it could not be started: no such program, bad template, no interpreter
	CauseOutput          // a declared output is missing, or the result is not what was declared
	CauseCancelled       // somebody cancelled it
)

var causeNames = [...]string{"", "exit", "signal", "timeout", "oom", "machine", "setup", "output", "cancelled"}

// String is the name used in JSON and expressions; "" for none.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("cause(%d)", c)
}

// ParseCause is the reverse of Cause.String.
func ParseCause(s string) (Cause, bool) {
	for i, n := range causeNames {
		if n == s && s != "" {
			return Cause(i), true
		}
	}
	return NoCause, false
}

// Span is a part of a stored object. The zero Span is "nothing".
type Span struct {
	Key string `json:"key"` // store key
	Off int64  `json:"off"` // bytes
	Len int64  `json:"len"` // bytes
}

// Output is a declared output that was found and, if it is a path, kept.
type Output struct {
	Path string `json:"path"`           // as declared after templates: relative path or URI
	Key  string `json:"key,omitempty"`  // store key of the kept copy; "" for a URI
	Size int64  `json:"size,omitempty"` // bytes
	Hash string `json:"hash,omitempty"` // sha256 of the content, hex
	Mode uint32 `json:"mode,omitempty"` // permission bits
	Tag  string `json:"tag,omitempty"`  // of a URI: what lies there, see cloud.S3Look
}

// ID is the identity of a task's work for the cache; zero if not computed.
type ID [16]byte

// Outcome is what one attempt of one task ended with: Succeeded, Failed,
// Cancelled or Skipped (a where behind from:, decided by the agent).
type Outcome struct {
	Index   int
	Attempt int // from 1; 0 for a cached success and for skipped
	Status  Status
	Cause   Cause
	// Exit is the exit code; 128+n after signal n; 124 after a timeout.
	Exit   int
	Signal string // "SIGKILL" or ""
	// Started is the start in Unix nanoseconds, Seconds the duration.
	Started int64
	Seconds float64
	// Result is the result as compact JSON (nil: null). A large one is in
	// ResultAt instead, and Result is nil.
	Result   []byte
	ResultAt Span
	// Message says in a line what went wrong; "" on success.
	Message string
	// Stderr is the last 4 KiB of standard error of a failed attempt.
	Stderr []byte
	// Log is where standard output and error lie, in the order they came.
	Log     Span
	Outputs []Output
	// ID is the cache identity (zero unless the pipeline uses the cache).
	ID ID
	// Cached: the result of an earlier task was used.
	Cached bool
	// From is what a cached success was taken from ("run fn/index"), or, of a
	// function that uses the cache, why earlier work was not used.
	From string
	// Code names the code the attempt ran: a hash, "" if unknown.
	Code string
	// Machine is where it ran; "" for this machine.
	Machine string
	// MaxRSS is the peak memory in bytes, 0 if unknown.
	MaxRSS int64
}

// Batch is outcomes of one function, as agents report them. Every index of a
// range that was received is reported exactly once: in Outcomes, or in Unrun
// if it was not started (the function was stopped, the agent is ending).
type Batch struct {
	Function string
	Outcomes []Outcome
	Unrun    []int
}

// Live is a task that runs now.
type Live struct {
	Function string `json:"function"`
	Index    int    `json:"index"`
	Attempt  int    `json:"attempt"`
	Started  int64  `json:"started"` // Unix nanoseconds
	// Log is where its output goes: it begins at Off and grows (Len is not known).
	Log Span `json:"log"`
}
