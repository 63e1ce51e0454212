package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// guard decides who may see and do what. On a loopback address everybody who
// can reach it may look; to act a caller needs what only our own page has: the
// anti-forgery value, or the token. With a token nobody sees anything without
// it. Names other than those of this server are refused, so that no page of
// somebody else can reach a server on this machine through a name of its own.
type guard struct {
	token string   // "": none is needed to look, and one is made for actions
	key   []byte   // signs the anti-forgery value
	hosts []string // that the server may be called by, beside loopback ones
	next  http.Handler
}

// policy lets the page load its own files and nothing else, from nowhere else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

const (
	cookieName = "coiled-jobs"
	// formField and formHeader carry the anti-forgery value of an action.
	formField, formHeader = "csrf", "X-Coiled-Jobs-Csrf"
)

// ServeHTTP checks a request before anything looks at it.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// With no-referrer browsers would send "Origin: null" with our own forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if !g.knownHost(r.Host) {
		http.Error(w, "this server is not known by the name in your address bar; start it with --host NAME to allow that", http.StatusMisdirectedRequest)
		return
	}
	if r.URL.Path == "/healthz" || r.URL.Path == "/favicon.ico" || strings.HasPrefix(r.URL.Path, "/static/") { // say nothing about runs
		g.next.ServeHTTP(w, r)
		return
	}
	if r.URL.Path == "/login" {
		g.login(w, r)
		return
	}
	bearer := g.bearer(r)
	if g.token != "" && !bearer && !g.cookie(r) {
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		http.Error(w, "a token is needed: the one that serve was started with", http.StatusUnauthorized)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost, http.MethodDelete:
		// A program that knows the token has no browser that could be misled.
		if !bearer && !g.ownPage(r) {
			http.Error(w, "this action did not come from the page of this server; reload it and try again", http.StatusForbidden)
			return
		}
	default:
		http.Error(w, "no such method", http.StatusMethodNotAllowed)
		return
	}
	g.next.ServeHTTP(w, r)
}

func (g *guard) knownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip := net.ParseIP(host); ip != nil {
		// An address cannot be made to point at us by somebody's name server.
		return true
	}
	for _, h := range g.hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

func (g *guard) bearer(r *http.Request) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && g.token != "" && same(given, g.token)
}

func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// sign derives a value from the key that tells nothing about it.
func (g *guard) sign(what string) string {
	m := hmac.New(sha256.New, g.key)
	m.Write([]byte(what))
	return hex.EncodeToString(m.Sum(nil))
}

func (g *guard) cookie(r *http.Request) bool {
	c, err := r.Cookie(cookieName)
	return err == nil && same(c.Value, g.sign("session "+g.token))
}

// csrf is the anti-forgery value that our pages send with actions.
func (g *guard) csrf() string { return g.sign("action " + g.token) }

// ownPage says whether an action comes from a page of ours: it knows the
// value, and the browser does not say that it is somebody else's.
func (g *guard) ownPage(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return false
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return false
		}
	}
	given := r.Header.Get(formHeader)
	if given == "" {
		r.Body = http.MaxBytesReader(nil, r.Body, 1<<20)
		given = r.PostFormValue(formField)
	}
	return given != "" && same(given, g.csrf())
}

// login turns the token into a cookie, so that it does not stay in the address.
func (g *guard) login(w http.ResponseWriter, r *http.Request) {
	given := ""
	switch r.Method {
	case http.MethodGet:
		given = r.URL.Query().Get("token") // the address that serve prints
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
		given = r.PostFormValue("token")
	}
	if g.token == "" || same(given, g.token) {
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: g.sign("session " + g.token), Path: "/", HttpOnly: true,
			SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"})
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	_, hash := assets()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if given != "" {
		w.WriteHeader(http.StatusForbidden)
	}
	_ = templates().ExecuteTemplate(w, "login", map[string]any{"Static": "/static/" + hash, "Wrong": given != ""}) // the caller went away
}
