// Package fleet is the coordinator's side of a run on rented machines: it
// decides how many there are, tells them what the run wants, takes what they
// report, and gives up those that are lost.
//
// One loop owns the state. Everything that waits for a cloud or a store is done
// beside it by goroutines that send back what they found. What to do is decided
// by a pure function, decide: from the state and the time it makes actions.
//
//	          hints, beats, List           launched, ended, written
//	machines ────────────────────▶ loop ◀─────────────────────────── workers
//	                                │ decide(state, now)                ▲
//	                                └──── launch, write control, ───────┘
//	                                      give up, terminate, warn
//
// A machine is booting from its launch until its first heartbeat, then it works
// until it says that it leaves, or is given up; it has ended when the cloud says
// so. What it reported in segments counts however it ends.
//
// Money is spent through grants: a time until which all machines of a run may
// run. A grant is only given while all of them could use it up within
// limits.cost, and a machine is only launched if it could use up the grant that
// is there.
package fleet
