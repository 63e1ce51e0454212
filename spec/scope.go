package spec

import "slices"

// Scope says which names an expression may use where it stands. Names outside
// it are problems when the expression is compiled.
type Scope struct {
	// Params maps the declared parameters to their types (string, int, float,
	// bool). nil: not known, any name is accepted.
	Params map[string]string
	// Env is the names of the pipeline's env that are set here; nil: any name.
	// NoEnv forbids env altogether.
	Env   []string
	NoEnv bool
	// Needs is the functions whose results may be used. NeedsAll, if given, is
	// every function of the pipeline: for better advice about one that is not
	// in needs.
	Needs    []string
	NeedsAll []string
	// NeedsMapped says of functions in Needs whether they are mapped; one that is
	// missing may be either.
	NeedsMapped map[string]bool

	Item      bool   // item exists
	ItemShape *Shape // what is known about it; nil: nothing
	Index     bool
	Count     bool
	Run       bool
	Failure   bool // exit_code, signal, cause, attempt, stderr (retries.when)
	Status    bool // success(), failure(), always() (if)

	compiled int // expressions compiled so far, see maxExprs
}

// Shape is what is known about an item before there is one.
type Shape struct {
	File bool              // a file
	Text bool              // a line: text
	Int  bool              // a whole number
	Row  *Pos              // a mapping whose keys the file that is named there will tell
	Keys map[string]*Shape // a mapping with exactly these keys
	List *Shape            // a batch: a list of these
}

// Refs says which names an expression, template, value or script uses.
type Refs struct {
	Params  []string // sorted
	Needs   []string // sorted
	EnvVars []string // sorted; names of env.X
	Env     bool     // env at all
	Item    bool
	Index   bool
	Count   bool
	Run     bool
	Failure bool
	Status  bool // success(), failure() or always()

	NeedStatus []string // sorted; functions whose needs.<fn>.status is looked at
	NeedFailed []string // sorted; needs.<fn>.failed
	Columns    []Column // in no order
}

// Column is a key that an expression takes from the rows of a CSV file.
type Column struct {
	Name string
	Map  Pos // the map that reads the file
	Pos  Pos
}

// Static says that nothing in it belongs to a task, a run or another function:
// params and env at most.
func (r Refs) Static() bool {
	return !r.Item && !r.Index && !r.Count && !r.Run && !r.Failure && !r.Status && len(r.Needs) == 0
}

// Merge is the names of both.
func (r Refs) Merge(o Refs) Refs {
	return Refs{
		Params:  mergeNames(r.Params, o.Params),
		Needs:   mergeNames(r.Needs, o.Needs),
		EnvVars: mergeNames(r.EnvVars, o.EnvVars),
		Env:     r.Env || o.Env,
		Item:    r.Item || o.Item,
		Index:   r.Index || o.Index,
		Count:   r.Count || o.Count,
		Run:     r.Run || o.Run,
		Failure: r.Failure || o.Failure,
		Status:  r.Status || o.Status,

		NeedStatus: mergeNames(r.NeedStatus, o.NeedStatus),
		NeedFailed: mergeNames(r.NeedFailed, o.NeedFailed),
		Columns:    mergeColumns(r.Columns, o.Columns),
	}
}

func mergeColumns(a, b []Column) []Column {
	if len(b) == 0 {
		return a
	}
	return append(slices.Clip(a), b...)
}

func mergeNames(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
