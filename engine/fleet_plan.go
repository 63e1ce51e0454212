package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// Quote is what a run on aws would rent: before anything is rented.
type Quote struct {
	Kinds []QuoteKind
	Limit float64 // dollars after which the run stops; 0: none
	// Warnings are limits of the account that are in the way.
	Warnings []string

	quotas bool // they were read
}

// QuoteKind is what is rented for some functions.
type QuoteKind struct {
	Functions []string
	Region    string
	Type      string  // the first choice
	Others    int     // further types that would do
	Most      int     // machines
	Price     float64 // dollars per hour of a machine, all in; 0: not known

	kind    *kind
	choices []hardware.Choice
	exact   bool // they have what was asked for, not the next larger
}

// defaultCost is what a run on aws may cost that names no limit.
const defaultCost = 20

// NoLimit as ApplyOptions.MaxCost lets a run cost what it will.
const NoLimit = -1.0

// costLimit is the dollars after which a run stops; 0: never.
func costLimit(p *spec.Pipeline, maxCost *float64) float64 {
	limit := float64(defaultCost)
	switch {
	case maxCost != nil && *maxCost < 0, maxCost == nil && p.Limits.NoCost:
		return 0
	case maxCost != nil:
		limit = *maxCost
	case p.Limits.HasCost:
		limit = p.Limits.Cost
	}
	return max(limit, 1e-9) // a limit of nothing is one, too
}

// Quote finds out which machines a planned file would be run on. Apply does it
// by itself where it was not done before.
func (e *Engine) Quote(ctx context.Context, p *Planned, o ApplyOptions) (*Quote, error) {
	if p.quote != nil {
		return p.quote, nil
	}
	if err := e.checkAWS(); err != nil {
		return nil, err
	}
	q, err := e.quote(ctx, p.Pipeline, o.Functions, o.Only)
	if err != nil {
		return nil, err
	}
	q.Limit = costLimit(p.Pipeline, o.MaxCost)
	for i := range q.Kinds {
		k := &q.Kinds[i]
		first := &k.choices[0]
		k.Most = min(k.Most, usable(p, k.Functions, first.Slots(k.kind.Hardware.Threads)))
		if m := p.Pipeline.Limits.Machines; m > 0 {
			k.Most = min(k.Most, m)
		}
		if v := p.Pipeline.Limits.VCPUs; v > 0 {
			k.Most = min(k.Most, max(1, v/max(1, first.VCPUs)))
		}
	}
	p.quote = q
	return q, nil
}

// usable is how many machines with so many slots the planned tasks of functions
// can use at most.
func usable(p *Planned, functions []string, slots int) int {
	most := 1
	for _, f := range p.Plan.Functions {
		tasks := f.Tasks
		switch c := p.Pipeline.Function(f.Name).Concurrency; {
		case !slices.Contains(functions, f.Name):
			continue
		case tasks < 0 && c == 0:
			return 1 << 30 // not known
		case c > 0 && (tasks < 0 || tasks > c):
			tasks = c
		}
		most = max(most, (tasks+slots-1)/slots)
	}
	return most
}

func (e *Engine) quote(ctx context.Context, p *spec.Pipeline, functions []string, only map[string][]int) (*Quote, error) {
	fs := executor.Selected(p, functions, only)
	q := &Quote{}
	look := e.catalogues(ctx)
	for _, k := range kindsOf(fs) {
		q.Kinds = append(q.Kinds, QuoteKind{kind: k, Functions: k.Functions, Most: k.Hardware.Workers[1]})
	}
	err := together(len(q.Kinds), func(i int) error {
		k := &q.Kinds[i]
		var err error
		if k.Region, err = e.regionOf(ctx, p, k.kind, fs); err != nil {
			return err
		}
		if len(k.kind.Hardware.VMTypes) > 0 && e.AWS.Known != nil {
			// What is known of types that the file names is enough to rent them.
			if c, err := e.AWS.Known(ctx, k.Region); err == nil && choose(k, c, p.Limits.VCPUs) == nil {
				return nil
			}
		}
		r := look(k.Region)
		// What is built in lacks types: another number of CPUs or GPUs than was
		// asked for may be many times as dear as what there is.
		if r.now != nil && choose(k, r.now, p.Limits.VCPUs) == nil && (k.exact || !r.builtIn) {
			return nil
		}
		c, err := r.full()
		if err != nil {
			return err
		}
		return choose(k, c, p.Limits.VCPUs)
	})
	return q, err
}

// patience is how long the launch of machines waits for the lists and prices of
// a region, which may take long: then what was read before serves, or what is
// built in.
const patience = time.Second

// regional is what is known of a region: at once, and when it has answered.
type regional struct {
	now     *hardware.Catalogue
	builtIn bool // now is no answer
	full    func() (*hardware.Catalogue, error)
}

// catalogues gives what is known of regions, asking each once.
func (e *Engine) catalogues(ctx context.Context) func(region string) regional {
	type answer struct {
		c   *hardware.Catalogue
		err error
	}
	var mu sync.Mutex
	asked := map[string]func() regional{}
	return func(region string) regional {
		mu.Lock()
		get := asked[region]
		if get == nil {
			get = sync.OnceValue(func() regional {
				came := make(chan answer, 1)
				go func() { // it goes on for the next time: what was read is kept
					c, err := e.AWS.Catalogue(context.WithoutCancel(ctx), region)
					came <- answer{c, err}
				}()
				full := sync.OnceValues(func() (*hardware.Catalogue, error) {
					select {
					case a := <-came:
						return a.c, a.err
					case <-ctx.Done():
						return nil, context.Cause(ctx)
					}
				})
				t := time.NewTimer(patience)
				defer t.Stop()
				select {
				case a := <-came:
					return regional{a.c, false, func() (*hardware.Catalogue, error) { return a.c, a.err }}
				case <-t.C:
					if e.AWS.Known != nil { // types change rarely: those of an earlier run are better than none
						if c, err := e.AWS.Known(ctx, region); err == nil {
							return regional{c, c.At.IsZero(), full}
						}
					}
					return regional{hardware.BuiltIn(region), true, full}
				}
			})
			asked[region] = get
		}
		mu.Unlock()
		return get()
	}
}

// requestOf is what machines for some hardware must have, in a run whose machines
// may have so many CPUs together (limits.vcpus; 0: any number).
func requestOf(h spec.Hardware, vcpus int) hardware.Request {
	r := hardware.RequestOf(h)
	r.Limit = vcpus
	return r
}

// choose finds the instance types of a kind in a catalogue.
func choose(k *QuoteKind, c *hardware.Catalogue, vcpus int) error {
	s, err := hardware.Choose(requestOf(k.kind.Hardware, vcpus), c)
	if err != nil {
		return usagef("hardware of %s: %v", k.kind.Base, err)
	}
	first := s.Choices[0]
	k.choices, k.exact, k.Type, k.Others = s.Choices, len(s.Request.Types) > 0 || len(s.Notes) == 0, first.Name, len(s.Choices)-1
	k.Price = c.MachinePrice(first.Name, "", k.kind.Hardware.SpotPolicy != "on-demand", diskOf(k.kind.Hardware, s.Choices))
	return nil
}

// regionOf is where the machines of a kind are rented: where its hardware says;
// auto is where its input is.
func (e *Engine) regionOf(ctx context.Context, p *spec.Pipeline, k *kind, fs []*spec.Function) (string, error) {
	region := k.Hardware.Region
	if region != "auto" && region != "" {
		return region, nil
	}
	bucket, _, _ := strings.Cut(strings.TrimPrefix(e.Store.URL(), "s3://"), "/")
	if region == "auto" {
		for _, f := range fs {
			if !slices.Contains(k.Functions, f.Name) {
				continue
			}
			if b := inputBucket(p, f.Map); b != "" {
				bucket = b
				break
			}
		}
	} else if e.AWS.Region != "" {
		return e.AWS.Region, nil
	}
	return e.AWS.BucketRegion(ctx, bucket)
}

// inputBucket is the first bucket that a map looks into; "" if there is none.
func inputBucket(p *spec.Pipeline, m *spec.Map) string {
	if m == nil {
		return ""
	}
	env := &spec.Env{Params: p.Params, Run: &spec.RunInfo{}}
	if vars, err := p.EnvFor(env.Run); err == nil {
		env.Env = vars
	}
	paths := append(slices.Clone(m.Glob), m.Path)
	for _, t := range paths {
		if t == nil {
			continue
		}
		text, err := t.Text(env)
		if err != nil {
			continue // it has other problems, or depends on the run
		}
		if rest, ok := strings.CutPrefix(text, "s3://"); ok {
			bucket, _, _ := strings.Cut(rest, "/")
			return bucket
		}
	}
	for _, part := range m.Parts {
		if b := inputBucket(p, part.Map); b != "" {
			return b
		}
	}
	return ""
}

// checkItems refuses items that machines could not be given: files that are not
// below the folder of the pipeline file.
func checkItems(p *Planned) error {
	for _, f := range p.Plan.Functions {
		if f.Items == nil {
			continue
		}
		err := f.Items.Each(0, f.Items.Len(), func(_ int, item any) error {
			return value.EachLocal(item, func(path string) error {
				if filepath.IsLocal(path) {
					return nil
				}
				return errNotBelow(f.Name, path)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// together calls act for 0 to n-1 at the same time and gives all errors.
func together(n int, act func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = act(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// allOf calls functions at the same time and gives all errors.
func allOf(acts ...func() error) error {
	return together(len(acts), func(i int) error { return acts[i]() })
}

// diskOf is the root disk of machines of the given choices, in GiB. The image
// with drivers for GPUs needs a large one.
func diskOf(h spec.Hardware, choices []hardware.Choice) int {
	gpu := h.GPU > 0 || len(choices) > 0 && choices[0].GPUs > 0
	switch {
	case gpu && h.AMI == "":
		return max(h.DiskGB, gpuDisk)
	case h.DiskGB > 0:
		return h.DiskGB
	case gpu:
		return gpuDisk
	}
	return defaultDisk
}

// The root disk where the file names none, in GiB. Images with drivers for GPUs
// are large.
const defaultDisk, gpuDisk = 30, 75

// String is the quote for people, in one line.
func (q *Quote) String() string {
	var parts []string
	for _, k := range q.Kinds {
		text := fmt.Sprintf("%s on up to %d x %s", strings.Join(k.Functions, ", "), k.Most, k.Type)
		if k.Most == 1 {
			text = fmt.Sprintf("%s on 1 x %s", strings.Join(k.Functions, ", "), k.Type)
		}
		if k.Others > 0 {
			text += fmt.Sprintf(" (or %d like it)", k.Others)
		}
		text += " in " + k.Region
		if k.Price > 0 {
			text += fmt.Sprintf(", about $%.3f an hour each", k.Price)
		}
		parts = append(parts, text)
	}
	text := strings.Join(parts, "; ")
	if q.Limit > 0 {
		text += fmt.Sprintf("; stops at $%.2f", q.Limit)
	}
	return text
}
