package ec2sim

import (
	"maps"
	"time"
)

// The traffic that a [FlowLog] records.
const (
	TrafficAccept = "ACCEPT"
	TrafficReject = "REJECT"
	TrafficAll    = "ALL"
)

// FlowLog says that what network interfaces carry is recorded: one, all of a
// subnet, or all of a VPC. Who holds the packets makes the records; where they
// are to be delivered is only remembered.
type FlowLog struct {
	ID, ResourceID string
	Traffic        string // TrafficAccept, TrafficReject or TrafficAll
	LogGroup       string // of CloudWatch Logs, by name, or
	Destination    string // by ARN
	RoleARN        string
	Interval       int // seconds that one record may cover: 60 or 600
	CreatedAt      time.Time
	Tags           map[string]string
}

func (l FlowLog) clone() FlowLog { l.Tags = maps.Clone(l.Tags); return l }

// Covers reports whether the flow log is about an ENI.
func (l FlowLog) Covers(e NetworkInterface) bool {
	return l.ResourceID == e.ID || l.ResourceID == e.SubnetID || l.ResourceID == e.VPCID
}

// maxFlowLogged is how many resources one call may name. Source: CreateFlowLogs,
// Amazon EC2 API Reference.
const maxFlowLogged = 300

// The default of MaxAggregationInterval, and the only other value, in seconds.
// Source: CreateFlowLogs, Amazon EC2 API Reference.
const (
	longInterval  = 600
	shortInterval = 60
)

// FlowLogFormat is the only format of records: EC2's default one, version 2.
// Source: "Flow log records", Amazon VPC User Guide.
const FlowLogFormat = "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} " +
	"${packets} ${bytes} ${start} ${end} ${action} ${log-status}"

// The types of a flow log's resource, of those that EC2 has.
const (
	FlowLogVPC              = "VPC"
	FlowLogSubnet           = "Subnet"
	FlowLogNetworkInterface = "NetworkInterface"
)

// CreateFlowLogsInput describes flow logs to make, one for each resource.
type CreateFlowLogsInput struct {
	Type        string // FlowLogVPC, FlowLogSubnet or FlowLogNetworkInterface
	Resources   []string
	Traffic     string
	LogGroup    string // one of LogGroup and Destination
	Destination string
	RoleARN     string
	Interval    int // 0: 600
	Tags        map[string]string
	ClientToken string
}

// CreateFlowLogs makes flow logs, for all resources named or for none.
func (c *Cloud) CreateFlowLogs(in CreateFlowLogsInput) ([]FlowLog, error) {
	made, err := call(c, in, createFlowLogs)
	var out []FlowLog
	for _, l := range made.logs {
		out = append(out, l.clone())
	}
	return out, err
}

// madeFlowLogs are what a call made; the reply repeats the call's token.
type madeFlowLogs struct {
	logs  []FlowLog
	token string
}

func createFlowLogs(s *state, in CreateFlowLogsInput) (madeFlowLogs, error) {
	logs, err := once(s, "CreateFlowLogs", in.ClientToken, in, makeFlowLogs)
	return madeFlowLogs{logs, in.ClientToken}, err
}

func makeFlowLogs(s *state, in CreateFlowLogsInput) ([]FlowLog, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	if in.Interval == 0 {
		in.Interval = longInterval
	}
	var made []FlowLog
	for _, resource := range in.Resources {
		if err := s.checkLogged(in.Type, resource); err != nil {
			return nil, err
		}
		for l := range s.flowLogs.all() {
			if l.ResourceID == resource && l.LogGroup == in.LogGroup && l.Destination == in.Destination {
				return nil, fail("FlowLogAlreadyExists", "Error. There is an existing Flow Log with the same configuration and log destination.")
			}
		}
		l := FlowLog{
			ID: s.newID(kindFlowLog.prefix), ResourceID: resource, Traffic: in.Traffic, LogGroup: in.LogGroup,
			Destination: in.Destination, RoleARN: in.RoleARN, Interval: in.Interval, CreatedAt: s.now, Tags: maps.Clone(in.Tags),
		}
		s.flowLogs.insert(s.nextRow(), l.ID, l)
		made = append(made, l)
	}
	return made, nil
}

// check looks at what does not depend on the state.
func (in CreateFlowLogsInput) check() error {
	switch {
	case len(in.Resources) == 0:
		return missing("ResourceId")
	case len(in.Resources) > maxFlowLogged:
		return invalidValue("%d resources are named. The maximum is %d.", len(in.Resources), maxFlowLogged)
	case in.Type == "":
		return missing("ResourceType")
	case in.Traffic == "":
		return missing("TrafficType")
	case in.LogGroup == "" && in.Destination == "":
		return fail("InvalidParameter", "LogDestination can't be empty if LogGroupName is not provided.")
	case in.LogGroup != "" && in.Destination != "":
		return fail("InvalidParameter", "Please only provide LogGroupName or only provide LogDestination.")
	case in.RoleARN == "":
		return fail("InvalidParameter", "DeliverLogsPermissionArn can't be empty if LogDestinationType is cloud-watch-logs.")
	case in.Interval != 0 && in.Interval != shortInterval && in.Interval != longInterval:
		return fail("InvalidParameter", "Invalid Flow Log Max Aggregation Interval")
	}
	return checkTags(in.Tags)
}

// checkLogged refuses what is no resource of the type.
func (s *state) checkLogged(resourceType, id string) error {
	var err error
	switch resourceType {
	case FlowLogVPC:
		_, err = find(&s.vpcs, kindVPC, id)
	case FlowLogSubnet:
		_, err = find(&s.subnets, kindSubnet, id)
	case FlowLogNetworkInterface:
		_, err = find(&s.enis, kindENI, id)
	default:
		err = invalidValue("Value (%s) for parameter ResourceType is invalid.", resourceType)
	}
	return err
}

// DeleteFlowLogsInput names flow logs to delete.
type DeleteFlowLogsInput struct{ IDs []string }

// DeleteFlowLogs ends flow logs, all that are named or none.
func (c *Cloud) DeleteFlowLogs(in DeleteFlowLogsInput) error {
	_, err := call(c, in, deleteFlowLogs)
	return err
}

func deleteFlowLogs(s *state, in DeleteFlowLogsInput) (struct{}, error) {
	if len(in.IDs) == 0 {
		return struct{}{}, missing("FlowLogId")
	}
	for _, id := range in.IDs {
		if _, err := find(&s.flowLogs, kindFlowLog, id); err != nil {
			return struct{}{}, err
		}
		s.flowLogs.remove(id)
	}
	return struct{}{}, nil
}

// DescribeFlowLogs lists flow logs.
func (c *Cloud) DescribeFlowLogs(q Query) (Page[FlowLog], error) {
	return cloned(call(c, q, describeFlowLogs))
}

func describeFlowLogs(s *state, q Query) (Page[FlowLog], error) {
	if err := known(&s.flowLogs, kindFlowLog, q.IDs); err != nil {
		return Page[FlowLog]{}, err
	}
	return flowLogListing.apply(s, q, rows(&s.flowLogs, q.IDs))
}
