package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// broken is a store that does not answer for some keys.
type broken struct {
	cloud.Store
	prefix string
}

var errBroken = errors.New("no answer")

func (b broken) Get(ctx context.Context, key string) ([]byte, error) {
	if strings.HasPrefix(key, b.prefix) {
		return nil, errBroken
	}
	return b.Store.Get(ctx, key)
}

func (b broken) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	if strings.HasPrefix(prefix, b.prefix) {
		return errBroken
	}
	return b.Store.List(ctx, prefix, fn)
}

func TestJudge(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	file := filepath.Join(home, "p.yaml")
	if err := os.WriteFile(file, []byte("name: judged\nlimits: {unattended: 10m}\nfunctions: {f: {run: echo}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, messages bytes.Buffer
	environ := append(os.Environ(), "HOME="+home, "XDG_STATE_HOME="+home, "COILED_JOBS_STORE=")
	apply := func() (id string) {
		t.Helper()
		out.Reset()
		if code := run(t.Context(), []string{"apply", file, "--json"}, strings.NewReader(""), &out, &messages, environ); code != 0 {
			t.Fatalf("%d: %s%s", code, &out, &messages)
		}
		var doc struct{ Run string }
		if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Run
	}
	ended, dead := apply(), apply()
	// A coordinator that died: its journal breaks off.
	journal := filepath.Join(home, program, "store", "runs", dead, "journal")
	if b, err := os.ReadFile(journal); err != nil || os.WriteFile(journal, b[:len(b)/3], 0o600) != nil {
		t.Fatal("cannot cut the journal", err)
	}
	a := newApp(strings.NewReader(""), &out, &messages, environ)
	e, err := a.reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	put := func(key string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err == nil {
			err = e.Store.Put(ctx, key, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	put(wire.IdleKey("p", "i-waits", 1), wire.Idle{Until: now.Add(-5 * time.Hour)})
	put(wire.InviteKey("p", "i-waits", 1), wire.Invite{Run: ended})
	put(wire.IdleKey("p", "i-waits", 10), wire.Idle{Until: now.Add(90 * time.Minute)})
	put(wire.IdleKey("p", "i-waited", 9), wire.Idle{Until: now.Add(30 * time.Minute)})
	put(wire.IdleKey("p", "i-left", 1), wire.Idle{Until: now.Add(5 * time.Hour)})
	put(wire.InviteKey("p", "i-left", 1), wire.Invite{})
	put(wire.IdleKey("p", "i-invited", 1), wire.Idle{Until: now.Add(-time.Hour)})
	put(wire.InviteKey("p", "i-invited", 1), wire.Invite{Run: dead})
	machine := func(run, id string) aws.Thing {
		m := &aws.Instance{}
		m.ID, m.Run, m.Pool = id, run, "p"
		return aws.Thing{Kind: aws.ThingMachine, ID: id, Run: run, Machine: m}
	}
	queue := func(run string) aws.Thing { return aws.Thing{Kind: aws.ThingQueue, ID: "q", Run: run} }
	secret := func(run string) aws.Thing { return aws.Thing{Kind: aws.ThingSecret, ID: "s", Run: run} }
	for _, tt := range []struct {
		name  string
		after time.Duration // since the runs ended
		grant time.Duration // of the dead run, from now; 0: none was written
		store cloud.Store
		thing aws.Thing
		over  bool
		why   string // or the error
		fails bool
	}{
		{name: "just ended", after: time.Minute, thing: queue(ended)},
		{name: "ended", after: time.Hour, thing: queue(ended), over: true, why: "its run succeeded at"},
		{name: "ended, its machine", after: time.Hour, thing: machine(ended, "i-1"), over: true, why: "its run succeeded at"},
		{name: "its machine waits", after: time.Hour, thing: machine(ended, "i-waits")},
		{name: "its machine waited", after: time.Hour, thing: machine(ended, "i-waited"), over: true, why: "it waited for another until"},
		{name: "its machine has left", after: time.Hour, thing: machine(ended, "i-left"), over: true},
		{name: "its machine was invited", after: 5 * time.Minute, thing: machine(ended, "i-invited")},
		{name: "its machine was invited by a run that is over", after: time.Hour, thing: machine(ended, "i-invited"), over: true, why: "no coordinator"},
		{name: "dead, young", after: 9 * time.Minute, thing: machine(dead, "i-1")},
		{name: "dead", after: 13 * time.Minute, thing: machine(dead, "i-1"), over: true, why: "no coordinator"},
		{name: "dead, its queue", after: time.Hour, thing: queue(dead), over: true, why: "no coordinator"},
		{name: "dead, its secrets: it may be resumed", after: time.Hour, thing: secret(dead)},
		{name: "ended, its secrets", after: time.Hour, thing: secret(ended), over: true, why: "its run succeeded at"},
		{name: "dead, its grant runs", after: time.Hour, grant: 2 * time.Hour, thing: machine(dead, "i-1")},
		{name: "dead, its grant ended", after: 3 * time.Hour, grant: 2 * time.Hour, thing: queue(dead), over: true, why: "what was granted ended at"},
		{name: "a run of nobody", after: time.Hour, thing: queue("theirs-1"), fails: true, why: "not say in which store"},
		{name: "a store that cannot be opened", after: time.Hour, thing: aws.Thing{Kind: aws.ThingQueue, Run: ended, Store: "s3://a b/"}, fails: true, why: "s3://"},
		{name: "text that is no store", after: time.Hour, thing: aws.Thing{Kind: aws.ThingSecret, Run: ended, Store: "for the data team"}, over: true},
		{name: "no answer about the run", after: time.Hour, store: broken{e.Store, "runs/"}, thing: queue(ended), fails: true, why: "no answer"},
		{name: "no answer about the pool", after: time.Hour, store: broken{e.Store, "pools/"}, thing: machine(ended, "i-1"), fails: true, why: "no answer"},
		{name: "no answer about the invitation", after: time.Hour, store: broken{e.Store, "pools/p/i-left/invite"}, thing: machine(ended, "i-left"), fails: true, why: "no answer"},
		{name: "no answer about the grant", after: time.Hour, store: broken{e.Store, wire.ControlKey(dead)}, thing: queue(dead), fails: true, why: "no answer"},
	} {
		if err := e.Store.Delete(ctx, wire.ControlKey(dead)); err != nil {
			t.Fatal(err)
		}
		if tt.grant != 0 {
			put(wire.ControlKey(dead), wire.Control{Until: now.Add(tt.grant)})
		}
		own := *e
		own.StateDir = t.TempDir() // without pointers: the stores decide
		j := &judge{a: a, e: &own, now: now.Add(tt.after), stores: []cloud.Store{e.Store}, runs: map[string]verdict{}}
		if tt.store != nil {
			j.stores = []cloud.Store{tt.store}
		}
		over, why, err := j.over(ctx, tt.thing)
		if err != nil {
			why = err.Error()
		}
		if over != tt.over || (err != nil) != tt.fails || !strings.Contains(why, tt.why) {
			t.Errorf("%s: over %v (%s), error %v", tt.name, over, why, err)
		}
	}
}

// A machine beyond its life is shown, marked and ended, on a server that nobody
// here wrote; one of a run that lives is shown and spared.
func TestMachinesAndGCOfAnAccount(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	home := t.TempDir()
	out, _ := here(t, home, 0, "machines", "--json")
	wants(t, out, "[]")
	here(t, home, 0, "setup", "aws")
	m, err := aws.OpenMachines(t.Context(), aws.MachinesOptions{Types: []string{"m5.large"}, Template: func(s cloud.MachineSpec) (aws.Template, error) {
		x := aws.Template{Owner: "me@here", Store: "s3://coiled-jobs-123456789012-us-east-1"}
		if s.Run == "old-1" {
			x.Expires = time.Now().Add(-time.Hour)
		}
		return x, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	launch := func(run string) string {
		t.Helper()
		list, err := m.Launch(t.Context(), cloud.MachineSpec{Run: run, Token: run, Count: 1, Spot: "spot"})
		if err != nil {
			t.Fatal(err)
		}
		return list[0].ID
	}
	old, young := launch("old-1"), launch("young-1")
	out, _ = here(t, home, 0, "machines", "--json")
	var lines []machineLine
	if err := json.Unmarshal([]byte(out), &lines); err != nil || len(lines) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, l := range lines {
		if l.Machine != old && l.Machine != young || !l.Spot || l.Type != "m5.large" || l.Owner != "me@here" || l.Region != "us-east-1" || l.Zone == "" ||
			l.PricePerHour <= 0 || l.CostUSD <= 0 || l.Status != "deleted" {
			t.Errorf("%+v", l)
		}
	}
	out, _ = here(t, home, 0, "gc", "--dry-run")
	wants(t, out, "would remove machine "+old)
	out, _ = here(t, home, 0, "gc")
	wants(t, out, "marked machine "+old, "the next gc removes it")
	out, _ = here(t, home, 0, "gc", "--json")
	wants(t, out, "removed machine "+old, `"state": "removed"`)
	out, _ = here(t, home, 0, "machines")
	wants(t, out, young)
	if strings.Contains(out, old) {
		t.Errorf("%s is still there: %s", old, out)
	}
	if err := m.Clean(t.Context(), "young-1"); err != nil {
		t.Fatal(err)
	}
	_, messages := here(t, home, 0, "machines")
	wants(t, messages, "no machine works")
}
