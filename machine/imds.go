package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// metadata asks the instance metadata service, version 2, which only answers
// to a token.
type metadata struct {
	base   string // http://169.254.169.254
	client *http.Client

	mu      sync.Mutex
	token   string
	expires time.Time
}

// defaultMetadata is where EC2 has its metadata service.
const defaultMetadata = "http://169.254.169.254"

// tokenLife is for how long a token is asked for: the longest possible.
const tokenLife = 6 * time.Hour

func newMetadata(base string) *metadata {
	if base == "" {
		base = defaultMetadata
	}
	// Never through a proxy: the answer would be about that machine.
	return &metadata{base: strings.TrimRight(base, "/"), client: &http.Client{Timeout: 5 * time.Second,
		Transport: &http.Transport{MaxIdleConns: 2, IdleConnTimeout: time.Minute}}}
}

// errNoData is the answer to a question that has none.
var errNoData = errors.New("the metadata service has no such thing")

// get reads below latest/.
func (m *metadata) get(ctx context.Context, path string) (string, error) {
	for fresh := false; ; fresh = true {
		token, err := m.auth(ctx, fresh)
		if err != nil {
			return "", err
		}
		status, body, err := m.do(ctx, http.MethodGet, path, "X-aws-ec2-metadata-token", token)
		switch {
		case err != nil:
			return "", err
		case status == http.StatusOK:
			return body, nil
		case status == http.StatusNotFound:
			return "", errNoData
		case status == http.StatusUnauthorized && !fresh:
			continue // the service forgot the token
		}
		return "", fmt.Errorf("metadata %s: status %d", path, status)
	}
}

func (m *metadata) auth(ctx context.Context, fresh bool) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !fresh && m.token != "" && time.Now().Before(m.expires) {
		return m.token, nil
	}
	status, body, err := m.do(ctx, http.MethodPut, "api/token", "X-aws-ec2-metadata-token-ttl-seconds",
		fmt.Sprint(int(tokenLife/time.Second)))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("metadata token: status %d", status)
	}
	if err != nil {
		return "", err
	}
	m.token, m.expires = body, time.Now().Add(tokenLife-time.Minute)
	return m.token, nil
}

func (m *metadata) do(ctx context.Context, method, path, header, value string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+"/latest/"+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set(header, value)
	resp, err := m.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("ask the metadata service: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return 0, "", fmt.Errorf("ask the metadata service: %w", err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b)), nil
}

// identity is which machine this is.
func (m *metadata) identity(ctx context.Context) (id Identity, err error) {
	if id.ID, err = m.get(ctx, "meta-data/instance-id"); err != nil {
		return id, err
	}
	if id.ID == "" || strings.ContainsAny(id.ID, "/ \n") {
		return id, fmt.Errorf("%q is no id of a machine", id.ID)
	}
	var cycle string
	for _, f := range []struct {
		path string
		to   *string
	}{{"meta-data/instance-type", &id.Type}, {"meta-data/placement/availability-zone", &id.Zone}, {"meta-data/instance-life-cycle", &cycle}} {
		if *f.to, err = m.get(ctx, f.path); err != nil && !errors.Is(err, errNoData) {
			return id, err
		}
	}
	id.Spot = cycle == "spot"
	return id, nil
}

// notice is when the machine is taken back; zero: nobody has said so.
func (m *metadata) notice(ctx context.Context) (time.Time, error) {
	body, err := m.get(ctx, "meta-data/spot/instance-action")
	if errors.Is(err, errNoData) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	var n struct{ Time time.Time }
	if err := json.Unmarshal([]byte(body), &n); err != nil || n.Time.IsZero() {
		// Whatever it means, it is a notice: two minutes is what there is.
		return time.Now().Add(2 * time.Minute), nil
	}
	return n.Time, nil
}
