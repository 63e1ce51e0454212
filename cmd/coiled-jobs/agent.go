package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/machine"
	"github.com/coiled-jobs/coiled-jobs/software"
)

// agentOptions are the arguments of the hidden command that a rented machine
// lives in; its user data passes them.
type agentOptions struct {
	store, run, kind string
	dir              string   // the machine's own folder
	env              []string // NAME=VALUE: where other servers than Amazon's are, and the region
}

// machinePath is where programs are looked for on a machine whose caller set
// no PATH.
const machinePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// machineLog is how much of its log a machine leaves behind.
const machineLog = 256 << 10

// agentMain is the life of a rented machine.
func agentMain(args []string, stderr io.Writer) int {
	o, err := parseAgent(args, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "__agent: %v\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := runAgent(ctx, o, stderr); err != nil {
		fmt.Fprintf(stderr, "the machine could not work: %v\n", err)
		return exitCannot
	}
	return exitDone
}

func parseAgent(args []string, stderr io.Writer) (*agentOptions, error) {
	o := &agentOptions{}
	flags := flag.NewFlagSet("__agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.store, "store", "", "s3://bucket/prefix that keeps the run")
	flags.StringVar(&o.run, "run", "", "the run")
	flags.StringVar(&o.kind, "kind", "", "the sort of machine within the run")
	flags.StringVar(&o.dir, "dir", "/opt/coiled-jobs", "the machine's own folder")
	flags.Func("env", "NAME=VALUE to set before anything is asked of the cloud", func(kv string) error {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			return errors.New("it is written NAME=VALUE")
		}
		o.env = append(o.env, kv)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("an argument too many: %q", flags.Arg(0))
	case o.store == "" || o.run == "" || o.kind == "":
		return nil, errors.New("--store, --run and --kind are needed")
	case !filepath.IsAbs(o.dir):
		return nil, fmt.Errorf("--dir %s: it must be an absolute path", o.dir)
	}
	return o, nil
}

func runAgent(ctx context.Context, o *agentOptions, stderr io.Writer) error {
	// Before the SDK looks: it reads the environment by itself. Cloud-init
	// leaves HOME unset, for which many programs are not prepared.
	for _, kv := range append([]string{"HOME=" + firstSet(os.Getenv("HOME"), "/root"), "PATH=" + firstSet(os.Getenv("PATH"), machinePath)}, o.env...) {
		name, v, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, v); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	tail := machine.NewTail(stderr, machineLog)
	log := slog.New(slog.NewTextHandler(tail, nil))
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program on disk: %w", err)
	}
	host := machine.NewEC2(os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), o.dir, exe, log)
	host.Path = os.Getenv("PATH")
	if os.Getenv("AWS_REGION") == "" {
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		region, err := host.Region(ask)
		cancel()
		if err != nil {
			log.Warn("the region is not known", "err", err)
		} else if err := os.Setenv("AWS_REGION", region); err != nil {
			return err
		}
	}
	store, err := openMachineStore(ctx, o.store)
	if err != nil {
		return err
	}
	secrets := sync.OnceValues(func() (*aws.Secrets, error) {
		return aws.OpenSecrets(context.WithoutCancel(ctx), os.Getenv("AWS_REGION"))
	})
	return machine.Run(ctx, machine.Config{
		Run: o.run, Kind: o.kind, Store: store, Host: host, Dir: o.dir, Exe: exe, Environ: machineEnviron(o.env), Logger: log, Log: tail.Bytes,
		Look: lookOf(ctx),
		JoinQueue: func(ctx context.Context, url string) (cloud.Queue, error) {
			q, err := aws.JoinQueue(ctx, url)
			if err != nil {
				return nil, err // not a nil *Queue in an interface
			}
			return q, nil
		},
		Secrets: func(ctx context.Context, refs map[string]string) (map[string]string, error) {
			s, err := secrets()
			if err != nil {
				return nil, err
			}
			return s.ResolveAll(ctx, refs)
		},
	})
}

// openMachineStore opens the store, again while the network of a machine that
// has just started is not there yet.
func openMachineStore(ctx context.Context, url string) (*aws.Store, error) {
	var store *aws.Store
	var err error
	for range 30 {
		if store, err = aws.OpenStore(ctx, url); err == nil || cloud.KindOf(err) == cloud.KindInvalid {
			break
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(2 * time.Second):
		}
	}
	return store, err
}

func firstSet(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// machineEnviron is what tasks inherit on a machine: nothing that systemd or
// cloud-init left, but where the cloud is.
func machineEnviron(given []string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8", "USER=root", "LOGNAME=root", "SHELL=/bin/bash"}
	if r := os.Getenv("AWS_REGION"); r != "" {
		env = append(env, "AWS_REGION="+r, "AWS_DEFAULT_REGION="+r)
	}
	if e := os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); e != "" {
		env = append(env, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+e)
	}
	return append(env, given...)
}

// lookOf looks up S3 outputs.
func lookOf(ctx context.Context) func(context.Context, string) (cloud.S3Look, error) {
	open := sync.OnceValues(func() (*aws.S3, error) { return aws.NewS3(context.WithoutCancel(ctx)) })
	return func(ctx context.Context, uri string) (cloud.S3Look, error) {
		place, ok := strings.CutPrefix(uri, "s3://")
		bucket, key, _ := strings.Cut(place, "/")
		if !ok || bucket == "" || key == "" {
			return cloud.S3Look{}, errors.New("an output is a path below the working directory or s3://bucket/key")
		}
		s, err := open()
		if err != nil {
			return cloud.S3Look{}, err
		}
		return s.Look(ctx, cloud.S3Location{Bucket: bucket}, key)
	}
}

// machineHelper is what this program is on a rented machine.
func machineHelper(args []string, stderr io.Writer) (code int, ok bool) {
	switch {
	case len(args) == 0:
	case args[0] == "__agent":
		if err := agent.Supported(); err != nil {
			fmt.Fprintln(stderr, err)
			return exitCannot, true
		}
		return agentMain(args[1:], stderr), true
	case args[0] == software.PauseCommand:
		// The first process of a container, which only has to be there.
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		<-ctx.Done()
		return exitDone, true
	case args[0] == "__deadline" && len(args) == 2:
		machine.Deadline(args[1], slog.New(slog.NewTextHandler(stderr, nil)))
		return exitDone, true
	}
	return 0, false
}
