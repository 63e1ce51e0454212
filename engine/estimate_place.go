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
// warns of it.
func (e *Engine) egress(ctx context.Context, p *Planned, j *pricedJob, r *planner.Report) {
	bytes := inputBytes(p.Pipeline, j)
	regions := map[string]int64{}
	var far []string
	for _, bucket := range slices.Sorted(maps.Keys(bytes)) {
		region, err := e.bucketRegion(ctx, bucket)
		if err != nil {
			continue // planRegion says so where it matters
		}
		regions[region] += bytes[bucket]
		if region == j.k.region {
			continue
		}
		perGB := hardware.TransferGB(region, j.k.region)
		cost := perGB * float64(bytes[bucket]) / gigabyte
		j.egress += cost
		far = append(far, fmt.Sprintf("%.1f GB from s3://%s in %s, at $%.2f per GB %s in all",
			float64(bytes[bucket])/gigabyte, bucket, region, perGB, dollars(cost)))
	}
	if len(far) == 0 {
		return
	}
	how := "slower, too"
	switch {
	case len(regions) > 1:
		how = fmt.Sprintf("its inputs are in %d regions; a function for each, next to its data, reads for nothing", len(regions))
	case j.k.Hardware.Region != "auto":
		how = "region: auto puts them next to the data"
	}
	r.Warnings = append(r.Warnings, fmt.Sprintf("%s reads, on machines in %s, %s: %s", j.f.Name, j.k.region, strings.Join(far, ", and "), how))
}

// dollars is a price with as many digits as it needs.
func dollars(d float64) string {
	if d > 0 && d < 0.01 {
		return fmt.Sprintf("$%.4f", d)
	}
	return fmt.Sprintf("$%.2f", d)
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

// quotas warns of limits of the account that the plan runs into.
func (e *Engine) quotas(ctx context.Context, kinds []*pricedKind, r *planner.Report) {
	if e.AWS == nil || e.AWS.Quota == nil {
		return
	}
	type group struct {
		region, class, instanceType, market string
		vcpus                               int
		extra                               float64 // dollars per hour and CPU that on demand costs more
	}
	var groups []*group
	for _, k := range kinds {
		first := &k.selection.Choices[0]
		want := k.most * first.VCPUs
		class, market := first.QuotaClass(), k.selection.Request.Market
		i := slices.IndexFunc(groups, func(g *group) bool { return g.region == k.region && g.class == class && g.market == market })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{region: k.region, class: class, instanceType: first.Name, market: market})
		}
		groups[i].vcpus += want
		groups[i].extra = max(groups[i].extra, (first.OnDemand-k.machine.Instance)/float64(max(first.VCPUs, 1)))
	}
	quotas := make([][2]*Quota, len(groups)) // on demand, spot
	_ = together(2*len(groups), func(i int) error {
		g := groups[i/2]
		q, err := e.AWS.Quota(ctx, g.region, g.instanceType, i%2 == 1)
		if err != nil {
			return nil //nolint:nilerr // no right to read it: the launch will tell
		}
		quotas[i/2][i%2] = q
		return nil
	})
	for i, g := range groups {
		if text := quotaWarning(g.market, g.vcpus, g.extra, quotas[i][1], quotas[i][0]); text != "" {
			r.Warnings = append(r.Warnings, text)
		}
	}
}

// quotaWarning compares what a plan wants with what the account may start.
func quotaWarning(market string, want int, extra float64, spot, demand *Quota) string {
	first := spot
	if market == hardware.OnDemand {
		first = demand
	}
	if first == nil || want <= first.VCPUs {
		return ""
	}
	what := map[bool]string{true: "on-demand", false: "spot"}[market == hardware.OnDemand]
	have, text := first.VCPUs, fmt.Sprintf("your account may start %d %s vCPUs; this plan wants %d: ", first.VCPUs, what, want)
	raise := "raise " + first.Code
	if first.Link != "" {
		raise += " at " + first.Link
	}
	if market == hardware.SpotWithFallback && demand != nil && demand.VCPUs > 0 {
		have += demand.VCPUs
		if want <= have {
			return fmt.Sprintf("%s%s, or %d of them are rented on demand, for about $%.2f an hour more", text, raise, want-first.VCPUs, extra*float64(want-first.VCPUs))
		}
		text = fmt.Sprintf("your account may start %d spot vCPUs and %d on-demand ones; this plan wants %d: ", first.VCPUs, demand.VCPUs, want)
	}
	if have == 0 {
		return text + raise + ", or it cannot start"
	}
	return text + raise + ", or it will take " + times(float64(want)/float64(have)) + " longer"
}

// times is a factor for people: 26 times, 1.5 times.
func times(f float64) string {
	if f >= 2 {
		return fmt.Sprintf("%d times", int(f))
	}
	return fmt.Sprintf("%.1f times", f)
}
