package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// The parts of a CycloneDX document that are written here.
type (
	bom struct {
		Format       string      `json:"bomFormat"`
		SpecVersion  string      `json:"specVersion"`
		SerialNumber string      `json:"serialNumber"`
		Version      int         `json:"version"`
		Metadata     metadata    `json:"metadata"`
		Components   []component `json:"components"`
		Dependencies []depends   `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Ref        string     `json:"bom-ref"`
		Type       string     `json:"type"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		PURL       string     `json:"purl"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Licenses   []license  `json:"licenses,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	license struct {
		License struct {
			ID string `json:"id"`
		} `json:"license"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	depends struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// sbom lists what the Go linker says is in a program.
func (r *release) sbom(exe, path string, p platform) error {
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	main := component{Type: "application", Name: program, Version: r.version, PURL: purl(info.Main.Path, "v"+r.version),
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}, Licenses: make([]license, 1),
		Properties: []property{{"platform", p.os + "/" + p.arch}, {"commit", r.commit}}}
	main.Licenses[0].License.ID = "Apache-2.0"
	main.Ref = main.PURL
	doc := bom{Format: "CycloneDX", SpecVersion: "1.5", Version: 1, SerialNumber: serial(sum),
		Metadata: metadata{Timestamp: r.when.Format(time.RFC3339), Component: main}}
	std := component{Type: "library", Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"), PURL: purl("std", strings.TrimPrefix(info.GoVersion, "go"))}
	std.Ref = std.PURL
	doc.Components = append(doc.Components, std)
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: purl(m.Path, m.Version)}
		c.Ref = c.PURL
		// The hash of go.sum: of the list of the module's files.
		if text, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				c.Hashes = []hash{{"SHA-256", hex.EncodeToString(b)}}
			}
		}
		doc.Components = append(doc.Components, c)
	}
	all := depends{Ref: main.Ref}
	for _, c := range doc.Components {
		all.DependsOn = append(all.DependsOn, c.Ref)
	}
	doc.Dependencies = []depends{all}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func purl(module, version string) string {
	parts := strings.Split(module, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + url.PathEscape(version)
}

// serial is an UUID made of a hash: the same program has the same.
func serial(sum [32]byte) string {
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x80 // version 8: made by rules of one's own
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
