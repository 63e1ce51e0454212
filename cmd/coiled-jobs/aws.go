package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/engine"
)

// rented is what runs with cloud: aws use, opened when they ask for it.
type rented struct {
	a   *app
	exe string

	mu      sync.Mutex
	secrets map[string]*aws.Secrets
}

// awsCloud is access to AWS for an engine. Nothing is asked of it yet.
func (a *app) awsCloud(ctx context.Context, exe string) *engine.AWS {
	r := &rented{a: a, exe: exe, secrets: map[string]*aws.Secrets{}}
	c := &engine.AWS{
		Machines:  r.machines,
		OpenQueue: r.openQueue, JoinQueue: r.joinQueue, DeleteQueues: r.deleteQueues,
		Publish:    r.publish,
		PutSecrets: r.putSecrets, DeleteSecrets: r.deleteSecrets, Secret: r.secret,
	}
	if a.storeFlag == "" && a.getenv("COILED_JOBS_STORE") == "" {
		c.Store = func(ctx context.Context) (cloud.Store, error) {
			s, err := aws.DefaultStore(ctx, "")
			if err != nil {
				return nil, err // not a nil *Store in an interface
			}
			return s, nil
		}
	}
	a.lookUpPrices(ctx, c)
	return c
}

// machines opens the machines of a region for a run. Each request to launch is
// recorded with the run before it is made.
func (r *rented) machines(ctx context.Context, region, run string, store cloud.Store, launch func(cloud.MachineSpec) (engine.Launch, error)) (engine.Machines, error) {
	in := intents{store, run}
	m, err := aws.OpenMachines(ctx, aws.MachinesOptions{Region: region, Record: in.record, Recall: in.recall,
		Template: func(spec cloud.MachineSpec) (aws.Template, error) {
			l, err := launch(spec)
			if err != nil {
				return aws.Template{}, err
			}
			return r.template(ctx, region, store, l)
		}})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// template is what goes into a machine.
func (r *rented) template(ctx context.Context, region string, store cloud.Store, l engine.Launch) (aws.Template, error) {
	bucket, ok := store.(*aws.Store)
	if !ok {
		return aws.Template{}, usagef("machines cannot reach the store %s", store.URL())
	}
	home, err := bucket.Region(ctx)
	if err != nil {
		return aws.Template{}, err
	}
	log, err := bucket.ObjectURL(ctx, l.BootLog)
	if err != nil {
		return aws.Template{}, err
	}
	data := aws.UserData{MaxLife: l.MaxLife, Agent: l.Agent.URL, SHA256: l.Agent.SHA256, Log: log, Region: home, Args: append(l.Args, r.a.machineEnv(region)...)}
	script, err := data.Script()
	if err != nil {
		return aws.Template{}, err
	}
	t := aws.Template{Pipeline: l.Pipeline, Owner: l.Owner, Store: store.URL(), Expires: l.Expires, UserData: script,
		Image: l.Hardware.AMI, Arch: l.Arch, SecurityGroup: l.Hardware.SecurityGroup, Profile: l.Hardware.InstanceProfile}
	if l.Hardware.Subnet != "" {
		t.Subnets = strings.FieldsFunc(l.Hardware.Subnet, func(c rune) bool { return c == ',' || c == ' ' })
	}
	switch {
	case l.Coordinator:
		t.Profile = aws.CoordinatorRole
	case t.Profile == "":
		t.Profile = aws.MachineRole
	}
	return t, nil
}

// machineEnv is arguments for the program on a machine: where it is, and where
// servers other than Amazon's are, if the caller speaks to such.
func (a *app) machineEnv(region string) []string {
	args := []string{"--env", "AWS_REGION=" + region}
	seen := map[string]bool{}
	for _, kv := range a.environ {
		name, _, _ := strings.Cut(kv, "=")
		if (name == "AWS_ENDPOINT_URL" || strings.HasPrefix(name, "AWS_ENDPOINT_URL_")) && a.getenv(name) != "" && !seen[name] {
			seen[name] = true
			args = append(args, "--env", name+"="+a.getenv(name))
		}
	}
	return args
}

// intents keeps requests to launch with their run.
type intents struct {
	store cloud.Store
	run   string
}

func (in intents) prefix(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "runs/" + in.run + "/intents/" + hex.EncodeToString(sum[:8]) + "/"
}

func (in intents) record(ctx context.Context, i aws.Intent) error {
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return in.store.Put(ctx, in.prefix(i.Token)+i.Client+".json", b)
}

func (in intents) recall(ctx context.Context, token string) ([]aws.Intent, error) {
	var keys []string
	err := in.store.List(ctx, in.prefix(token), func(o cloud.ObjectInfo) bool {
		keys = append(keys, o.Key)
		return true
	})
	if err != nil {
		return nil, err
	}
	var list []aws.Intent
	for _, key := range keys {
		b, err := in.store.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		var i aws.Intent
		if err := json.Unmarshal(b, &i); err != nil {
			return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
		}
		list = append(list, i)
	}
	return list, nil
}

func (r *rented) openQueue(ctx context.Context, region, run, name string, t engine.QueueTags) (engine.Queue, error) {
	q, err := aws.OpenQueue(ctx, aws.QueueOptions{Run: run, Kind: name, Region: region, Store: t.Store, Tags: aws.Tags(t.Tags, t.Pipeline, t.Owner)})
	if err != nil {
		return nil, err
	}
	return q, nil
}

func (r *rented) joinQueue(ctx context.Context, url string) (engine.Queue, error) {
	q, err := aws.JoinQueue(ctx, url)
	if err != nil {
		return nil, err
	}
	return q, nil
}

func (r *rented) deleteQueues(ctx context.Context, region, run string) error {
	list, err := aws.ListQueues(ctx, region, run)
	if err != nil {
		return err
	}
	for _, info := range list {
		q, err := aws.JoinQueue(ctx, info.URL)
		if err != nil {
			return err
		}
		if err := q.Close(); err != nil {
			return err
		}
	}
	return nil
}

// publish puts the program for machines into the store.
func (r *rented) publish(ctx context.Context, store cloud.Store, arch string) (engine.Program, error) {
	bucket, ok := store.(*aws.Store)
	if !ok {
		return engine.Program{}, usagef("machines cannot reach the store %s", store.URL())
	}
	find := aws.AgentFinder{Exe: r.exe, Version: buildVersion(), File: r.a.getenv("COILED_JOBS_AGENT"), Environ: r.a.environ,
		Notice: func(text string) { fmt.Fprintln(r.a.messages, text) }}
	if state, err := r.a.stateDir(); err == nil {
		find.Cache = filepath.Join(state, "agent")
	}
	known := digests{filepath.Join(find.Cache, "digests.json")}
	file := statOf(find.First(arch))
	if digest := known.of(file); digest != "" {
		// What was there once may have been removed since.
		if url, sum, ok, err := aws.PublishedAgent(ctx, bucket, buildVersion(), arch, digest); ok || err != nil {
			return engine.Program{URL: url, SHA256: sum}, err
		}
	}
	digest := ""
	url, sum, err := aws.PublishAgent(ctx, bucket, buildVersion(), arch, func(ctx context.Context) (io.ReadCloser, error) {
		r, err := find.Open(ctx, arch)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		h := sha256.Sum256(b)
		digest = hex.EncodeToString(h[:])
		return io.NopCloser(bytes.NewReader(b)), nil
	})
	if err == nil && find.Cache != "" && file.is(digest) {
		known.note(file, digest)
	}
	return engine.Program{URL: url, SHA256: sum}, err
}

func (r *rented) open(ctx context.Context, region string) (*aws.Secrets, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.secrets[region]; s != nil {
		return s, nil
	}
	s, err := aws.OpenSecrets(context.WithoutCancel(ctx), region)
	if err == nil {
		r.secrets[region] = s
	}
	return s, err
}

func (r *rented) putSecrets(ctx context.Context, region, run, store string, values map[string]string) (map[string]string, error) {
	s, err := r.open(ctx, region)
	if err != nil {
		return nil, err
	}
	noted := *s
	noted.Store = store
	return noted.PutSecrets(ctx, run, values)
}

func (r *rented) deleteSecrets(ctx context.Context, region, run string) error {
	s, err := r.open(ctx, region)
	if err != nil {
		return err
	}
	return s.DeleteSecrets(ctx, run)
}

func (r *rented) secret(ctx context.Context, region, ref string) (string, error) {
	s, err := r.open(ctx, region)
	if err != nil {
		return "", err
	}
	return s.Resolve(ctx, ref)
}
