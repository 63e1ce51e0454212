package hypervisor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// s3Domain is where S3 and its buckets are.
const s3Domain = "s3.us-east-1.amazonaws.com"

// amazonNames are the names of the services and of buckets.
func amazonNames(buckets []string) []string {
	names := []string{s3Domain, "s3.amazonaws.com", "sts.amazonaws.com", "iam.amazonaws.com", "api.pricing.us-east-1.amazonaws.com"}
	for _, service := range []string{"ec2", "sqs", "ssm", "sts", "servicequotas", "secretsmanager"} {
		names = append(names, service+".us-east-1.amazonaws.com")
	}
	for _, b := range buckets {
		names = append(names, b+"."+s3Domain)
	}
	return names
}

// serveNames answers to names at port 443 of an address, over TLS, for two
// servers without it. It returns the certificate of who vouches for it.
func serveNames(address, moto, s3 string, names []string) (ca string, err error) {
	cert, ca, err := certify(names)
	if err != nil {
		return "", err
	}
	toMoto, err := url.Parse(moto)
	if err != nil {
		return "", err
	}
	toS3, err := url.Parse(s3)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, "443"))
	if err != nil {
		return "", err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			to := toMoto
			if r.In.Host == s3Domain || strings.HasSuffix(r.In.Host, "."+s3Domain) {
				to = toS3
			}
			r.SetURL(to)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true},
		ErrorLog:  log.New(io.Discard, "", 0), // machines die in the middle of requests
	}
	server := &http.Server{Handler: proxy, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: proxy.ErrorLog, ReadHeaderTimeout: time.Minute}
	go server.ServeTLS(l, "", "")
	return ca, nil
}

// certify makes an authority, and a certificate of it for names.
func certify(names []string) (cert tls.Certificate, ca string, err error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, "", err
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "coiled-jobs tests"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return cert, "", err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, authorityKey)
	if err != nil {
		return cert, "", err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER})), nil
}
