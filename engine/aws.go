package engine

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// AWS is what runs on rented machines need of the cloud. The caller fills it:
// nothing here knows the SDK.
type AWS struct {
	// Region is where machines are rented if nothing else says where.
	Region string
	// BucketRegion is where a bucket is.
	BucketRegion func(ctx context.Context, bucket string) (string, error)
	// Machines opens the machines of a region. Each launch asks launch for what
	// its cloud.MachineSpec does not say. Requests to launch are recorded with
	// their run, so that a later coordinator does not rent twice.
	Machines func(ctx context.Context, region string, run string, store cloud.Store, launch func(cloud.MachineSpec) (Launch, error)) (Machines, error)
	// OpenQueue makes a queue of a run, with tags, or opens it; JoinQueue opens
	// one by its URL; DeleteQueues removes all that a run has.
	OpenQueue    func(ctx context.Context, region, run, name string, tags QueueTags) (Queue, error)
	JoinQueue    func(ctx context.Context, url string) (Queue, error)
	DeleteQueues func(ctx context.Context, region, run string) error
	// Store opens the store for runs that name none; nil: Engine.Store is it.
	Store func(ctx context.Context) (cloud.Store, error)
	// Publish puts the program for machines of an architecture (x86_64, arm64)
	// into the store, once for each version.
	Publish func(ctx context.Context, store cloud.Store, arch string) (Program, error)
	// PutSecrets keeps values for a run outside of its store and gives what
	// machines find them by ("ssm:/..."), by name. DeleteSecrets removes them.
	// The URL of that store is noted with them, for whoever cleans up.
	PutSecrets    func(ctx context.Context, region, run, store string, values map[string]string) (map[string]string, error)
	DeleteSecrets func(ctx context.Context, region, run string) error
	// Secret resolves such a reference.
	Secret func(ctx context.Context, region, ref string) (string, error)
	// Catalogue is the instance types of a region and their prices; Known is the
	// same as far as it is known without asking the cloud.
	Catalogue, Known func(ctx context.Context, region string) (*hardware.Catalogue, error)
	// Quota is the account's limit on virtual CPUs of machines like this type;
	// nil: not known. The func may be nil.
	Quota func(ctx context.Context, region, instanceType string, spot bool) (*Quota, error)
	// Identity is the machine that this process runs on; false if it is none
	// that was rented.
	Identity func(ctx context.Context) (cloud.Machine, bool)
}

// QueueTags say whose a queue is, for whoever divides a bill or cleans up.
type QueueTags struct {
	Pipeline, Owner string
	Store           string            // URL of the run's
	Tags            map[string]string // of the file
}

// Program is a published program for machines.
type Program struct {
	URL    string `json:"url"`
	SHA256 string `json:"sha256"` // of what lies there
}

// Machines rents machines and removes what a run has of them.
type Machines interface {
	cloud.Machines
	// Clean ends the machines of a run, but for those kept, and removes what
	// was made for its launches.
	Clean(ctx context.Context, run string, keep ...string) error
	// Retag says on machines which run they work for now.
	Retag(ctx context.Context, run string, ids ...string) error
}

// Queue is a queue that has an address.
type Queue interface {
	cloud.Queue
	URL() string
}

// Launch is what goes into a machine beside its cloud.MachineSpec.
type Launch struct {
	Pipeline, Owner string
	Expires         time.Time // when it is certainly not needed any more
	MaxLife         time.Duration
	Arch            string
	Agent           Program
	Args            []string // of the program
	BootLog         string   // the key of its log, if it cannot start
	Coordinator     bool     // it does not work, it hands out work
	Hardware        spec.Hardware
}

// For is the engine for runs on a cloud: those on aws may have a store of their
// own.
func (e *Engine) For(ctx context.Context, name string) (*Engine, error) {
	if name != "aws" || e.AWS == nil || e.AWS.Store == nil {
		return e, nil
	}
	store, err := e.AWS.Store(ctx)
	if err != nil {
		return nil, err
	}
	mine, there := *e, *e.AWS
	there.Store = nil
	mine.Store, mine.AWS = store, &there
	return &mine, nil
}

// checkAWS finds out before anything is recorded whether a run on aws can be
// had here.
func (e *Engine) checkAWS() error {
	if e.AWS == nil {
		return errors.New("cloud: aws needs access to AWS, which there is none of here; --local runs the same file on this machine")
	}
	if !strings.HasPrefix(e.Store.URL(), "s3://") {
		return usagef("cloud: aws: machines cannot reach the store %s; name a bucket with --store s3://bucket or COILED_JOBS_STORE, "+
			"or let `coiled-jobs setup aws` make one", e.Store.URL())
	}
	return nil
}
