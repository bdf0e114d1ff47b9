package bundle

import (
	"bytes"
	"encoding/pem"
)

// armorType is the word of the lines around an armoured bundle (RFC 7468).
const armorType = "FAIRWAY BUNDLE"

var armorStart = []byte("-----BEGIN " + armorType + "-----")

// Armor writes a bundle as text, for what carries nothing else, such as a log.
func Armor(b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: armorType, Bytes: b})
}

// Unarmor finds an armoured bundle in a text, and what is before it. ok is false where
// there is none that is whole.
func Unarmor(text []byte) (before, b []byte, ok bool) {
	i := bytes.Index(text, armorStart)
	if i < 0 || len(text) > maxArmored {
		return nil, nil, false
	}
	block, _ := pem.Decode(text[i:])
	if block == nil || block.Type != armorType {
		return nil, nil, false
	}
	return text[:i], block.Bytes, true
}
