package ec2sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"time"
)

// Credentials are what the metadata service gives an instance that has a role.
type Credentials struct {
	Role            string // its name
	AccessKeyID     string
	SecretAccessKey string
	Token           string
	LastUpdated     time.Time
	Expiration      time.Time
}

// An instance gets new credentials every hour, and each are good for six: who
// asks just before the hour has five left. EC2's last about six hours, and new
// ones are there at least five minutes before the old ones expire ("Retrieve
// security credentials from instance metadata", Amazon EC2 User Guide).
const (
	rotation       = time.Hour
	credentialLife = 6 * time.Hour
)

// maxSkew is how far a request's date may be from now. Source: RequestExpired,
// "Error codes for the Amazon EC2 API".
const maxSkew = 15 * time.Minute

// Caller is who makes a request: the role of an instance, or somebody unknown
// whose access key is taken as it comes, while [Config].IAM is off.
type Caller struct {
	AccessKeyID string // empty if the request is not signed
	Role        string // empty: not by credentials that [Cloud.Credentials] gave
	InstanceID  string
}

// ARN is the name of the caller's session, as policies and errors have it;
// empty for somebody unknown.
func (c Caller) ARN(account string) string {
	if c.Role == "" {
		return ""
	}
	return "arn:aws:sts::" + account + ":assumed-role/" + c.Role + "/" + c.InstanceID
}

// Administrator is the same cloud for the one who owns the account: its HTTP
// requests need no signature, and no policy is asked about them.
func (c *Cloud) Administrator() *Cloud {
	view := *c
	view.admin = true
	return &view
}

// Credentials are those of an instance's role at this moment. It says false
// where the instance has no role, or with [Config].IAM one that is not there.
func (c *Cloud) Credentials(instanceID string) (Credentials, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.state.regions {
		if i, ok := r.instances.get(instanceID); ok {
			role := profileName(i.InstanceProfile)
			if role == "" || c.state.cfg.IAM && c.state.cfg.Roles[role] == nil {
				return Credentials{}, false
			}
			return c.state.grant(session{role, instanceID, c.state.cfg.Now().Truncate(rotation)}), true
		}
	}
	return Credentials{}, false
}

// profileName is the name of an instance profile that was named either way. In
// the lab a profile has the name of its role, as the EC2 console makes them.
func profileName(profile string) string { return profile[strings.LastIndex(profile, "/")+1:] }

// session is what credentials are made of, and all that they say. Its token is
// its own record, signed by the cloud, so nothing is kept of what was given:
//
//	session --sign--> token --HMAC--> access key, secret
//
//	token: base64 of | start, hours since 1970 | HMAC-SHA256 of the rest | role / instance |
type session struct {
	role, instance string
	start          time.Time
}

const tokenStart = 4 // bytes

func (s *state) mac(what string, text []byte) []byte {
	key := binary.BigEndian.AppendUint64([]byte("fairway-lab "+s.cfg.Account), s.cfg.Seed)
	h := hmac.New(sha256.New, key)
	h.Write([]byte(what + "\x00"))
	h.Write(text)
	return h.Sum(nil)
}

// grant makes the credentials of a session: the same ones each time.
func (s *state) grant(n session) Credentials {
	claim := binary.BigEndian.AppendUint32(nil, uint32(n.start.Unix()/int64(rotation/time.Second)))
	name := []byte(n.role + "/" + n.instance)
	signed := s.mac("token", append(claim[:tokenStart:tokenStart], name...))
	text := append(append(claim, signed...), name...)
	return Credentials{
		Role:            n.role,
		AccessKeyID:     "ASIA" + base32.StdEncoding.EncodeToString(s.mac("key", text))[:16],
		SecretAccessKey: base64.StdEncoding.EncodeToString(s.mac("secret", text))[:40],
		Token:           base64.StdEncoding.EncodeToString(text),
		LastUpdated:     n.start, Expiration: n.start.Add(credentialLife),
	}
}

// recognize gives the session of a token that this cloud has signed, expired or
// not.
func (s *state) recognize(token string) (session, bool) {
	text, err := base64.StdEncoding.Strict().DecodeString(token)
	if err != nil || len(text) < tokenStart+sha256.Size {
		return session{}, false
	}
	claim, signed, name := text[:tokenStart:tokenStart], text[tokenStart:tokenStart+sha256.Size], text[tokenStart+sha256.Size:]
	if !hmac.Equal(signed, s.mac("token", append(claim, name...))) {
		return session{}, false
	}
	role, instance, _ := strings.Cut(string(name), "/")
	return session{role, instance, time.Unix(int64(binary.BigEndian.Uint32(claim))*int64(rotation/time.Second), 0).UTC()}, true
}

// identify says who makes a request. Without [Config].IAM it believes what the
// request says, and refuses nothing; with it, the signature must be right, its
// date and scope too, and the credentials known and not expired. The order in
// which EC2 looks at these is not published. Codes: "Error codes for the Amazon
// EC2 API" and "Troubleshoot Signature Version 4 signing for AWS API requests",
// IAM User Guide.
func (c *Cloud) identify(r *http.Request, body []byte) (Caller, error) {
	sig, err := readSignature(r)
	who := Caller{AccessKeyID: sig.accessKey}
	n, known := c.state.recognize(sig.token) // of the state only its configuration is read
	var granted Credentials
	if known {
		if granted = c.state.grant(n); granted.AccessKeyID == sig.accessKey {
			who.Role, who.InstanceID = n.role, n.instance
		}
	}
	if c.admin || !c.state.cfg.IAM {
		return who, nil
	}
	if err != nil {
		return who, err
	}
	now := c.state.cfg.Now()
	if err := sig.check(now, c.state.regions[c.region] != nil); err != nil {
		return who, err
	}
	if who.Role == "" {
		return who, fail("AuthFailure", "AWS was not able to validate the provided access credentials")
	}
	if !now.Before(granted.Expiration) {
		return who, fail("RequestExpired", "Request has expired.")
	}
	if !hmac.Equal([]byte(sig.value), []byte(sig.compute(r, body, granted.SecretAccessKey))) {
		return who, fail("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return who, nil
}
