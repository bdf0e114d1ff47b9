package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// validity is how long a cluster's certificates are valid. A lab lives for less;
// they begin early for a clock that a test has set back.
const (
	validity = 10 * 365 * 24 * time.Hour
	early    = 24 * time.Hour
)

// authority signs everything that the cluster's programs show each other.
type authority struct {
	now  time.Time
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pair
}

// pair is a certificate and its key, PEM.
type pair struct{ cert, key []byte }

// identity is who a certificate is for: to the API server a user and its groups,
// to a client of a server its addresses.
type identity struct {
	user   string
	groups []string
	names  []string
	addrs  []netip.Addr
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority's key: %w", err)
	}
	a := &authority{now: now, key: key}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fairway-lab"},
		NotBefore: now.Add(-early), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	a.pair, err = a.sign(a.cert, key)
	return a, err
}

// issue makes a key and a certificate for it, for clients and servers alike.
func (a *authority) issue(who identity) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("make key of %s: %w", who.user, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return pair{}, fmt.Errorf("make serial number: %w", err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: who.user, Organization: who.groups},
		NotBefore: a.now.Add(-early), NotAfter: a.now.Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    who.names,
	}
	for _, addr := range who.addrs {
		c.IPAddresses = append(c.IPAddresses, net.IP(addr.AsSlice()))
	}
	return a.sign(c, key)
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign certificate of %s: %w", c.Subject.CommonName, err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, fmt.Errorf("encode key of %s: %w", c.Subject.CommonName, err)
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}, nil
}

// kubeconfig is the file by which a client finds the API server and says who it is.
func (a *authority) kubeconfig(server netip.AddrPort, who identity) ([]byte, error) {
	p, err := a.issue(who)
	if err != nil {
		return nil, err
	}
	const name = "fairway-lab"
	return json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []any{map[string]any{"name": name, "cluster": map[string]any{
			"server": "https://" + server.String(), "certificate-authority-data": a.pair.cert,
		}}},
		"users": []any{map[string]any{"name": who.user, "user": map[string]any{
			"client-certificate-data": p.cert, "client-key-data": p.key,
		}}},
		"contexts": []any{map[string]any{"name": name, "context": map[string]any{"cluster": name, "user": who.user}}},
	}, "", "  ")
}
