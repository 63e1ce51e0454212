package spec

import (
	"fmt"
	"time"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// Pos is a place in a pipeline file. Lines and columns count from 1; the
// column counts characters. The zero Pos is "nowhere".
type Pos struct {
	File      string
	Line, Col int
}

// Pipeline is a checked pipeline file with its parameters bound.
type Pipeline struct {
	Name        string
	Description string
	File        string // as it was given to Load or Parse
	Source      []byte // the file's bytes
	Cloud       string // "local" or "aws"
	Params      map[string]any
	ParamDefs   []Param  // in file order
	Env         []EnvVar // of the whole pipeline, what expressions see as env; also merged into each function's
	EnvFile     string   // path relative to the pipeline file, or ""
	Limits      Limits
	Schedules   []Schedule
	Notify      []Notify
	Retention   time.Duration // default 30 days
	Functions   []*Function   // in file order; needs never form a cycle
}

// Function finds a function by name; nil if there is none.
func (p *Pipeline) Function(name string) *Function {
	for _, f := range p.Functions {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// EnvFor is the pipeline's env as expressions see it (Env.Env) in a run.
func (p *Pipeline) EnvFor(run *RunInfo) (map[string]string, error) {
	env := make(map[string]string, len(p.Env))
	for _, v := range p.Env {
		text, err := v.Value.Text(&Env{Params: p.Params, Run: run})
		if err != nil {
			return nil, fmt.Errorf("env.%s: %w", v.Name, err)
		}
		env[v.Name] = text
	}
	return env, nil
}

// Param is a declared parameter.
type Param struct {
	Name        string
	Pos         Pos
	Type        string // string, int, float or bool
	Required    bool   // it has no default
	Default     any
	Enum        []any
	Description string
}

// Function is one entry of functions, with defaults and pipeline-wide env,
// secrets, software and files merged in.
type Function struct {
	Name        string
	Pos         Pos
	Description string
	Map         *Map     // nil: one task
	Columns     []Column // what its texts take from the rows of CSV files

	// Exactly one of Run, Command and Python is set.
	Run     *Script
	Command []*Value // the argument list, each rendered as text
	Python  *Python

	Result  ResultMode
	Needs   []string // in file order, without From's; see AllNeeds
	If      *Expr    // nil: success()
	Env     []EnvVar // pipeline-wide first, then defaults', then the function's; later ones win
	Secrets []Secret

	Expect        time.Duration // 0: unknown
	Outputs       []*Template
	Cache         *Cache // nil: off
	Concurrency   int    // 0: no limit
	Retries       Retries
	Timeout       time.Duration // 0: none
	MaxFailures   Share
	OnFailureStop bool

	Hardware Hardware
	Software Software
	Files    Files
}

// AllNeeds is Needs and, for a map over another function's results, that
// function, without repetitions.
func (f *Function) AllNeeds() []string {
	all := append([]string(nil), f.Needs...)
	for _, from := range f.Map.froms() {
		dup := false
		for _, n := range all {
			dup = dup || n == from
		}
		if !dup {
			all = append(all, from)
		}
	}
	return all
}

// Streams says whether tasks start item by item behind another function (a
// plain "from:" with nothing that needs all of it), and behind which.
// "where" and nothing else may accompany it: sort, limit, batch, an if, a
// template with count or needs.<that function>, and that function standing in
// needs too make it wait.
func (f *Function) Streams() (from string, ok bool) {
	if from, ok = f.Follows(); !ok || f.Map.Barrier {
		return "", false
	}
	return from, true
}

// Follows is the function behind which this one keeps the index: task i is
// about result i, whether it waits for the whole function or not. With sort,
// limit or batch it does not.
func (f *Function) Follows() (from string, ok bool) {
	m := f.Map
	if m == nil || m.Form != FormFrom || m.Sort != "" && m.Sort != "none" || m.Limit >= 0 || m.Batch != (Batch{}) {
		return "", false
	}
	return m.From, true
}

// ResultMode says where the result of run and command comes from.
type ResultMode string

// The ways to give a result.
const (
	ResultFile   ResultMode = ""       // the file $COILED_JOBS_RESULT
	ResultStdout ResultMode = "stdout" // trimmed standard output, as text
	ResultJSON   ResultMode = "json"   // standard output, parsed
)

// Python is a call of a Python function.
type Python struct {
	Target  string   // "module:function" or "path/file.py:function"
	Module  string   // before the last colon
	Func    string   // after it
	Args    []*Value // nil: the item when mapped, nothing otherwise
	HasArgs bool     // args was given (possibly empty)
	Kwargs  []NamedValue
	Bin     string // default python3
}

// NamedValue is a name with a value, where the file's order matters.
type NamedValue struct {
	Name  string
	Value *Value
}

// EnvVar is an environment variable of tasks.
type EnvVar struct {
	Name  string
	Value *Value // rendered as text
}

// Secret is a variable whose value is not in the file.
type Secret struct {
	Name string // the variable in the task's environment
	Ref  string // "" (from the caller's environment), "ssm:..." or "secretsmanager:..."
	Pos  Pos
}

// Form is the form of a map.
type Form string

// The forms of a map.
const (
	FormGlob   Form = "glob"
	FormItems  Form = "items"
	FormRange  Form = "range"
	FormLines  Form = "lines"
	FormCSV    Form = "csv"
	FormJSONL  Form = "jsonl"
	FormMatrix Form = "matrix"
	FormZip    Form = "zip"
	FormFrom   Form = "from"
)

// Map says what a function fans out over.
type Map struct {
	Form Form
	Pos  Pos

	Glob, Exclude []*Template // glob: patterns
	AllowEmpty    bool
	RequesterPays bool // glob, lines, csv, jsonl on S3
	Anonymous     bool // the same: unsigned requests for public buckets

	Items *Value    // items: a list (of values), or one template that yields a list
	Range *Value    // range: n, a list of 2 or 3, or a template that yields one of these
	Path  *Template // lines, csv, jsonl

	Parts []NamedMap // matrix, zip: in file order
	From  string     // from: the function
	// Barrier: this from: waits for the whole function (see Function.Streams).
	Barrier bool

	Where *Expr
	Limit int    // -1: none
	Sort  string // "", name, size, modified, none
	Desc  bool
	Batch Batch
}

func (m *Map) froms() []string {
	if m == nil {
		return nil
	}
	if m.Form == FormFrom {
		return []string{m.From}
	}
	var all []string
	for _, p := range m.Parts {
		all = append(all, p.Map.froms()...)
	}
	return all
}

// NamedMap is one dimension of a matrix or zip.
type NamedMap struct {
	Name string
	Map  *Map
}

// Batch groups several items into one task; the zero Batch does not.
type Batch struct {
	Items int   // at most; 0: no limit by count
	Bytes int64 // at most, unless one item alone is larger; 0: no limit by size
}

// Cache is the cache setting of a function that has one.
type Cache struct {
	Files []string // further files (paths or patterns, relative to the pipeline file) that belong to the code
}

// Retries says which failed attempts are repeated.
type Retries struct {
	Max       int           // own failures; default 0
	When      *Expr         // nil: always
	Delay     time.Duration // default 1s
	Backoff   string        // constant, exponential (default), fibonacci
	MaxDelay  time.Duration // default 1m
	Jitter    float64       // share of the delay; default 0.1
	Machine   int           // lost machines; default 10
	OOMMax    int           // out of memory; default 0
	OOMMemory float64       // factor on memory per retry; default 2
}

// Share is a number or a percentage of tasks.
type Share struct {
	N         int     // if it is a number
	Percent   float64 // if IsPercent: 5 is 5 %
	IsPercent bool
}

// Of is the number for a count of tasks: floor(p x tasks) for percentages.
func (s Share) Of(tasks int) int {
	if s.IsPercent {
		return int(s.Percent*float64(tasks)/100 + 1e-9)
	}
	return s.N
}

// Limits are the limits of a run.
type Limits struct {
	Cost       float64 // dollars; meaningful if HasCost
	HasCost    bool
	NoCost     bool          // "none"
	Duration   time.Duration // 0: none
	Machines   int           // 0: none
	VCPUs      int           // 0: none
	Unattended time.Duration // default 15m
}

// Schedule is one cron entry.
type Schedule struct {
	Pos      Pos
	Cron     string
	Timezone string // default UTC
	Overlap  string // skip (default), queue, replace, allow
	Catchup  string // none, latest (default), all
	Deadline time.Duration
	Jitter   time.Duration
	Params   map[string]string // source text, as --param gives it
	Paused   bool
}

// Notify is one notification target.
type Notify struct {
	On      []string // failure, success, missed
	Webhook *Template
	Secret  string // the secret that holds the address; "": Webhook is it
	Format  string // slack or json (default)
}

// Hardware is what a function's machines are like.
type Hardware struct {
	Set                                               bool // the function (or defaults) has a hardware key
	VMTypes                                           []string
	CPU                                               [2]float64 // lo, hi; 0, 0: not given
	Memory                                            [2]int64   // bytes, lo, hi (±10 % applied to a single size); 0, 0: not given
	GPU                                               int        // count
	GPUModel                                          string
	ARM                                               bool
	DiskGB                                            int
	Region                                            string
	SpotPolicy                                        string        // on-demand, spot, spot_with_fallback (default)
	Workers                                           [2]int        // min, max; default 0, 500
	Threads                                           int           // tasks at a time per machine; 0: not given; -1: one per CPU
	IdleTimeout                                       time.Duration // default 10m
	KeepAlive                                         time.Duration // default 30s
	MaxLife                                           time.Duration // default 24h
	Tags                                              map[string]string
	AMI, Subnet, SecurityGroup, InstanceProfile, Name string
}

// Software is what a machine needs installed.
type Software struct {
	Container    string
	Python       string
	Requirements string
	UV           string
	Conda        string
	Apt          []string
	Setup        string
}

// Files says which files travel with the work.
type Files struct {
	Include, Exclude []string
}

// NeedsInfo is what expressions see of a function in needs. Results are
// fetched when an expression asks for them.
type NeedsInfo struct {
	Status string // succeeded, failed, skipped, cancelled
	Count  int    // tasks
	Failed int    // failed tasks
	Mapped bool
	// BehindFailure: it was skipped because a function before it failed.
	BehindFailure bool
	Results       func() ([]any, error) // in index order, nil where a tolerated item failed
	// Without says which tasks ended without a result (failed, skipped): their
	// nil is no value. nil: not known.
	Without func(index int) bool
}

// RunInfo is what expressions see of the run.
type RunInfo struct {
	ID        string
	Started   time.Time
	Scheduled time.Time // zero when not started by a schedule
}

// FailureInfo is what retries.when sees of a failed attempt.
type FailureInfo struct {
	ExitCode int    // 128+n after signal n, 124 after a timeout
	Signal   string // "SIGKILL" or ""
	Cause    string
	Attempt  int
	Stderr   string // its last 4 KiB
}

// Env holds the names that an expression may use. Names that are not
// available where it stands (item outside a map, needs in a map that is
// static) are nil.
type Env struct {
	Params  map[string]any
	Env     map[string]string // the pipeline's env, never the caller's
	Item    any               // see HasItem
	HasItem bool
	Index   int
	Count   int
	Run     *RunInfo
	Needs   map[string]*NeedsInfo
	Failure *FailureInfo
}

// ItemOf is a short way to an Env for where: item and index, with params.
func ItemOf(params map[string]any, env map[string]string, item any, index int) *Env {
	if f, ok := item.(*value.File); ok && f == nil {
		item = nil
	}
	return &Env{Params: params, Env: env, Item: item, HasItem: true, Index: index}
}
