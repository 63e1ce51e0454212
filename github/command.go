package github

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// MaxAnnotations is how many annotations of a step GitHub shows.
const MaxAnnotations = 10

// Annotation is a remark on a line of a file. Line 0: on none.
type Annotation struct {
	Level     string // error, warning, notice
	File      string // relative to the repository
	Line, Col int
	Title     string
	Message   string
}

// String is the workflow command.
func (a Annotation) String() string {
	var props []string
	add := func(name, value string) { props = append(props, name+"="+escapeProperty(value)) }
	if a.File != "" {
		add("file", a.File)
	}
	if a.Line > 0 {
		add("line", fmt.Sprint(a.Line))
	}
	if a.Col > 0 {
		add("col", fmt.Sprint(a.Col))
	}
	if a.Title != "" {
		add("title", a.Title)
	}
	s := "::" + a.Level
	if len(props) > 0 {
		s += " " + strings.Join(props, ",")
	}
	return s + "::" + escapeData(a.Message)
}

// escapeData keeps text from ending a workflow command or being another one.
func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

// Annotate writes annotations: at most MaxAnnotations, the last of them saying
// how many there are beyond that.
func Annotate(w io.Writer, list []Annotation) error {
	if over := len(list) - MaxAnnotations; over > 0 {
		list = append(list[:MaxAnnotations-1:MaxAnnotations-1], Annotation{Level: list[MaxAnnotations-1].Level,
			Title: "and more", Message: fmt.Sprintf("%d more of these; the step summary has them", over+1)})
	}
	for _, a := range list {
		if _, err := fmt.Fprintln(w, a); err != nil {
			return err
		}
	}
	return nil
}

// Problems are annotations for what is wrong with a pipeline file.
func Problems(ps spec.Problems, path func(string) string) []Annotation {
	var list []Annotation
	for _, p := range ps {
		level := "error"
		if p.Warning {
			level = "warning"
		}
		list = append(list, Annotation{Level: level, File: path(p.Pos.File), Line: p.Pos.Line, Col: p.Pos.Col, Message: p.Message})
	}
	return list
}

// Group writes the start of a fold in the log, and returns what ends it.
func Group(w io.Writer, title string) (end func()) {
	fmt.Fprintf(w, "::group::%s\n", escapeData(title))
	return func() { fmt.Fprintln(w, "::endgroup::") }
}

// Mask hides a value, and each of its lines, in everything that the job prints
// from now on. Lines of less than four characters are not worth it: they would
// hide half of the log.
func Mask(w io.Writer, value string) {
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); len(line) >= 4 {
			fmt.Fprintf(w, "::add-mask::%s\n", escapeData(line))
		}
	}
}

// Quiet keeps what is written through it from being taken for workflow
// commands: programs print what they like.
func Quiet(w io.Writer) (end func()) {
	token := strings.ToLower(rand.Text())
	fmt.Fprintf(w, "::stop-commands::%s\n", token)
	return func() { fmt.Fprintf(w, "::%s::\n", token) }
}

// Output is a line (or more) for the file of outputs or of environment
// variables, whatever the value holds.
func Output(name, value string) string {
	end := "end-" + strings.ToLower(rand.Text())
	return fmt.Sprintf("%s<<%s\n%s\n%s\n", name, end, value, end)
}
