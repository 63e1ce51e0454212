package spec

import (
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

func (d *decoder) hardwareOf(f *field) Hardware {
	h := Hardware{SpotPolicy: "spot_with_fallback", Workers: [2]int{0, 500},
		IdleTimeout: 10 * time.Minute, KeepAlive: 30 * time.Second, MaxLife: 24 * time.Hour}
	if f == nil {
		return h
	}
	h.Set = true
	h.VMTypes = strs(f.get("vm_type"))
	d.checkForm(f.get("vm_type"), vmType, "an instance type such as m6i.xlarge")
	if c := f.get("cpu"); c != nil {
		lo, hi, _ := bounds[float64](d, c)
		h.CPU = [2]float64{lo, hi}
	}
	if m := f.get("memory"); m != nil {
		lo, hi, single := bounds[int64](d, m)
		if single {
			lo, hi = int64(math.Floor(float64(lo)*0.9)), int64(math.Ceil(float64(hi)*1.1))
		}
		if m.ok && hi <= 0 {
			d.report(m.n.pos, m.path, "expected a size larger than 0, such as \"16 GiB\"")
		}
		h.Memory = [2]int64{lo, hi}
	}
	if g := f.get("gpu"); g != nil && g.ok {
		gpu := g.v.(gpuValue)
		h.GPU, h.GPUModel = gpu.count, gpu.model
	}
	h.ARM = isTrue(f.get("arm"))
	h.DiskGB = int(math.Ceil(float64(size(f.get("disk_size"), 0)) / (1 << 30)))
	if s := f.get("disk_size"); h.DiskGB > maxDisk {
		d.report(s.n.pos, s.path, "a disk has 64 TiB at most")
	}
	h.Region = str(f.get("region"), "")
	d.checkForm(f.get("region"), regionName, "a region such as us-east-1, or auto")
	h.SpotPolicy = str(f.get("spot_policy"), h.SpotPolicy)
	if w := f.get("n_workers"); w != nil && w.ok {
		lo, hi, _ := bounds[int](d, w)
		if w.ok && hi < 1 {
			d.report(w.n.pos, w.path, "without a machine nothing runs: at least 1")
		}
		h.Workers = [2]int{lo, hi}
	}
	h.Threads = num(f.get("threads_per_worker"), 0)
	h.IdleTimeout = dur(f.get("idle_timeout"), h.IdleTimeout)
	h.KeepAlive = dur(f.get("keepalive"), h.KeepAlive)
	if l := f.get("max_life"); l != nil && l.ok {
		if h.MaxLife = dur(l, h.MaxLife); h.MaxLife <= 0 {
			d.report(l.n.pos, l.path, "expected a duration longer than 0, such as 24h")
		}
	}
	if t := f.get("tags"); t != nil {
		h.Tags = make(map[string]string, len(t.dict))
		for _, e := range t.dict {
			h.Tags[e.key.text] = str(e.value, "")
			d.checkTag(e.value, e.key.text, h.Tags[e.key.text])
		}
		if len(t.dict) > maxTags {
			d.report(t.n.pos, t.path, "%d tags are too many: %d at most, beside those of this program", len(t.dict), maxTags)
		}
	}
	h.AMI, h.Subnet = str(f.get("ami"), ""), str(f.get("subnet"), "")
	h.SecurityGroup, h.InstanceProfile = str(f.get("security_group"), ""), str(f.get("instance_profile"), "")
	h.Name = str(f.get("name"), "")
	return h
}

// maxDisk is the GiB of the largest gp3 disk.
const maxDisk = 64 << 10

// maxTags leaves room for the program's own: Amazon takes 50.
const maxTags = 40

// checkTag reports tags that Amazon takes nowhere.
func (d *decoder) checkTag(f *field, key, value string) {
	switch {
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		d.report(f.n.pos, f.path, "tags that begin with aws: are Amazon's own; choose another name")
	case utf8.RuneCountInString(key) > 128:
		d.report(f.n.pos, f.path, "the name of a tag has 128 characters at most")
	case utf8.RuneCountInString(value) > 256:
		d.report(f.n.pos, f.path, "the value of a tag has 256 characters at most")
	}
}

var (
	vmType     = regexp.MustCompile(`^[a-z][a-z0-9-]*\.[a-z0-9-]+$`)
	regionName = regexp.MustCompile(`^(auto|[a-z]+(-[a-z]+)+-[0-9]+)$`)
)

// checkForm reports texts that cannot be names of that kind.
func (d *decoder) checkForm(f *field, form *regexp.Regexp, what string) {
	if f == nil || !f.ok {
		return
	}
	for _, e := range append([]*field{f}, f.list...) {
		if text, ok := e.v.(string); ok && !form.MatchString(text) {
			d.report(e.n.pos, e.path, "expected %s, found %s", what, e.n.found())
		}
	}
}

// bounds reads n or [lo, hi].
func bounds[T int | int64 | float64](d *decoder, f *field) (lo, hi T, single bool) {
	if !f.ok {
		return 0, 0, false
	}
	if v, ok := f.v.(T); ok {
		return v, v, true
	}
	if len(f.list) != 2 {
		d.report(f.n.pos, f.path, "a range has two values, [lo, hi], found %d", len(f.list))
		f.ok = false
		return 0, 0, false
	}
	lo, hi = f.list[0].v.(T), f.list[1].v.(T)
	if lo > hi {
		d.report(f.n.pos, f.path, "the range is upside down: the first value is larger than the second")
		f.ok = false
	}
	return lo, hi, false
}

func softwareOf(f *field) Software {
	return Software{
		Container: str(f.get("container"), ""), Python: str(f.get("python"), ""),
		Requirements: str(f.get("requirements"), ""), UV: str(f.get("uv"), ""), Conda: str(f.get("conda"), ""),
		Apt: strs(f.get("apt")), Setup: str(f.get("setup"), ""),
	}
}
