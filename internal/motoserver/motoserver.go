// Package motoserver starts moto's server for tests: EC2, SQS, SSM, IAM and STS
// by people who never saw this program. server.py adds what its EC2 leaves out.
// Only tests import it.
package motoserver

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// T is what is needed of a test.
type T interface {
	Helper()
	Setenv(key, value string)
	Cleanup(func())
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Server is a running server with a default network in us-east-1.
type Server struct {
	URL string
}

// Options says what the server's EC2 has.
type Options struct {
	// Capacity is how many machines each pool (type, subnet and market) has;
	// 0 is 100.
	Capacity int
}

//go:embed server.py
var program string

// Start starts a server that ends with the test. Where there is none the test
// is skipped with the reason, but fails in CI, where CI=true is set.
func Start(t T, o Options) *Server {
	t.Helper()
	s, err := start(t, o)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no EC2 and SQS server: %v", err)
		}
		t.Skipf("no EC2 and SQS server: %v", err)
	}
	return s
}

// Environ is the variables with which the SDK finds the server.
func (s *Server) Environ() []string {
	return []string{"AWS_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=test-access", "AWS_SECRET_ACCESS_KEY=test-secret",
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
	python, err := interpreter()
	if err != nil {
		return nil, err
	}
	if o.Capacity == 0 {
		o.Capacity = 100
	}
	// Port 0: the server takes a free one and says which.
	cmd := exec.Command(python, "-c", program, "0", strconv.Itoa(o.Capacity))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	stop := func() {
		stdin.Close() // its end is the server's end
		timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
	}
	var url string
	select {
	case url = <-said:
	case <-time.After(time.Minute):
		err = errors.New("it does not start within a minute")
	}
	if err == nil && url == "" {
		err = errors.New("it ended")
	}
	if err == nil {
		err = answers(url)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("moto's server: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	t.Cleanup(stop)
	return &Server{URL: url}, nil
}

func answers(url string) error {
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get(url + "/moto-api/data.json")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// interpreter is the Python that has moto: the virtual environment which
// scripts/tools.sh made.
func interpreter() (string, error) {
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("the source folder is not known")
	}
	python := filepath.Join(filepath.Dir(self), "..", "..", ".cache", "moto", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return "", fmt.Errorf("%w; scripts/tools.sh moto installs it", err)
	}
	return python, nil
}
