package aws

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// A journal is the objects <key>/000000000001, <key>/000000000002 and so on,
// its segments. Each is created only if absent, when the one before it is
// there, so there are no gaps and the last one says who may write the next:
//
//   - A writer takes over by creating the next segment, with state "open" and
//     an epoch one higher than that of the segment before.
//   - It then goes on with segments of records. When it had none to write for
//     20 s it writes one without records: a sign of life, and a question
//     whether it still is the writer.
//   - Whoever finds the number it wants to write taken by another has lost the
//     journal and writes nothing more.
//   - It ends with a segment with state "closed".
//
// A last segment that is not closed and is younger than 60 s, both times by
// the server's clock, means that its writer is alive; unless it ran on this
// machine and its process is gone.
//
// The format of a segment, version 1, numbers little endian:
//
//	segment = magic length:uint32 sum:uint32 header pad record*
//	header  = JSON, of this length and CRC-32C
//	record  = length:uint32 sum:uint32 payload pad
//
// Everything begins at a multiple of 8. The sum of a record is the CRC-32C of
// its position (uint64), its length and its payload. The position is the
// number of the segment times 2^24, plus an eighth of the offset in its records.
const (
	segmentMagic = "CJSEG\r\n\x01"
	prefixSize   = len(segmentMagic) + 8
	recordHeader = 8
	// maxRecord is the longest payload.
	maxRecord = 64 << 20
	// fullSegment is the size from which on a segment takes no more records:
	// the longest one has one record that alone is longer.
	fullSegment = 4 << 20
	// headSize is what is read of a segment to know its header.
	headSize    = 2048
	offsetBits  = 24
	maxSegments = 1 << 30 // leaves 10 bits of an int64 for what callers add
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The states of a segment.
const (
	stateOpen    = "open"
	stateRecords = ""
	stateClosed  = "closed"
)

// segmentHeader is who wrote a segment.
type segmentHeader struct {
	Number int64  `json:"n"`
	Epoch  int64  `json:"epoch"`
	Writer string `json:"writer"` // differs for every OpenJournal
	State  string `json:"state,omitempty"`
	Size   int    `json:"size"` // of the records, to know that all is there
	Host   string `json:"host,omitempty"`
	owner
}

// owner is a process, in a way that another one on the same machine can tell
// whether it is gone.
type owner struct {
	Place string `json:"place,omitempty"` // machine, boot and process namespace; "": cannot be told
	PID   int    `json:"pid,omitempty"`
	Start string `json:"start,omitempty"` // of the process
}

func segmentName(n int64) string { return fmt.Sprintf("%012d", n) }

// segmentNumber is the reverse; false for a name that no segment has.
func segmentNumber(name string) (int64, bool) {
	if len(name) != 12 || strings.Trim(name, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(name, 10, 64)
	return n, err == nil && n > 0
}

func pad8(n int) int { return (n + 7) &^ 7 }

func position(segment int64, off int) int64 { return segment<<offsetBits | int64(off/8) }

// encodeHeader makes the start of a segment, with room for size bytes of records.
func encodeHeader(h segmentHeader, size int) ([]byte, error) {
	h.Size = size
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if n := prefixSize + len(text); n > headSize {
		return nil, fmt.Errorf("the header of a segment has %d bytes", n)
	}
	b := make([]byte, pad8(prefixSize+len(text)), pad8(prefixSize+len(text))+size)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(text)))
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(text, castagnoli))
	copy(b[prefixSize:], text)
	return b, nil
}

var errSegment = errors.New("this is not a segment of a journal")

// parseHeader reads the header at the start of a segment, and where its
// records begin.
func parseHeader(b []byte) (h segmentHeader, body int, err error) {
	if len(b) < prefixSize || string(b[:len(segmentMagic)]) != segmentMagic {
		if len(b) >= prefixSize && string(b[:len(segmentMagic)-1]) == segmentMagic[:len(segmentMagic)-1] {
			return h, 0, fmt.Errorf("version %d of the journal's format is not known here: use a newer coiled-jobs", b[7])
		}
		return h, 0, errSegment
	}
	n := int(binary.LittleEndian.Uint32(b[8:]))
	if n > headSize || prefixSize+n > len(b) {
		return h, 0, errSegment
	}
	text := b[prefixSize : prefixSize+n]
	if crc32.Checksum(text, castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return h, 0, errors.New("the header of a segment fails its checksum")
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, 0, fmt.Errorf("the header of a segment: %w", err)
	}
	return h, pad8(prefixSize + n), nil
}

// appendRecord appends a record to the records of a segment.
func appendRecord(records []byte, segment int64, payload []byte) (out []byte, pos int64) {
	at := len(records)
	pos = position(segment, at)
	out = append(records, make([]byte, recordHeader)...)
	binary.LittleEndian.PutUint32(out[at:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(out[at+4:], recordSum(pos, payload))
	out = append(out, payload...)
	return append(out, make([]byte, pad8(len(out))-len(out))...), pos
}

func recordSum(pos int64, payload []byte) uint32 {
	var b [12]byte
	binary.LittleEndian.PutUint64(b[:], uint64(pos))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, payload)
}

var errRecord = errors.New("no valid record")

// parseRecord reads the record at an offset of a segment's records.
func parseRecord(records []byte, segment int64, off int) (payload []byte, next int, err error) {
	if off < 0 || off > len(records)-recordHeader {
		return nil, 0, errRecord
	}
	n := int64(binary.LittleEndian.Uint32(records[off:]))
	from := off + recordHeader
	if n > maxRecord || n > int64(len(records)-from) {
		return nil, 0, errRecord
	}
	end := from + int(n)
	payload = records[from:end:end]
	if recordSum(position(segment, off), payload) != binary.LittleEndian.Uint32(records[off+4:]) {
		return nil, 0, errRecord
	}
	return payload, pad8(end), nil
}

// parseSegment checks a whole segment and returns its records.
func parseSegment(b []byte, number int64) (h segmentHeader, records []byte, err error) {
	h, body, err := parseHeader(b)
	switch {
	case err != nil:
		return h, nil, err
	case h.Number != number:
		return h, nil, fmt.Errorf("this is segment %d", h.Number)
	case body > len(b) || h.Size != len(b)-body:
		return h, nil, fmt.Errorf("%d bytes of records where %d were written", len(b)-min(body, len(b)), h.Size)
	}
	return h, b[body:], nil
}
