// Package wire is what a coordinator and the machines of its run tell each
// other through the store: which objects there are, who writes them, and what
// they hold. Facts are in these objects; the queue only hands out work and
// hints.
//
//	runs/<id>/kinds/<kind>.json      Setup    coordinator, before it launches a machine of the kind
//	runs/<id>/control/state.json     Control  coordinator, at each change and every minute
//	runs/<id>/start/<fn>-<epoch>     Start    coordinator, before it hands out tasks of the function
//	runs/<id>/claims/<range>         Claim    the machine that takes the range; created only if absent
//	runs/<id>/agents/<m>/beat.json   Beat     machine m, every 30 s and when what it holds changes
//	runs/<id>/agents/<m>/seg-<n>     Segment  machine m; created only if absent, n from 1 without gaps
//	runs/<id>/agents/<m>/log         text     machine m, when it leaves
//	runs/<id>/boot/<token>.log       text     a machine that could not start
//	pools/<pool>/<m>/idle-<n>.json   Idle     machine m, while it waits for another run
//	pools/<pool>/<m>/invite-<n>.json Invite   whoever is first: a coordinator, or the machine that leaves
//
// A machine reads all of a run and writes only what stands under agents,
// claims, pools, and what tasks make: logs, results, outputs, cache, software.
package wire
