package wire

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

func TestSegmentRoundTrip(t *testing.T) {
	t.Parallel()
	want := &Segment{Machine: "i-1", Session: 2, N: 3, Ended: []string{"1-4"}, Batches: []task.Batch{{
		Function: "f", Unrun: []int{7}, Outcomes: []task.Outcome{{Index: 5, Attempt: 2, Status: task.Failed,
			Cause: task.CauseExit, Exit: 3, Stderr: []byte("\xff\x00x"), Result: []byte(`{"a":1.0}`), ID: task.ID{1}}}}}}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSegment(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	for n := range b {
		if _, err := DecodeSegment(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes were taken for a segment", n, len(b))
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	if m, ok := MachineOfBeat(BeatKey("r", "i-12")); !ok || m != "i-12" {
		t.Errorf("machine of a beat: %q, %v", m, ok)
	}
	if m, ok := MachineOfBeat(SegmentKey("r", "i-12", 1)); ok {
		t.Errorf("a segment was taken for a beat of %q", m)
	}
	if e := EpochOf(RangeID(12, 7)); e != 12 {
		t.Errorf("epoch %d", e)
	}
	for _, bad := range []string{"", "x", "x-1"} {
		if e := EpochOf(bad); e != 0 {
			t.Errorf("epoch of %q: %d", bad, e)
		}
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	want := Hint{Machine: "i-1", Segment: 9}
	got, ok := HintOf(want.Range("r"))
	if !ok || got != want {
		t.Fatalf("%+v, %v", got, ok)
	}
	if _, ok := HintOf(cloud.Range{Run: "r", Function: "f"}); ok {
		t.Fatal("work was taken for a hint")
	}
}

// A segment that claims to be longer than any machine writes is refused before
// there is memory for it.
func TestSegmentTooLong(t *testing.T) {
	t.Parallel()
	for size, refused := range map[uint64]bool{256<<20 - 1: false, 256<<20 + 1: true} {
		// A frame's magic number; one segment, its size in eight bytes; the size; a
		// last block without content.
		frame := binary.LittleEndian.AppendUint64([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, size)
		_, err := DecodeSegment(append(frame, 1, 0, 0))
		if err == nil || errors.Is(err, zstd.ErrDecoderSizeExceeded) != refused {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
