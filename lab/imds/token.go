package imds

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// A token is 56 characters: base64 of
//
//	0        8       10                     42
//	| expiry | noise | HMAC-SHA256 of these |
//
// where expiry is in nanoseconds since 1970, big endian. The noise makes two
// tokens of one moment differ, as clients expect of tokens.
const tokenClaim = 8 + 2

func makeToken(key []byte, expiry time.Time) string {
	claim := binary.BigEndian.AppendUint64(nil, uint64(expiry.UnixNano()))
	claim = append(claim, 0, 0)
	rand.Read(claim[8:])
	return base64.URLEncoding.EncodeToString(append(claim, sign(key, claim)...))
}

// tokenLife is how long the token still lives; 0 or less: it is not valid.
func tokenLife(key []byte, token string, now time.Time) time.Duration {
	// Strict: one token has one spelling.
	b, err := base64.URLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenClaim+sha256.Size {
		return 0
	}
	claim, mac := b[:tokenClaim], b[tokenClaim:]
	if !hmac.Equal(mac, sign(key, claim)) {
		return 0
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(claim))).Sub(now)
}

func sign(key, claim []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(claim)
	return h.Sum(nil)
}
