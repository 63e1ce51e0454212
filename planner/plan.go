package planner

import (
	"context"
	"io"
	"time"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// S3 is what the planner asks of S3. cloud/aws implements it.
type S3 interface {
	// List calls fn for every object that starts with prefix and whose key
	// match accepts (it may be called from several goroutines; fn is not), in
	// key order. It lists in parallel.
	List(ctx context.Context, loc S3Location, prefix string, match func(key string) bool, fn func(S3Object) error) error
	// Open reads an object from its start.
	Open(ctx context.Context, loc S3Location, key string) (io.ReadCloser, error)
}

// S3Location is a bucket and how to speak to it.
type S3Location struct {
	Bucket        string
	RequesterPays bool
	Anonymous     bool
}

// S3Object is a listed object.
type S3Object struct {
	Key      string
	Size     int64
	Modified time.Time
	ETag     string
}

// Inputs is where the items come from.
type Inputs struct {
	Dir string             // absolute folder of the pipeline file: relative patterns start here
	S3  func() (S3, error) // made when first needed; an error explains how to get one
	Run *spec.RunInfo
}

// Options narrow what is planned.
type Options struct {
	First int              // only the first n tasks of every map; 0: all
	Only  map[string][]int // only these indices of these functions
}

// Plan is what apply would do.
type Plan struct {
	Functions []*FunctionPlan // in an order in which needs come first
	Warnings  []string
}

// FunctionPlan is the part of one function.
type FunctionPlan struct {
	Name  string
	Needs []string
	// Mapped functions have Items, unless Dynamic: then the items are known
	// when the functions in needs are done, and Tasks is -1.
	Mapped  bool
	Dynamic bool
	// Streams: starts item by item behind StreamsFrom; the number of tasks is
	// that function's.
	StreamsFrom string
	Items       Items
	Tasks       int
	Elements    int
	Bytes       int64
}
