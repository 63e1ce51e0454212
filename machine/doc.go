// Package machine is the life of a rented machine: it works for the run it was
// launched for, waits for another one of its pool, and ends itself.
//
//	boot --> stay in a run --> pool: wait for an invitation --> stay in the next
//	              |                      |
//	              +--- nothing is left, a limit, a notice, trouble ---> power off
//
// A stay has sessions. Within one the machine is
//
//	preparing   code, software, secrets; then
//	working     takes ranges, claims them, runs their tasks, reports segments
//	draining    takes nothing more and ends what it has
//	leaving     ends its tasks at once, reports them, says gone
//
// and a session ends without a report (cut off) if the machine could not be
// heard of for so long that others may have given it up. Once the store answers
// again, and while its grant lasts, it comes back as the next session.
//
// What a machine decides is in decide.go, as functions of facts and the time.
// Around them are goroutines that each do one thing: write the heartbeat, read
// Control, write segments, look for a notice, run tasks. A watchdog that
// depends on nothing else powers the machine off when its grant has lapsed.
package machine
