package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/engine"
)

// perPage is how many runs a page has.
const perPage = 50

// runsData is the list of runs as it is filtered.
type runsData struct {
	Pipeline, Status, Owner    string
	Pipelines, Owners          []string
	Statuses                   []string
	Rows                       []engine.RunSummary
	Total, All, Page, LastPage int
	Query                      string // of the filter, without the page
	Newer, Older               string // addresses; "" if there are none
	Live                       int
	Problem                    string // the store does not answer: what is shown is old
}

var allStatuses = []string{"running", "succeeded", "failed", "stopped", "cancelled", "interrupted", "pending"}

func (s *Server) runsData(ctx context.Context, q url.Values) (runsData, <-chan struct{}, error) {
	list, _, changed, err := s.list.now(ctx)
	d := runsData{Pipeline: q.Get("pipeline"), Status: q.Get("status"), Owner: q.Get("owner"), Statuses: allStatuses, All: len(list)}
	if err != nil {
		if ctx.Err() != nil || len(list) == 0 {
			return d, changed, err
		}
		d.Problem = err.Error()
	}
	pipelines, owners := map[string]bool{}, map[string]bool{}
	var rows []engine.RunSummary
	for _, r := range list {
		pipelines[r.Pipeline], owners[r.Owner] = true, true
		if r.Status == "running" || r.Status == "pending" {
			d.Live++
		}
		if (d.Pipeline == "" || r.Pipeline == d.Pipeline) && (d.Status == "" || r.Status == d.Status) && (d.Owner == "" || r.Owner == d.Owner) {
			rows = append(rows, r)
		}
	}
	d.Pipelines, d.Owners = names(pipelines), names(owners)
	d.Total = len(rows)
	d.LastPage = max(1, (len(rows)+perPage-1)/perPage)
	d.Page, _ = strconv.Atoi(q.Get("page"))
	d.Page = min(max(d.Page, 1), d.LastPage)
	d.Rows = rows[(d.Page-1)*perPage : min(len(rows), d.Page*perPage)]
	filter := url.Values{}
	for k, v := range map[string]string{"pipeline": d.Pipeline, "status": d.Status, "owner": d.Owner} {
		if v != "" {
			filter.Set(k, v)
		}
	}
	d.Query = filter.Encode()
	turn := func(page int) string {
		filter.Set("page", strconv.Itoa(page))
		return "/runs?" + filter.Encode()
	}
	if d.Page > 1 {
		d.Newer = turn(d.Page - 1)
	}
	if d.Page < d.LastPage {
		d.Older = turn(d.Page + 1)
	}
	return d, changed, nil
}

func names(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for name := range set {
		if strings.TrimSpace(name) != "" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func (s *Server) runsPage(w http.ResponseWriter, r *http.Request) error {
	d, _, err := s.runsData(r.Context(), r.URL.Query())
	if err != nil {
		return err
	}
	return s.show(w, r, page{template: "runs", title: "Runs", here: "runs", script: "runs.js"}, d)
}

// runsEvents sends the list as it changes.
func (s *Server) runsEvents(w http.ResponseWriter, r *http.Request) error {
	defer s.list.watch(r.Context())()
	q := r.URL.Query()
	return s.followed(w, r, func() ([]byte, <-chan struct{}, error) {
		_, version, changed, _ := s.list.now(r.Context()) // what is wrong is shown
		f, err := s.list.frames.get(q.Encode(), version, func() ([]byte, error) {
			d, _, err := s.runsData(r.Context(), q)
			if err != nil {
				return nil, err
			}
			html, err := s.render("runs-live", d)
			return eventOf("live", html), err
		})
		if err != nil {
			return nil, changed, err
		}
		return f.body, changed, nil
	})
}
