package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/pricing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/hardware"
)

const (
	// What is read of EC2 is good for this long.
	typesFor = 24 * time.Hour
	spotFor  = 10 * time.Minute
	// cataloguePatience is how long people wait for the lists of EC2, and
	// pricePatience for the price list, which may do without.
	cataloguePatience = 30 * time.Second
	pricePatience     = 8 * time.Second
)

// CatalogueOptions says which catalogue.
type CatalogueOptions struct {
	Region string // empty: the configured one
	// Dir keeps what was read, for the next process; empty: nothing is kept.
	Dir string
	// Offline does not ask the cloud: what is in Dir, else what is built in.
	Offline bool
	Now     func() time.Time // nil: time.Now
}

// Catalogue reads which instance types a region has, in which zones and for how
// much: from what is kept in a folder if that is new enough, else from EC2 and
// the price list. What cannot be read is older or built in, and a note of the
// catalogue says so. It fails only if ctx ends.
func Catalogue(ctx context.Context, o CatalogueOptions) (*hardware.Catalogue, error) {
	cfg, err := regionConfig(ctx, o.Region)
	if err != nil {
		if o.Region == "" {
			o.Region = defaultRegion
		}
		return builtIn(ctx, o.Region, err)
	}
	r := &catalogueReader{o: o, region: cfg.Region, now: o.Now}
	if r.now == nil {
		r.now = time.Now
	}
	r.ec2 = newEC2(cfg)
	endpoint := aws.ToString(ec2.NewFromConfig(cfg).Options().BaseEndpoint)
	if region := priceRegion(cfg.Region); region != "" {
		r.prices = pricing.NewFromConfig(cfg, func(p *pricing.Options) {
			p.Region = region
			p.Retryer = retry.AddWithMaxAttempts(p.Retryer, 2)
		})
		endpoint += " " + aws.ToString(r.prices.(*pricing.Client).Options().BaseEndpoint)
	}
	// Another server has other types: tests and private clouds.
	h := fnv.New32a()
	h.Write([]byte(endpoint))
	r.suffix = fmt.Sprintf("-%s-%08x.json", cfg.Region, h.Sum32())
	r.ready = func(ctx context.Context) error { return checkCredentials(ctx, cfg, "") }
	return r.read(ctx)
}

// builtIn is what there is without the cloud.
func builtIn(ctx context.Context, region string, why error) (*hardware.Catalogue, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := hardware.BuiltIn(region)
	if why != nil {
		c.Notes = append(c.Notes, "EC2 could not be asked: "+firstLine(why))
	}
	return c, nil
}

// catalogueReader reads one catalogue.
type catalogueReader struct {
	o      CatalogueOptions
	region string
	suffix string // of the files in o.Dir
	now    func() time.Time
	ec2    catalogueAPI
	prices priceAPI // nil: there is no price list for the region
	// ready finds out whether there are credentials, once and before all else.
	ready func(context.Context) error

	once sync.Once
	err  error
}

// kept is a file in the folder.
type kept[T any] struct {
	At   time.Time `json:"at"`
	Data T         `json:"data"`
	// Tried is when there was last no answer, and Why.
	Tried time.Time `json:"tried,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// listPart is one of the lists, and where it came from.
type listPart[T any] struct {
	data  T
	at    time.Time
	stale error // it is older than it should be: why there is no newer one
	err   error // there is none
}

// listed reads a part: from its file if that is new enough, else from the
// cloud, else from its file however old.
func listed[T any](ctx context.Context, r *catalogueReader, name string, good, patience time.Duration, ask func(context.Context) (T, error)) listPart[T] {
	file := ""
	var old kept[T]
	if r.o.Dir != "" {
		file = r.file(name)
		if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &old) != nil {
			old = kept[T]{} // gone or damaged: read anew
		}
		if age := r.now().Sub(old.At); !old.At.IsZero() && age < good && age > -time.Hour {
			return listPart[T]{data: old.Data, at: old.At}
		}
	}
	recent := name == "prices" && r.now().Sub(old.Tried).Abs() < spotFor
	if recent && !r.o.Offline {
		// Who may not read the price list would wait for it each time.
		return missing(old, errors.New(old.Why))
	}
	data, err := r.asked(ctx, patience, func(ctx context.Context) (any, error) { return ask(ctx) })
	if err == nil {
		p := listPart[T]{data: data.(T), at: r.now()}
		if file != "" {
			keep(file, kept[T]{At: p.at, Data: p.data})
		}
		return p
	}
	if name == "prices" && file != "" && ctx.Err() == nil && !r.o.Offline {
		old.Tried, old.Why = r.now(), firstLine(err)
		keep(file, old)
	}
	return missing(old, err)
}

// missing is what there is without an answer.
func missing[T any](old kept[T], err error) listPart[T] {
	if old.At.IsZero() {
		return listPart[T]{err: err}
	}
	return listPart[T]{data: old.Data, at: old.At, stale: err}
}

// file is where a list is kept.
func (r *catalogueReader) file(name string) string { return filepath.Join(r.o.Dir, name+r.suffix) }

var errOffline = errors.New("offline")

// asked asks the cloud, if it may be asked, for a time.
func (r *catalogueReader) asked(ctx context.Context, patience time.Duration, ask func(context.Context) (any, error)) (any, error) {
	if r.o.Offline {
		return nil, errOffline
	}
	if r.once.Do(func() { r.err = r.ready(ctx) }); r.err != nil {
		return nil, r.err
	}
	limited, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	return ask(limited)
}

// keep writes a file whole or not at all. Nothing depends on it: without it
// the next process asks again.
func keep(file string, v any) {
	data, err := json.Marshal(v)
	if err != nil || os.MkdirAll(filepath.Dir(file), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // nobody reads it
	}
}

func (r *catalogueReader) read(ctx context.Context) (*hardware.Catalogue, error) {
	var (
		types  listPart[[]hardware.Offer]
		spot   listPart[map[string]map[string]float64]
		demand listPart[map[string]float64]
		wg     sync.WaitGroup
	)
	wg.Go(func() { types = listed(ctx, r, "types", typesFor, cataloguePatience, r.offers) })
	wg.Go(func() { spot = listed(ctx, r, "spot", spotFor, cataloguePatience, r.spotPrices) })
	wg.Go(func() { demand = listed(ctx, r, "prices", typesFor, pricePatience, r.onDemandPrices) })
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if types.err == nil && len(types.data) == 0 {
		types.err = errors.New("it lists no instance types")
	}
	if types.err != nil {
		if errors.Is(types.err, errOffline) {
			return builtIn(ctx, r.region, nil)
		}
		return builtIn(ctx, r.region, types.err)
	}
	offers := types.data
	guessed := 0
	for i := range offers {
		o := &offers[i]
		o.OnDemand = demand.data[o.Name]
		o.Spot = spot.data[o.Name]
		if o.OnDemand == 0 {
			guessed++
		}
		hardware.Complete(o, r.region)
		if len(spot.data) == 0 {
			hardware.CompleteSpot(o)
		}
	}
	at := types.at
	var notes []string
	if demand.err != nil {
		notes = append(notes, fmt.Sprintf("on-demand prices are approximate, from the built-in table of %s: the price list could not be read: %s",
			hardware.TableDate, firstLine(demand.err)))
	} else if guessed > 0 {
		notes = append(notes, fmt.Sprintf("the price list does not have %d of %d types: their on-demand prices are guessed", guessed, len(offers)))
	}
	if spot.err != nil {
		notes = append(notes, "spot prices are approximate, a share of the on-demand prices: "+firstLine(spot.err))
	} else {
		at = spot.at
	}
	for _, p := range []struct {
		what  string
		at    time.Time
		stale error
	}{{"the instance types", types.at, types.stale}, {"the on-demand prices", demand.at, demand.stale}, {"the spot prices", spot.at, spot.stale}} {
		if p.stale != nil {
			notes = append(notes, fmt.Sprintf("%s are those of %s: %s", p.what, p.at.UTC().Format("2006-01-02 15:04 MST"), firstLine(p.stale)))
		}
	}
	return hardware.NewCatalogue(r.region, at, offers, notes...), nil
}

// firstLine is an error in one line, without its context's wrapping.
func firstLine(err error) string {
	var known *cloud.Error
	if errors.As(err, &known) && known.Err != nil {
		err = known.Err
	}
	text := err.Error()
	for i, r := range text {
		if r == '\n' {
			return text[:i]
		}
	}
	return text
}
