package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/machine"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// fakeMachines is cloudtest's Fleet with what a run's machines need besides.
type fakeMachines struct {
	*cloudtest.Fleet
	launch func(cloud.MachineSpec) (Launch, error) // nil: nothing is asked
	cloud  *fakeCloud
	dead   *atomic.Bool // the process that opened them was killed
}

var errKilled = errors.New("this process was killed")

func (f fakeMachines) alive() error {
	if f.dead != nil && f.dead.Load() {
		return errKilled
	}
	return nil
}

func (f fakeMachines) List(ctx context.Context, run string) ([]cloud.Machine, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	return f.Fleet.List(ctx, run)
}

func (f fakeMachines) Terminate(ctx context.Context, ids ...string) error {
	if err := f.alive(); err != nil {
		return err
	}
	return f.Fleet.Terminate(ctx, ids...)
}

func newFakeMachines(r *cloudtest.Region, zones ...string) fakeMachines {
	return fakeMachines{Fleet: cloudtest.NewFleet(r, zones...)}
}

func (f fakeMachines) Launch(ctx context.Context, spec cloud.MachineSpec) ([]cloud.Machine, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	if f.launch != nil {
		l, err := f.launch(spec)
		if err != nil {
			return nil, err
		}
		f.cloud.expect(spec.Pool, l)
	}
	list, err := f.Fleet.Launch(ctx, spec)
	for i := range list {
		if f.cloud == nil || !f.cloud.silent {
			list[i].PricePerHour = 0.36
		}
	}
	return list, err
}

func (f fakeMachines) Clean(ctx context.Context, run string, keep ...string) error {
	list, err := f.List(ctx, run)
	if err != nil {
		return err
	}
	var ids []string
	for _, m := range list {
		if !slices.Contains(keep, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return f.Terminate(ctx, ids...)
}

func (f fakeMachines) Retag(context.Context, string, ...string) error { return nil }

// fakeCloud is a cloud in this process: what it rents are goroutines that live
// the real life of a machine, with a real agent, in a folder of their own.
type fakeCloud struct {
	t      *testing.T
	memory *cloudtest.Store
	store  *bucket
	region *cloudtest.Region
	env    []string
	zones  []string    // of each region; nil: its first
	silent bool        // it does not say what machines cost
	broken atomic.Bool // its machines cannot start
	stuck  func()      // told of each machine; all of them boot for ever

	mu       sync.Mutex
	queues   map[string]*fakeQueue
	secrets  map[string]string
	launches map[string]Launch // by pool
	lives    map[string]context.CancelCauseFunc
	launched []time.Time
	ends     sync.WaitGroup
}

// bucket is a store in memory that calls itself a bucket.
type bucket struct {
	cloud.Store
	url string
}

func (b *bucket) URL() string { return b.url }

type fakeQueue struct {
	*cloudtest.Queue
	url string
}

func (q *fakeQueue) URL() string { return q.url }

// process is an engine in a process of its own, which kill ends.
func (c *fakeCloud) process(environ ...string) (e *Engine, kill func()) {
	p := c.memory.Process()
	dead := &atomic.Bool{}
	e = c.engine(environ...)
	e.Store, e.AWS = &bucket{p, c.store.url}, c.aws(dead)
	return e, func() {
		dead.Store(true)
		p.Kill()
	}
}

// bury ends what is left in this process of a run whose process was killed.
func bury(t *testing.T, h *Handle) {
	t.Cleanup(func() {
		h.session.cancel(errKilled)
		<-h.session.done
	})
}

// newCloud makes a cloud. At the end of the test nothing is left of it.
func newCloud(t *testing.T) *fakeCloud {
	if runtime.GOOS == "windows" {
		t.Skip("machines are no Windows machines")
	}
	memory := cloudtest.NewStore()
	c := &fakeCloud{t: t, memory: memory, store: &bucket{memory, "s3://team/runs"}, queues: map[string]*fakeQueue{}, secrets: map[string]string{},
		env: []string{"PATH=" + os.Getenv("PATH")}, launches: map[string]Launch{}, lives: map[string]context.CancelCauseFunc{}}
	c.region = &cloudtest.Region{Default: 100, Started: c.boot, Ended: c.end}
	t.Cleanup(func() {
		left := c.region.Live()
		for _, m := range left {
			c.region.PowerOff(m.ID)
		}
		c.ends.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(left) > 0 || len(c.queues) > 0 || len(c.secrets) > 0 {
			t.Errorf("left behind: %d machines, queues %v, secrets %v", len(left), slices.Sorted(maps.Keys(c.queues)), slices.Sorted(maps.Keys(c.secrets)))
		}
	})
	return c
}

func (c *fakeCloud) expect(pool string, l Launch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.launches[pool] = l
	c.launched = append(c.launched, time.Now())
}

// boot begins the life of a machine, as its user data would.
func (c *fakeCloud) boot(i cloudtest.Instance) {
	c.mu.Lock()
	l := c.launches[i.Tags["pool"]]
	ctx, cancel := context.WithCancelCause(context.Background())
	c.lives[i.ID] = cancel
	c.mu.Unlock()
	if c.broken.Load() {
		c.ends.Go(func() {
			if err := c.store.Put(ctx, l.BootLog, []byte("boot\nagent.gz: FAILED\n")); err != nil {
				c.t.Error(err)
			}
			c.region.PowerOff(i.ID)
		})
		return
	}
	if c.stuck != nil {
		c.stuck()
		return
	}
	if l.Coordinator {
		c.ends.Go(func() { c.coordinate(ctx, i, l) })
		return
	}
	arg := func(name string) string { return l.Args[slices.Index(l.Args, name)+1] }
	dir := c.t.TempDir()
	c.ends.Go(func() {
		host := &fakeHost{cloud: c, i: i}
		err := machine.Run(ctx, machine.Config{
			Run: arg("--run"), Kind: arg("--kind"), Store: c.store, Dir: dir, Host: host, Environ: c.env,
			JoinQueue: func(_ context.Context, url string) (cloud.Queue, error) { return c.join(url) },
			Secrets:   c.secretsOf, Logger: slog.New(slog.NewTextHandler(c.t.Output(), nil)).With("machine", i.ID),
		})
		if err != nil && ctx.Err() == nil {
			c.t.Logf("machine %s: %v", i.ID, err)
		}
		c.region.PowerOff(i.ID)
	})
}

// coordinate is the life of a machine that only coordinates.
func (c *fakeCloud) coordinate(ctx context.Context, i cloudtest.Instance, l Launch) {
	e := c.engine()
	e.AWS.Identity = func(context.Context) (cloud.Machine, bool) {
		return cloud.Machine{ID: i.ID, Type: i.Type, Zone: i.Zone, Launched: i.Launched, PricePerHour: 0.02}, true
	}
	e.AWS.Secret = func(ctx context.Context, _, ref string) (string, error) { return c.secret(ctx, ref) }
	if _, err := e.Coordinate(ctx, l.Args[1], ""); err != nil {
		c.t.Logf("coordinator on %s: %v", i.ID, err)
	}
	c.region.PowerOff(i.ID)
}

// end ends a machine at once.
func (c *fakeCloud) end(i cloudtest.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives[i.ID](fmt.Errorf("machine %s was ended", i.ID))
}

func (c *fakeCloud) join(url string) (*fakeQueue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[url]
	if q == nil {
		return nil, &cloud.Error{Op: "join", Resource: url, Kind: cloud.KindNotFound}
	}
	return q, nil
}

func (c *fakeCloud) secret(_ context.Context, ref string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.secrets[ref]
	if !ok {
		return "", &cloud.Error{Op: "read", Resource: ref, Kind: cloud.KindNotFound}
	}
	return v, nil
}

// secretsOf is secret for all that a machine needs, by variable.
func (c *fakeCloud) secretsOf(ctx context.Context, refs map[string]string) (map[string]string, error) {
	values := map[string]string{}
	for name, ref := range refs {
		v, err := c.secret(ctx, ref)
		if err != nil {
			return nil, err
		}
		values[name] = v
	}
	return values, nil
}

// fakeHost is the computer of a machine.
type fakeHost struct {
	cloud *fakeCloud
	i     cloudtest.Instance
}

func (h *fakeHost) Identity(context.Context) (machine.Identity, error) {
	return machine.Identity{ID: h.i.ID, Type: h.i.Type, Zone: h.i.Zone, Spot: h.i.Spot, CPUs: 2, Launched: h.i.Launched}, nil
}

func (h *fakeHost) Notice(context.Context) (time.Time, error) {
	at, _ := h.cloud.region.Notice(h.i.ID)
	return at, nil
}

func (h *fakeHost) Arm(time.Time) error   { return nil }
func (h *fakeHost) PowerOff()             { h.cloud.region.PowerOff(h.i.ID) }
func (h *fakeHost) Metrics() wire.Metrics { return wire.Metrics{} }

// closing removes a queue from the cloud when it is closed.
type closing struct {
	*fakeQueue
	c *fakeCloud
}

func (q closing) Close() error {
	q.c.mu.Lock()
	delete(q.c.queues, q.url)
	q.c.mu.Unlock()
	return q.fakeQueue.Close()
}

func (c *fakeCloud) aws(dead *atomic.Bool) *AWS {
	return &AWS{
		Region:       "east-1",
		BucketRegion: func(context.Context, string) (string, error) { return "east-1", nil },
		Machines: func(_ context.Context, region, _ string, _ cloud.Store, launch func(cloud.MachineSpec) (Launch, error)) (Machines, error) {
			zones := c.zones
			if zones == nil {
				zones = []string{region + "a"}
			}
			m := newFakeMachines(c.region, zones...)
			m.launch, m.cloud, m.dead = launch, c, dead
			return m, nil
		},
		OpenQueue: func(_ context.Context, region, run, name string, tags QueueTags) (Queue, error) {
			if tags.Pipeline == "" || tags.Owner == "" || tags.Store != c.store.url {
				return nil, fmt.Errorf("nobody could tell whose the queue %s is: %+v", name, tags)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			url := "mem://" + region + "/" + run + "-" + name
			if c.queues[url] == nil {
				c.queues[url] = &fakeQueue{cloudtest.NewQueue(), url}
			}
			return closing{c.queues[url], c}, nil
		},
		JoinQueue: func(_ context.Context, url string) (Queue, error) {
			q, err := c.join(url)
			if err != nil {
				return nil, err
			}
			return closing{q, c}, nil
		},
		DeleteQueues: func(_ context.Context, region, run string) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			maps.DeleteFunc(c.queues, func(url string, _ *fakeQueue) bool { return strings.HasPrefix(url, "mem://"+region+"/"+run+"-") })
			return nil
		},
		Publish: func(_ context.Context, _ cloud.Store, arch string) (Program, error) {
			return Program{SHA256: "agent-" + arch}, nil
		},
		PutSecrets: func(_ context.Context, _, run, store string, values map[string]string) (map[string]string, error) {
			if store != c.store.url {
				c.t.Errorf("secrets of a run in %q", store)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			refs := map[string]string{}
			for name, v := range values {
				refs[name] = "ssm:/coiled-jobs/" + run + "/" + name
				c.secrets[refs[name]] = v
			}
			return refs, nil
		},
		DeleteSecrets: func(_ context.Context, _, run string) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			maps.DeleteFunc(c.secrets, func(ref, _ string) bool { return strings.HasPrefix(ref, "ssm:/coiled-jobs/"+run+"/") })
			return nil
		},
		Catalogue: builtIn, Known: builtIn,
	}
}

func builtIn(context.Context, string) (*hardware.Catalogue, error) {
	return hardware.BuiltIn("us-east-1"), nil
}

// engine is an engine of somebody with a state folder of his own.
func (c *fakeCloud) engine(environ ...string) *Engine {
	return &Engine{Store: c.store, StateDir: c.t.TempDir(), Owner: "tester@here", Version: "test", Stderr: io.Discard,
		Environ: append([]string{"PATH=" + os.Getenv("PATH")}, environ...), AWS: c.aws(nil),
		OpenStore: func(string) (cloud.Store, error) { return c.store, nil }}
}

// write puts files into a new folder and gives the path of the first.
func write(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, files[0])
}

// apply plans and starts a file.
func apply(t *testing.T, e *Engine, o ApplyOptions) *Handle {
	t.Helper()
	p, err := e.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h, err := e.Apply(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := range h.Notices() {
			t.Logf("%s: %s %s", n.Kind, n.Function, n.Text)
		}
	}()
	return h
}

// ended waits for the end of a run.
func ended(t *testing.T, h *Handle, want executor.RunStatus) executor.Report {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	r, err := h.Wait(ctx)
	if err != nil || r.Status != want {
		var b bytes.Buffer
		for _, f := range r.Functions {
			fmt.Fprintf(&b, "%s %s %+v; ", f.Name, f.Status, f)
		}
		t.Fatalf("the run is %s: %v, %s want %s", r.Status, err, b.String(), want)
	}
	return r
}
