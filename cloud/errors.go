package cloud

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an Error is; callers branch on it, never on text.
type Kind int

// The kinds of failure.
const (
	KindOther      Kind = iota
	KindNotFound        // no such object, queue or machine
	KindConflict        // exists already, or somebody else holds it
	KindNoCapacity      // the cloud has none of these machines now
	KindQuota           // an account limit
	KindThrottled       // too many requests; try again later
	KindDenied          // credentials or permissions
	KindTransient       // network or server trouble; try again
	KindFull            // no space left on the disk
	KindCorrupt         // stored data fails its checksum
	KindInvalid         // a malformed key or argument
	KindClosed          // the queue was closed
)

var kindNames = [...]string{"error", "not found", "conflict", "no capacity", "quota", "throttled", "denied",
	"transient", "disk full", "corrupt", "invalid", "closed"}

func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindNames[k]
}

// Error is a failed operation on a cloud resource.
type Error struct {
	Op       string // what was tried: "get", "launch"
	Resource string // on what: a key, a machine type
	Kind     Kind
	Err      error // the cause, may be nil
}

func (e *Error) Error() string {
	s := e.Op + " " + e.Resource + ": "
	if e.Err != nil {
		return s + e.Err.Error()
	}
	return s + e.Kind.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first Error in err's chain; KindOther if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindOther
}
