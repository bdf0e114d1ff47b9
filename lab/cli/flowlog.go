package cli

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/world"
)

func flowLogCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flowlog [ENI|INSTANCE/DEVICE]",
		Short: "Print the flow records since the last time",
		Long: `Print what the VPC's flow logs have recorded since the last time, and forget it:
of one ENI, or of all that have a flow log. A flow log is made for a VPC by
flowLogs: true in the world file, or for a VPC, subnet or ENI by CreateFlowLogs;
its TrafficType says what is recorded.

A line is a record in AWS's default format, version 2:

  version account-id interface-id srcaddr dstaddr srcport dstport protocol
  packets bytes start end action log-status

A packet that its group or network ACL drops is a REJECT. What is dropped for
another reason is in fairway-lab status.`,
		Example: `  fairway-lab flowlog
  fairway-lab flowlog node-a/ens5 -o json
  fairway-lab ec2 CreateFlowLogs ResourceType=Subnet ResourceId.1=@a TrafficType=REJECT \
    LogGroupName=lab DeliverLogsPermissionArn=arn:aws:iam::123456789012:role/lab`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.flowLog(cmd.Context(), args) },
	}
	o.outputFlag(cmd)
	return cmd
}

func (o *options) flowLog(ctx context.Context, args []string) error {
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	eni := ""
	if len(args) > 0 {
		s, err := r.Status(ctx)
		if err != nil {
			return err
		}
		if eni, err = findENI(s, args[0]); err != nil {
			return err
		}
	}
	records, err := r.FlowLog(ctx, eni)
	if err != nil {
		return err
	}
	if o.output == "json" {
		shown := make([]flowRecord, 0, len(records))
		for _, r := range records {
			shown = append(shown, showRecord(r))
		}
		return o.json(shown)
	}
	for _, r := range records {
		if _, err := fmt.Fprintln(o.Stdout, r.Line(world.Account)); err != nil {
			return err
		}
	}
	return nil
}

// flowRecord has the fields of "Flow log records", Amazon VPC User Guide, under
// their names there.
type flowRecord struct {
	Version   int        `json:"version"`
	Account   string     `json:"account-id"`
	ENI       string     `json:"interface-id"`
	Src       netip.Addr `json:"srcaddr"`
	Dst       netip.Addr `json:"dstaddr"`
	SrcPort   uint16     `json:"srcport"`
	DstPort   uint16     `json:"dstport"`
	Protocol  int        `json:"protocol"`
	Packets   uint64     `json:"packets"`
	Bytes     uint64     `json:"bytes"`
	Start     int64      `json:"start"` // seconds since 1970
	End       int64      `json:"end"`
	Action    string     `json:"action"`
	LogStatus string     `json:"log-status"`
	PacketSrc netip.Addr `json:"pkt-srcaddr"`
	PacketDst netip.Addr `json:"pkt-dstaddr"`
	Direction string     `json:"flow-direction"`
}

func showRecord(r fabric.FlowRecord) flowRecord {
	out := flowRecord{
		Version: 2, Account: world.Account, ENI: r.ENI, Src: r.Src, Dst: r.Dst, SrcPort: r.SrcPort, DstPort: r.DstPort,
		Protocol: int(r.Protocol), Packets: r.Packets, Bytes: r.Bytes, Start: r.Start.Unix(), End: r.End.Unix(),
		Action: "ACCEPT", LogStatus: "OK", PacketSrc: r.PacketSrc, PacketDst: r.PacketDst, Direction: "ingress",
	}
	if r.Rejected {
		out.Action = "REJECT"
	}
	if r.Egress {
		out.Direction = "egress"
	}
	return out
}
