package aws

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/internal/s3server"
)

// elfFile is a program for Linux as far as its head goes.
func elfFile(t *testing.T, machine elf.Machine, dynamic bool, tail string) []byte {
	t.Helper()
	h := elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64, Phentsize: 56}
	var b bytes.Buffer
	parts := []any{h}
	if dynamic {
		h.Phoff, h.Phnum = 64, 1
		parts = []any{h, elf.Prog64{Type: uint32(elf.PT_INTERP)}}
	}
	for _, p := range parts {
		if err := binary.Write(&b, binary.LittleEndian, p); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString(tail)
	return b.Bytes()
}

func opens(b []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func TestPublishAgent(t *testing.T) {
	s := s3server.Start(t)
	s.Setenv(t)
	if err := os.Mkdir(filepath.Join(s.Dir, "team"), 0o777); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	store, err := OpenStore(ctx, "s3://team/all runs")
	if err != nil {
		t.Fatal(err)
	}
	program := elfFile(t, elf.EM_X86_64, false, strings.Repeat("x", 1<<20))
	// Many publish at once: all get the same.
	var wg sync.WaitGroup
	answers := make([]string, 5)
	for i := range answers {
		wg.Go(func() {
			url, sum, err := PublishAgent(ctx, store, "1.2.3+dirty/x", "x86_64", opens(program))
			answers[i] = fmt.Sprint(url, " ", sum, " ", err)
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a != answers[0] {
			t.Fatalf("%s\n%s", answers[0], a)
		}
	}
	url, sum, err := PublishAgent(ctx, store, "1.2.3+dirty/x", "amd64", opens(program))
	if err != nil || !strings.HasPrefix(url, s.URL+"/team/all%20runs/agent/1.2.3_dirty_x-") || !strings.HasSuffix(url, "/linux-amd64.gz") {
		t.Fatalf("%s, %v", url, err)
	}
	key := strings.TrimPrefix(url, s.URL+"/team/all%20runs/")
	packed, err := store.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(packed); hex.EncodeToString(got[:]) != sum {
		t.Error("the hash is not that of the object")
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, program) {
		t.Errorf("unpacked: %d bytes, %v", len(got), err)
	}
	// The same version, built anew, is another object; the first stays.
	other, _, err := PublishAgent(ctx, store, "1.2.3+dirty/x", "amd64", opens(append(bytes.Clone(program), 'y')))
	if err != nil || other == url {
		t.Errorf("%s, %v", other, err)
	}
	// Something else at its key is found out, with and without a note.
	digest := hexSum(program)
	base := strings.TrimSuffix(key, ".gz")
	if err := store.Put(ctx, base+".json", []byte(`{"program":"`+strings.Repeat("0", 64)+`","sha256":"`+digest+`"}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := PublishAgent(ctx, store, "1.2.3+dirty/x", "amd64", opens(program)); cloud.KindOf(err) != cloud.KindCorrupt {
		t.Errorf("a false note: %v", err)
	}
	if err := store.Delete(ctx, base+".json"); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(ctx, key, []byte("not gzip")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := PublishAgent(ctx, store, "1.2.3+dirty/x", "amd64", opens(program)); cloud.KindOf(err) != cloud.KindCorrupt || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("a false program: %v", err)
	}
	for _, tt := range []struct {
		arch    string
		program []byte
		text    string
	}{
		{"arm64", program, "another processor"},
		{"amd64", elfFile(t, elf.EM_X86_64, true, ""), "CGO_ENABLED=0"},
		{"amd64", []byte("#!/bin/sh\n"), "no program for Linux"},
		{"riscv", program, "no architecture"},
	} {
		if _, _, err := PublishAgent(ctx, store, "dev", tt.arch, opens(tt.program)); cloud.KindOf(err) != cloud.KindInvalid || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
}

func TestAgentFinder(t *testing.T) {
	t.Parallel()
	amd, arm := elfFile(t, elf.EM_X86_64, false, "amd"), elfFile(t, elf.EM_AARCH64, false, "arm")
	own, other := amd, "arm64"
	otherBytes := arm
	if runtime.GOARCH == "arm64" {
		own, other, otherBytes = arm, "amd64", amd
	}
	var served sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := served.Load(r.URL.Path)
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(b.([]byte))
	}))
	defer server.Close()
	name := "coiled-jobs-linux-" + other
	sum := sha256.Sum256(otherBytes)
	checksums := []byte("00  something-else\n" + hex.EncodeToString(sum[:]) + "  " + name + "\n")
	served.Store("/v1.2.3/checksums.txt", checksums)
	served.Store("/v1.2.3/"+name, otherBytes)
	served.Store("/v1.2.4/checksums.txt", checksums)
	served.Store("/v1.2.4/"+name, []byte("something else"))
	served.Store("/v1.2.5/checksums.txt", []byte("00  something-else\n"))

	for _, tt := range []struct {
		name    string
		arch    string
		beside  []byte // the file for the other architecture beside this program
		exe     []byte
		version string
		file    bool
		want    []byte
		text    string // of the error
	}{
		{name: "this program", arch: runtime.GOARCH, exe: own, version: "dev", want: own},
		{name: "beside it", arch: other, exe: own, beside: otherBytes, version: "dev", want: otherBytes},
		{name: "of the release", arch: other, exe: own, version: "v1.2.3", want: otherBytes},
		{name: "what is beside it is for another processor", arch: other, exe: own, beside: own, version: "1.2.3", want: otherBytes},
		{name: "named", arch: other, exe: own, file: true, beside: otherBytes, version: "1.2.3", want: otherBytes},
		{name: "named and missing", arch: other, exe: own, file: true, version: "1.2.3", text: "it is not there"},
		{name: "a download that was changed", arch: other, exe: own, version: "1.2.4", text: "not what its checksum says"},
		{name: "a release without it", arch: other, exe: own, version: "1.2.5", text: "does not name " + name},
		{name: "no release", arch: other, exe: own, version: "1.2.9", text: "404"},
		{name: "no version", arch: other, exe: own, version: "v0.0.0-20260101000000-abcdefabcdef", text: "is no release"},
		{name: "no architecture", arch: "vax", exe: own, version: "dev", text: `"vax"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS != "linux" && tt.name == "this program" {
				t.Skip("this is not Linux")
			}
			dir := t.TempDir()
			f := AgentFinder{Exe: filepath.Join(dir, "coiled-jobs"), Version: tt.version, Cache: filepath.Join(dir, "cache"), Releases: server.URL,
				Environ: []string{"PATH=" + dir}} // Go does not find its cache: no build
			for path, b := range map[string][]byte{f.Exe: tt.exe, filepath.Join(dir, name): tt.beside} {
				if b != nil {
					if err := os.WriteFile(path, b, 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			if tt.file {
				f.File = filepath.Join(dir, "coiled-jobs-linux-ARCH")
			}
			for range 2 { // the second time from what was kept
				r, err := f.Open(t.Context(), tt.arch)
				if tt.text != "" {
					if err == nil || !strings.Contains(err.Error(), tt.text) {
						t.Fatalf("%v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				r.Close()
				if err != nil || !bytes.Equal(got, tt.want) {
					t.Fatalf("%q, %v", got, err)
				}
			}
		})
	}
}
