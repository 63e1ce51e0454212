package hypervisor

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// imds is the metadata service of one machine: the paths that programs read,
// for sessions (IMDSv2) only.
type imds struct {
	id, kind, zone, role string
	spot                 bool
	access, secret       string
	address, hostname    string

	mu     sync.Mutex
	notice time.Time // when the machine is taken back; zero: no notice
}

// imdsToken is the secret of every session.
const imdsToken = "a-session-of-imds"

func (s *imds) setNotice(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notice = at
}

func (s *imds) noticed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notice
}

func (s *imds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const ttl = "X-aws-ec2-metadata-token-ttl-seconds"
	if r.URL.Path == "/latest/api/token" {
		n, err := strconv.Atoi(r.Header.Get(ttl))
		switch {
		case r.Method != http.MethodPut:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case err != nil || n < 1 || n > 21600:
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("X-Forwarded-For") != "":
			w.WriteHeader(http.StatusForbidden)
		default:
			w.Header().Set(ttl, strconv.Itoa(n))
			io.WriteString(w, imdsToken)
		}
		return
	}
	if r.Header.Get("X-aws-ec2-metadata-token") != imdsToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/latest/")
	text, found := s.value(strings.TrimSuffix(path, "/"))
	if !ok || !found || r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, text)
}

// value is what is at a path.
func (s *imds) value(path string) (string, bool) {
	region := strings.TrimRight(s.zone, "abcdef")
	rest, isMeta := strings.CutPrefix(path, "meta-data/")
	if !isMeta {
		if path != "dynamic/instance-identity/document" {
			return "", false
		}
		return asJSON(map[string]any{"accountId": "123456789012", "architecture": "x86_64", "availabilityZone": s.zone, "imageId": "ami-03cf127a",
			"instanceId": s.id, "instanceType": s.kind, "privateIp": s.address, "region": region, "version": "2017-09-30"}), true
	}
	plain := map[string]string{
		"instance-id": s.id, "instance-type": s.kind, "placement/availability-zone": s.zone, "placement/region": region,
		"local-ipv4": s.address, "local-hostname": s.hostname, "hostname": s.hostname, "ami-id": "ami-03cf127a",
		"instance-life-cycle": "on-demand", "services/domain": "amazonaws.com", "services/partition": "aws",
	}
	if s.spot {
		plain["instance-life-cycle"] = "spot"
	}
	if s.role != "" {
		plain["iam/security-credentials"] = s.role
		// versitygw refuses session tokens, so there is none.
		plain["iam/security-credentials/"+s.role] = asJSON(map[string]any{"Code": "Success", "LastUpdated": time.Now().UTC().Format(time.RFC3339),
			"Type": "AWS-HMAC", "AccessKeyId": s.access, "SecretAccessKey": s.secret, "Token": "",
			"Expiration": time.Now().Add(6 * time.Hour).UTC().Format(time.RFC3339)})
	}
	if at := s.noticed(); !at.IsZero() {
		plain["spot/instance-action"] = asJSON(map[string]any{"action": "terminate", "time": at.UTC().Format(time.RFC3339)})
		plain["spot/termination-time"] = at.UTC().Format(time.RFC3339)
	}
	text, ok := plain[rest]
	return text, ok
}

func asJSON(v map[string]any) string {
	b, err := json.MarshalIndent(v, "", "  ") // one field a line, as EC2 does
	if err != nil {
		return err.Error()
	}
	return string(b)
}
