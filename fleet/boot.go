package fleet

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/wire"
)

// A machine that cannot start leaves its log in the store and powers off. The
// log is looked for while machines boot: the cloud's lists are read too seldom
// to tell people soon.

const (
	// bootLines is how much of a boot log people see.
	bootLines = 15
	// logEvery is how often boot logs are looked for.
	logEvery = 2 * time.Second
	// powerOffWithin is how long the cloud is asked for the end of a machine
	// that has left its log.
	powerOffWithin = time.Minute
)

// bootLog is the log that machines of a kind have left; "" if there is none.
func (f *Fleet) bootLog(kind string) string {
	b, err := f.cfg.Store.Get(f.ctx, wire.BootLogKey(f.cfg.Run, kind))
	if err != nil {
		return ""
	}
	return string(b)
}

// readOldLogs reads what machines of earlier coordinators have left.
func (f *Fleet) readOldLogs() {
	logs := map[string]string{}
	for _, k := range f.first {
		logs[k.Name] = f.bootLog(k.Name)
	}
	f.sync(func() { f.s.oldLogs = logs })
}

// watchBoots looks for logs of machines that boot, for as long as the fleet
// works. A new one means that a machine is about to end: the cloud is asked
// which.
func (f *Fleet) watchBoots() {
	seen := map[string]string{}
	f.sync(func() { maps.Copy(seen, f.s.oldLogs) })
	var until time.Time
	for f.ctx.Err() == nil {
		pause(f.ctx, logEvery)
		boot := map[string]bool{}
		f.sync(func() {
			for _, m := range f.s.machines {
				if m.phase == booting && !m.rejoin && m.kind != nil {
					boot[m.kind.Name] = true
				}
			}
		})
		for kind := range boot {
			if text := f.bootLog(kind); text != seen[kind] {
				seen[kind], until = text, time.Now().Add(powerOffWithin)
			}
		}
		if len(boot) > 0 && time.Now().Before(until) {
			f.listOnce()
		}
	}
}

// noBoot deals with a machine that never said hello.
func (f *Fleet) noBoot(m *machine, why string) {
	if m.dismissed != "" {
		f.end(m, m.dismissed, time.Now())
		return
	}
	if m.missing < vanished {
		f.terminate([]*machine{m}, why)
	}
	f.end(m, why, time.Now())
	if time.Since(m.seen)-m.silent >= bootWithin {
		return // nobody could read the store for so long: it could not either, and the next may
	}
	if m.kind == nil {
		f.bootFailed(m, why, false)
		return
	}
	kind, old := m.kind.Name, f.s.oldLogs[m.kind.Name]
	f.s.looking++ // no other is rented before it is known why
	f.run(func() {
		text := f.bootLog(kind)
		if text == old { // another coordinator's machine left it
			text = ""
		}
		text = lastLines(text, bootLines)
		f.do(func() {
			f.s.looking--
			f.bootFailed(m, strings.TrimSpace(why+"\n"+text), text != "")
		})
	})
}

// bootFailed counts a machine that never came to work. The next waits longer.
// One that left its log would fail again: if there is no other machine that may
// do better, that is enough.
func (f *Fleet) bootFailed(m *machine, log string, left bool) {
	s := f.s
	s.failedBoots++
	s.bootLog = log
	s.noUse = s.noUse || left && !s.everWorked && s.alone()
	if !s.noUse {
		f.cfg.Notice(fmt.Sprintf("machine %s did not come to work: %s", m.ID, log))
	}
	if k := m.kind; k != nil && s.everWorked {
		k.backoff = min(max(2*k.backoff, firstBackoff), lastBackoff)
		k.wait = time.Now().Add(k.backoff)
	}
}

// alone says whether no machine works, boots or is being rented.
func (s *state) alone() bool {
	for _, k := range s.kinds {
		if s.count(k) > 0 {
			return false
		}
	}
	return true
}

// noMachineStarts is why a run ends whose machines do not start; nil if it may
// go on.
func (s *state) noMachineStarts() error {
	if s.everWorked || s.failedBoots < bootFailures && !s.noUse {
		return nil
	}
	if s.failedBoots == 1 {
		return fmt.Errorf("the machine did not start: %s", s.bootLog)
	}
	return fmt.Errorf("%d machines in a row did not start; the last lines of the last one:\n%s", s.failedBoots, s.bootLog)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
