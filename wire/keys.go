package wire

import (
	"fmt"
	"strconv"
	"strings"
)

func runKey(run string) string { return "runs/" + run }

// SetupKey is where the Setup of a kind of machines lies.
func SetupKey(run, kind string) string { return runKey(run) + "/kinds/" + kind + ".json" }

// ControlKey is where the Control of a run lies.
func ControlKey(run string) string { return runKey(run) + "/control/state.json" }

// StartKey is where the Start of a function lies, as a coordinator with this
// epoch wrote it.
func StartKey(run, fn string, epoch int) string {
	return fmt.Sprintf("%s/start/%s-%d.json", runKey(run), fn, epoch)
}

// ClaimKey is where the claim of a range lies.
func ClaimKey(run, rangeID string) string { return runKey(run) + "/claims/" + rangeID }

// AgentsPrefix is before everything that machines write about themselves.
func AgentsPrefix(run string) string { return runKey(run) + "/agents/" }

// AgentPrefix is before everything that one machine writes about itself.
func AgentPrefix(run, machine string) string { return AgentsPrefix(run) + machine + "/" }

// BeatKey is where the heartbeat of a machine lies.
func BeatKey(run, machine string) string { return AgentPrefix(run, machine) + "beat.json" }

// AgentLogKey is where the end of a machine's own log lies once it has left.
func AgentLogKey(run, machine string) string { return AgentPrefix(run, machine) + "log" }

// SegmentKey is where the nth segment of a machine lies; the first is 1.
func SegmentKey(run, machine string, n int) string {
	return fmt.Sprintf("%sseg-%08d", AgentPrefix(run, machine), n)
}

// MachineOfBeat is the machine whose heartbeat lies at a key.
func MachineOfBeat(key string) (string, bool) {
	rest, ok := strings.CutSuffix(key, "/beat.json")
	if !ok {
		return "", false
	}
	return rest[strings.LastIndexByte(rest, '/')+1:], true
}

// BootLogKey is where a machine of a kind leaves its log if it cannot start.
func BootLogKey(run, kind string) string { return runKey(run) + "/boot/" + kind + ".log" }

// PoolPrefix is before what machines of a pool write while they wait.
func PoolPrefix(pool string) string { return "pools/" + pool + "/" }

// IdleKey is where a machine says for the nth time that it waits for a run.
func IdleKey(pool, machine string, n int) string {
	return PoolPrefix(pool) + machine + "/idle-" + strconv.Itoa(n) + ".json"
}

// InviteKey is where the nth waiting of a machine is ended: by an invitation,
// or by the machine when it has waited long enough.
func InviteKey(pool, machine string, n int) string {
	return PoolPrefix(pool) + machine + "/invite-" + strconv.Itoa(n) + ".json"
}

// RangeID names a range that a coordinator hands out: the nth of its epoch.
func RangeID(epoch, n int) string { return fmt.Sprintf("%d-%d", epoch, n) }

// EpochOf is the epoch in a RangeID; 0 if it is none.
func EpochOf(rangeID string) int {
	head, _, _ := strings.Cut(rangeID, "-")
	n, err := strconv.Atoi(head)
	if err != nil {
		return 0
	}
	return n
}
