package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/github"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// newGithubCmd is what action.yml calls; everything it is told is in the
// environment. All it prints goes to standard error: the runner reads both
// streams, and the order of what is on different ones is not certain.
func newGithubCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "__github run|cleanup", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g := newGithubStep(a)
			switch args[0] {
			case "run":
				return g.tell(cmd.Context(), g.run(cmd.Context()))
			case "cleanup":
				return g.tell(cmd.Context(), g.cleanup(cmd.Context()))
			}
			return usagef("__github %s: there are run and cleanup", args[0])
		},
	}
}

// githubStep is a step of a job.
type githubStep struct {
	app      *app
	given    map[string]string // what action.yml hands over
	file     string            // as the input names it
	warnings []github.Annotation
}

// newGithubStep takes what action.yml hands over out of the environment, which
// tasks inherit.
func newGithubStep(a *app) *githubStep {
	g := &githubStep{app: a, given: map[string]string{}}
	mine := map[string]bool{githubMemory: true}
	for _, name := range slices.Concat(githubInputs, githubOthers) {
		mine[inputVariable(name)] = true
	}
	a.environ = slices.DeleteFunc(slices.Clone(a.environ), func(kv string) bool {
		name, value, _ := strings.Cut(kv, "=")
		if mine[name] {
			g.given[name] = value
		}
		return mine[name]
	})
	if g.file = g.input("file"); g.file == "" {
		g.file = "pipeline.yaml"
	}
	if s := g.input("store"); s != "" {
		a.storeFlag = s
	}
	return g
}

func (g *githubStep) run(ctx context.Context) error {
	command := g.input("command")
	if command == "" {
		command = "apply"
		if strings.HasPrefix(g.app.getenv("GITHUB_EVENT_NAME"), "pull_request") {
			command = "plan" // what anybody may ask for rents nothing
		}
	}
	switch command {
	case "apply":
		return g.apply(ctx)
	case "plan":
		return g.plan(ctx)
	case "wait":
		return g.wait(ctx)
	case "cancel":
		return g.cancel(ctx)
	}
	return usagef("command: %q; there are apply, plan, wait and cancel", command)
}

// tell makes annotations of what kept the run from starting, or from being told
// of.
func (g *githubStep) tell(ctx context.Context, err error) error {
	var problems spec.Problems
	var exit *exitError
	if err == nil || errors.As(err, &exit) && exit.err == nil {
		return err
	}
	if code, _ := exitCode(ctx, err); code == exitCancelled {
		return err // GitHub says so itself
	}
	list, title := []github.Annotation{{Level: "error", Title: program, Message: err.Error()}}, "could not run"
	if errors.As(err, &problems) {
		list, title = github.Problems(problems, g.inRepository), "has mistakes"
	}
	g.annotate(list)
	g.summarize("### ❌ " + github.Escape(filepath.Base(g.file)) + " " + title + "\n\n" + github.Fence(message(err), github.MaxSummary/2))
	return err
}

// annotate writes the annotations of the step, once: errors first.
func (g *githubStep) annotate(list []github.Annotation) {
	list = append(list, g.warnings...)
	g.warnings = nil
	slices.SortStableFunc(list, func(a, b github.Annotation) int { return strings.Compare(a.Level, b.Level) }) // error, notice, warning
	_ = github.Annotate(g.app.messages, list)                                                                  // standard error is gone: nobody reads them
}

// warn keeps warnings for the end, when it is known how many annotations are left.
func (g *githubStep) warn(ps spec.Problems, texts []string) {
	g.app.warn(ps)
	g.warnings = append(g.warnings, github.Problems(ps, g.inRepository)...)
	for _, text := range texts {
		fmt.Fprintln(g.app.messages, "warning: "+ui.Clean(text))
		g.warnings = append(g.warnings, github.Annotation{Level: "warning", File: g.inRepository(g.file), Message: text})
	}
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

func (g *githubStep) apply(ctx context.Context) error {
	a := g.app
	o, err := g.options()
	if err != nil {
		return err
	}
	if o.Detach, err = g.flag("detach", false); err != nil {
		return err
	}
	download, err := g.flag("outputs", true)
	if err != nil {
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
	g.warn(p.Warnings, p.Plan.Warnings)
	if o.Detach && p.Pipeline.Cloud != "aws" {
		return usagef("detach: this run is on the runner itself and would end with the job; leave detach out, or say cloud: aws")
	}
	if e, err = e.For(ctx, p.Pipeline.Cloud); err != nil {
		return err
	}
	quoted := false
	o.Confirm = func(q *engine.Quote) error {
		a.tellQuote(p, q)
		quoted = true
		return nil
	}
	m := memory{Store: e.Store.URL(), Key: o.Key, Shared: g.input("key") != "", Began: time.Now()}
	g.remember(m)
	h, err := e.Apply(ctx, p, o)
	if err != nil {
		if code, _ := exitCode(ctx, err); code == exitUsage {
			m.Told = true // nothing was begun; a run with this key is not this one
			g.remember(m)
		}
		return err
	}
	m.Run = h.Run
	m.Others = h.Elsewhere() && m.Shared
	g.remember(m)
	if o.Detach {
		r := h.Snapshot()
		r.Run, r.Pipeline = h.Run, p.Pipeline.Name
		if !r.Status.Final() {
			r.Status = executor.RunRunning
		}
		run := &github.Run{Report: r, Pipeline: p.Pipeline, File: g.inRepository(g.file), Store: e.Store.URL(), Key: o.Key}
		if h.Joined != "" {
			run.Notes = append(run.Notes, h.Joined)
		}
		if !r.Status.Final() {
			run.Notes = append(run.Notes, "It goes on by itself. Collect it in a later job with command: wait, run: "+h.Run+", store: "+run.Store)
		}
		if err := g.end(run); err != nil {
			return err
		}
		m.Told = true
		g.remember(m)
		return exitOfDetached(r.Status)
	}
	if p.Pipeline.Cloud == "aws" {
		tell := &applyOptions{app: a, ApplyOptions: o}
		defer afterLaunch(ctx, h, func(ctx context.Context) {
			if quoted {
				tell.tell(ctx, e, p)
			}
			stop := a.sweepQuietly(ctx, e)
			<-ctx.Done()
			stop()
		})()
	}
	return g.follow(ctx, e, h, download, func() { m.Told = true; g.remember(m) })
}

// exitOfDetached is the exit code of a step that does not wait: a run that goes
// on is as it should be.
func exitOfDetached(status executor.RunStatus) error {
	if !status.Final() {
		return nil
	}
	return exitOf(status)
}

// find looks up the run that the inputs name.
func (g *githubStep) find(ctx context.Context) (*engine.Engine, string, error) {
	a, ref, key := g.app, g.input("run"), g.input("key")
	if ref == "" && key == "" {
		return nil, "", usagef("command %s: name the run: with run, such as ${{ needs.start.outputs.run }}, or with the key it was started with", g.input("command"))
	}
	look := func(e *engine.Engine) (*engine.Engine, string, error) {
		if ref == "" {
			run, err := e.ByKey(ctx, key)
			return e, run, err
		}
		run, store, err := e.Find(ctx, ref)
		if err != nil {
			return nil, "", err
		}
		found := *e
		found.Store = store
		return &found, run, nil
	}
	e, err := a.engine(ctx)
	if err != nil {
		return nil, "", err
	}
	there, run, err := look(e)
	if err == nil || a.storeFlag != "" || a.getenv("COILED_JOBS_STORE") != "" {
		return there, run, err
	}
	// Another runner started it: it is in the account's bucket.
	if account, storeErr := e.For(ctx, "aws"); storeErr == nil {
		if there, run, err = look(account); err == nil {
			return there, run, nil
		}
	}
	return nil, "", usagef("%s; name the store it is in: store, such as ${{ needs.start.outputs.store }}", strings.TrimSpace(err.Error()))
}

// wait follows a run that an earlier job has detached.
func (g *githubStep) wait(ctx context.Context) error {
	download, err := g.flag("outputs", true)
	if err != nil {
		return err
	}
	e, run, err := g.find(ctx)
	if err != nil {
		return err
	}
	h, err := e.Attach(ctx, run)
	if err != nil {
		return err
	}
	return g.follow(ctx, e, h, download, func() {})
}

// cancel ends a run, whoever started it.
func (g *githubStep) cancel(ctx context.Context) error {
	e, run, err := g.find(ctx)
	if err != nil {
		return err
	}
	r, err := e.Cancel(ctx, run, cleanupWait)
	if err != nil {
		return err
	}
	if !r.Status.Final() {
		return fmt.Errorf("run %s was asked to end, but has not after %s; its machines end by their own limits", run, cleanupWait)
	}
	fmt.Fprintf(g.app.messages, "run %s: %s\n", run, r.Status)
	shown, err := g.recorded(ctx, e, run)
	if err != nil {
		return err
	}
	return g.end(shown)
}

// follow shows a run in a fold of the log, and then what became of it.
func (g *githubStep) follow(ctx context.Context, e *engine.Engine, h *engine.Handle, download bool, told func()) error {
	a := g.app
	after := context.WithoutCancel(ctx)
	w := &waiting{noDownload: !download}
	here, err := g.outputsHere(after, e, h.Run)
	if err != nil {
		return err
	}
	if here != "" {
		w.noDownload = true // that is where they would go
	}
	endGroup := github.Group(a.messages, program+" "+h.Run)
	quiet := github.Quiet(a.messages)
	err = a.attend(ctx, e, h, w)
	quiet()
	endGroup()
	var exit *exitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if here != "" && download && exit == nil {
		_, written, ferr := e.FetchOutputs(after, h.Run, "", -1, here)
		if ferr != nil {
			return ferr
		}
		fmt.Fprintf(a.messages, "%s brought to %s\n", ui.Plural(len(written), "output"), here)
	}
	run, verr := g.recorded(after, e, h.Run)
	if verr != nil {
		return errors.Join(err, verr)
	}
	if h.Joined != "" {
		run.Notes = append(run.Notes, h.Joined)
	}
	if verr := g.end(run); verr != nil {
		return errors.Join(err, verr)
	}
	if run.Report.Status.Final() {
		told()
	}
	return err
}

// outputsHere is where outputs go if the folder that the run was started in is
// not on this runner: beside the file, or the working directory.
func (g *githubStep) outputsHere(ctx context.Context, e *engine.Engine, run string) (string, error) {
	hd, err := executor.LoadHeader(ctx, e.Store, run)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(hd.Dir); err == nil && info.IsDir() {
		return "", nil
	}
	dir := "."
	if info, err := os.Stat(g.file); err == nil && info.Mode().IsRegular() {
		dir = filepath.Dir(g.file)
	}
	return filepath.Abs(dir)
}

// recorded is a run as its journal has it.
func (g *githubStep) recorded(ctx context.Context, e *engine.Engine, run string) (*github.Run, error) {
	v, err := executor.OpenView(ctx, e.Store, run)
	if err != nil {
		return nil, err
	}
	r, err := v.Report(ctx)
	if err != nil {
		return nil, err
	}
	groups := groupView(ctx, v)
	return &github.Run{Report: r, Groups: groups.Groups(), Grouped: groups.Total(), Pipeline: v.Pipeline(),
		File: g.recordedFile(v.Header), Store: e.Store.URL(), Key: v.Header.Key}, nil
}

// recordedFile is where annotations point: the file as this repository has it,
// also if another runner has it in another place.
func (g *githubStep) recordedFile(h *executor.Header) string {
	if path := g.inRepository(h.File); path != h.File {
		return path
	}
	return g.inRepository(g.file)
}

// end writes the summary, the annotations and the outputs of the step.
func (g *githubStep) end(run *github.Run) error {
	r := &run.Report
	fmt.Fprintf(g.app.messages, "%s: %s\n", r.Status, run.Line())
	g.summarize(run.Summary(g.room()))
	g.annotate(run.Annotations())
	return g.outputs(map[string]string{"run": r.Run, "status": string(r.Status), "cost": fmt.Sprintf("%.4f", r.CostUSD),
		"summary": run.Line(), "results": strings.TrimSuffix(run.Store, "/") + "/" + executor.Prefix(r.Run), "store": run.Store})
}
