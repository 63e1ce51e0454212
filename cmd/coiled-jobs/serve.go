package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

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
	k := newKeeping(a, e, o.paths)
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
