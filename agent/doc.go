// Package agent runs tasks on the machine it is on: it takes ranges from a
// queue, runs their tasks as processes or in warm Python interpreters, and
// reports their outcomes.
//
// It decides nothing about the run: whether to retry, what comes next and
// when to stop is the executor's. What it promises is about one attempt: its
// process group is ended after it, its temporary folder removed, its output
// kept, its declared outputs checked, and no process outlives the agent.
package agent
