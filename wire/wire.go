package wire

import (
	"encoding/json"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// How often machines and coordinators speak, and how long their silence may
// last.
const (
	// BeatEvery is how often a machine writes its heartbeat at least.
	BeatEvery = 30 * time.Second
	// CutOff is how long a machine may be unable to write its heartbeat before
	// it ends its tasks and reports nothing of them.
	CutOff = time.Minute
	// Silence is how long a heartbeat may stand still before the coordinator
	// gives its machine up. Longer than CutOff: the tasks have ended by then.
	Silence = 90 * time.Second
	// ControlEvery is how often machines read Control.
	ControlEvery = 5 * time.Second
	// GrantEvery is how often a coordinator extends the grant.
	GrantEvery = time.Minute
)

// Setup is what a machine must know of its run, the same for all machines of a
// kind.
type Setup struct {
	Run  string `json:"run"`
	Kind string `json:"kind"` // names the sort of machine within the run
	Pool string `json:"pool"` // a hash over everything that went into the launch
	// File is which of the run's recorded pipeline files counts: 0, or the
	// number of the change that retry recorded.
	File int `json:"file,omitempty"`
	// Code is the key of the manifest of the files next to the pipeline file
	// (package bundle); they are unpacked into the working directory of tasks.
	Code string `json:"code,omitempty"`
	// Files is the key of the index of local files that maps fan out over
	// (package bundle): each lies at its path for its task. "": there are none.
	Files string `json:"files,omitempty"`
	// Folders are below the working directory, for tasks to write outputs into;
	// with nothing in them they are not in Code.
	Folders []string `json:"folders,omitempty"`
	// Software is what has to be installed; its files are among those of Code.
	Software *spec.Software `json:"software,omitempty"`
	// SoftwareID is the hash under which a built environment is shared; "" if
	// there is nothing to install.
	SoftwareID string `json:"software_id,omitempty"`
	// Threads is the tasks at a time; -1: one per CPU.
	Threads int `json:"threads"`
	// Memory is the bytes that each machine of the kind has at least: it takes
	// no range that asks for more. 0: not known, any.
	Memory      int64         `json:"memory,omitempty"`
	IdleTimeout time.Duration `json:"idle_timeout"`
	KeepAlive   time.Duration `json:"keepalive"`
	MaxLife     time.Duration `json:"max_life"`
	// Secrets are references: "ssm:/name" or "secretsmanager:name", by the
	// variable they become. Never values.
	Secrets map[string]string `json:"secrets,omitempty"`
	// EnvFile is the same for the variables of env_file.
	EnvFile map[string]string `json:"env_file,omitempty"`
	NoCache bool              `json:"no_cache,omitempty"`
}

// Control is what the coordinator tells all machines of its run.
type Control struct {
	Epoch   int       `json:"epoch"`
	Written time.Time `json:"written"`
	// Until is the grant: when it has passed, machines end their tasks and
	// power off.
	Until time.Time `json:"until"`
	// Stop: "" go on; StopCancel: end tasks, then leave the run; StopFinished:
	// the run needs nothing more.
	Stop  string                 `json:"stop,omitempty"`
	Kinds map[string]KindControl `json:"kinds,omitempty"`
	// Hints is the URL of the queue that takes hints for the coordinator.
	Hints string `json:"hints,omitempty"`
	// Stopped are functions of which no further task may start.
	Stopped []string `json:"stopped,omitempty"`
	// Lost are machines that were given up, by "<machine>/<session>": they must
	// end what they run, and nothing they report counts.
	Lost []string `json:"lost,omitempty"`
	// Pace is the least time between two segments of a machine.
	Pace time.Duration `json:"pace,omitempty"`
}

// The values of Control.Stop.
const (
	StopCancel   = "cancel"
	StopFinished = "finished"
)

// KindControl is what Control says to the machines of one kind.
type KindControl struct {
	Queue string `json:"queue"` // URL of the task queue
	// More says that there is, or will be, work that a machine without work
	// should wait for (up to idle_timeout). Otherwise it leaves the run.
	More bool `json:"more"`
	// Keep are machines that stay although More is false: there may be work
	// for so many.
	Keep []string `json:"keep,omitempty"`
}

// Start is what tasks of a function must know that was not known at apply.
type Start struct {
	Function string          `json:"function"`
	Count    int             `json:"count"` // tasks
	Needs    map[string]Need `json:"needs,omitempty"`
}

// Need is what tasks see of a function that theirs needs.
type Need struct {
	Status        string `json:"status"`
	Count         int    `json:"count"`
	Failed        int    `json:"failed"`
	Mapped        bool   `json:"mapped"`
	BehindFailure bool   `json:"behind_failure,omitempty"`
	// Streams: it may still run; the tasks follow its tasks one by one. Then
	// the fields below are empty.
	Streams bool `json:"streams,omitempty"`
	// Results is the key of an object with one result a line, as JSON, in
	// index order; null where there is none.
	Results string `json:"results,omitempty"`
	// Without are the indices that have no result, as spans [from, to).
	Without [][2]int `json:"without,omitempty"`
	// ID is the identity of all its work, for the cache.
	ID task.ID `json:"id"`
	// Outputs is the key of an object with one task.Output a line, of the files
	// that its tasks kept; "" if there are none.
	Outputs string `json:"outputs,omitempty"`
}

// Claim says who has a range. Nonce tells the holder its own claim after a lost
// reply.
type Claim struct {
	Machine string      `json:"machine"`
	Session int         `json:"session"`
	Nonce   string      `json:"nonce"`
	Range   cloud.Range `json:"range"`
	At      time.Time   `json:"at"`
}

// Beat is a machine's heartbeat.
type Beat struct {
	Machine string    `json:"machine"`
	Session int       `json:"session"` // counts the lives of its agent in this run, from 1
	Kind    string    `json:"kind"`
	Seq     int       `json:"seq"`
	At      time.Time `json:"at"` // the machine's clock
	// Epoch is the coordinator that the machine has heard of.
	Epoch int `json:"epoch"`
	// State: "preparing" (code, software), "working", "leaving" (a notice, the
	// end of its life), "gone" (its last beat for this run: Held is empty).
	State string `json:"state"`
	Why   string `json:"why,omitempty"` // of leaving and gone, for people
	// Worked: this session was ready for tasks, which a reader may not have seen.
	Worked bool          `json:"worked,omitempty"`
	Slots  int           `json:"slots"`
	Held   []cloud.Range `json:"held,omitempty"` // claimed and not ended
	Live   []task.Live   `json:"live,omitempty"`
	// Segments is the number of the last segment.
	Segments int       `json:"segments"`
	Type     string    `json:"type,omitempty"` // instance type
	Zone     string    `json:"zone,omitempty"`
	Spot     bool      `json:"spot,omitempty"`
	Notice   time.Time `json:"notice,omitzero"` // when the cloud takes it back
	Metrics  Metrics   `json:"metrics"`
}

// The values of Beat.State.
const (
	StatePreparing = "preparing"
	StateWorking   = "working"
	StateLeaving   = "leaving"
	StateGone      = "gone"
)

// Metrics is what a machine measures of itself.
type Metrics struct {
	CPUs        int     `json:"cpus"`
	CPU         float64 `json:"cpu"`          // share of all CPUs in use since the last beat, 0 to 1
	Memory      int64   `json:"memory"`       // bytes in use
	MemoryTotal int64   `json:"memory_total"` // bytes
	Disk        int64   `json:"disk"`         // bytes in use where tasks work
	DiskTotal   int64   `json:"disk_total"`
	NetIn       int64   `json:"net_in"` // bytes since boot
	NetOut      int64   `json:"net_out"`
}

// Segment is what a machine reports.
type Segment struct {
	Machine string       `json:"machine"`
	Session int          `json:"session"`
	N       int          `json:"n"`
	Batches []task.Batch `json:"batches,omitempty"`
	// Ended are the ids of ranges that need nothing more: every index of them
	// was reported by now.
	Ended []string `json:"ended,omitempty"`
}

// Idle says that a machine waits for another run of its pool.
type Idle struct {
	Machine  string    `json:"machine"`
	Until    time.Time `json:"until"`
	Run      string    `json:"run"` // the last one
	Type     string    `json:"type"`
	Zone     string    `json:"zone"`
	Spot     bool      `json:"spot"`
	Launched time.Time `json:"launched"` // end of its max_life: Launched + MaxLife
	Slots    int       `json:"slots"`
	N        int       `json:"n"` // this waiting; see InviteKey
}

// Invite ends the waiting of a machine. Run "" means that it has left.
type Invite struct {
	Run  string `json:"run"`
	Kind string `json:"kind"`
}

// Hint is the text of a cloud.Range that carries no work: machine m has written
// segment n.
type Hint struct {
	Machine string `json:"m"`
	Segment int    `json:"n"`
}

// Range is the message for the hint queue.
func (h Hint) Range(run string) cloud.Range {
	b, _ := json.Marshal(h) // cannot fail
	return cloud.Range{Run: run, Hint: string(b)}
}

// HintOf reads a message of the hint queue.
func HintOf(r cloud.Range) (Hint, bool) {
	var h Hint
	return h, r.Hint != "" && json.Unmarshal([]byte(r.Hint), &h) == nil
}
