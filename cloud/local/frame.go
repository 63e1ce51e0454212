package local

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// The format of a journal file, version 1. Numbers are little endian.
//
//	file   = magic group*
//	magic  = "CJRNL\r\n" and the version as one byte
//	group  = record+                    all records of one write and sync
//	record = header payload
//	header = length   uint32            of the payload
//	         back     uint32            distance to the start of the group
//	         sum      uint32            CRC-32C of the payload
//	         check    uint32            CRC-32C of the record's position in the
//	                                    file (uint64) and the 12 bytes before
//
// A record's position is the offset of its header in the file. The first group
// starts at 0: the magic is part of it. As the position is part of the check,
// a piece of a journal inside a payload is not taken for records.
//
// A group is written only when the one before it is durable. So when something
// at offset p is damaged and a valid header of a group that starts behind p
// follows, then what was at p had been acknowledged: the file is corrupt. If
// no such header follows, it is the torn end of a write that nobody was told
// of, and it is cut off. Between these, in the last group, a valid record may
// follow damage: a power cut may leave such a thing, but then the damage is a
// block of zeros that never reached the disk; anything else is corruption.
const (
	magic      = "CJRNL\r\n\x01"
	headerSize = 16
	// maxRecord is the longest payload.
	maxRecord = 64 << 20
	// maxGroup bounds what is written at once. back must be able to span it.
	maxGroup = 1 << 30
	// blockSize is the smallest piece a disk writes at once.
	blockSize = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errShort = errors.New("the record goes on behind the end of the file")
	errFrame = errors.New("no valid record")
)

// appendRecord appends the record with this payload for position pos in the
// group that starts at base.
func appendRecord(dst []byte, base, pos int64, payload []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, headerSize)...)
	h := dst[at:]
	binary.LittleEndian.PutUint32(h[0:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[4:], uint32(pos-base))
	binary.LittleEndian.PutUint32(h[8:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(h[12:], headerCheck(pos, h))
	return append(dst, payload...)
}

// headerCheck is the CRC-32C of pos and the first 12 bytes of a header. It is
// computed for every byte of a file that is searched for headers, hence by
// hand: a buffer for pos would be an allocation each time.
func headerCheck(pos int64, h []byte) uint32 {
	crc := ^uint32(0)
	for i := range 8 {
		crc = castagnoli[byte(crc)^byte(pos>>(8*i))] ^ crc>>8
	}
	return crc32.Update(^crc, castagnoli, h[:12])
}

// header is what stands before a payload.
type header struct {
	length int   // of the payload
	base   int64 // where the group starts
	sum    uint32
}

// parseHeader reads the header at position pos from the start of b. ok is
// false if there is none.
func parseHeader(b []byte, pos int64) (h header, ok bool) {
	if len(b) < headerSize {
		return h, false
	}
	length := binary.LittleEndian.Uint32(b[0:])
	back := binary.LittleEndian.Uint32(b[4:])
	// Cheap checks first: a search for headers looks at every byte of a file.
	if length > maxRecord || int64(back) > pos {
		return h, false
	}
	if binary.LittleEndian.Uint32(b[12:]) != headerCheck(pos, b[:12]) {
		return h, false
	}
	return header{length: int(length), base: pos - int64(back), sum: binary.LittleEndian.Uint32(b[8:])}, true
}

// parseRecord reads the record at position pos from the start of b. errShort
// means that b may hold too little of it (need bytes are wanted), errFrame
// that no valid record begins here.
func parseRecord(b []byte, pos int64) (payload []byte, need int, err error) {
	if len(b) < headerSize {
		return nil, headerSize, errShort
	}
	h, ok := parseHeader(b, pos)
	if !ok {
		return nil, 0, errFrame
	}
	need = headerSize + h.length
	if len(b) < need {
		return nil, need, errShort
	}
	payload = b[headerSize:need:need]
	if crc32.Checksum(payload, castagnoli) != h.sum {
		return nil, 0, errFrame
	}
	return payload, need, nil
}
