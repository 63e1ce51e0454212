package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

const gigabyte = 1e9 // transfer is billed by it

// egress prices what the tasks of a function read from other regions, and
// warns of it. Items of this computer lie in the store.
func (e *Engine) egress(ctx context.Context, p *Planned, j *pricedJob, store string, r *planner.Report) {
	bytes := inputBytes(p.Pipeline, j)
	regions := map[string]int64{}
	var far []string
	read := func(n int64, from, region string) {
		if region == j.k.region {
			return
		}
		perGB := hardware.TransferGB(region, j.k.region)
		cost := perGB * float64(n) / gigabyte
		j.egress += cost
		far = append(far, fmt.Sprintf("%s from %s in %s, at $%.2f per GB %s in all", gigabytes(n), from, region, perGB, dollars(cost)))
	}
	local := j.plan.Bytes
	for _, bucket := range slices.Sorted(maps.Keys(bytes)) {
		local -= bytes[bucket]
		region, err := e.bucketRegion(ctx, bucket)
		if err != nil {
			continue // planRegion says so where it matters
		}
		regions[region] += bytes[bucket]
		read(bytes[bucket], "s3://"+bucket, region)
	}
	if local > 0 && store != "" {
		read(local, "the store", store)
	}
	if len(far) == 0 {
		return
	}
	how := "slower, too"
	switch {
	case len(regions) > 1:
		how = fmt.Sprintf("its inputs are in %d regions; a function for each, next to its data, reads for nothing", len(regions))
	case len(regions) == 0:
		how = "a store there (--store) costs nothing"
	case j.k.Hardware.Region != "auto":
		how = "region: auto puts them next to the data"
	}
	r.Warnings = append(r.Warnings, fmt.Sprintf("%s reads, on machines in %s, %s: %s", j.f.Name, j.k.region, strings.Join(far, ", and "), how))
}

// storeRegion is where the store of a run is, or would be; "" if nobody knows.
func (e *Engine) storeRegion(ctx context.Context) string {
	if e.AWS == nil {
		return ""
	}
	if e.Store != nil {
		if bucket, ok := bucketOf(e.Store.URL()); ok {
			region, err := e.bucketRegion(ctx, bucket)
			if err != nil {
				return ""
			}
			return region
		}
	}
	return e.AWS.Region
}

// noteStore says which machines are not where the store is: what goes from one
// to the other is paid for.
func noteStore(kinds []*pricedKind, store string, r *planner.Report) {
	if store == "" {
		return
	}
	for _, k := range kinds {
		if k.region == store {
			continue
		}
		note := fmt.Sprintf("the store is in %s, machines are in %s: what they fetch of it (code, software) costs $%.2f per GB, what they keep there (results, outputs) $%.2f; a store in %s (--store) costs nothing of that",
			store, k.region, hardware.TransferGB(store, k.region), hardware.TransferGB(k.region, store), k.region)
		if !slices.Contains(r.Notes, note) {
			r.Notes = append(r.Notes, note)
		}
	}
}

// dollars is a price with as many digits as it needs.
func dollars(d float64) string {
	switch {
	case d > 0 && d < 0.0001:
		return "less than $0.0001"
	case d > 0 && d < 0.01:
		return fmt.Sprintf("$%.4f", d)
	}
	return fmt.Sprintf("$%.2f", d)
}

// gigabytes is an amount of data as it is billed; little is said in smaller
// units.
func gigabytes(bytes int64) string {
	b := float64(bytes)
	switch {
	case b >= 0.1*gigabyte:
		return fmt.Sprintf("%.1f GB", b/gigabyte)
	case b >= 0.1e6:
		return fmt.Sprintf("%.1f MB", b/1e6)
	}
	return fmt.Sprintf("%.1f kB", b/1e3)
}

// inputBytes is what the tasks of a function read, by bucket.
func inputBytes(p *spec.Pipeline, j *pricedJob) map[string]int64 {
	bytes := map[string]int64{}
	if j.plan.Items == nil || j.plan.Bytes == 0 {
		return bytes
	}
	if buckets := inputBuckets(p, j.f.Map); len(buckets) == 0 {
		return bytes
	} else if len(buckets) == 1 && onlyS3(p, j.f.Map) {
		bytes[buckets[0]] = j.plan.Bytes
		return bytes
	}
	// Which items are in which bucket is not kept: read them all.
	err := j.plan.Items.Each(0, j.plan.Items.Len(), func(_ int, item any) error {
		eachFile(item, func(f *value.File) {
			if f.Bucket != "" {
				bytes[f.Bucket] += int64(f.Size)
			}
		})
		return nil
	})
	if err != nil {
		return map[string]int64{} // whoever runs them will hear of it
	}
	return bytes
}

// eachFile calls see with the files in an item.
func eachFile(item any, see func(*value.File)) {
	switch x := item.(type) {
	case *value.File:
		see(x)
	case []any:
		for _, v := range x {
			eachFile(v, see)
		}
	case *value.Object:
		for _, key := range x.Keys {
			v, _ := x.Get(key)
			eachFile(v, see)
		}
	case map[string]any:
		for _, v := range x {
			eachFile(v, see)
		}
	}
}

// globTexts is the patterns of a map as they are in this run.
func globTexts(p *spec.Pipeline, m *spec.Map) []string {
	if m == nil {
		return nil
	}
	env := &spec.Env{Params: p.Params, Run: &spec.RunInfo{}}
	if vars, err := p.EnvFor(env.Run); err == nil {
		env.Env = vars
	}
	var texts []string
	for _, t := range m.Glob {
		if text, err := t.Text(env); err == nil {
			texts = append(texts, text)
		}
	}
	for _, part := range m.Parts {
		texts = append(texts, globTexts(p, part.Map)...)
	}
	return texts
}

// inputBuckets is the buckets that a map looks into.
func inputBuckets(p *spec.Pipeline, m *spec.Map) []string {
	var buckets []string
	for _, text := range globTexts(p, m) {
		if bucket, ok := bucketOf(text); ok && !slices.Contains(buckets, bucket) {
			buckets = append(buckets, bucket)
		}
	}
	return buckets
}

// onlyS3 says that no pattern of a map is for local files.
func onlyS3(p *spec.Pipeline, m *spec.Map) bool {
	return !slices.ContainsFunc(globTexts(p, m), func(text string) bool { return !strings.HasPrefix(text, "s3://") })
}
