// Package executor runs a plan to its end and tells what became of it.
//
// A run is the fold of its journal. A Coordinator is the only writer of that
// journal: one goroutine, its loop, takes what happened (events, and the
// outcomes that agents report), appends it, and only when it is durable folds
// it into the State and performs the actions that come out. The fold
// (step.go) has no clock, no I/O and no randomness, and every action can be
// repeated harmlessly; so a run that was killed anywhere goes on by folding
// its journal again.
//
// A function goes through these phases:
//
//	waiting --needs ended--> preparing --evPrepared--> running --no open task--> done
//	   |                         |                                                ^
//	   +-- a need failed, cancel-+-- if is false, the map cannot be expanded -----+
//
// Only evRetry and evReopen lead back from done. Behind from: the tasks of a
// function follow those of another one by one, and it is waiting only until
// its number of tasks is known.
//
// A task is pending, handed out in a range, and then has an outcome, which
// ends it or makes it due again later. What agents hold is not recorded: after
// a crash it is pending again, unless a machine elsewhere still has it (Held).
//
// With Config.Remote the same coordinator works through a fleet of machines
// (remote.go, hands.go); without it an agent in this process takes the ranges.
//
// Readers fold the same journal with a View, and never write. What is where
// in the store, and who survives what: docs/architecture.md.
package executor
