package ec2sim

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// PrefixList is a customer-managed list of CIDR blocks under one name.
type PrefixList struct {
	ID, Region, Name string
	MaxEntries       int
	Version          int // from 1, one more with each change of the entries
	Entries          []PrefixListEntry
	Tags             map[string]string
}

// PrefixListEntry is one block of a prefix list.
type PrefixListEntry struct {
	CIDR        netip.Prefix // IPv4, masked
	Description string
}

func (l PrefixList) clone() PrefixList {
	l.Entries, l.Tags = slices.Clone(l.Entries), maps.Clone(l.Tags)
	return l
}

// maxListEntries bounds MaxEntries. Source: "Amazon VPC quotas".
const maxListEntries = 1000

// CreateManagedPrefixListInput describes a prefix list to make.
type CreateManagedPrefixListInput struct {
	Name        string
	MaxEntries  int
	Entries     []PrefixListEntry
	Tags        map[string]string
	ClientToken string
}

// CreateManagedPrefixList makes a prefix list.
func (c *Cloud) CreateManagedPrefixList(in CreateManagedPrefixListInput) (PrefixList, error) {
	l, err := call(c, in, createPrefixList)
	return l.clone(), err
}

func createPrefixList(s *state, in CreateManagedPrefixListInput) (PrefixList, error) {
	return once(s, "CreateManagedPrefixList", in.ClientToken, in, makePrefixList)
}

func makePrefixList(s *state, in CreateManagedPrefixListInput) (PrefixList, error) {
	switch {
	case in.Name == "":
		return PrefixList{}, missing("prefixListName")
	case len(in.Name) > 255 || len(in.Name) > 10 && in.Name[:10] == "com.amazon":
		return PrefixList{}, invalidValue("The prefix list name '%s' is not valid.", in.Name)
	case in.MaxEntries < 1 || in.MaxEntries > maxListEntries:
		return PrefixList{}, invalidValue("Value (%d) for parameter maxEntries is invalid. It must be from 1 to %d.", in.MaxEntries, maxListEntries)
	}
	if err := checkTags(in.Tags); err != nil {
		return PrefixList{}, err
	}
	l := PrefixList{ID: s.newID(kindPrefixList.prefix), Region: s.region, Name: in.Name, MaxEntries: in.MaxEntries, Version: 1, Tags: maps.Clone(in.Tags)}
	l, err := l.add(in.Entries)
	if err != nil {
		return l, err
	}
	s.lists.insert(s.nextRow(), l.ID, l)
	return l, nil
}

// add gives the list with more entries.
func (l PrefixList) add(entries []PrefixListEntry) (PrefixList, error) {
	l.Entries = slices.Clone(l.Entries)
	for n, e := range entries {
		if !e.CIDR.IsValid() || !e.CIDR.Addr().Is4() {
			return l, missing("cidr")
		}
		e.CIDR = e.CIDR.Masked()
		same := func(o PrefixListEntry) bool { return o.CIDR.Masked() == e.CIDR }
		if slices.ContainsFunc(entries[:n], same) {
			return l, invalidValue("The CIDR '%s' is there twice.", e.CIDR)
		}
		if at := slices.IndexFunc(l.Entries, same); at >= 0 {
			l.Entries[at].Description = e.Description // an entry that is there gets the new description
			continue
		}
		l.Entries = append(l.Entries, e)
	}
	if len(l.Entries) > l.MaxEntries {
		return l, fail("PrefixListMaxEntriesExceeded", "The request exceeds the maximum number of entries (%d) of the prefix list.", l.MaxEntries)
	}
	return l, nil
}

// ModifyManagedPrefixListInput changes a prefix list: its entries, or its size.
type ModifyManagedPrefixListInput struct {
	ID             string
	CurrentVersion int // must be given to change entries
	Add            []PrefixListEntry
	Remove         []netip.Prefix
	Name           string
	MaxEntries     int // not together with entries
}

// ModifyManagedPrefixList changes a prefix list; what names it follows at once.
func (c *Cloud) ModifyManagedPrefixList(in ModifyManagedPrefixListInput) (PrefixList, error) {
	l, err := call(c, in, modifyPrefixList)
	return l.clone(), err
}

func modifyPrefixList(s *state, in ModifyManagedPrefixListInput) (PrefixList, error) {
	l, err := s.findList(in.ID)
	if err != nil {
		return l, err
	}
	changes := len(in.Add) + len(in.Remove)
	switch {
	case changes == 0 && in.Name == "" && in.MaxEntries == 0:
		return l, missing("addEntries")
	case changes > 0 && in.MaxEntries != 0:
		return l, invalidCombination("You cannot modify the maximum entries and the entries of a prefix list in the same request.")
	case changes > 0 && in.CurrentVersion == 0:
		return l, missing("currentVersion")
	case in.CurrentVersion != 0 && in.CurrentVersion != l.Version:
		return l, fail("PrefixListVersionMismatch", "The prefix list has the version %d, not %d.", l.Version, in.CurrentVersion)
	case in.MaxEntries < 0 || in.MaxEntries > maxListEntries:
		return l, invalidValue("Value (%d) for parameter maxEntries is invalid. It must be from 1 to %d.", in.MaxEntries, maxListEntries)
	case in.MaxEntries > 0 && in.MaxEntries < len(l.Entries):
		return l, fail("PrefixListMaxEntriesExceeded", "The prefix list has %d entries, more than %d.", len(l.Entries), in.MaxEntries)
	}
	l = l.clone()
	for _, p := range in.Remove {
		at := slices.IndexFunc(l.Entries, func(e PrefixListEntry) bool { return e.CIDR == p.Masked() })
		if at < 0 {
			return l, invalidValue("The CIDR '%s' is not in the prefix list.", p)
		}
		l.Entries = slices.Delete(l.Entries, at, at+1)
	}
	if l, err = l.add(in.Add); err != nil {
		return l, err
	}
	if changes > 0 {
		l.Version++
	}
	if in.Name != "" {
		l.Name = in.Name
	}
	if in.MaxEntries > 0 {
		l.MaxEntries = in.MaxEntries
	}
	s.lists.put(l.ID, l)
	return l, nil
}

func (s *state) findList(id string) (PrefixList, error) {
	if id == "" {
		return PrefixList{}, missing("prefixListId")
	}
	return find(&s.lists, kindPrefixList, id)
}

// DeleteManagedPrefixListInput names a prefix list to delete.
type DeleteManagedPrefixListInput struct{ ID string }

// DeleteManagedPrefixList deletes a prefix list that no rule names.
func (c *Cloud) DeleteManagedPrefixList(in DeleteManagedPrefixListInput) error {
	_, err := call(c, in, deletePrefixList)
	return err
}

func deletePrefixList(s *state, in DeleteManagedPrefixListInput) (PrefixList, error) {
	l, err := s.findList(in.ID)
	if err != nil {
		return l, err
	}
	names := func(r GroupRule) bool { return r.PrefixList == l.ID }
	for g := range s.groups.all() {
		if slices.ContainsFunc(g.Ingress, names) || slices.ContainsFunc(g.Egress, names) {
			return l, fail("DependencyViolation", "The prefix list '%s' is in use by '%s' and cannot be deleted.", l.ID, g.ID)
		}
	}
	for t := range s.routeTables.all() {
		if slices.ContainsFunc(t.Routes, func(r Route) bool { return r.List == l.ID }) {
			return l, fail("DependencyViolation", "The prefix list '%s' is in use by '%s' and cannot be deleted.", l.ID, t.ID)
		}
	}
	s.lists.remove(l.ID)
	return l, nil
}

var prefixListListing = listing[PrefixList]{
	action: "DescribeManagedPrefixLists", maxPage: 100, idsName: "prefixListId",
	tags: func(l PrefixList) map[string]string { return l.Tags },
	fields: map[string]func(*state, PrefixList) []string{
		"prefix-list-id":   one(func(l PrefixList) string { return l.ID }),
		"prefix-list-name": one(func(l PrefixList) string { return l.Name }),
		"owner-id":         ownerField[PrefixList],
	},
}

// DescribeManagedPrefixLists lists prefix lists.
func (c *Cloud) DescribeManagedPrefixLists(q Query) (Page[PrefixList], error) {
	return cloned(call(c, q, describePrefixLists))
}

func describePrefixLists(s *state, q Query) (Page[PrefixList], error) {
	if err := known(&s.lists, kindPrefixList, q.IDs); err != nil {
		return Page[PrefixList]{}, err
	}
	return prefixListListing.apply(s, q, rows(&s.lists, q.IDs))
}

// listEntriesQuery asks for the entries of one list.
type listEntriesQuery struct {
	id      string
	version int // 0: the current one
	page    Query
}

var listEntryListing = listing[PrefixListEntry]{action: "GetManagedPrefixListEntries", maxPage: 100}

func getListEntries(s *state, q listEntriesQuery) (Page[PrefixListEntry], error) {
	l, err := s.findList(q.id)
	if err != nil {
		return Page[PrefixListEntry]{}, err
	}
	if q.version != 0 && q.version != l.Version {
		return Page[PrefixListEntry]{}, invalidValue("The version %d of the prefix list '%s' is not kept; the current one is %d.", q.version, l.ID, l.Version)
	}
	return listEntryListing.apply(s, q.page, counted(l.Entries))
}

func parseCreateList(f form) CreateManagedPrefixListInput {
	f.in("AddressFamily").choice("IPv4")
	f.in("AddressFamily").required()
	return CreateManagedPrefixListInput{
		Name: f.in("PrefixListName").text(), MaxEntries: f.in("MaxEntries").count(1), Entries: f.in("Entry").listEntries(),
		Tags: f.tagsFor(kindPrefixList)[kindPrefixList], ClientToken: f.in("ClientToken").text(),
	}
}

func (f form) listEntries() []PrefixListEntry {
	var out []PrefixListEntry
	for _, m := range f.members() {
		out = append(out, PrefixListEntry{m.in("Cidr").cidr(), m.in("Description").text()})
	}
	return out
}

func parseModifyList(f form) ModifyManagedPrefixListInput {
	in := ModifyManagedPrefixListInput{
		ID: f.in("PrefixListId").text(), CurrentVersion: f.in("CurrentVersion").count(1), Add: f.in("AddEntry").listEntries(),
		Name: f.in("PrefixListName").text(), MaxEntries: f.in("MaxEntries").count(1),
	}
	for _, m := range f.in("RemoveEntry").members() {
		in.Remove = append(in.Remove, m.in("Cidr").cidr())
	}
	return in
}

func parseDeleteList(f form) DeleteManagedPrefixListInput {
	return DeleteManagedPrefixListInput{ID: f.in("PrefixListId").text()}
}

func parseListEntries(f form) listEntriesQuery {
	q := listEntriesQuery{id: f.in("PrefixListId").text(), version: f.in("TargetVersion").count(1)}
	q.page.MaxResults, q.page.NextToken = f.in("MaxResults").count(1), f.in("NextToken").text()
	return q
}

type xmlPrefixList struct {
	ID         string      `xml:"prefixListId"`
	Family     string      `xml:"addressFamily"`
	State      string      `xml:"state"`
	ARN        string      `xml:"prefixListArn"`
	Name       string      `xml:"prefixListName"`
	MaxEntries int         `xml:"maxEntries"`
	Version    string      `xml:"version"`
	Tags       set[xmlTag] `xml:"tagSet"`
	OwnerID    string      `xml:"ownerId"`
}

func (s *state) showList(doing string) func(PrefixList) xmlPrefixList {
	return func(l PrefixList) xmlPrefixList {
		return xmlPrefixList{
			ID: l.ID, Family: "IPv4", State: doing, ARN: s.arn("prefix-list", l.ID), Name: l.Name, MaxEntries: l.MaxEntries,
			Version: strconv.Itoa(l.Version), Tags: showTags(l.Tags), OwnerID: s.cfg.Account,
		}
	}
}

// renderList shows the state that EC2 has in the reply to a change.
func renderList(doing string) func(*state, PrefixList) replier {
	return func(s *state, l PrefixList) replier {
		return &struct {
			reply
			List xmlPrefixList `xml:"prefixList"`
		}{List: s.showList(doing)(l)}
	}
}

func renderLists(s *state, page Page[PrefixList]) replier {
	return &struct {
		reply
		Set  set[xmlPrefixList] `xml:"prefixListSet"`
		Next string             `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, s.showList("create-complete")), Next: page.NextToken}
}

type xmlListEntry struct {
	CIDR        string `xml:"cidr"`
	Description string `xml:"description,omitempty"`
}

func renderListEntries(_ *state, page Page[PrefixListEntry]) replier {
	return &struct {
		reply
		Set  set[xmlListEntry] `xml:"entrySet"`
		Next string            `xml:"nextToken,omitempty"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(e PrefixListEntry) xmlListEntry {
		return xmlListEntry{e.CIDR.String(), e.Description}
	})}
}
