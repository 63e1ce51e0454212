package bundle

import (
	"bytes"
	"io"
	"os"
	"path"
	"strings"
)

// secretNames are names, in lower case, of files and folders that hold
// credentials. They travel only if an include pattern names them.
var secretNames = []struct{ pattern, why string }{
	{".env", "environment file"},
	{".env.*", "environment file"},
	{"*.env", "environment file"},
	{".envrc", "environment file"},
	{"*.pem", "key or certificate"},
	{"*.key", "private key"},
	{"*.p12", "private key"},
	{"*.pfx", "private key"},
	{"*.jks", "private keys"},
	{"*.keystore", "private keys"},
	{"*.ppk", "private key"},
	{"*.kdbx", "password database"},
	{"id_rsa*", "SSH key"},
	{"id_dsa*", "SSH key"},
	{"id_ecdsa*", "SSH key"},
	{"id_ed25519*", "SSH key"},
	{".ssh", "SSH keys"},
	{".gnupg", "GnuPG keys"},
	{".aws", "AWS credentials"},
	{".azure", "Azure credentials"},
	{".gcloud", "Google Cloud credentials"},
	{".kube", "Kubernetes credentials"},
	{".docker", "registry credentials"},
	{".dockercfg", "registry credentials"},
	{"kubeconfig*", "Kubernetes credentials"},
	{"*.kubeconfig", "Kubernetes credentials"},
	{"credentials", "credentials"},
	{"credentials.csv", "credentials"},
	{"credentials.ini", "credentials"},
	{"credentials.toml", "credentials"},
	{"credentials.y*ml", "credentials"},
	{"application_default_credentials.json", "Google Cloud credentials"},
	{"*accesskeys.csv", "AWS access keys"},
	{"rootkey.csv", "AWS access keys"},
	{".s3cfg", "credentials"},
	{".boto", "credentials"},
	{".databrickscfg", "token"},
	{"kaggle.json", "token"},
	{"credentials*.json", "credentials"},
	{"client_secret*.json", "credentials"},
	{"service-account*.json", "credentials"},
	{"service_account*.json", "credentials"},
	{"secrets.y*ml", "secrets"},
	{"secrets.json", "secrets"},
	{"secrets.toml", "secrets"},
	{".netrc", "passwords"},
	{"_netrc", "passwords"},
	{".pgpass", "passwords"},
	{".my.cnf", "passwords"},
	{".htpasswd", "passwords"},
	{".git-credentials", "passwords"},
	{".vault-token", "token"},
	{"*.tfstate", "Terraform state, which holds secrets"},
	{"*.tfstate.backup", "Terraform state, which holds secrets"},
}

// harmless are names that the patterns above match but that are made to be
// shared.
var harmless = newNames(".env.example", ".env.sample", ".env.template", ".env.dist", "*.env.example", "*.env.sample")

var secrets = func() *names {
	n := newNames()
	for _, s := range secretNames {
		n.add(s.pattern, s.why)
	}
	return n
}()

// settingsNames are files of package managers: fine, unless they hold a token.
var settingsNames = []string{".npmrc", ".pypirc", ".yarnrc.yml", "pip.conf", ".condarc", ".cargo/credentials.toml"}

var tokenMarks = [][]byte{
	[]byte("_authtoken"), []byte("_auth"), []byte("_password"), []byte("password"), []byte("npmauthtoken"), []byte("token"),
}

// secret says which element of a path makes it a secret (0 is the first), and
// what it is; -1 if nothing does.
func secret(p string) (element int, why string) {
	for i := 0; ; i++ {
		name, rest, more := strings.Cut(p, "/")
		low := strings.ToLower(name)
		if _, ok := harmless.find(low); !ok {
			if why, ok := secrets.find(low); ok {
				return i, why
			}
		}
		if !more {
			return -1, ""
		}
		p = rest
	}
}

// names are patterns of names, sorted by kind: every file of a folder is held
// against all of them.
type names struct {
	exact                 map[string]string
	prefix, suffix, other [][2]string // pattern without its star, what it means
}

func newNames(patterns ...string) *names {
	n := &names{exact: map[string]string{}}
	for _, p := range patterns {
		n.add(p, p)
	}
	return n
}

func (n *names) add(pattern, meaning string) {
	switch stars := strings.Count(pattern, "*"); {
	case stars == 0:
		n.exact[pattern] = meaning
	case stars == 1 && strings.HasSuffix(pattern, "*"):
		n.prefix = append(n.prefix, [2]string{strings.TrimSuffix(pattern, "*"), meaning})
	case stars == 1 && strings.HasPrefix(pattern, "*"):
		n.suffix = append(n.suffix, [2]string{pattern[1:], meaning})
	default:
		n.other = append(n.other, [2]string{pattern, meaning})
	}
}

// find is what a name means, if it matches a pattern.
func (n *names) find(name string) (string, bool) {
	if m, ok := n.exact[name]; ok {
		return m, true
	}
	for _, p := range n.prefix {
		if strings.HasPrefix(name, p[0]) {
			return p[1], true
		}
	}
	for _, p := range n.suffix {
		if strings.HasSuffix(name, p[0]) {
			return p[1], true
		}
	}
	for _, p := range n.other {
		if ok, _ := path.Match(p[0], name); ok {
			return p[1], true
		}
	}
	return "", false
}

// maySettings says that a file is one of those that may hold a token.
func maySettings(p string) bool {
	low := strings.ToLower(p)
	for _, s := range settingsNames {
		if low == s || strings.HasSuffix(low, "/"+s) {
			return true
		}
	}
	return false
}

// maybeKeys is how many files are looked into for private keys: more than that
// are data.
const maybeKeys = 2000

// mayKey says that a file may hold a private key, by its name: those of Google
// Cloud are JSON of any name, those of SSH have no extension.
func mayKey(p string) bool {
	ext := path.Ext(p)
	return ext == "" || strings.EqualFold(ext, ".json") || ext == path.Base(p)
}

// hasKey says whether a small file holds a private key.
func hasKey(name string) bool {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 16<<10 {
		return false
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return false // sending it will say so
	}
	for ok := true; ok; { // there may be a certificate before it
		if _, b, ok = bytes.Cut(b, []byte("-----BEGIN ")); ok {
			if kind, _, end := bytes.Cut(b, []byte("-----")); end && bytes.HasSuffix(kind, []byte("PRIVATE KEY")) {
				return true
			}
		}
	}
	return false
}

// hasToken says whether a settings file holds a token or password. One that
// cannot be read counts as if it did.
func hasToken(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return true
	}
	b = bytes.ToLower(b)
	for _, m := range tokenMarks {
		if bytes.Contains(b, m) {
			return true
		}
	}
	// An address with a user and a password in it.
	for rest := b; ; {
		i := bytes.Index(rest, []byte("://"))
		if i < 0 {
			return false
		}
		rest = rest[i+3:]
		end := bytes.IndexAny(rest, "/ \t\r\n\"'")
		if end < 0 {
			end = len(rest)
		}
		if at := bytes.LastIndexByte(rest[:end], '@'); at > 0 && bytes.IndexByte(rest[:at], ':') > 0 {
			return true
		}
	}
}
