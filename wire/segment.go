package wire

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxSegment is the longest segment, decoded, that is read: several times what
// machines put into one. Many are read at a time.
const maxSegment = 256 << 20

var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxSegment))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// Encode is the stored form of a segment.
func (s *Segment) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return encoder().EncodeAll(b, nil), nil
}

// DecodeSegment reads the stored form.
func DecodeSegment(b []byte) (*Segment, error) {
	b, err := decoder().DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("malformed segment: %w", err)
	}
	s := &Segment{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("malformed segment: %w", err)
	}
	return s, nil
}
