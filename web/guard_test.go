package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, token, method, path string
		host                      string
		headers                   map[string]string
		form                      bool // with the anti-forgery value
		want                      int
	}{
		{"look on loopback", "", "GET", "/", "127.0.0.1:8321", nil, false, 200},
		{"look on localhost", "", "GET", "/", "localhost:8321", nil, false, 200},
		{"a name of somebody's that points here", "", "GET", "/", "evil.example:8321", nil, false, 421},
		{"a name that was allowed", "", "GET", "/", "jobs.example", nil, false, 200},
		{"act without proof", "", "POST", "/cancel", "127.0.0.1:8321", nil, false, 403},
		{"act from our page", "", "POST", "/cancel", "127.0.0.1:8321", nil, true, 200},
		{"act from our page, as a browser says", "", "POST", "/cancel", "127.0.0.1:8321", map[string]string{"Origin": "http://127.0.0.1:8321", "Sec-Fetch-Site": "same-origin"}, true, 200},
		{"act from another page that knows the value", "", "POST", "/cancel", "127.0.0.1:8321", map[string]string{"Origin": "http://evil.example"}, true, 403},
		{"act from another site", "", "POST", "/cancel", "127.0.0.1:8321", map[string]string{"Sec-Fetch-Site": "cross-site"}, true, 403},
		{"act from another port", "", "POST", "/cancel", "127.0.0.1:8321", map[string]string{"Sec-Fetch-Site": "same-site"}, true, 403},
		{"an odd method", "", "PUT", "/", "127.0.0.1:8321", nil, true, 405},
		{"with a token, without it", "secret", "GET", "/api/runs", "127.0.0.1:8321", nil, false, 401},
		{"with a token, a browser without it", "secret", "GET", "/", "127.0.0.1:8321", map[string]string{"Accept": "text/html"}, false, 303},
		{"with a wrong token", "secret", "GET", "/", "127.0.0.1:8321", map[string]string{"Authorization": "Bearer secre"}, false, 401},
		{"with the token", "secret", "GET", "/", "127.0.0.1:8321", map[string]string{"Authorization": "Bearer secret"}, false, 200},
		{"act with the token", "secret", "POST", "/cancel", "127.0.0.1:8321", map[string]string{"Authorization": "Bearer secret"}, false, 200},
		{"act with the value alone", "secret", "POST", "/cancel", "127.0.0.1:8321", nil, true, 401},
		{"alive", "secret", "GET", "/healthz", "127.0.0.1:8321", nil, false, 200},
		{"an empty bearer where there is no token", "", "POST", "/cancel", "127.0.0.1:8321", map[string]string{"Authorization": "Bearer "}, false, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := &guard{token: c.token, key: []byte("key"), hosts: []string{"jobs.example"},
				next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })}
			body := url.Values{}
			if c.form {
				body.Set(formField, g.csrf())
			}
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(body.Encode()))
			r.Host = c.host
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for k, v := range c.headers {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.want)
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q", csp)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	g := &guard{token: "secret", key: []byte("key"), next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })}
	do := func(r *http.Request) *httptest.ResponseRecorder {
		r.Host = "127.0.0.1"
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
	if w := do(httptest.NewRequest("GET", "/login", nil)); w.Code != 200 || len(w.Result().Cookies()) != 0 {
		t.Errorf("the form: %d, cookies %v", w.Code, w.Result().Cookies())
	}
	if w := do(httptest.NewRequest("GET", "/login?token=wrong", nil)); w.Code != 403 || len(w.Result().Cookies()) != 0 {
		t.Errorf("a wrong token: %d, cookies %v", w.Code, w.Result().Cookies())
	}
	w := do(httptest.NewRequest("GET", "/login?token=secret", nil))
	cookies := w.Result().Cookies()
	if w.Code != 303 || len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteStrictMode || strings.Contains(cookies[0].Value, "secret") {
		t.Fatalf("%d, cookies %v", w.Code, cookies)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(cookies[0])
	if w := do(r); w.Code != 200 {
		t.Errorf("with the cookie: %d", w.Code)
	}
	other := &guard{token: "secret", key: []byte("another key"), next: g.next}
	rr := httptest.NewRecorder()
	r.Host = "127.0.0.1"
	other.ServeHTTP(rr, r)
	if rr.Code != 401 {
		t.Errorf("a cookie of another server: %d", rr.Code)
	}
}
