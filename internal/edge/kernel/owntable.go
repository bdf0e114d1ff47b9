package kernel

import (
	"fmt"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// OwnTable reads Fairway's nftables table in the network namespace of the calling
// thread, for who has no nft to print it. It fails where something of ours is not as we
// write it.
func OwnTable() ([]node.Object, error) {
	k, err := Open()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	objects, err := k.Read(nil)
	if err != nil {
		return nil, err
	}
	var table []node.Object
	for _, o := range objects {
		switch o.(type) {
		case node.Set, node.Chain, node.Element:
			table = append(table, o)
		case node.Route, node.Rule: // of no table of nftables
		default:
			return nil, fmt.Errorf("read table %s: %v is not as it is written", node.TableName, o)
		}
	}
	return table, nil
}
