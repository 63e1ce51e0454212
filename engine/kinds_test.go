package engine

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

func bindFunctions(t *testing.T, functions string) []*spec.Function {
	t.Helper()
	p, err := executor.Bind([]byte("name: p\ncloud: aws\nfunctions:\n"+functions), "p.yaml", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return p.Functions
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, functions, want string }{
		{"equal hardware is one kind", `
  a: {command: [x], hardware: {vm_type: m6i.large}}
  b: {command: [x], hardware: {vm_type: m6i.large}}`, "a[a b]"},
		{"other hardware is another", `
  a: {command: [x], hardware: {vm_type: m6i.large}}
  b: {command: [x], hardware: {vm_type: m6i.large, threads_per_worker: 2}}`, "a[a] b[b]"},
		{"other software is another", `
  a: {command: [x], hardware: {vm_type: m6i.large}}
  b: {command: [x], hardware: {vm_type: m6i.large}, software: {container: "y"}}`, "a[a] b[b]"},
		{"none at all", `
  a: {command: [x]}
  b: {command: [x], needs: a}`, "a[a b]"},
		{"without hardware on the machines of what it needs", `
  a: {command: [x], hardware: {vm_type: m6i.large}}
  b: {command: [x], hardware: {vm_type: c6i.large}}
  c: {command: [x], needs: b}`, "a[a] b[b c]"},
		{"also through a function without, and a need that stands below", `
  d: {command: [x], needs: c}
  c: {command: [x], needs: b}
  a: {command: [x], hardware: {vm_type: m6i.large}}
  b: {command: [x], hardware: {vm_type: c6i.large}}`, "a[a] b[d c b]"},
		{"behind from", `
  a: {command: [x], hardware: {vm_type: m6i.large}}
  b: {command: [x], map: {range: 3}, hardware: {vm_type: c6i.large}}
  c: {command: [x], map: {from: b}}`, "a[a] b[b c]"},
		{"the first with its software", `
  a: {command: [x], hardware: {vm_type: m6i.large}, software: {container: y}}
  b: {command: [x], hardware: {vm_type: c6i.large}}
  c: {command: [x]}`, "a[a] b[b c]"},
		{"needs with other software do not help", `
  a: {command: [x], hardware: {vm_type: m6i.large}, software: {container: y}}
  c: {command: [x], needs: a}`, "a[a] c[c]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, k := range kindsOf(bindFunctions(t, c.functions)) {
				got = append(got, k.Base+fmt.Sprint(k.Functions))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func TestKindHasTheFilesOfItsFunctions(t *testing.T) {
	t.Parallel()
	kinds := kindsOf(bindFunctions(t, `
  a: {command: [x], files: {include: ["x/*"]}}
  b: {command: [x], needs: a, files: {include: ["y/*"]}}
  c: {command: [x], needs: b, files: {include: ["x/*"]}}`))
	want := []spec.Files{{Include: []string{"x/*"}}, {Include: []string{"y/*"}}}
	if len(kinds) != 1 || !reflect.DeepEqual(kinds[0].Files, want) {
		t.Errorf("got %+v, want one kind with %+v", kinds, want)
	}
}

// Machines of one pool take each other's place, so everything of a launch is in
// its name, and nothing that a run tells a machine later.
func TestPool(t *testing.T) {
	t.Parallel()
	base := bindFunctions(t, "  a: {command: [x], hardware: {vm_type: m6i.large}}")[0].Hardware
	pool := func(change func(*spec.Hardware, *launchParts)) string {
		h := base
		var also launchParts
		if change != nil {
			change(&h, &also)
		}
		p := partsOf(h)
		p.Region, p.Software, p.Agent, p.Store, p.Pipeline, p.Owner = "r", "s", "a", "st", "p", "o"
		for i, v := 0, reflect.ValueOf(also); i < v.NumField(); i++ {
			if !v.Field(i).IsZero() {
				reflect.ValueOf(&p).Elem().Field(i).Set(v.Field(i))
			}
		}
		return p.pool()
	}
	same := pool(nil)
	if same != pool(nil) || len(same) != 32 {
		t.Fatalf("pool %q is not stable", same)
	}
	seen := map[string]string{same: "nothing"}
	for name, change := range map[string]func(*spec.Hardware, *launchParts){
		"type":     func(h *spec.Hardware, _ *launchParts) { h.VMTypes = []string{"m6i.xlarge"} },
		"cpu":      func(h *spec.Hardware, _ *launchParts) { h.CPU = [2]float64{2, 4} },
		"memory":   func(h *spec.Hardware, _ *launchParts) { h.Memory = [2]int64{1, 2} },
		"gpu":      func(h *spec.Hardware, _ *launchParts) { h.GPU = 1 },
		"model":    func(h *spec.Hardware, _ *launchParts) { h.GPUModel = "T4" },
		"arm":      func(h *spec.Hardware, _ *launchParts) { h.ARM = true },
		"spot":     func(h *spec.Hardware, _ *launchParts) { h.SpotPolicy = "spot" },
		"disk":     func(h *spec.Hardware, _ *launchParts) { h.DiskGB = 100 },
		"life":     func(h *spec.Hardware, _ *launchParts) { h.MaxLife = time.Hour },
		"tags":     func(h *spec.Hardware, _ *launchParts) { h.Tags = map[string]string{"a": "b"} },
		"name":     func(h *spec.Hardware, _ *launchParts) { h.Name = "n" },
		"image":    func(h *spec.Hardware, _ *launchParts) { h.AMI = "ami-1" },
		"subnet":   func(h *spec.Hardware, _ *launchParts) { h.Subnet = "subnet-1" },
		"group":    func(h *spec.Hardware, _ *launchParts) { h.SecurityGroup = "sg-1" },
		"profile":  func(h *spec.Hardware, _ *launchParts) { h.InstanceProfile = "p" },
		"region":   func(_ *spec.Hardware, p *launchParts) { p.Region = "r2" },
		"software": func(_ *spec.Hardware, p *launchParts) { p.Software = "s2" },
		"agent":    func(_ *spec.Hardware, p *launchParts) { p.Agent = "a2" },
		"store":    func(_ *spec.Hardware, p *launchParts) { p.Store = "st2" },
		"pipeline": func(_ *spec.Hardware, p *launchParts) { p.Pipeline = "p2" },
		"owner":    func(_ *spec.Hardware, p *launchParts) { p.Owner = "o2" },
	} {
		got := pool(change)
		if other, ok := seen[got]; ok {
			t.Errorf("a change of %s gives the pool of %s", name, other)
		}
		seen[got] = name
	}
	for name, change := range map[string]func(*spec.Hardware, *launchParts){
		"workers":   func(h *spec.Hardware, _ *launchParts) { h.Workers = [2]int{1, 2} },
		"threads":   func(h *spec.Hardware, _ *launchParts) { h.Threads = 4 },
		"idle":      func(h *spec.Hardware, _ *launchParts) { h.IdleTimeout = time.Second },
		"keepalive": func(h *spec.Hardware, _ *launchParts) { h.KeepAlive = time.Second },
	} {
		if pool(change) != same {
			t.Errorf("a change of %s, which a machine is told by its run, changes the pool", name)
		}
	}
}

func TestKindNames(t *testing.T) {
	t.Parallel()
	s := wire.Setup{Run: "r", Pool: "p", Code: "c", Secrets: map[string]string{"A": "ssm:/a", "B": "ssm:/b"}}
	name := nameKind("my_fn", s)
	if baseOf(name) != "my_fn" {
		t.Errorf("base of %q is %q", name, baseOf(name))
	}
	s.Kind = name
	if got := nameKind("my_fn", s); got != name {
		t.Errorf("%q and %q for the same", name, got)
	}
	s.Code = "d"
	if got := nameKind("my_fn", s); got == name {
		t.Errorf("%q for other code too", got)
	}
}
