// Package motoserver starts moto's server for tests: EC2, SQS, SSM, IAM and STS
// by people who never saw this program. server.py adds what its EC2 leaves out.
// Only tests import it.
package motoserver

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
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

	turn    sync.Mutex // held by the command that waits for its answer
	stdin   io.Writer
	answers chan answer
}

// Event is the beginning or the end of an instance.
type Event struct {
	Event    string `json:"event"` // begin or end
	ID       string `json:"id"`
	Type     string `json:"type"`
	Zone     string `json:"zone"`
	Spot     bool   `json:"spot"`
	Profile  string `json:"profile"`
	UserData []byte `json:"user_data"`
}

// Inventory is what there is in the server, in all accounts and regions.
type Inventory struct {
	Instances  []string `json:"instances"` // that have not been terminated
	Volumes    []string `json:"volumes"`
	Templates  []string `json:"templates"` // for launches
	Queues     []string `json:"queues"`
	Messages   []string `json:"messages"`
	Parameters []string `json:"parameters"`
}

type answer struct {
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
}

// Options says what the server's EC2 has.
type Options struct {
	// Capacity is how many machines each pool (type, subnet and market) has;
	// 0 is 100.
	Capacity int
	// Host is the address it listens at; empty: 127.0.0.1.
	Host string
	// Watch is called with each instance that begins or ends, one at a time.
	Watch func(Event)
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
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	// Port 0: the server takes a free one and says which.
	cmd := exec.Command(python, "-c", program, o.Host, "0", strconv.Itoa(o.Capacity))
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
	s := &Server{stdin: stdin, answers: make(chan answer, 1)}
	said := make(chan string, 1)
	go func() {
		lines := bufio.NewReader(stdout)
		line, _ := lines.ReadString('\n')
		said <- strings.TrimSpace(line)
		s.listen(lines, o.Watch)
	}()
	stop := func() {
		stdin.Close() // its end is the server's end
		timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
	}
	select {
	case s.URL = <-said:
	case <-time.After(time.Minute):
		err = errors.New("it does not start within a minute")
	}
	if err == nil && s.URL == "" {
		err = errors.New("it ended")
	}
	if err == nil {
		err = answers(s.URL)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("moto's server: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	t.Cleanup(stop)
	return s, nil
}

// listen reads what the server tells until it ends.
func (s *Server) listen(lines *bufio.Reader, watch func(Event)) {
	defer close(s.answers)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var line struct {
			Event
			answer
		}
		if err := json.Unmarshal(text, &line); err != nil {
			fmt.Fprintf(os.Stderr, "moto's server: %s", text) // some of moto's code prints
			continue
		}
		if line.Event.Event == "answer" {
			s.answers <- line.answer
		} else if watch != nil {
			watch(line.Event)
		}
	}
}

// command asks the server for something that EC2 does by itself.
func (s *Server) command(result any, words ...string) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if _, err := io.WriteString(s.stdin, strings.Join(words, " ")+"\n"); err != nil {
		return err
	}
	a, ok := <-s.answers
	switch {
	case !ok:
		return fmt.Errorf("%s: the server ended", words[0])
	case a.Error != "":
		return fmt.Errorf("%s: %s", strings.Join(words, " "), a.Error)
	}
	return json.Unmarshal(a.Result, result)
}

// PowerOff says that an instance has shut itself down: it is terminated or
// stopped, as its launch template says.
func (s *Server) PowerOff(id string) error { return s.command(new(any), "poweroff", id) }

// Reclaim takes a spot instance back.
func (s *Server) Reclaim(id string) error { return s.command(new(any), "reclaim", id) }

// Inventory says what there is.
func (s *Server) Inventory() (Inventory, error) {
	var i Inventory
	err := s.command(&i, "inventory")
	return i, err
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
