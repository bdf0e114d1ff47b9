package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// policyAccept is NF_ACCEPT: what no rule decides goes on.
const policyAccept = 1

// elementBytes bounds the elements of one message: an attribute's length has 16
// bits. A transaction has as many messages as it takes.
const elementBytes = 32 << 10

// transaction is one change of our table, which the kernel carries out whole or
// not at all. The order of its parts is that nothing refers to what is not there:
//
//	table  ->  new sets, counters, empty chains  ->  rules of changed chains
//	       ->  elements go  ->  elements come  ->  chains go  ->  sets go
type transaction struct {
	name                                        tableName
	table, create, rules, leave, enter, destroy []request
	sets                                        uint32 // how many have a number
}

func (t *transaction) requests() []request {
	return slices.Concat(t.table, t.create, t.rules, t.leave, t.enter, t.destroy)
}

// compose turns changes of ranks from [node.RankSet] on into a transaction.
func compose(name tableName, changes []diff.Change) (*transaction, error) {
	t := &transaction{name: name}
	var errs []error
	var oldElements, newElements []node.Element
	var oldSets []request
	for _, c := range changes {
		switch o := c.New.(type) {
		case node.Set:
			t.sets++
			m, err := name.newSet(o, t.sets)
			t.create = append(t.create, request{message: m, what: o.Key()})
			errs = append(errs, err)
		case node.Chain:
			errs = append(errs, t.chain(o))
		case node.Element:
			newElements = append(newElements, o)
		}
		switch o := c.Old.(type) {
		case node.Element:
			oldElements = append(oldElements, o)
		case node.Chain:
			if c.New == nil {
				t.rules = append(t.rules, name.flush(o))
				t.destroy = append(t.destroy, request{message: name.chainMessage(unix.NFT_MSG_DELCHAIN, o, 0), what: o.Key()})
			}
		case node.Set:
			if c.New == nil {
				oldSets = append(oldSets, request{message: name.delSet(o), what: o.Key()})
			}
		}
	}
	t.destroy = append(t.destroy, oldSets...)
	if len(t.create)+len(t.rules)+len(newElements) > 0 {
		t.table = []request{name.create()}
	}
	var err, err2 error
	t.leave, err = name.elementRequests(unix.NFT_MSG_DELSETELEM, oldElements)
	t.enter, err2 = name.elementRequests(unix.NFT_MSG_NEWSETELEM, newElements)
	return t, errors.Join(append(errs, err, err2)...)
}

// chain creates the chain if it is not there, and replaces its rules.
func (t *transaction) chain(c node.Chain) error {
	m := t.name.chainMessage(unix.NFT_MSG_NEWCHAIN, c, unix.NLM_F_CREATE)
	if c.Hook != "" {
		if err := putHook(m, c.Hook); err != nil {
			return fmt.Errorf("%s: %w", c.Key(), err)
		}
	}
	t.create = append(t.create, request{message: m, what: c.Key()})
	t.rules = append(t.rules, t.name.flush(c))
	for line := range strings.SplitSeq(c.Rules, "\n") {
		if line == "" {
			continue
		}
		m, err := t.name.newRule(c.Name, line)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Key(), err)
		}
		t.rules = append(t.rules, request{message: m, what: c.Key() + ": " + line})
	}
	return nil
}

func (t tableName) create() request {
	return request{message: t.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE), what: "table"}
}

func (t tableName) delete() request {
	return request{message: t.message(unix.NFT_MSG_DELTABLE, 0), what: "delete table"}
}

func (t tableName) chainMessage(kind int, c node.Chain, flags int) *message {
	m := t.message(kind, flags)
	m.text(unix.NFTA_CHAIN_NAME, c.Name)
	return m
}

func (t tableName) flush(c node.Chain) request {
	m := t.message(unix.NFT_MSG_DELRULE, 0)
	m.text(unix.NFTA_RULE_CHAIN, c.Name)
	return request{message: m, what: "flush " + c.Key()}
}

// putHook makes a chain a base chain.
func putHook(m *message, hook string) error {
	var kind, where string
	var priority int32
	if _, err := fmt.Sscanf(hook, "type %s hook %s priority %d", &kind, &where, &priority); err != nil {
		return fmt.Errorf("hook %q: %w", hook, err)
	}
	number := slices.Index(hookNames, where)
	if number < 0 || hook != fmt.Sprintf("type %s hook %s priority %d", kind, where, priority) {
		return fmt.Errorf("hook %q is not understood", hook)
	}
	m.nested(unix.NFTA_CHAIN_HOOK, func() {
		m.be32(unix.NFTA_HOOK_HOOKNUM, uint32(number))
		m.be32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
	})
	m.be32(unix.NFTA_CHAIN_POLICY, policyAccept)
	m.text(unix.NFTA_CHAIN_TYPE, kind)
	return nil
}

func (t tableName) newRule(chain, line string) (*message, error) {
	exprs, err := compile(line)
	if err != nil {
		return nil, err
	}
	m := t.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	m.text(unix.NFTA_RULE_CHAIN, chain)
	m.nested(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range exprs {
			b, e := expr.Marshal(unix.NFPROTO_INET, e)
			err = errors.Join(err, e)
			m.attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
		}
	})
	return m, err
}

// elementRequests writes elements into as few messages as may be, set by set.
func (t tableName) elementRequests(kind int, elements []node.Element) ([]request, error) {
	var requests []request
	for i := 0; i < len(elements); {
		set := elements[i].Set
		m := t.message(kind, unix.NLM_F_CREATE)
		m.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		what := elements[i].Key()
		var err error
		from := i
		m.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for ; i < len(elements) && elements[i].Set == set && len(m.b) < elementBytes; i++ {
				var all []entry
				if all, err = entries(elements[i]); err != nil {
					return
				}
				for _, e := range all {
					e.put(m)
				}
			}
		})
		if err != nil {
			return nil, err
		}
		if n := i - from; n > 1 {
			what = fmt.Sprintf("%s and %d more", what, n-1)
		}
		requests = append(requests, request{message: m, what: what})
	}
	return requests, nil
}

// applyTable carries out changes of the table in one transaction. One that the
// kernel refuses is looked at again: what is so already is left out. If the rest
// does not fit the table that is there either, the table is replaced whole, in
// one transaction too; unless want, all that the table should hold, is nil.
func (k *Kernel) applyTable(changes []diff.Change, want []node.Object) error {
	err := k.transact(changes)
	if err == nil || !refused(err) {
		return err
	}
	have, readErr := k.readTable()
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	rest := outstanding(changes, have)
	if len(rest) == 0 {
		return nil
	}
	if len(rest) < len(changes) {
		if err = k.transact(rest); err == nil || !refused(err) {
			return err
		}
	}
	if want == nil {
		return err
	}
	return k.resetTable(want)
}

// errUnfit: no transaction can carry the changes out, since a set keeps its type
// and a chain its hook for life, and what is odd has no request to remove it.
var errUnfit = errors.New("the nftables table must be replaced whole")

func isUnfit(c diff.Change) bool {
	switch o := c.Old.(type) {
	case odd:
		return true
	case node.Set:
		return c.New != nil
	case node.Chain:
		n, ok := c.New.(node.Chain)
		return ok && n.Hook != o.Hook
	}
	return false
}

// refused tells that something is wrong with the transaction, as opposed to the
// kernel not being able or allowed to look at it.
func refused(err error) bool {
	if errors.Is(err, errUnfit) {
		return true
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EPERM, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EMSGSIZE:
		return false
	}
	return true
}

// outstanding are the changes that have does not show.
func outstanding(changes []diff.Change, have []node.Object) []diff.Change {
	there := make(map[string]node.Object, len(have))
	for _, o := range have {
		there[o.Key()] = o
	}
	var rest []diff.Change
	for _, c := range changes {
		if o := there[c.Key]; o != c.New { // nil if it is not there, or not wanted
			c.Old = o
			rest = append(rest, c)
		}
	}
	return rest
}

// resetTable replaces the whole table by what want says, in one transaction: a
// packet sees the old table or the new one, never a part. Counters restart.
func (k *Kernel) resetTable(want []node.Object) error {
	var changes []diff.Change
	for _, c := range diff.Compare(nil, want) {
		if isTable(c) {
			changes = append(changes, c)
		}
	}
	t, err := compose(ourTable, changes)
	if err != nil {
		return fmt.Errorf("reset nftables table %s: %w", node.TableName, err)
	}
	// The first makes sure that the deletion finds one.
	t.table = []request{ourTable.create(), ourTable.delete(), ourTable.create()}
	if err := k.commit(t.requests()); err != nil {
		return fmt.Errorf("reset nftables table %s: %w", node.TableName, err)
	}
	return nil
}

func (k *Kernel) transact(changes []diff.Change) error {
	err := errUnfit
	if !slices.ContainsFunc(changes, isUnfit) {
		var t *transaction
		if t, err = compose(ourTable, changes); err == nil {
			err = k.commit(t.requests())
		}
	}
	if err != nil {
		return fmt.Errorf("change nftables table %s: %w", node.TableName, err)
	}
	return nil
}

// commit sends a transaction in one sendmsg.
func (k *Kernel) commit(batch []request) error {
	if err := k.refuse(); err != nil {
		return err
	}
	return k.nft.commit(batch)
}

func (c *conn) commit(batch []request) error {
	edge := func(kind int) *message {
		m := newMessage(kind, 0, sizeofNfgenmsg)
		m.fixed()[3] = unix.NFNL_SUBSYS_NFTABLES // in network byte order
		return m
	}
	c.seq++
	begin := c.seq
	buf := slices.Clone(edge(unix.NFNL_MSG_BATCH_BEGIN).numbered(begin, 0))
	for i, r := range batch {
		c.seq++
		flags := 0
		if i == len(batch)-1 {
			flags = unix.NLM_F_ACK
		}
		buf = append(buf, r.numbered(c.seq, flags)...)
	}
	last := c.seq
	c.seq++
	buf = append(buf, edge(unix.NFNL_MSG_BATCH_END).numbered(c.seq, 0)...)
	if err := c.write(buf); err != nil {
		return err
	}
	var first error
	err := c.answers(begin, last, func(seq uint32, errno unix.Errno, err error) bool {
		what := "commit"
		if seq != begin {
			what = batch[seq-begin-1].what
		}
		if errno != 0 && first == nil {
			first = fmt.Errorf("%s: %w", what, err)
		}
		// A failure of the whole is the answer to its first message.
		return seq == last || seq == begin && errno != 0
	})
	return errors.Join(first, err)
}
