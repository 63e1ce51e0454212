package main

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/hardware"
)

// lookUpPrices sets what is asked of AWS about types, prices, quotas and
// regions. It needs no account: without one, what is built in answers.
func (a *app) lookUpPrices(ctx context.Context, c *engine.AWS) {
	if c.Region == "" {
		c.Region = aws.ConfiguredRegion(ctx)
	}
	c.Catalogue = fresh(a.catalogue)
	c.Known = a.knownCatalogue
	c.BucketRegion = remembered(aws.BucketRegion)
	c.Quota = func(ctx context.Context, region, instanceType string, spot bool) (*engine.Quota, error) {
		q, ok, err := aws.ReadQuota(ctx, region, instanceType, spot)
		if err != nil || !ok {
			return nil, err
		}
		return &engine.Quota{Code: q.Code, Name: q.Name, Link: q.Link, VCPUs: q.VCPUs}, nil
	}
}

// catalogue is the types and prices of a region, kept for other commands.
func (a *app) catalogue(ctx context.Context, region string) (*hardware.Catalogue, error) {
	return a.readCatalogue(ctx, aws.CatalogueOptions{Region: region})
}

// knownCatalogue is the same without asking the cloud.
func (a *app) knownCatalogue(ctx context.Context, region string) (*hardware.Catalogue, error) {
	return a.readCatalogue(ctx, aws.CatalogueOptions{Region: region, Offline: true})
}

func (a *app) readCatalogue(ctx context.Context, o aws.CatalogueOptions) (*hardware.Catalogue, error) {
	if state, err := a.stateDir(); err == nil {
		o.Dir = filepath.Join(state, "prices")
	}
	return aws.Catalogue(ctx, o)
}

// fresh reads the catalogue of each region once in ten minutes: that long its
// prices are good.
func fresh(read func(context.Context, string) (*hardware.Catalogue, error)) func(context.Context, string) (*hardware.Catalogue, error) {
	type known struct {
		turn      chan struct{} // held by who reads
		at        time.Time
		catalogue *hardware.Catalogue
	}
	var mu sync.Mutex
	regions := map[string]*known{}
	return func(ctx context.Context, region string) (*hardware.Catalogue, error) {
		mu.Lock()
		k := regions[region]
		if k == nil {
			k = &known{turn: make(chan struct{}, 1)}
			regions[region] = k
		}
		mu.Unlock()
		select { // who else wants this region waits for the same answer
		case k.turn <- struct{}{}:
			defer func() { <-k.turn }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if k.catalogue != nil && time.Since(k.at) < 10*time.Minute {
			return k.catalogue, nil
		}
		c, err := read(ctx, region)
		if err == nil {
			k.at, k.catalogue = time.Now(), c
		}
		return c, err
	}
}

// remembered asks for the region of each bucket once.
func remembered(ask func(context.Context, string) (string, error)) func(context.Context, string) (string, error) {
	type answer struct {
		region string
		err    error
	}
	var mu sync.Mutex
	known := map[string]answer{}
	return func(ctx context.Context, bucket string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		got, ok := known[bucket]
		if !ok {
			got.region, got.err = ask(ctx, bucket)
			if ctx.Err() == nil {
				known[bucket] = got
			}
		}
		return got.region, got.err
	}
}

// pricer is an engine that can plan and price: it needs no store and no home,
// but looks at earlier runs where it has them.
func (a *app) pricer(ctx context.Context) *engine.Engine {
	e := a.planner(ctx)
	if e.AWS == nil {
		e.AWS = &engine.AWS{}
	}
	a.lookUpPrices(ctx, e.AWS)
	if full, err := a.reader(ctx); err == nil {
		e.Store, e.StateDir, e.OpenStore = full.Store, full.StateDir, full.OpenStore
	}
	return e
}
