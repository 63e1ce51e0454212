package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/github"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// githubInput begins the names of the variables in which action.yml hands over
// its inputs. They never become part of a command line.
const githubInput = "COILED_JOBS_INPUT_"

// newGithubCmd is what action.yml calls; everything it is told is in the
// environment. All it prints goes to standard error: the runner reads both
// streams, and the order of what is on different ones is not certain.
func newGithubCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "__github run|cleanup", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g := &githubStep{app: a}
			if args[0] == "cleanup" {
				return g.cleanup(cmd.Context())
			}
			return g.run(cmd.Context())
		},
	}
}

// githubStep is a step of a job.
type githubStep struct {
	app  *app
	file string // as the input names it
}

func (g *githubStep) input(name string) string {
	return strings.TrimSpace(g.app.getenv(githubInput + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))))
}

func (g *githubStep) flag(name string) (bool, error) {
	switch v := strings.ToLower(g.input(name)); v {
	case "", "false", "no", "0":
		return false, nil
	case "true", "yes", "1":
		return true, nil
	default:
		return false, usagef("%s: %q is neither true nor false", name, v)
	}
}

func (g *githubStep) run(ctx context.Context) error {
	a := g.app
	if g.file = g.input("file"); g.file == "" {
		g.file = "pipeline.yaml"
	}
	if s := g.input("store"); s != "" {
		a.storeFlag = s
	}
	var err error
	switch command := g.input("command"); command {
	case "", "apply":
		err = g.apply(ctx)
	case "plan":
		err = g.plan(ctx)
	case "wait":
		err = g.wait(ctx)
	default:
		err = usagef("command: %q; there are apply, plan and wait", command)
	}
	return g.tell(err)
}

// tell makes annotations of what kept the run from starting.
func (g *githubStep) tell(err error) error {
	var problems spec.Problems
	var exit *exitError
	switch {
	case err == nil, errors.As(err, &exit) && exit.err == nil:
		return err
	case errors.As(err, &problems):
		_ = github.Annotate(g.app.messages, github.Problems(problems, g.inRepository))
		g.summarize("### ❌ " + filepath.Base(g.file) + " has mistakes\n\n" + github.Fence(message(err), github.MaxSummary/2))
	default:
		_ = github.Annotate(g.app.messages, []github.Annotation{{Level: "error", Title: program, Message: err.Error()}})
		g.summarize("### ❌ " + filepath.Base(g.file) + " could not run\n\n" + github.Fence(message(err), github.MaxSummary/2))
	}
	return err
}

// inRepository is a path as GitHub knows it.
func (g *githubStep) inRepository(path string) string {
	root := g.app.getenv("GITHUB_WORKSPACE")
	abs, err := filepath.Abs(path)
	if err != nil || root == "" {
		return path
	}
	rel, err := filepath.Rel(root, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.ToSlash(rel)
}

// selection is the inputs as flags of apply and plan.
func (g *githubStep) options() (o engine.ApplyOptions, err error) {
	o = engine.ApplyOptions{File: g.file, Cloud: g.input("cloud")}
	if !slices.Contains([]string{"", "local", "aws"}, o.Cloud) {
		return o, usagef("cloud: %q; write local or aws", o.Cloud)
	}
	var params []string
	for line := range strings.Lines(g.input("params")) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
			params = append(params, strings.TrimLeft(line, " \t"))
		}
	}
	if o.Params, err = parseParams(params); err != nil {
		return o, err
	}
	if m := g.input("max-cost"); m != "" {
		if o.MaxCost, err = parseDollars(m); err != nil {
			return o, err
		}
	}
	return o, checkFile(o.File)
}

// key names the run of this step in this run of the workflow: "re-run failed
// jobs" joins it, or goes on with it. Other parameters are another run.
func (g *githubStep) key(o engine.ApplyOptions) string {
	if key := g.input("key"); key != "" {
		return key
	}
	a := g.app
	if a.getenv("GITHUB_RUN_ID") == "" {
		return ""
	}
	params, err := json.Marshal(o.Params) // keys are sorted
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s %q", g.inRepository(o.File), o.Cloud, params, g.input("matrix")))
	return strings.Join([]string{"github", a.getenv("GITHUB_REPOSITORY"), a.getenv("GITHUB_RUN_ID"), a.getenv("GITHUB_JOB"),
		a.getenv("GITHUB_ACTION"), hex.EncodeToString(sum[:6])}, "/")
}

func (g *githubStep) apply(ctx context.Context) error {
	a := g.app
	o, err := g.options()
	if err != nil {
		return err
	}
	if o.Detach, err = g.flag("detach"); err != nil {
		return err
	}
	o.Key = g.key(o)
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	p, err := e.Plan(ctx, o)
	if err != nil {
		return err
	}
	for _, f := range p.Pipeline.Functions {
		for _, s := range f.Secrets {
			github.Mask(a.messages, a.getenv(s.Name))
		}
	}
	_ = github.Annotate(a.messages, github.Problems(p.Warnings, g.inRepository))
	h, err := e.Apply(ctx, p, o)
	if err != nil {
		return err
	}
	g.remember(h.Run)
	if o.Detach {
		r := h.Snapshot()
		r.Run, r.Pipeline = h.Run, p.Pipeline.Name
		if r.Status == "" {
			r.Status = executor.RunRunning
		}
		return g.end(&github.Run{Report: r, Pipeline: p.Pipeline, File: g.inRepository(g.file), Store: e.Store.URL(),
			Notes: []string{"It goes on by itself; collect it with command: wait and run: " + h.Run}})
	}
	return g.follow(ctx, e, h)
}

// wait follows a run that an earlier job has detached.
func (g *githubStep) wait(ctx context.Context) error {
	e, run, err := g.app.findRun(ctx, g.input("run"))
	if err != nil {
		return err
	}
	h, err := e.Attach(ctx, run)
	if err != nil {
		return err
	}
	return g.follow(ctx, e, h)
}

// follow shows a run in a fold of the log, and then what became of it.
func (g *githubStep) follow(ctx context.Context, e *engine.Engine, h *engine.Handle) error {
	a := g.app
	endGroup := github.Group(a.messages, program+" "+h.Run)
	quiet := github.Quiet(a.messages)
	w := &waiting{}
	if g.input("outputs") == "false" {
		w.noDownload = true
	}
	err := a.attend(ctx, e, h, w)
	quiet()
	endGroup()
	var exit *exitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	told := context.WithoutCancel(ctx)
	v, verr := executor.OpenView(told, e.Store, h.Run)
	if verr != nil {
		return errors.Join(err, verr)
	}
	r, verr := v.Report(told)
	if verr != nil {
		return errors.Join(err, verr)
	}
	groups := groupView(told, v)
	run := &github.Run{Report: r, Groups: groups.Groups(), Grouped: groups.Total(), Pipeline: v.Pipeline(),
		File: g.inRepository(v.Header.File), Store: e.Store.URL(), Key: v.Header.Key}
	if h.Joined != "" {
		run.Notes = append(run.Notes, h.Joined)
	}
	return errors.Join(err, g.end(run))
}

// end writes the summary, the annotations and the outputs of the step.
func (g *githubStep) end(run *github.Run) error {
	g.summarize(run.Summary(g.room()))
	if err := github.Annotate(g.app.messages, run.Annotations()); err != nil {
		return err
	}
	r := &run.Report
	return g.outputs(map[string]string{"run": r.Run, "status": string(r.Status), "cost": fmt.Sprintf("%.4f", r.CostUSD),
		"summary": run.Line(), "results": strings.TrimSuffix(run.Store, "/") + "/" + executor.Prefix(r.Run), "store": run.Store})
}

func (g *githubStep) outputs(values map[string]string) error {
	var b strings.Builder
	for _, name := range []string{"run", "status", "cost", "summary", "results", "store"} {
		b.WriteString(github.Output(name, values[name]))
	}
	return appendFile(g.app.getenv("GITHUB_OUTPUT"), b.String())
}

// room is how much may still be added to the summary of the step.
func (g *githubStep) room() int {
	room := github.MaxSummary
	if info, err := os.Stat(g.app.getenv("GITHUB_STEP_SUMMARY")); err == nil {
		room -= int(info.Size())
	}
	return max(0, room-1024)
}

// summarize adds to the step's summary. That it cannot be shown is no reason
// to fail.
func (g *githubStep) summarize(text string) {
	if len(text) > g.room() {
		return
	}
	if err := appendFile(g.app.getenv("GITHUB_STEP_SUMMARY"), text+"\n"); err != nil {
		fmt.Fprintf(g.app.messages, "warning: the step summary: %v\n", err)
	}
}

func appendFile(path, text string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (g *githubStep) plan(ctx context.Context) error {
	a := g.app
	o, err := g.options()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	shown := newApp(a.stdin, &text, a.stderr, a.environ)
	shown.storeFlag = a.storeFlag
	if err := runPlan(ctx, &planOptions{app: shown, ApplyOptions: o}); err != nil {
		return err
	}
	end := github.Group(a.messages, "plan of "+filepath.Base(g.file))
	fmt.Fprint(a.messages, text.String())
	end()
	body := "### 🗺️ Plan of " + filepath.Base(g.file) + "\n\n" + github.Fence(planText(text.String()), 60<<10) // a comment takes 64 KiB
	g.summarize(body)
	return g.outputs(map[string]string{"status": "planned", "summary": body})
}

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

// remembered is the file that tells the clean-up which run the step started.
func (g *githubStep) remembered() string {
	dir := g.app.getenv("RUNNER_TEMP")
	if dir == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(g.app.getenv(githubInput + "STEP")))
	return filepath.Join(dir, program+"-"+hex.EncodeToString(sum[:6]))
}

func (g *githubStep) remember(run string) {
	if path := g.remembered(); path != "" {
		_ = os.WriteFile(path, []byte(run+"\n"+g.app.storeFlag), 0o600)
	}
}

// cleanup cancels the run of the step if it is still going on: the step was
// cancelled, ran out of time, or was killed. A detached run is left alone.
func (g *githubStep) cleanup(ctx context.Context) error {
	a := g.app
	b, err := os.ReadFile(g.remembered())
	if err != nil {
		return nil //nolint:nilerr // nothing was started
	}
	if detach, _ := g.flag("detach"); detach {
		return nil
	}
	run, store, _ := strings.Cut(string(b), "\n")
	if store != "" {
		a.storeFlag = store
	}
	e, run, err := a.findRun(ctx, run)
	if err != nil {
		return err
	}
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return err
	}
	r, err := v.Report(ctx)
	if err != nil || r.Status.Final() {
		return err
	}
	r, err = e.Cancel(ctx, run, cancelWait)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.messages, "run %s was still going on: %s\n", run, r.Status)
	return nil
}
