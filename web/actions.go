package web

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/schedule"
)

// patience is how long an action waits for what it asked for; then the page
// shows how far it is.
const patience = 3 * time.Second

// actOnRun does what a button says. The guard has let it through. It is not
// left half done because somebody closed the page.
func (s *Server) actOnRun(w http.ResponseWriter, r *http.Request) error {
	run := r.PathValue("run")
	ctx := context.WithoutCancel(r.Context())
	if _, err := executor.LoadHeader(ctx, s.cfg.Engine.Store, run); err != nil {
		return err
	}
	var err error
	switch r.PathValue("action") {
	case "cancel":
		_, err = s.cfg.Engine.Cancel(ctx, run, patience)
	case "retry":
		_, err = s.cfg.Engine.Retry(ctx, run, engine.ContinueOptions{Detach: true})
	case "resume":
		_, err = s.cfg.Engine.Resume(ctx, run, engine.ContinueOptions{Detach: true})
	default:
		return errNotFound
	}
	if err != nil {
		return err
	}
	s.hub.forget(run)
	s.list.forget(run)
	s.done(w, r, "/runs/"+url.PathEscape(run))
	return nil
}

// done answers an action: a page goes on to where it can be seen, a program
// is told where that is.
func (s *Server) done(w http.ResponseWriter, r *http.Request, where string) {
	if s.guard.bearer(r) {
		writeJSON(w, http.StatusOK, map[string]string{"see": where})
		return
	}
	http.Redirect(w, r, where, http.StatusSeeOther)
}

// scheduled is the file of a pipeline that is scheduled here.
func (s *Server) scheduled(pipeline string) (engine.ScheduledFile, bool) {
	for _, f := range s.files() {
		if f.Err == nil && f.Pipeline == pipeline && pipeline != "" {
			return f, true
		}
	}
	return engine.ScheduledFile{}, false
}

func (s *Server) files() []engine.ScheduledFile {
	if s.cfg.Files == nil {
		return nil
	}
	return s.cfg.Files()
}

// actOnSchedule pauses, resumes or triggers a pipeline that is scheduled here.
func (s *Server) actOnSchedule(w http.ResponseWriter, r *http.Request) error {
	f, ok := s.scheduled(r.PathValue("pipeline"))
	if !ok {
		return errNotFound
	}
	ctx := context.WithoutCancel(r.Context())
	where := "/schedules"
	var err error
	switch r.PathValue("action") {
	case "pause":
		err = s.cfg.Keeper.Pause(ctx, f.Pipeline, time.Now())
	case "resume":
		err = s.cfg.Keeper.Resume(ctx, f.Pipeline, time.Now())
	case "trigger":
		var h *engine.Handle
		if h, err = s.trigger(ctx, f, r.PostFormValue("schedule")); err == nil {
			where = "/runs/" + url.PathEscape(h.Run)
		}
	default:
		return errNotFound
	}
	if err != nil {
		return err
	}
	s.plan.forget()
	s.list.forget("")
	s.done(w, r, where)
	return nil
}

// trigger starts a run now, as the command of this name does, with the
// parameters of one of the pipeline's schedules; id "": of the first.
func (s *Server) trigger(ctx context.Context, f engine.ScheduledFile, id string) (*engine.Handle, error) {
	params := map[string]string{}
	at := slices.IndexFunc(f.Schedules, func(one schedule.Schedule) bool { return id == "" || one.ID == id })
	switch {
	case at >= 0:
		maps.Copy(params, f.Schedules[at].Params)
	case id != "":
		return nil, fmt.Errorf("%w: %s has no schedule %s now; load the page again", errNotFound, f.Pipeline, id)
	}
	o := engine.ApplyOptions{File: f.File, Params: params, Detach: true}
	p, err := s.cfg.Engine.Plan(ctx, o)
	if err != nil {
		return nil, err
	}
	h, err := s.cfg.Engine.Apply(ctx, p, o)
	if err != nil {
		return nil, err
	}
	s.await(ctx, h.Run)
	return h, nil
}

// await gives a run that was just started a moment to be there.
func (s *Server) await(ctx context.Context, run string) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		if _, err := executor.LoadHeader(ctx, s.cfg.Engine.Store, run); cloud.KindOf(err) != cloud.KindNotFound {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
