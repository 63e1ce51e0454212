package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/github"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

func (g *githubStep) plan(ctx context.Context) error {
	a := g.app
	o, err := g.options()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	shown := newApp(a.stdin, &text, a.stderr, a.environ)
	shown.storeFlag = a.storeFlag
	plan := &planOptions{app: shown, ApplyOptions: o}
	plan.prices.ApplyOptions, plan.prices.Assume = o, assumed
	if err := runPlan(ctx, plan); err != nil {
		return err
	}
	end := github.Group(a.messages, "plan of "+filepath.Base(g.file))
	quiet := github.Quiet(a.messages)
	fmt.Fprint(a.messages, text.String())
	quiet()
	end()
	body := "### 🗺️ Plan of " + github.Escape(filepath.Base(g.file)) + "\n\n" + github.Fence(planText(text.String()), maxComment)
	g.summarize(body)
	return g.outputs(map[string]string{"status": "planned", "summary": body})
}

// maxComment leaves room for words around a plan in a comment, which may have
// 65536 characters.
const maxComment = 60 << 10

// planText aligns the table of a plan, which has tabs in a pipe.
func planText(text string) string {
	var t ui.Table
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		if i > 0 && len(cells) == 1 {
			break
		}
		t.Rows = append(t.Rows, cells)
	}
	if len(t.Rows) == 0 || len(t.Rows[0]) == 1 {
		return text
	}
	t.Header = make([]string, len(t.Rows[0]))
	var b bytes.Buffer
	if t.Write(&b, ui.Style{}, 0) != nil {
		return text
	}
	return strings.TrimLeft(b.String(), "\n") + strings.Join(lines[len(t.Rows):], "\n")
}
