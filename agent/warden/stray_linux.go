package warden

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// strays is the processes below this one that the warden would not find: they
// left the groups of their tasks and threw their environment away. By pid, when
// each started, which tells it from a later one of that number.
func (k *Keeper) strays() map[int]uint64 {
	found := map[int]uint64{}
	self, _ := os.Readlink("/proc/self/exe")
	groups := map[int]bool{syscall.Getpgrp(): true}
	for _, g := range list(k.cfg.Groups.path) {
		groups[g] = true
	}
	seen := map[int]bool{k.pid: true}
	below := childrenOf("self")
	for len(below) > 0 {
		pid := below[len(below)-1]
		below = below[:len(below)-1]
		p, ok := stat(pid)
		if seen[pid] || !ok {
			continue
		}
		seen[pid] = true
		below = append(below, childrenOf(strconv.Itoa(pid))...)
		if groups[p.group] || p.state == 'Z' || marked(pid, "") {
			continue
		}
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err == nil && exe != self {
			found[pid] = p.start
		}
	}
	return found
}

// childrenOf is the direct children of a process.
func childrenOf(pid string) []int {
	var pids []int
	lists, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			if n, err := strconv.Atoi(string(f)); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// tell lets the warden know of strays that it was not told of.
func (k *Keeper) tell() {
	if k.pipe == nil {
		return
	}
	now := k.strays()
	for pid, start := range now {
		if k.told[pid] != start {
			_, _ = fmt.Fprintf(k.pipe, "stray %d %d\n", pid, start)
		}
	}
	k.told = now
}

// killStrays ends the processes that the agent told of, with their groups.
func killStrays(strays map[int]uint64) {
	for pid, start := range strays {
		p, ok := stat(pid)
		if !ok || p.start != start {
			continue
		}
		if p.group == pid {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
