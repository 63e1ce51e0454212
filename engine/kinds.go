package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// kind is a sort of machine of a run: what works for functions with equal
// hardware and software.
type kind struct {
	// Base is the function that the kind was made for: kinds of one run have
	// different ones, and a later coordinator finds the same.
	Base      string
	Functions []string // in file order
	Hardware  spec.Hardware
	Software  spec.Software
	Files     []spec.Files // of its functions, each once
}

// kindsOf sorts functions by the machines that they run on. A function without
// hardware joins the kind of what it needs, else the first with its software,
// else it gets the default hardware.
func kindsOf(fs []*spec.Function) []*kind {
	g := grouper{byName: map[string]*spec.Function{}, of: map[string]*kind{}}
	for _, f := range fs {
		g.byName[f.Name] = f
		if f.Hardware.Set {
			g.join(f, g.like(f))
		}
	}
	for _, f := range fs {
		g.place(f)
	}
	for _, k := range g.kinds {
		for _, f := range fs {
			if g.of[f.Name] != k {
				continue
			}
			k.Functions = append(k.Functions, f.Name)
			if !slices.ContainsFunc(k.Files, func(x spec.Files) bool { return reflect.DeepEqual(x, f.Files) }) {
				k.Files = append(k.Files, f.Files)
			}
		}
	}
	return g.kinds
}

type grouper struct {
	byName map[string]*spec.Function
	of     map[string]*kind
	kinds  []*kind
}

// like is the kind with the hardware and software of f; nil if there is none.
func (g *grouper) like(f *spec.Function) *kind {
	for _, k := range g.kinds {
		if reflect.DeepEqual(k.Hardware, f.Hardware) && sameSoftware(k.Software, f.Software) {
			return k
		}
	}
	return nil
}

// join puts f into a kind, a new one if k is nil.
func (g *grouper) join(f *spec.Function, k *kind) {
	if k == nil {
		k = &kind{Base: f.Name, Hardware: f.Hardware, Software: f.Software}
		g.kinds = append(g.kinds, k)
	}
	g.of[f.Name] = k
}

// place finds the kind of a function after those that it needs: needs are never
// circular.
func (g *grouper) place(f *spec.Function) {
	if g.of[f.Name] != nil {
		return
	}
	for _, need := range f.AllNeeds() {
		n := g.byName[need]
		if n == nil {
			continue
		}
		g.place(n)
		if k := g.of[need]; sameSoftware(k.Software, f.Software) {
			g.join(f, k)
			return
		}
	}
	for _, k := range g.kinds {
		if sameSoftware(k.Software, f.Software) {
			g.join(f, k)
			return
		}
	}
	g.join(f, nil)
}

func sameSoftware(a, b spec.Software) bool { return reflect.DeepEqual(a, b) }

// launchParts is everything that goes into a launch: machines that differ in
// any of it cannot take each other's place.
type launchParts struct {
	VMTypes         []string
	CPU             [2]float64
	Memory          [2]int64
	GPU             int
	GPUModel        string
	ARM             bool
	SpotPolicy      string
	DiskGB          int
	MaxLife         int64
	Tags            map[string]string
	Name            string
	Image           string // an AMI; "": the newest of the platform
	Subnet          string
	SecurityGroup   string
	InstanceProfile string
	MoreMemory      int64 // that tasks asked for which ran out of it
	Region          string
	Software        string // the id of what is installed
	Agent           string // the hash of the program
	Store           string
	Pipeline        string
	Owner           string
}

// partsOf is what the pipeline says of a kind's launches.
func partsOf(h spec.Hardware) launchParts {
	return launchParts{VMTypes: h.VMTypes, CPU: h.CPU, Memory: h.Memory, GPU: h.GPU, GPUModel: h.GPUModel, ARM: h.ARM,
		SpotPolicy: h.SpotPolicy, DiskGB: h.DiskGB, MaxLife: int64(h.MaxLife), Tags: h.Tags, Name: h.Name, Image: h.AMI, Subnet: h.Subnet,
		SecurityGroup: h.SecurityGroup, InstanceProfile: h.InstanceProfile}
}

// pool names the machines that are launched with the same parts.
func (p launchParts) pool() string { return hashOf(p)[:32] }

// hashOf is a hash over the JSON of v, in which mappings are sorted.
func hashOf(v any) string {
	b, _ := json.Marshal(v) // plain data
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// nameKind names a kind after its function and everything that its machines
// are told: those of an earlier coordinator that were told something else
// belong to no kind of this one, and leave.
func nameKind(base string, s wire.Setup) string {
	s.Kind = ""
	return base + "-" + hashOf(s)[:8]
}

// baseOf is the function that a kind is named after.
func baseOf(name string) string {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return name
	}
	return name[:i]
}
