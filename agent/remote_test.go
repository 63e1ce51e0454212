//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// What goes before commands starts scripts, commands and interpreters alike, and
// finds their programs by itself.
func TestWrap(t *testing.T) {
	t.Parallel()
	env, err := exec.LookPath("env")
	if err != nil {
		t.Skip("there is no env")
	}
	w := newWorld(t, `
functions:
  script: {run: 'echo "$WRAPPED" > "$COILED_JOBS_RESULT"'}
  command: {command: [sh, -c, 'echo "$WRAPPED" > "$COILED_JOBS_RESULT"']}
  local: {command: [bin/x]}
  python: {python: "mod:f"}
  none: {command: [no-such-program]}
`)
	w.file("bin/x", "#!/bin/sh\necho \"$WRAPPED\" > \"$COILED_JOBS_RESULT\"\n")
	w.file("mod.py", "import os\ndef f(): return os.environ['WRAPPED']\n")
	w.run.Wrap = []string{env, "WRAPPED=yes"}
	fns := []string{"script", "command", "local"}
	if _, err := exec.LookPath("python3"); err == nil {
		fns = append(fns, "python")
	}
	for _, fn := range fns {
		if o := w.do(fn); o.Status != task.Succeeded || w.result(o) != `"yes"` {
			t.Errorf("%s: %v %s %s %s", fn, o.Status, w.result(o), o.Message, o.Stderr)
		}
	}
	if o := w.do("none"); o.Status != task.Failed || o.Exit != 127 {
		t.Errorf("a program that is not there: %v, exit %d", o.Status, o.Exit)
	}
}

// What a task reads is put in place before it starts; a task whose item cannot
// be had fails alone.
func TestPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "functions:\n  f:\n    map: {items: [a, b, c]}\n    run: cat item-$COILED_JOBS_INDEX > \"$COILED_JOBS_RESULT\"\n  g: {run: 'true'}\n")
	w.items["f"] = texts("a", "b", "c")
	w.run.Place = func(_ context.Context, fn string, index int, item any) error {
		if fn != "f" {
			t.Errorf("%s has no items", fn)
		}
		if item == "b" {
			return errors.New("it is gone")
		}
		return os.WriteFile(filepath.Join(w.dir, fmt.Sprintf("item-%d", index)), []byte(fmt.Sprint("is ", item)), 0o600)
	}
	w.work(t.Context(), w.all("f", "g")...)
	for i, want := range []string{`"is a"`, "", `"is c"`} {
		o := w.get("f", i)
		if i == 1 {
			if o.Cause != task.CauseSetup || !strings.Contains(o.Message, "put the item of the task in place: it is gone") {
				t.Errorf("task 1: %v %s", o.Cause, o.Message)
			}
			continue
		}
		if w.result(o) != want {
			t.Errorf("task %d: %s %s", i, w.result(o), o.Message)
		}
	}
}
