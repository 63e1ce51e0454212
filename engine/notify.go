package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// notifyAtEnd sends the notifications of a run when its session has ended.
func (e *Engine) notifyAtEnd(s *session, h *executor.Header) {
	defer close(s.notified)
	<-s.done
	e.notify(h, s.coord.Pipeline(), s.report)
}

// notify tells the webhooks of a pipeline how a run ended. What fails is said
// on stderr and changes nothing: the run has its result.
func (e *Engine) notify(h *executor.Header, p *spec.Pipeline, r executor.Report) {
	if !r.Status.Final() {
		return
	}
	event := "failure"
	if r.Status == executor.RunSucceeded {
		event = "success"
	}
	for _, n := range p.Notify {
		if !slices.Contains(n.On, event) {
			continue
		}
		if err := e.post(p, h, n, r); err != nil {
			e.warnNotify(err)
		}
	}
}

func (e *Engine) warnNotify(err error) {
	if e.Stderr != nil {
		fmt.Fprintf(e.Stderr, "warning: notify: %v\n", err)
	}
}

// notifyMissed tells the webhooks of a pipeline that a tick was missed.
func (e *Engine) notifyMissed(_ context.Context, s schedule.Schedule, rec schedule.Record) {
	doc, err := spec.Load(s.File)
	if err != nil {
		return // then the file is what is broken, and nobody can be told
	}
	p, problems := doc.Bind(spec.BindOptions{Params: s.Params, Lenient: true})
	if problems.Err() != nil {
		return
	}
	for _, n := range p.Notify {
		if !slices.Contains(n.On, "missed") {
			continue
		}
		body, err := missedNotification(n.Format, rec)
		if err == nil {
			err = e.send(p, &spec.RunInfo{Scheduled: rec.Tick}, n, body)
		}
		if err != nil {
			e.warnNotify(err)
		}
	}
}

func missedNotification(format string, rec schedule.Record) ([]byte, error) {
	if format != "slack" {
		return json.Marshal(rec)
	}
	text := fmt.Sprintf("%s missed its run of %s: %s", rec.Pipeline, rec.Tick.Format(time.RFC3339), rec.Why)
	if rec.Count > 1 {
		text = fmt.Sprintf("%s missed %d runs until %s: %s", rec.Pipeline, rec.Count, rec.Tick.Format(time.RFC3339), rec.Why)
	}
	return json.Marshal(map[string]string{"text": text})
}

func (e *Engine) post(p *spec.Pipeline, h *executor.Header, n spec.Notify, r executor.Report) error {
	body, err := notification(n.Format, r)
	if err != nil {
		return err
	}
	return e.send(p, h.Info(), n, body)
}

func (e *Engine) send(p *spec.Pipeline, info *spec.RunInfo, n spec.Notify, body []byte) error {
	vars, err := executor.PipelineEnv(p, info)
	if err != nil {
		return err
	}
	url, err := n.Webhook.Text(&spec.Env{Params: p.Params, Env: vars, Run: info})
	if err != nil {
		return err
	}
	if n.Secret != "" {
		if url = e.variable(n.Secret); url == "" {
			return fmt.Errorf("the secret %s, the address of the webhook, is not set in your environment", n.Secret)
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), 15*time.Second)
	defer stop()
	backoff := retry.WithMaxRetries(3, retry.NewExponential(500*time.Millisecond))
	return retry.Do(ctx, backoff, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("the webhook is not an address") // the address itself may be a secret
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return retry.RetryableError(fmt.Errorf("the webhook at %s cannot be reached", req.URL.Host))
		}
		resp.Body.Close()
		switch {
		case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
			return retry.RetryableError(fmt.Errorf("the webhook at %s answered %s", req.URL.Host, resp.Status))
		case resp.StatusCode >= 300:
			return fmt.Errorf("the webhook at %s answered %s", req.URL.Host, resp.Status)
		}
		return nil
	})
}

// variable is a variable of the caller's environment.
func (e *Engine) variable(name string) string {
	for _, kv := range slices.Backward(e.Environ) {
		if val, ok := strings.CutPrefix(kv, name+"="); ok {
			return strings.TrimSpace(val)
		}
	}
	return ""
}

// notification is the body to post: the report, or a line for Slack.
func notification(format string, r executor.Report) ([]byte, error) {
	if format != "slack" {
		return json.Marshal(r)
	}
	tasks, failed := 0, 0
	for _, f := range r.Functions {
		tasks += f.Tasks
		failed += f.Failed
	}
	text := fmt.Sprintf("%s %s after %s: %d of %d tasks failed, $%.2f (run %s)", r.Pipeline, r.Status,
		time.Duration(r.Seconds*float64(time.Second)).Round(time.Second), failed, tasks, r.CostUSD, r.Run)
	return json.Marshal(map[string]string{"text": text})
}
