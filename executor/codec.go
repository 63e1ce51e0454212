package executor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// A journal record is one event. Its first byte says which encoding follows:
// recordJSON a JSON event, recordOutcomes a batch of outcomes of one function
// in the compact form below (a run of a million tasks is mostly these).
//
//	'O' time fn nstrings string... n outcome...
//
// Numbers are varints, strings are length and bytes. Strings that outcomes of
// one batch share (log key, code, machine) stand once, in the table.
const (
	recordJSON     = 'J'
	recordOutcomes = 'O'
)

// maxBatch is how many outcomes a record holds at most: the ordinal of an
// outcome in its record takes 8 bits of a position.
const maxBatch = 256

var errRecord = errors.New("malformed journal record")

// outcomePos packs the position of a record and an ordinal in it.
func outcomePos(rec int64, ordinal int) int64 { return rec<<8 | int64(ordinal) }

func splitPos(p int64) (rec int64, ordinal int) { return p >> 8, int(p & 0xff) }

// outcomes is an outcome event: what an agent reported, with what the intake
// decided about each (noRetry: retries.when said no).
type outcomes struct {
	at       int64 // Unix nanoseconds
	function string
	list     []task.Outcome
	noRetry  []bool // nil: none
}

const (
	flagResult = 1 << iota
	flagResultAt
	flagCached
	flagNoRetry
	flagLog
	flagID
	flagMessage
	flagExtra
)

// rare is what few outcomes have; it is kept as JSON.
type rare struct {
	Stderr  []byte        `json:"stderr,omitempty"`
	Outputs []task.Output `json:"outputs,omitempty"`
	From    string        `json:"from,omitempty"`
	Signal  string        `json:"signal,omitempty"`
}

func (o *outcomes) encode(b []byte) ([]byte, error) {
	b = append(b, recordOutcomes)
	b = binary.AppendVarint(b, o.at)
	b = appendString(b, o.function)
	table := map[string]uint64{}
	var order []string
	intern := func(s string) {
		if _, ok := table[s]; !ok {
			table[s] = uint64(len(order))
			order = append(order, s)
		}
	}
	for i := range o.list {
		oc := &o.list[i]
		intern(oc.Code)
		intern(oc.Machine)
		if oc.Log.Len > 0 {
			intern(oc.Log.Key)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(order)))
	for _, s := range order {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(o.list)))
	for i := range o.list {
		var err error
		if b, err = o.encodeOne(b, i, table); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (o *outcomes) encodeOne(b []byte, i int, table map[string]uint64) ([]byte, error) {
	oc := &o.list[i]
	var flags byte
	set := func(on bool, f byte) {
		if on {
			flags |= f
		}
	}
	set(oc.Result != nil, flagResult)
	set(oc.ResultAt.Key != "", flagResultAt)
	set(oc.Cached, flagCached)
	set(o.noRetry != nil && o.noRetry[i], flagNoRetry)
	set(oc.Log.Len > 0, flagLog)
	set(oc.ID != task.ID{}, flagID)
	set(oc.Message != "", flagMessage)
	extra := len(oc.Stderr) > 0 || len(oc.Outputs) > 0 || oc.From != "" || oc.Signal != ""
	set(extra, flagExtra)

	b = append(b, flags, byte(oc.Status), byte(oc.Cause))
	b = binary.AppendVarint(b, int64(oc.Index))
	b = binary.AppendVarint(b, int64(oc.Attempt))
	b = binary.AppendVarint(b, int64(oc.Exit))
	b = binary.AppendVarint(b, oc.Started)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(oc.Seconds))
	b = binary.AppendVarint(b, oc.MaxRSS)
	b = binary.AppendUvarint(b, table[oc.Code])
	b = binary.AppendUvarint(b, table[oc.Machine])
	if flags&flagResult != 0 {
		b = appendString(b, oc.Result)
	}
	if flags&flagResultAt != 0 {
		b = appendString(b, oc.ResultAt.Key)
		b = binary.AppendVarint(b, oc.ResultAt.Off)
		b = binary.AppendVarint(b, oc.ResultAt.Len)
	}
	if flags&flagLog != 0 {
		b = binary.AppendUvarint(b, table[oc.Log.Key])
		b = binary.AppendVarint(b, oc.Log.Off)
		b = binary.AppendVarint(b, oc.Log.Len)
	}
	if flags&flagID != 0 {
		b = append(b, oc.ID[:]...)
	}
	if flags&flagMessage != 0 {
		b = appendString(b, oc.Message)
	}
	if extra {
		x, err := json.Marshal(rare{oc.Stderr, oc.Outputs, oc.From, oc.Signal})
		if err != nil {
			return nil, err
		}
		b = appendString(b, x)
	}
	return b, nil
}

func appendString[S ~string | ~[]byte](b []byte, s S) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// reader takes a record apart; the first malformed field sets bad, and
// everything after it is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		r.b = nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		r.b = nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad = true
		r.b = nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) string() []byte { return r.bytes(r.uvarint()) }

func (r *reader) byte() byte {
	p := r.bytes(1)
	if p == nil {
		return 0
	}
	return p[0]
}

func (r *reader) fixed8() uint64 {
	p := r.bytes(8)
	if p == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(p)
}

// decodeOutcomes is the reverse of encode. The byte slices of the outcomes
// point into rec.
func decodeOutcomes(rec []byte) (*outcomes, error) {
	if len(rec) == 0 || rec[0] != recordOutcomes {
		return nil, errRecord
	}
	r := &reader{b: rec[1:]}
	o := &outcomes{at: r.varint(), function: string(r.string())}
	ntable := r.uvarint()
	if ntable > uint64(len(r.b)) {
		return nil, errRecord
	}
	table := make([]string, ntable)
	for i := range table {
		table[i] = string(r.string())
	}
	n := r.uvarint()
	if n > maxBatch || r.bad {
		return nil, errRecord
	}
	lookup := func() string {
		i := r.uvarint()
		if i >= uint64(len(table)) {
			r.bad = true
			return ""
		}
		return table[i]
	}
	o.list = make([]task.Outcome, n)
	for i := range o.list {
		if r.one(&o.list[i], lookup) {
			if o.noRetry == nil {
				o.noRetry = make([]bool, n)
			}
			o.noRetry[i] = true
		}
		if r.bad {
			return nil, errRecord
		}
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", errRecord, len(r.b))
	}
	return o, nil
}

func (r *reader) one(oc *task.Outcome, lookup func() string) (noRetry bool) {
	flags := r.byte()
	oc.Status = task.Status(r.byte())
	oc.Cause = task.Cause(r.byte())
	if !oc.Status.Final() || oc.Status > task.Cancelled || oc.Cause > task.CauseCancelled {
		r.bad = true
	}
	oc.Index = int(r.varint())
	oc.Attempt = int(r.varint())
	oc.Exit = int(r.varint())
	oc.Started = r.varint()
	oc.Seconds = math.Float64frombits(r.fixed8())
	oc.MaxRSS = r.varint()
	oc.Code = lookup()
	oc.Machine = lookup()
	oc.Cached = flags&flagCached != 0
	if flags&flagResult != 0 {
		oc.Result = r.string()
	}
	if flags&flagResultAt != 0 {
		oc.ResultAt = task.Span{Key: string(r.string()), Off: r.varint(), Len: r.varint()}
	}
	if flags&flagLog != 0 {
		oc.Log = task.Span{Key: lookup(), Off: r.varint(), Len: r.varint()}
	}
	if flags&flagID != 0 {
		copy(oc.ID[:], r.bytes(uint64(len(oc.ID))))
	}
	if flags&flagMessage != 0 {
		oc.Message = string(r.string())
	}
	if flags&flagExtra != 0 {
		var x rare
		if json.Unmarshal(r.string(), &x) != nil {
			r.bad = true
		}
		oc.Stderr, oc.Outputs, oc.From, oc.Signal = x.Stderr, x.Outputs, x.From, x.Signal
	}
	if oc.Index < 0 || oc.Attempt < 0 {
		r.bad = true
	}
	return flags&flagNoRetry != 0
}

// eventKind is the kind of a JSON event.
type eventKind string

const (
	evBegin       eventKind = "begin"       // the run: its functions and their known numbers of tasks
	evCoordinator eventKind = "coordinator" // a coordinator took the run
	evPrepared    eventKind = "prepared"    // a function may start: its tasks are known; or it is skipped or failed
	evCancel      eventKind = "cancel"      // somebody cancelled
	evLimit       eventKind = "limit"       // a limit was reached
	evRetry       eventKind = "retry"       // failed tasks are to run again
	evReopen      eventKind = "reopen"      // a stopped or cancelled run goes on
	evFinish      eventKind = "finish"      // the run has ended
	evHeld        eventKind = "held"        // what agents hold; before a record that ends a function or the run early
	evRefused     eventKind = "refused"     // tasks that were handed out and not started; recorded only behind evHeld
	evGone        eventKind = "gone"        // agents have ended; likewise
	evMachine     eventKind = "machine"     // a machine joined the run, or left it
	evSegments    eventKind = "segments"    // what machines reported is recorded up to these segments
)

// event is a journal record but for outcomes.
type event struct {
	Kind eventKind `json:"kind"`
	At   int64     `json:"at"` // Unix nanoseconds

	// begin
	Functions []beginFunction `json:"functions,omitempty"`
	// coordinator
	Epoch int    `json:"epoch,omitempty"`
	Host  string `json:"host,omitempty"`
	PID   int    `json:"pid,omitempty"`
	// prepared
	Function string `json:"function,omitempty"`
	Tasks    int    `json:"tasks,omitempty"`
	Skip     bool   `json:"skip,omitempty"`
	Fail     bool   `json:"fail,omitempty"`
	// why: prepared (skip, fail), cancel, limit
	Reason string `json:"reason,omitempty"`
	// retry: "" or a cause; the number of the recorded pipeline file that holds from here on
	Cause string            `json:"cause,omitempty"`
	File  int               `json:"file,omitempty"`
	Code  map[string]string `json:"code,omitempty"`
	// finish
	Status RunStatus `json:"status,omitempty"`
	// held
	Held []heldTasks `json:"held,omitempty"`
	// refused
	Indices []int `json:"indices,omitempty"`
	// machine
	Machine *task.Machine `json:"machine,omitempty"`
	// segments: the number of the last one, by "<machine>/<session>"
	Segments map[string]int `json:"segments,omitempty"`
	ended    []string       // ids of ranges that these segments end
	// gone: why
	err error
}

// heldTasks is tasks From to To-1 of a function.
type heldTasks struct {
	Function string `json:"fn"`
	From     int    `json:"from"`
	To       int    `json:"to"`
}

type beginFunction struct {
	Name  string `json:"name"`
	Tasks int    `json:"tasks"` // -1: not known yet
}

func (e *event) encode(b []byte) ([]byte, error) {
	j, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(append(b, recordJSON), j...), nil
}

func decodeEvent(rec []byte) (*event, error) {
	if len(rec) == 0 || rec[0] != recordJSON {
		return nil, errRecord
	}
	e := &event{}
	if err := json.Unmarshal(rec[1:], e); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if e.Kind == evMachine && e.Machine == nil {
		return nil, errRecord
	}
	return e, nil
}
