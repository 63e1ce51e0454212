package hardware

import (
	"fmt"
	"math"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// defaultCPUs is what a function gets that asks for nothing, as at the service
// this program replaces.
const defaultCPUs = 2

// Request is what a machine must have.
type Request struct {
	Types  []string   // only these; empty: any
	CPU    [2]float64 // lo, hi; hi 0: no upper bound; lo == hi: exactly, or the next size that exists
	Memory [2]int64   // bytes; 0, 0: any; hi 0: no upper bound
	GPUs   int
	Model  string // of the GPUs, as people write it; "": any of NVIDIA
	Arch   string // x86_64 or arm64; "": whatever Types have
	Market string // on-demand, spot, spot_with_fallback: by which price to rank
	// Limit is the CPUs that all machines may have together (limits.vcpus); 0:
	// any number.
	Limit int
}

// RequestOf is what a function's hardware asks for. What says nothing asks for
// two CPUs.
func RequestOf(h spec.Hardware) Request {
	r := Request{Types: h.VMTypes, CPU: h.CPU, Memory: h.Memory, GPUs: h.GPU, Model: h.GPUModel, Arch: AMD64, Market: h.SpotPolicy}
	if r.Model != "" && r.GPUs == 0 {
		r.GPUs = 1
	}
	if r.Market == "" {
		r.Market = SpotWithFallback
	}
	switch {
	case h.ARM:
		r.Arch = ARM64
	case len(r.Types) > 0:
		r.Arch = ""
	case r.Model != "" && armOnly(r.Model):
		r.Arch = ARM64
	}
	if len(r.Types) == 0 && r.CPU == [2]float64{} && r.Memory == [2]int64{} && r.GPUs == 0 {
		r.CPU = [2]float64{defaultCPUs, defaultCPUs}
	}
	return r
}

// armOnly says that a GPU is only found beside ARM processors: asking for it
// asks for them.
func armOnly(model string) bool { return gpuKey(model) == "t4g" }

// Larger is the request for another try of a task that ran out of memory: at
// least so much memory, whatever else it takes, of the same architecture and
// with the same GPUs.
func (r Request) Larger(c *Catalogue, memory int64) Request {
	if len(r.Types) > 0 && r.Arch == "" {
		r.Arch = AMD64
		if o := c.Offer(r.Types[0]); o != nil {
			r.Arch = o.Arch
		}
	}
	for _, name := range r.Types {
		if o := c.Offer(name); o != nil {
			r.CPU[0] = math.Max(r.CPU[0], float64(o.VCPUs))
			if o.GPUs > 0 && r.GPUs == 0 {
				r.GPUs, r.Model = o.GPUs, o.GPUModel
			}
		}
	}
	r.Types = nil
	r.CPU[1] = 0
	r.Memory = [2]int64{max(memory, r.Memory[0]), 0}
	return r
}

// spot is whether machines may be reclaimed, which is what makes them cheap.
func (r Request) spot() bool { return r.Market == Spot || r.Market == SpotWithFallback }

// String is the request for people: "2 CPUs, 14.4-17.6 GiB, x86_64".
func (r Request) String() string {
	var parts []string
	if len(r.Types) > 0 {
		parts = append(parts, "vm_type "+strings.Join(r.Types, ", "))
	}
	if lo, hi := r.CPU[0], r.CPU[1]; lo > 0 || hi > 0 {
		text := span(number(lo), number(hi), hi == 0)
		if text != "1" {
			text += " CPUs"
		} else {
			text += " CPU"
		}
		parts = append(parts, text)
	}
	if lo, hi := r.Memory[0], r.Memory[1]; lo > 0 || hi > 0 {
		parts = append(parts, span(gib(lo), gib(hi), hi == 0)+" GiB of memory")
	}
	if r.GPUs > 0 {
		text := fmt.Sprintf("%d GPU", r.GPUs)
		if r.GPUs > 1 {
			text += "s"
		}
		if r.Model != "" {
			text = fmt.Sprintf("%d x %s", r.GPUs, r.Model)
		}
		parts = append(parts, text)
	}
	if r.Arch != "" {
		parts = append(parts, r.Arch)
	}
	if r.Limit > 0 {
		parts = append(parts, fmt.Sprintf("within limits.vcpus of %d", r.Limit))
	}
	return strings.Join(parts, ", ")
}

func span(lo, hi string, open bool) string {
	switch {
	case open:
		return "at least " + lo
	case lo == hi:
		return lo
	}
	return lo + "-" + hi
}

func number(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") }

func gib(bytes int64) string { return number(float64(bytes) / (1 << 30)) }

// gpuKey makes spellings of a model equal: "NVIDIA T4", "tesla-t4" and "T4".
func gpuKey(model string) string {
	key := strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '_' {
			return -1
		}
		return r
	}, strings.ToLower(model))
	for _, maker := range []string{"nvidia", "tesla", "amd"} {
		key = strings.TrimPrefix(key, maker)
	}
	return key
}
