package ec2sim

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

func TestSDKFlowLogs(t *testing.T) {
	cloud := New(Config{})
	w := newWorld(t, cloud)
	input := func() *ec2.CreateFlowLogsInput {
		return &ec2.CreateFlowLogsInput{
			ResourceType: types.FlowLogsResourceTypeVpc, ResourceIds: []string{w.vpc}, TrafficType: types.TrafficTypeReject,
			LogGroupName: str("flows"), DeliverLogsPermissionArn: str("arn:aws:iam::123456789012:role/logs"),
			MaxAggregationInterval: aws.Int32(60), ClientToken: str("once"),
			TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVpcFlowLog, Tags: []types.Tag{{Key: str("Name"), Value: str("all")}}}},
		}
	}
	made := must(w.api.CreateFlowLogs(w.ctx, input()))(t)
	again := must(w.api.CreateFlowLogs(w.ctx, input()))(t)
	if len(made.FlowLogIds) != 1 || !cmp.Equal(made.FlowLogIds, again.FlowLogIds) || *made.ClientToken != "once" {
		t.Errorf("made %v, then by the same token %v", made.FlowLogIds, again.FlowLogIds)
	}
	found := must(w.api.DescribeFlowLogs(w.ctx, &ec2.DescribeFlowLogsInput{Filter: []types.Filter{
		{Name: str("resource-id"), Values: []string{w.vpc}}, {Name: str("traffic-type"), Values: []string{"REJECT"}}, {Name: str("tag:Name"), Values: []string{"all"}},
	}}))(t).FlowLogs
	if len(found) != 1 || *found[0].FlowLogId != made.FlowLogIds[0] || *found[0].LogGroupName != "flows" || *found[0].FlowLogStatus != "ACTIVE" ||
		*found[0].LogFormat != FlowLogFormat || *found[0].MaxAggregationInterval != 60 || found[0].CreationTime == nil || len(found[0].Tags) != 1 {
		t.Errorf("described as %+v", found)
	}
	if logs := cloud.Snapshot().FlowLogs; len(logs) != 1 || logs[0].ResourceID != w.vpc || logs[0].Traffic != TrafficReject {
		t.Errorf("snapshot has %+v", logs)
	}
	second := input()
	second.ClientToken = nil
	_, err := w.api.CreateFlowLogs(w.ctx, second)
	want(t, "the same again", err, "FlowLogAlreadyExists")
	second.LogGroupName, second.LogDestination = nil, str("arn:aws:logs:eu-west-1:123456789012:log-group:other")
	must(w.api.CreateFlowLogs(w.ctx, second))(t)

	must(w.api.DeleteFlowLogs(w.ctx, &ec2.DeleteFlowLogsInput{FlowLogIds: made.FlowLogIds}))(t)
	_, err = w.api.DeleteFlowLogs(w.ctx, &ec2.DeleteFlowLogsInput{FlowLogIds: made.FlowLogIds})
	want(t, "delete twice", err, "InvalidFlowLogId.NotFound")
	if logs := cloud.Snapshot().FlowLogs; len(logs) != 1 || logs[0].Destination == "" {
		t.Errorf("left are %+v", logs)
	}
}

func TestFlowLogsRefused(t *testing.T) {
	cloud := New(Config{})
	w := newWorld(t, cloud)
	good := CreateFlowLogsInput{Type: FlowLogVPC, Resources: []string{w.vpc}, Traffic: TrafficAll, LogGroup: "l", RoleARN: "arn"}
	for name, tt := range map[string]struct {
		change func(*CreateFlowLogsInput)
		code   string
	}{
		"no resource":        {func(in *CreateFlowLogsInput) { in.Resources = nil }, "MissingParameter"},
		"too many resources": {func(in *CreateFlowLogsInput) { in.Resources = make([]string, 301) }, "InvalidParameterValue"},
		"no type":            {func(in *CreateFlowLogsInput) { in.Type = "" }, "MissingParameter"},
		"another type":       {func(in *CreateFlowLogsInput) { in.Type = "TransitGateway" }, "InvalidParameterValue"},
		"wrong type":         {func(in *CreateFlowLogsInput) { in.Type = FlowLogSubnet }, "InvalidSubnetID.Malformed"},
		"no such eni":        {func(in *CreateFlowLogsInput) { in.Type, in.Resources[0] = FlowLogNetworkInterface, "eni-00000000" }, "InvalidNetworkInterfaceID.NotFound"},
		"one of two missing": {func(in *CreateFlowLogsInput) { in.Resources = append(in.Resources, "vpc-00000000") }, "InvalidVpcID.NotFound"},
		"no traffic":         {func(in *CreateFlowLogsInput) { in.Traffic = "" }, "MissingParameter"},
		"no destination":     {func(in *CreateFlowLogsInput) { in.LogGroup = "" }, "InvalidParameter"},
		"two destinations":   {func(in *CreateFlowLogsInput) { in.Destination = "arn" }, "InvalidParameter"},
		"no role":            {func(in *CreateFlowLogsInput) { in.RoleARN = "" }, "InvalidParameter"},
		"odd interval":       {func(in *CreateFlowLogsInput) { in.Interval = 61 }, "InvalidParameter"},
	} {
		in := good
		in.Resources = append([]string(nil), good.Resources...)
		tt.change(&in)
		var refused *Error
		if _, err := cloud.CreateFlowLogs(in); !errors.As(err, &refused) || refused.Code != tt.code {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
	if logs := cloud.Snapshot().FlowLogs; len(logs) != 0 {
		t.Errorf("a refused call made %+v", logs)
	}
	// What the lab cannot do is refused, not ignored.
	for _, change := range []func(*ec2.CreateFlowLogsInput){
		func(in *ec2.CreateFlowLogsInput) { in.LogDestinationType = types.LogDestinationTypeS3 },
		func(in *ec2.CreateFlowLogsInput) { in.LogFormat = str("${srcaddr}") },
		func(in *ec2.CreateFlowLogsInput) { in.ResourceType = types.FlowLogsResourceTypeTransitGateway },
		func(in *ec2.CreateFlowLogsInput) { in.TrafficType = "SOME" },
	} {
		in := &ec2.CreateFlowLogsInput{
			ResourceType: types.FlowLogsResourceTypeVpc, ResourceIds: []string{w.vpc}, TrafficType: types.TrafficTypeAll,
			LogGroupName: str("l"), DeliverLogsPermissionArn: str("arn"),
		}
		change(in)
		_, err := w.api.CreateFlowLogs(w.ctx, in)
		want(t, "what the lab cannot do", err, "InvalidParameterValue")
	}
}
