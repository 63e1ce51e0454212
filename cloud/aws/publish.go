package aws

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	kgzip "github.com/klauspost/compress/gzip"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// agentPrefix is before the program for machines. Machines cannot write there.
const agentPrefix = "agent/"

// maxAgent bounds what is read of a program.
const maxAgent = 1 << 30

// published is the note beside a published program. It is written last: where
// it is, the program is whole.
type published struct {
	Program string `json:"program"` // SHA-256 of the program
	SHA256  string `json:"sha256"`  // of the compressed program, which machines check
	Size    int    `json:"size"`    // compressed
}

// AgentArch is an architecture in Go's words: machines of EC2 say x86_64.
func AgentArch(arch string) (string, error) {
	switch arch {
	case "amd64", "x86_64":
		return "amd64", nil
	case "arm64", "aarch64":
		return "arm64", nil
	}
	return "", &cloud.Error{Op: "publish", Resource: "agent", Kind: cloud.KindInvalid,
		Err: fmt.Errorf("there is no architecture %q; machines are amd64 or arm64", arch)}
}

// PublishAgent puts the program that machines run into the store, compressed,
// once for each content and architecture, and returns the address from which
// machines fetch it with the rights of their role, and the hash with which they
// check it. open gives the program.
func PublishAgent(ctx context.Context, store *Store, version, arch string, open func(context.Context) (io.ReadCloser, error)) (url, sum string, err error) {
	if arch, err = AgentArch(arch); err != nil {
		return "", "", err
	}
	program, err := readAgent(ctx, open)
	if err != nil {
		return "", "", err
	}
	if err := checkAgent(program, arch); err != nil {
		return "", "", &cloud.Error{Op: "publish", Resource: "agent for linux/" + arch, Kind: cloud.KindInvalid, Err: err}
	}
	digest := hexSum(program)
	key := agentKey(version, arch, digest)
	note, err := readNote(ctx, store, key, digest)
	if cloud.KindOf(err) == cloud.KindNotFound {
		note, err = uploadAgent(ctx, store, key, digest, program)
	}
	if err != nil {
		return "", "", err
	}
	url, err = store.ObjectURL(ctx, key+".gz")
	return url, note.SHA256, err
}

// PublishedAgent finds a program that was published, by the hash of its content;
// false if it was not.
func PublishedAgent(ctx context.Context, store *Store, version, arch, digest string) (url, sum string, ok bool, err error) {
	if arch, err = AgentArch(arch); err != nil {
		return "", "", false, err
	}
	key := agentKey(version, arch, digest)
	note, err := readNote(ctx, store, key, digest)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, err
	}
	url, err = store.ObjectURL(ctx, key+".gz")
	return url, note.SHA256, err == nil, err
}

// agentKey is before the suffixes of a program. The hash tells contents apart: a
// version that was built again is another.
func agentKey(version, arch, digest string) string {
	return agentPrefix + keyPart(version) + "-" + digest[:16] + "/linux-" + arch
}

func readAgent(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) ([]byte, error) {
	r, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	program, err := io.ReadAll(io.LimitReader(r, maxAgent+1))
	if err != nil {
		return nil, fmt.Errorf("read the program for machines: %w", err)
	}
	if len(program) > maxAgent {
		return nil, errors.New("read the program for machines: it has more than 1 GiB")
	}
	return program, nil
}

// keyPart makes a version part of a key.
func keyPart(version string) string {
	s := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, version)
	if s = strings.TrimLeft(s[:min(len(s), 64)], "."); s == "" {
		return "dev"
	}
	return s
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// readNote reads the note of a program that was published.
func readNote(ctx context.Context, store *Store, key, digest string) (published, error) {
	var p published
	b, err := store.Get(ctx, key+".json")
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil || p.Program != digest || len(p.SHA256) != 64 {
		return p, &cloud.Error{Op: "read", Resource: store.path(key + ".json"), Kind: cloud.KindCorrupt,
			Err: errors.New("it is not the note of the program beside it; delete both and try again")}
	}
	return p, nil
}

// uploadAgent publishes a program. Who else publishes the same at the same time
// does no harm: what lies there is checked.
func uploadAgent(ctx context.Context, store *Store, key, digest string, program []byte) (published, error) {
	var packed bytes.Buffer
	w, err := kgzip.NewWriterLevel(&packed, kgzip.DefaultCompression)
	if err == nil {
		if _, err = w.Write(program); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return published{}, fmt.Errorf("compress the program for machines: %w", err)
	}
	body := packed.Bytes()
	err = store.Create(ctx, key+".gz", body)
	if cloud.KindOf(err) == cloud.KindConflict {
		if body, err = store.Get(ctx, key+".gz"); err == nil {
			err = verify(store.path(key+".gz"), body, digest)
		}
	}
	if err != nil {
		return published{}, err
	}
	p := published{Program: digest, SHA256: hexSum(body), Size: len(body)}
	b, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	if err := store.Create(ctx, key+".json", b); cloud.KindOf(err) == cloud.KindConflict {
		return readNote(ctx, store, key, digest)
	} else if err != nil {
		return p, err
	}
	return p, nil
}

// verify checks that a stored program is the one that is meant.
func verify(name string, packed []byte, digest string) error {
	h := sha256.New()
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		_, err = io.Copy(h, io.LimitReader(r, maxAgent))
	}
	if err == nil && hex.EncodeToString(h.Sum(nil)) != digest {
		err = errors.New("its content has another hash")
	}
	if err != nil {
		return &cloud.Error{Op: "publish", Resource: name, Kind: cloud.KindCorrupt, Err: fmt.Errorf("something else lies there (%w): delete it and try again", err)}
	}
	return nil
}
