package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/term"

	"github.com/coiled-jobs/coiled-jobs/ui"
)

// app is what all commands share: the streams, the environment and what is
// known about the terminal.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	storeFlag      string
	hinted         string // how commands begin that people are told to type; "": by the program's name

	// messages is standard error behind a lock; while a live view is drawn,
	// lines written to it appear above the view.
	messages *messages

	coordinating atomic.Bool // a run lives in this process: ending it takes its time
	leaveOnTerm  atomic.Bool
	leaving      atomic.Pointer[string] // the run that --on-term leave would leave
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, environ []string) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: environ, messages: &messages{w: stderr}}
}

// getenv is the value of a variable of the caller's environment; the last one counts.
func (a *app) getenv(name string) string {
	for i := len(a.environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(a.environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// messages is a writer that can be redirected to a live view.
type messages struct {
	mu     sync.Mutex
	w      io.Writer
	screen *ui.Screen
}

// Write writes p to standard error, above the live view if there is one.
func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.screen != nil {
		return m.screen.Write(p)
	}
	return m.w.Write(p)
}

func (m *messages) attach(s *ui.Screen) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.screen = s
}

// restore ends the live view, whoever draws it.
func (m *messages) restore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.screen != nil {
		_ = m.screen.End() // the terminal is gone: there is nothing to restore
		m.screen = nil
	}
}

// isTerminal says whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size is the size of the terminal behind a stream; 80 x 24 where it does not say.
func size(stream any) (width, height int) {
	if f, ok := stream.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return 80, 24
}

// style is how to paint what goes to a stream: plain unless it is a terminal
// that wants colours.
func (a *app) style(stream any) ui.Style {
	return ui.Style{Colour: isTerminal(stream) && !a.plain(), ASCII: a.ascii()}
}

// plain says that the environment asks for lines without colours or movement.
func (a *app) plain() bool {
	if a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" {
		return true
	}
	switch strings.ToLower(a.getenv("CI")) {
	case "", "0", "false":
		return false
	}
	return true
}

// ascii says that the locale, as far as it is set, has no UTF-8.
func (a *app) ascii() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(a.getenv(name)); v != "" {
			return !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
		}
	}
	return false
}

// width is the number of columns of a stream, 0 if it is not a terminal.
func width(stream any) int {
	if !isTerminal(stream) {
		return 0
	}
	w, _ := size(stream)
	return w
}

// printJSON writes one JSON document to standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable writes a table: aligned on a terminal, tab-separated in a pipe.
func (a *app) printTable(t *ui.Table) error {
	if !isTerminal(a.stdout) {
		return t.WriteTSV(a.stdout)
	}
	return t.Write(a.stdout, a.style(a.stdout), width(a.stdout))
}
