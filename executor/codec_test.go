package executor

import (
	"reflect"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/task"
)

func sampleOutcomes() *outcomes {
	return &outcomes{at: 123456789, function: "clean", noRetry: []bool{false, true, false}, list: []task.Outcome{
		{Index: 0, Attempt: 1, Status: task.Succeeded, Started: 1700000000e9, Seconds: 1.25, Result: []byte(`{"a":1}`),
			Log: task.Span{Key: "runs/r/logs/0-1", Off: 10, Len: 20}, Code: "abc", MaxRSS: 1 << 30},
		{Index: 70000, Attempt: 3, Status: task.Failed, Cause: task.CauseSignal, Exit: 137, Signal: "SIGKILL", Message: "killed",
			Stderr: []byte("\xff\x00boom"), Log: task.Span{Key: "runs/r/logs/0-1", Off: 30, Len: 1}, Machine: "i-1", Code: "abc"},
		{Index: 2, Status: task.Succeeded, Cached: true, From: "run x/2", ID: task.ID{1, 2, 3},
			ResultAt: task.Span{Key: "runs/r/results/2", Len: 1 << 20},
			Outputs:  []task.Output{{Path: "out.csv", Key: "k", Size: 3, Hash: "h", Mode: 0o644}}},
	}}
}

func TestOutcomesSurviveTheRecord(t *testing.T) {
	t.Parallel()
	want := sampleOutcomes()
	rec, err := want.encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeOutcomes(rec)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for n := range rec {
		if _, err := decodeOutcomes(rec[:n]); err == nil {
			t.Errorf("a record cut to %d of %d bytes is accepted", n, len(rec))
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	rec, err := sampleOutcomes().encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rec)
	ev, _ := (&event{Kind: evPrepared, Function: "a", Tasks: 3}).encode(nil)
	f.Add(ev)
	f.Add([]byte("O"))
	f.Fuzz(func(t *testing.T, rec []byte) {
		p := newState("r", nil, nil)
		if err := (folder{p}).record(0, rec); err != nil {
			return
		}
		if len(rec) > 0 && rec[0] == recordOutcomes {
			o, err := decodeOutcomes(rec)
			if err != nil {
				t.Fatal("folded but not decoded")
			}
			again, err := o.encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeOutcomes(again); err != nil {
				t.Fatalf("what was decoded does not survive: %v", err)
			}
		}
	})
}

func TestRangesGiveEveryIndexOnce(t *testing.T) {
	t.Parallel()
	var r ranges
	r.push(0, 10)
	r.push(10, 12) // joins
	r.push(20, 21)
	r.push(5, 5) // nothing
	all := func(int, int) bool { return true }
	var got []span
	for {
		from, to := r.pop(8, all)
		if from == to {
			break
		}
		got = append(got, span{from, to})
	}
	want := []span{{0, 8}, {8, 12}, {20, 21}}
	if !reflect.DeepEqual(got, want) || r.size != 0 {
		t.Errorf("got %v (%d left), want %v", got, r.size, want)
	}
	r.push(0, 6)
	even := func(a, b int) bool { return a/2 == b/2 }
	if from, to := r.pop(6, even); from != 0 || to != 2 {
		t.Errorf("got %d to %d, want 0 to 2: only tasks of one attempt share a range", from, to)
	}
}
