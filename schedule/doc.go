// Package schedule says when a pipeline runs by itself, and sees to it that
// each of its ticks happens once. A tick is a moment at which a schedule is
// due. What becomes of it (ran, skipped, missed, and why) is an object in the
// store that is created only if absent, so any number of servers and outside
// triggers may look after the same schedules.
//
// When is decided by pure functions (Times, Decide); Round reads and writes
// the store and starts runs through an interface.
package schedule
