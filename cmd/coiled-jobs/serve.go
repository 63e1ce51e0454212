package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/ui"
	"github.com/coiled-jobs/coiled-jobs/web"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	app    *app
	paths  []string
	listen string
	token  string
	hosts  []string
	every  time.Duration
	otlp   string
	tracer *web.Tracer // nil: nothing is traced
}

func newServeCmd(a *app, runF func(context.Context, *serveOptions) error) *cobra.Command {
	o := &serveOptions{app: a}
	cmd := &cobra.Command{
		Use:   "serve [FILE|FOLDER...]",
		Short: "Keep schedules and show a page about runs",
		Long: `Keep the schedules of pipeline files (those below the folders that are named; without any, only the page is
shown) and serve a page about the runs in the store. It listens on this machine only; for any other address a
token is needed: --token, or the variable COILED_JOBS_TOKEN. Files that change are read again; one that is broken
is shown as broken, and the others go on. Several servers with one store do no harm: a tick runs once.`,
		Example: "  coiled-jobs serve pipelines/ --store s3://my-bucket/jobs",
		Args:    arguments(0, -1, "pipeline files or folders"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			if o.token == "" {
				o.token = a.getenv("COILED_JOBS_TOKEN")
			}
			if o.every < time.Second {
				return usagef("--every %s: at least a second", o.every)
			}
			if err := o.checkListen(); err != nil {
				return err
			}
			var err error
			if o.tracer, err = o.tracing(a.getenv); err != nil {
				return err
			}
			return runF(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8321", "`address` to listen on")
	f.StringVar(&o.token, "token", "", "what people must know who look and act (default: $COILED_JOBS_TOKEN)")
	f.StringSliceVar(&o.hosts, "host", nil, "a `name` by which the server is called, beside localhost (repeatable)")
	f.StringVar(&o.otlp, "otlp", "", "send runs that have ended as OpenTelemetry traces to the collector at this `URL` (default: $OTEL_EXPORTER_OTLP_ENDPOINT)")
	f.DurationVar(&o.every, "every", 5*time.Second, "how often schedules are looked at")
	return cmd
}

// tracing is where traces go, by the flag or the usual variables; nil: nowhere.
func (o *serveOptions) tracing(getenv func(string) string) (*web.Tracer, error) {
	address, below := getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), ""
	if base := cmp.Or(o.otlp, getenv("OTEL_EXPORTER_OTLP_ENDPOINT")); base != "" && (o.otlp != "" || address == "") {
		address, below = base, "v1/traces"
	}
	if address == "" {
		return nil, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("traces cannot be sent to %s: write the URL of a collector that takes OTLP over HTTP, such as http://localhost:4318", address)
	}
	t := &web.Tracer{URL: u.JoinPath(below).String(), Headers: map[string]string{}, Service: cmp.Or(getenv("OTEL_SERVICE_NAME"), program), Version: buildVersion()}
	for _, pair := range strings.Split(cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS"), getenv("OTEL_EXPORTER_OTLP_HEADERS")), ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			if text, err := url.PathUnescape(strings.TrimSpace(v)); err == nil {
				v = text
			}
			t.Headers[strings.TrimSpace(k)] = v
		}
	}
	return t, nil
}

// checkListen refuses to be open to others without a token.
func (o *serveOptions) checkListen() error {
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return usagef("--listen %s: write address:port, such as 127.0.0.1:8321", o.listen)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	if len(o.token) < minToken {
		return usagef("--listen %s can be reached from other machines: that needs a token of at least %d characters "+
			"(--token or COILED_JOBS_TOKEN), for example %s", o.listen, minToken, strings.ToLower(rand.Text()))
	}
	return nil
}

// minToken is how long a token must be where others can try them.
const minToken = 16

func runServe(ctx context.Context, o *serveOptions) error {
	a := o.app
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	for _, path := range o.paths {
		if _, err := os.Stat(path); err != nil {
			return usagef("%v", err) // later it is broken, and may come back
		}
	}
	k := &keeping{app: a, engine: e, keeper: e.Keeper(), paths: o.paths, told: map[string]string{}, settled: func([]schedule.Record) {}}
	if err := k.read(); err != nil {
		return err
	}
	server := web.New(web.Config{Engine: e, Keeper: k.keeper, Files: k.last, Token: o.token, Hosts: o.hosts})
	k.settled = server.Settled
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.listen, err)
	}
	hs := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	address := "http://" + l.Addr().String() + "/"
	if o.token != "" {
		address += "login?token=" + url.QueryEscape(o.token)
	}
	fmt.Fprintf(a.messages, "the page: %s\n", address)
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	var keeping sync.WaitGroup
	if t := o.tracer; t != nil {
		t.Tell = func(text string) { fmt.Fprintf(a.messages, "%s: %s; trying on\n", program, ui.Clean(text)) }
		keeping.Go(func() { server.Trace(ctx, t) })
	}
	keeping.Go(func() { k.loop(ctx, o.every, func() { server.Beat("schedules") }) })
	select {
	case err = <-served:
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if hs.Shutdown(stop) != nil {
			_ = hs.Close() // somebody follows a log
		}
		keeping.Wait()
		return nil // runs go on by themselves; ending the server is not cancelling
	}
	keeping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// keeping looks after schedules while a server runs.
type keeping struct {
	app    *app
	engine *engine.Engine
	keeper *schedule.Keeper
	paths  []string
	// settled is told what became of ticks.
	settled func([]schedule.Record)

	mu    sync.Mutex
	files []engine.ScheduledFile
	told  map[string]string // what was said of a broken file
}

// read reads the files again.
func (k *keeping) read() error {
	files, err := k.engine.ScheduledFiles(k.paths)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files = files
	maps.DeleteFunc(k.told, func(file, _ string) bool {
		return !slices.ContainsFunc(files, func(f engine.ScheduledFile) bool { return f.File == file })
	})
	for _, f := range files {
		text := ""
		if f.Err != nil {
			text = message(f.Err)
		}
		if old := k.told[f.File]; text != old {
			if text != "" {
				fmt.Fprintln(k.app.messages, text)
			} else {
				fmt.Fprintf(k.app.messages, "%s is fine again\n", ui.Clean(f.File))
			}
			k.told[f.File] = text
		}
	}
	return nil
}

// last is the files as they were read last.
func (k *keeping) last() []engine.ScheduledFile {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.files
}

// loop does a round now and then until ctx ends.
func (k *keeping) loop(ctx context.Context, every time.Duration, alive func()) {
	t := time.NewTicker(every)
	defer t.Stop()
	failing := ""
	for {
		err := k.round(ctx)
		alive()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != failing:
			failing = err.Error()
			fmt.Fprintf(k.app.messages, "%s: %s; trying on\n", program, ui.Clean(failing))
		case err == nil && failing != "":
			failing = ""
			fmt.Fprintf(k.app.messages, "%s: schedules are looked after again\n", program)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// atOnceSchedules is how many schedules are looked at at a time.
const atOnceSchedules = 8

// round reads the files and does what is due. One schedule's trouble does not
// hold up the others.
func (k *keeping) round(ctx context.Context) error {
	if err := k.read(); err != nil {
		return err
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		free = make(chan struct{}, atOnceSchedules)
	)
	for _, f := range k.last() {
		for _, s := range f.Schedules {
			free <- struct{}{}
			wg.Go(func() {
				defer func() { <-free }()
				settled, err := k.keeper.Round(ctx, s, time.Now())
				k.settled(settled)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s.Pipeline, err))
				}
				for i := range settled {
					fmt.Fprintf(k.app.messages, "%s  %s  %s\n", settled[i].Tick.UTC().Format(time.RFC3339), ui.Clean(s.Pipeline), ui.Clean(outcomeText(&settled[i])))
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}
