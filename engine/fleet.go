package engine

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// fleetRecord is what the machines of a run are made of, as the last
// coordinator with the folder of the pipeline file recorded it: with it any
// other process can go on with the run.
type fleetRecord struct {
	Region string             `json:"region"` // of queues and secrets
	Agent  map[string]Program `json:"agent"`  // by architecture
	Kinds  []kindRecord       `json:"kinds"`
	// Notify are references to addresses of webhooks, by variable.
	Notify map[string]string `json:"notify,omitempty"`
	// MaxCost is a limit that a resume or retry gave.
	MaxCost *float64 `json:"max_cost,omitempty"`

	// Expect is how many seconds a task takes, by function, by earlier runs.
	Expect map[string]float64 `json:"expect,omitempty"`

	making sync.Mutex // held while kinds are added, which may take long
	mu     sync.Mutex // of Kinds, while a fleet works with it; elements never change then
}

// kindRecord is a kind of machines.
type kindRecord struct {
	Base string `json:"base"`
	// Memory is what tasks of Base asked for that ran out of it: these machines
	// were chosen for them. 0: those for all tasks.
	Memory  int64             `json:"memory,omitempty"`
	Region  string            `json:"region"`
	Choices []hardware.Choice `json:"choices"` // best first, never empty
	Setup   wire.Setup        `json:"setup"`
	// Hardware is what the file says, as far as it goes into launches.
	Hardware spec.Hardware `json:"hardware"`
}

func (k *kindRecord) arch() string { return k.Choices[0].Arch }

// leastMemory is the bytes that every machine of the kind has.
func (k *kindRecord) leastMemory() int64 {
	least := k.Choices[0].MemoryMiB
	for i := range k.Choices {
		least = min(least, k.Choices[i].MemoryMiB)
	}
	return least << 20
}

// choice is what is known of an instance type; nil if it was not chosen.
func (k *kindRecord) choice(instanceType string) *hardware.Choice {
	for i := range k.Choices {
		if k.Choices[i].Name == instanceType {
			return &k.Choices[i]
		}
	}
	return nil
}

func fleetKey(run string) string { return executor.Prefix(run) + "/fleet.json" }

// loadFleet reads what was recorded of a run's machines; nil if it never got
// that far.
func loadFleet(ctx context.Context, store cloud.Store, run string) (*fleetRecord, error) {
	b, err := store.Get(ctx, fleetKey(run))
	if cloud.KindOf(err) == cloud.KindNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec := &fleetRecord{}
	if err := json.Unmarshal(b, rec); err != nil || len(rec.Kinds) == 0 {
		return nil, &cloud.Error{Op: "read", Resource: fleetKey(run), Kind: cloud.KindCorrupt, Err: err}
	}
	return rec, nil
}

// save records the kinds: their Setup for machines, all of it for a later
// coordinator.
func (rec *fleetRecord) save(ctx context.Context, store cloud.Store, run string) error {
	err := together(len(rec.Kinds), func(i int) error {
		return writeJSON(ctx, store, wire.SetupKey(run, rec.Kinds[i].Setup.Kind), rec.Kinds[i].Setup)
	})
	if err != nil {
		return err
	}
	return writeJSON(ctx, store, fleetKey(run), rec)
}

// settle gives the kinds their pools and names, once everything else is known
// of them. An earlier coordinator's record gives the same if nothing changed.
func (rec *fleetRecord) settle(h *executor.Header, p *spec.Pipeline, store string) {
	for _, k := range kindsOf(executor.Selected(p, h.Functions, h.Only)) {
		for i := range rec.Kinds {
			r := &rec.Kinds[i]
			if r.Base != k.Base {
				continue
			}
			r.Hardware = k.Hardware
			parts := partsOf(k.Hardware)
			parts.Region, parts.Software, parts.Agent = r.Region, r.Setup.SoftwareID, rec.Agent[r.arch()].SHA256
			parts.Store, parts.Pipeline, parts.Owner = store, h.Pipeline, h.Owner
			parts.MoreMemory = r.Memory
			s := &r.Setup
			s.Run, s.Pool = h.Run, parts.pool()
			s.Threads = k.Hardware.Threads
			if s.Threads == 0 || r.Memory > 0 { // what asks for memory runs alone
				s.Threads = 1
			}
			s.Memory = r.leastMemory()
			s.IdleTimeout, s.KeepAlive, s.MaxLife = k.Hardware.IdleTimeout, k.Hardware.KeepAlive, k.Hardware.MaxLife
			s.Kind = nameKind(r.Base, *s)
		}
	}
}

// writeJSON puts v into the store.
func writeJSON(ctx context.Context, store cloud.Store, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return store.Put(ctx, key, b)
}
