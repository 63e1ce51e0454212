// Package s3server starts a real S3 server for tests: versitygw over a
// temporary folder. Only tests import it.
package s3server

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// T is what is needed of a test.
type T interface {
	Helper()
	TempDir() string
	Setenv(key, value string)
	Cleanup(func())
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Server is a running S3 server. Folders in Dir are its buckets, files in them
// its objects.
type Server struct {
	URL    string
	Dir    string
	Access string
	Secret string
}

// Start starts a server that ends with the test. Where there is none the test
// is skipped with the reason, but fails in CI, where CI=true is set.
func Start(t T) *Server {
	t.Helper()
	return StartAt(t, Options{})
}

// Options says where a server is found.
type Options struct {
	// Host is an address of this machine; empty: 127.0.0.1. A client must use
	// the address with which an URL was signed: several machines share one.
	Host string
	// Domain, if set, makes BUCKET.Domain the address of a bucket for who asks
	// the server by that name.
	Domain string
}

// StartAt is Start with options.
func StartAt(t T, o Options) *Server {
	t.Helper()
	s, err := start(t, o)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no S3 server: %v", err)
		}
		t.Skipf("no S3 server: %v", err)
	}
	return s
}

// Environ is the variables with which the SDK finds the server.
func (s *Server) Environ() []string {
	return []string{"AWS_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=" + s.Access, "AWS_SECRET_ACCESS_KEY=" + s.Secret,
		"AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}
}

// Setenv sets Environ for the test, which therefore cannot be parallel.
func (s *Server) Setenv(t T) {
	t.Helper()
	for _, kv := range s.Environ() {
		key, value, _ := strings.Cut(kv, "=")
		t.Setenv(key, value)
	}
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_SESSION_TOKEN", "")
}

func start(t T, o Options) (*Server, error) {
	bin, err := binary()
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: t.TempDir(), Access: "test-access", Secret: "test-secret"}
	meta := t.TempDir()
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	// The port is free when it is found and may be taken when it is used: a
	// few tries.
	for try := 0; ; try++ {
		addr, err := freeAddr(o.Host)
		if err != nil {
			return nil, err
		}
		s.URL = "http://" + addr
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(context.Background())
		args := []string{"--port", addr, "--access", s.Access, "--secret", s.Secret, "--region", "us-east-1", "--keep-alive", "--quiet"}
		if o.Domain != "" {
			args = append(args, "--virtual-domain", o.Domain)
		}
		cmd := exec.CommandContext(ctx, bin, append(args, "posix", "--sidecar", meta, s.Dir)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			cancel()
			return nil, err
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		if err = ready(s.URL, ended); err == nil {
			t.Cleanup(func() { cancel(); <-ended })
			return s, nil
		}
		cancel()
		<-ended
		if try == 3 {
			return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.Bytes()))
		}
	}
}

// ready waits until the server answers.
func ready(url string, ended <-chan struct{}) error {
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return fmt.Errorf("the server ended")
		case <-deadline:
			return fmt.Errorf("the server does not answer: %w", err)
		}
	}
}

func freeAddr(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// binary is the server's program: from PATH, or built from the module in
// tools, once for a process.
var binary = sync.OnceValues(func() (string, error) {
	if bin, err := exec.LookPath("versitygw"); err == nil {
		return bin, nil
	}
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("the source folder is not known")
	}
	tools := filepath.Join(filepath.Dir(self), "..", "..", "tools")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	// "go tool -n" builds into the build cache and prints where.
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", "versitygw")
	cmd.Dir = tools
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build versitygw in %s: %w: %s", tools, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(bytes.TrimSpace(out)), nil
})
