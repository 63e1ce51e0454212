package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// A coordinator that asks too early which machine it is asks again: it must not
// release itself with the machines of its run.
func TestIdentityIsAskedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := map[string]string{"/latest/api/token": "t", "/latest/meta-data/instance-id": "i-0123", "/latest/meta-data/instance-type": "m6i.large",
			"/latest/meta-data/placement/availability-zone": "us-east-1a", "/latest/meta-data/instance-life-cycle": "on-demand"}[r.URL.Path]
		switch {
		case asked.Add(1) == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write([]byte(text))
		}
	}))
	defer imds.Close()
	a := &app{environ: []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + imds.URL, "AWS_REGION=us-east-1"}, messages: &messages{w: t.Output()}}
	if m, ok := a.identity("/nothing")(t.Context()); !ok || m.ID != "i-0123" || m.PricePerHour <= 0 {
		t.Errorf("%+v, %v", m, ok)
	}
}
