package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	app   *app
	cloud cloudOptions
	json  bool
}

func newDoctorCmd(a *app, runF func(context.Context, *doctorOptions) error) *cobra.Command {
	o := &doctorOptions{app: a}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that this machine, and the account on aws, have what runs need",
		Args:  arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runF(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	o.cloud.flags(cmd)
	return cmd
}

// check is the outcome of one check.
type check struct {
	Name   string `json:"name"`
	State  string `json:"state"` // ok, warn or fail
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}

// What doctor wants at least.
const (
	leastDisk  = 1 << 30
	leastFiles = 1024
)

func runDoctor(ctx context.Context, o *doctorOptions) error {
	a := o.app
	use, err := a.account(&o.cloud)
	if err != nil {
		return err
	}
	checks := []check{a.checkStore(ctx), a.checkDisk(), a.checkTool(ctx, "bash", "fail", "scripts (run:) need it; install bash", "--version"),
		a.checkTool(ctx, "python3", "warn", "functions in Python (python:) need it; install python3 or set python_bin", "--version"),
		a.checkTool(ctx, "git", "warn", "without git every file next to a pipeline counts as its code", "--version"), checkFiles(), a.checkTemp(), checkClock(time.Now())}
	if use != accountNone {
		checks = append(checks, a.checkAccount(ctx, use, o.cloud.region)...)
	}
	failed := false
	for _, c := range checks {
		failed = failed || c.State == "fail"
	}
	if o.json {
		err = a.printJSON(checks)
	} else {
		err = a.printChecks(checks)
	}
	if err == nil && failed {
		return &exitError{code: exitCannot}
	}
	return err
}

// checkAccount looks at the account on aws. Where nobody said that runs are to
// go there, an account that is none is a warning.
func (a *app) checkAccount(ctx context.Context, use accountUse, region string) []check {
	store := a.storeFlag
	if store == "" {
		store = a.getenv("COILED_JOBS_STORE")
	}
	if !strings.HasPrefix(store, "s3://") {
		store = "" // the account's bucket
	}
	var checks []check
	for _, c := range aws.CheckAccount(ctx, region, store) {
		if use == accountMaybe && c.Name == "aws" && c.State == "fail" {
			c.State = "warn"
		}
		checks = append(checks, check(c))
	}
	return checks
}

func (a *app) printChecks(checks []check) error {
	st := a.style(a.stdout)
	for _, c := range checks {
		state := fmt.Sprintf("%-4s", c.State)
		switch c.State {
		case "ok":
			state = st.Green(state)
		case "warn":
			state = st.Yellow(state)
		default:
			state = st.Red(state)
		}
		line := fmt.Sprintf("%s  %-11s  %s", state, c.Name, ui.Clean(strings.ReplaceAll(c.Detail, "\n", "; ")))
		if c.Advice != "" {
			line += "; " + ui.Clean(c.Advice)
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// checkStore writes, reads and deletes an object.
func (a *app) checkStore(ctx context.Context) check {
	c := check{Name: "store", State: "fail", Advice: "set COILED_JOBS_STORE or --store to a folder or bucket (s3://bucket/prefix) that can be written"}
	e, err := a.engine(ctx)
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	key := fmt.Sprintf("doctor/%d-%d", os.Getpid(), time.Now().UnixNano())
	if err := e.Store.Put(ctx, key, []byte("ok")); err != nil {
		c.Detail = err.Error()
		return c
	}
	defer func() { _ = e.Store.Delete(context.WithoutCancel(ctx), key) }() // 2 bytes
	if b, err := e.Store.Get(ctx, key); err != nil || string(b) != "ok" {
		c.Detail = fmt.Sprintf("%s: what was written cannot be read back: %v", e.Store.URL(), err)
		return c
	}
	return check{Name: "store", State: "ok", Detail: e.Store.URL() + " can be written"}
}

// checkDisk looks at the disk of the store.
func (a *app) checkDisk() check {
	c := check{Name: "disk", State: "warn"}
	state, err := a.stateDir()
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	dir := strings.TrimPrefix(a.storeURL(state), "file://")
	if strings.HasPrefix(dir, "s3://") {
		dir = state // runs need room elsewhere; what is kept of them here is little
	}
	free, err := diskFree(dir)
	for err != nil && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir) // it is made when it is needed
		free, err = diskFree(dir)
	}
	if err != nil {
		c.Detail = fmt.Sprintf("free space of %s is not known: %v", dir, err)
		return c
	}
	c.Detail = ui.Bytes(free) + " free in " + dir
	if free < leastDisk {
		c.Advice = "logs and results need room: " + program + " gc removes old runs"
		return c
	}
	c.State = "ok"
	return c
}

// checkTool finds a program and asks for its version.
func (a *app) checkTool(ctx context.Context, name, missing, advice string, args ...string) check {
	path, err := lookPath(name, a.getenv("PATH"))
	if err != nil {
		return check{Name: name, State: missing, Detail: "not found on PATH", Advice: advice}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = a.environ
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return check{Name: name, State: missing, Detail: fmt.Sprintf("%s does not run: %v", path, err), Advice: advice}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return check{Name: name, State: "ok", Detail: first + " (" + path + ")"}
}

// lookPath finds a program on the caller's PATH, which need not be this process's.
func lookPath(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", exec.ErrNotFound
}

// checkFiles looks at the limit of open files. The Go runtime has raised the
// soft limit to the hard one already.
func checkFiles() check {
	c := check{Name: "open files", State: "warn"}
	most, err := openFiles()
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.Detail = fmt.Sprintf("up to %d at a time", most)
	if most < leastFiles {
		c.Advice = fmt.Sprintf("raise the limit to %d or more: ulimit -n", leastFiles)
		return c
	}
	c.State = "ok"
	if most > 1<<40 {
		c.Detail = "no limit"
	}
	return c
}

// checkTemp makes a file in the folder for temporary files and runs it: tasks
// have their own there.
func (a *app) checkTemp() check {
	dir := os.TempDir()
	c := check{Name: "temp", State: "fail", Advice: "set TMPDIR to a folder or bucket (s3://bucket/prefix) that can be written"}
	f, err := os.CreateTemp(dir, program+"-doctor-*")
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	return check{Name: "temp", State: "ok", Detail: fmt.Sprintf("%s can be written; %s/%s with %s", dir, runtime.GOOS, runtime.GOARCH, ui.Plural(runtime.NumCPU(), "CPU"))}
}

// checkClock finds clocks that were never set: run ids and logs carry the time.
func checkClock(now time.Time) check {
	c := check{Name: "clock", State: "ok", Detail: now.Format("2006-01-02 15:04:05 MST")}
	if now.Year() < 2024 {
		c.State, c.Advice = "warn", "the clock of this machine looks wrong; set it"
	}
	return c
}
