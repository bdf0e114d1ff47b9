package ec2sim

// logsService is the only kind of destination that can be named.
const logsService = "cloud-watch-logs"

func parseCreateFlowLogs(f form) CreateFlowLogsInput {
	f.in("LogDestinationType").choice(logsService)
	f.in("LogFormat").choice(FlowLogFormat)
	return CreateFlowLogsInput{
		Type:      f.in("ResourceType").choice(FlowLogVPC, FlowLogSubnet, FlowLogNetworkInterface),
		Resources: f.in("ResourceId").texts(),
		Traffic:   f.in("TrafficType").choice(TrafficAccept, TrafficReject, TrafficAll),
		LogGroup:  f.in("LogGroupName").text(), Destination: f.in("LogDestination").text(),
		RoleARN:  f.in("DeliverLogsPermissionArn").text(),
		Interval: f.in("MaxAggregationInterval").count(1),
		Tags:     f.tagsFor(kindFlowLog)[kindFlowLog], ClientToken: f.in("ClientToken").text(),
	}
}

func parseDeleteFlowLogs(f form) DeleteFlowLogsInput {
	return DeleteFlowLogsInput{IDs: f.in("FlowLogId").texts()}
}

// The states of a flow log that works.
const (
	flowLogActive    = "ACTIVE"
	flowLogDelivered = "SUCCESS"
)

// The filters are those of DescribeFlowLogs, Amazon EC2 API Reference.
var flowLogListing = listing[FlowLog]{
	action: "DescribeFlowLogs", maxPage: 1000, idsName: "flowLogId",
	tags: func(l FlowLog) map[string]string { return l.Tags },
	fields: map[string]func(*state, FlowLog) []string{
		"deliver-log-status":   one(func(FlowLog) string { return flowLogDelivered }),
		"log-destination-type": one(func(FlowLog) string { return logsService }),
		"flow-log-id":          one(func(l FlowLog) string { return l.ID }),
		"log-group-name":       one(func(l FlowLog) string { return l.LogGroup }),
		"resource-id":          one(func(l FlowLog) string { return l.ResourceID }),
		"traffic-type":         one(func(l FlowLog) string { return l.Traffic }),
	},
}

type xmlFlowLog struct {
	CreatedAt       string      `xml:"creationTime"`
	RoleARN         string      `xml:"deliverLogsPermissionArn"`
	Delivered       string      `xml:"deliverLogsStatus"`
	ID              string      `xml:"flowLogId"`
	Status          string      `xml:"flowLogStatus"`
	LogGroup        string      `xml:"logGroupName,omitempty"`
	Destination     string      `xml:"logDestination,omitempty"`
	DestinationType string      `xml:"logDestinationType"`
	Format          string      `xml:"logFormat"`
	Interval        int         `xml:"maxAggregationInterval"`
	ResourceID      string      `xml:"resourceId"`
	Traffic         string      `xml:"trafficType"`
	Tags            set[xmlTag] `xml:"tagSet"`
}

func showFlowLog(l FlowLog) xmlFlowLog {
	return xmlFlowLog{
		CreatedAt: stamp(l.CreatedAt), RoleARN: l.RoleARN, Delivered: flowLogDelivered, ID: l.ID, Status: flowLogActive,
		LogGroup: l.LogGroup, Destination: l.Destination, DestinationType: logsService, Format: FlowLogFormat,
		Interval: l.Interval, ResourceID: l.ResourceID, Traffic: l.Traffic, Tags: showTags(l.Tags),
	}
}

// unsuccessful is the list of what could not be done, which here is nothing:
// such a call is refused.
type unsuccessful struct {
	Unsuccessful struct{} `xml:"unsuccessful"`
}

func renderFlowLogsMade(_ *state, made madeFlowLogs) replier {
	return &struct {
		reply
		Token string      `xml:"clientToken,omitempty"`
		IDs   set[string] `xml:"flowLogIdSet"`
		unsuccessful
	}{Token: made.token, IDs: setOf(made.logs, func(l FlowLog) string { return l.ID })}
}

func renderFlowLogsDeleted(*state, struct{}) replier {
	return &struct {
		reply
		unsuccessful
	}{}
}

func renderFlowLogs(_ *state, page Page[FlowLog]) replier {
	return &struct {
		reply
		Set  set[xmlFlowLog] `xml:"flowLogSet"`
		Next string          `xml:"nextToken,omitempty"`
	}{Set: setOf(page.Items, showFlowLog), Next: page.NextToken}
}
