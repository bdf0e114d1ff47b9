package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/world"
)

func captureCommand(o *options) *cobra.Command {
	var side, file string
	var request world.CaptureRequest
	cmd := &cobra.Command{
		Use:   "capture ENI|INSTANCE/DEVICE",
		Short: "Show what crosses an ENI, or write it to a pcap file",
		Long: `Show what crosses an end of an ENI, both ways, a line for each packet, until
Ctrl-C or what --count and --for say.

The guest side is the device in the instance. The fabric side is the VPC's end of
it: what the instance sends, before the VPC has looked at it, and what the VPC
lets through to the instance. What is sent and not seen leaving the other ENI was
dropped on the way: fairway-lab status has the reason.

capturing at ENI is printed to the standard error once the capture has begun.
Segments that the sender leaves to offload are one packet. A line tells source,
destination and protocol, of TCP the flags (S SYN, F FIN, R RST, P PSH, A ACK),
of an ICMP error the packet that it is about; len is what it carries, in bytes.`,
		Example: `  fairway-lab capture node-a/ens5
  fairway-lab capture node-a/ens5 --side guest -w syn.pcap --count 10 --for 5s`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch side {
			case "fabric":
				request.Side = fabric.FabricEnd
			case "guest":
				request.Side = fabric.GuestEnd
			default:
				return fmt.Errorf("%w: --side %q: must be fabric or guest", ErrUsage, side)
			}
			if request.Packets < 0 || request.For < 0 {
				return fmt.Errorf("%w: --count and --for must not be negative", ErrUsage)
			}
			return o.capture(cmd.Context(), args[0], request, file)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&side, "side", "fabric", "which end of the ENI: fabric or guest")
	flags.StringVarP(&file, "write", "w", "", "write a pcap file instead; - is the standard output")
	flags.IntVar(&request.Packets, "count", 0, "end after so many packets")
	flags.DurationVar(&request.For, "for", 0, "end after so long, at most 24h")
	return cmd
}

func (o *options) capture(ctx context.Context, eni string, request world.CaptureRequest, file string) (err error) {
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	s, err := r.Status(ctx)
	if err != nil {
		return err
	}
	if request.ENI, err = findENI(s, eni); err != nil {
		return err
	}
	pcap, err := r.Capture(ctx, request)
	if err != nil {
		return err
	}
	defer pcap.Close()
	out := o.Stdout
	if file != "" && file != "-" {
		if out, err = os.Create(file); err != nil {
			return fmt.Errorf("create pcap file: %w", err)
		}
		defer func() { err = errors.Join(err, out.Close()) }()
	}
	var header [pcapHeader]byte
	if _, err := io.ReadFull(pcap, header[:]); err != nil {
		return fmt.Errorf("read the beginning of the capture: %w", err)
	}
	fmt.Fprintf(o.Stderr, "capturing at %s\n", eni)
	if file == "" {
		err = packetLines(out, header, pcap)
	} else if _, err = out.Write(header[:]); err == nil {
		_, err = io.Copy(out, pcap)
	}
	if ctx.Err() != nil {
		err = nil // Ctrl-C is how a person ends it
	}
	return err
}

// The classic pcap format, with times in nanoseconds: what the lab sends. Source:
// draft-ietf-opsawg-pcap, "PCAP Capture File Format".
const (
	pcapHeader = 24
	pcapRecord = 16
	pcapMagic  = 0xa1b23c4d
	pcapSnap   = 262144 // bytes; no frame of the lab's is longer
)

// errPcap says that what came is no pcap file of the lab's.
var errPcap = errors.New("not a pcap file of the lab's kind")

// packetLines prints a line for each packet of a pcap file behind its header, as
// they come.
func packetLines(w io.Writer, header [pcapHeader]byte, r io.Reader) error {
	if magic := binary.LittleEndian.Uint32(header[:]); magic != pcapMagic {
		return fmt.Errorf("%w: it begins with %#x", errPcap, magic)
	}
	var record [pcapRecord]byte
	frame := make([]byte, pcapSnap)
	for {
		_, err := io.ReadFull(r, record[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read packet: %w", err)
		}
		n := binary.LittleEndian.Uint32(record[8:])
		if n > pcapSnap {
			return fmt.Errorf("%w: a packet of %d bytes", errPcap, n)
		}
		if _, err := io.ReadFull(r, frame[:n]); err != nil {
			return fmt.Errorf("read packet: %w", err)
		}
		if _, err := fmt.Fprintln(w, packetLine(frame[:n])); err != nil {
			return fmt.Errorf("print packet: %w", err)
		}
	}
}
