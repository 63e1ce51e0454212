// Package spec reads the pipeline language: YAML bytes in, a typed Pipeline
// out, with a position for every problem.
//
// There are two steps. Parse checks structure and finds every problem that
// does not depend on parameter values. Document.Bind gives the parameters
// their values, evaluates the templates of configuration keys (everything
// that is the same for all tasks: retries, timeouts, hardware...) and checks
// the types of what comes out.
//
//	bytes --Parse--> *Document --Bind(params, env)--> *Pipeline
//
// Templates that belong to a task (run, command, args, kwargs, env, outputs)
// or to a map (glob, items, where...) stay templates in the Pipeline; the
// agent and the planner evaluate them with an Env.
//
// The package does no I/O but for Load.
package spec
