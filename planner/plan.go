package planner

import (
	"context"
	"io"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// S3 is what the planner asks of S3. cloud/aws implements it.
type S3 interface {
	// List calls fn for every object that the query asks for, in key order and
	// from one goroutine; an error of fn ends it and is returned. It lists in
	// parallel. Folder markers (keys that end in a slash) are listed too.
	List(ctx context.Context, loc S3Location, q cloud.S3Query, fn func(S3Object) error) error
	// Open reads an object from its start. KindNotFound if there is none.
	Open(ctx context.Context, loc S3Location, key string) (io.ReadCloser, error)
}

// S3Location is a bucket and how to speak to it.
type S3Location = cloud.S3Location

// S3Object is a listed object.
type S3Object = cloud.S3Object

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

// Function finds the plan of a function; nil if there is none.
func (p *Plan) Function(name string) *FunctionPlan {
	for _, f := range p.Functions {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// FunctionPlan is the part of one function.
type FunctionPlan struct {
	Name  string
	Needs []string
	// Mapped functions have Items, unless Dynamic: then the items are known
	// when the functions in needs are done, and Tasks is -1.
	Mapped  bool
	Dynamic bool
	// StreamsFrom is set if the function starts item by item behind another;
	// the number of tasks is that function's, -1 if it is not known yet.
	StreamsFrom string
	// WaitsFor is set instead if its task i is about result i of another
	// function, but starts when that is done.
	WaitsFor string
	// Items is the items of a mapped function that is neither Dynamic nor
	// behind another one. With Options.Only it holds the chosen ones alone; IndexOf
	// tells the index they have among all.
	Items Items
	Tasks int
	// Elements is the number of items before batch, Bytes the sum of their
	// sizes; 0 if the function is not mapped or they are not known yet.
	Elements int
	Bytes    int64
}
