package ec2sim_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/ec2sim/policy"
)

// guarded is a cloud that enforces rights, and an instance with the role "node".
type guarded struct {
	*ec2sim.Cloud
	now                            time.Time
	vpc, subnet, group             string
	instance, eni, peer, theirsENI string
}

func guard(t *testing.T, statements ...string) *guarded {
	t.Helper()
	d, err := policy.Parse([]byte(`{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{now: time.Date(2026, 1, 2, 3, 30, 0, 0, time.UTC)}
	g.Cloud = ec2sim.New(ec2sim.Config{
		Now: func() time.Time { return g.now }, IAM: true, Roles: map[string][]policy.Document{"node": {d}, "none": {}},
		Regions: []string{"eu-west-1", "us-east-1"},
	})
	v, err := g.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	n, err := g.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix("10.0.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	g.vpc, g.subnet = v.ID, n.ID
	for range 2 {
		r, err := g.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: n.ID, InstanceProfile: "node"})
		if err != nil {
			t.Fatal(err)
		}
		if g.instance == "" {
			g.instance, g.eni = r.Instances[0].ID, r.Instances[0].Interfaces[0]
		} else {
			g.peer, g.theirsENI = r.Instances[0].ID, r.Instances[0].Interfaces[0]
		}
	}
	snap := g.Snapshot()
	g.group = snap.Groups[0].ID
	return g
}

func (g *guarded) credentials(t *testing.T) aws.Credentials {
	t.Helper()
	c, ok := g.Credentials(g.instance)
	if !ok {
		t.Fatal("the instance has no credentials")
	}
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.Token}
}

// client signs with what the instance's metadata service would give it.
func (g *guarded) client(t *testing.T) *ec2.Client {
	creds := g.credentials(t)
	return ec2.New(ec2.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String("http://ec2"), HTTPClient: &http.Client{Transport: g.Transport()},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil }),
		Retryer:     aws.NopRetryer{},
		// The signature's date is the clock's, so the clock must be the test's.
		HTTPSignerV4: clockSigner{v4.NewSigner(), func() time.Time { return g.now }},
	})
}

type clockSigner struct {
	*v4.Signer
	now func() time.Time
}

func (s clockSigner) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, _ time.Time, opts ...func(*v4.SignerOptions)) error {
	return s.Signer.SignHTTP(ctx, c, r, hash, service, region, s.now(), opts...)
}

// refused tells the code and message of an error of the API; empty for none.
func refused(t *testing.T, err error) (code, message string) {
	t.Helper()
	var api smithy.APIError
	switch {
	case err == nil:
		return "", ""
	case !errors.As(err, &api):
		t.Fatalf("not an error of the API: %v", err)
	}
	return api.ErrorCode(), api.ErrorMessage()
}

const (
	allowAll = `{"Effect":"Allow","Action":"*","Resource":"*"}`
	own      = `"Condition":{"ArnEquals":{"ec2:SourceInstanceARN":"arn:aws:ec2:*:*:instance/${aws:ResourceTag/owner}"}}`
)

// Rights are asked for each resource of a request, in the words of EC2. Source:
// "Actions, resources, and condition keys for Amazon EC2", Service Authorization
// Reference.
func TestAuthorize(t *testing.T) {
	allow := func(action, resource string) string {
		return `{"Effect":"Allow","Action":"` + action + `","Resource":"arn:aws:ec2:*:*:` + resource + `"}`
	}
	create := func(g *guarded, c *ec2.Client, tags ...types.Tag) error {
		in := &ec2.CreateNetworkInterfaceInput{SubnetId: &g.subnet, Groups: []string{g.group}}
		if len(tags) > 0 {
			in.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface, Tags: tags}}
		}
		_, err := c.CreateNetworkInterface(t.Context(), in)
		return err
	}
	plain := func(g *guarded, c *ec2.Client) error { return create(g, c) }
	tagged := func(g *guarded, c *ec2.Client) error {
		return create(g, c, types.Tag{Key: aws.String("owner"), Value: &g.instance})
	}
	tests := []struct {
		name       string
		statements []string
		do         func(*guarded, *ec2.Client) error
		action     string // that is refused; empty: none
		on         string // the resource, VAR for an identifier; empty: none is named
	}{
		{"describe, allowed", []string{`{"Effect":"Allow","Action":"ec2:Describe*","Resource":"*"}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{VpcIds: []string{g.vpc}})
				return err
			}, "", ""},
		{"describe has no resources", []string{allow("ec2:Describe*", "vpc/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{VpcIds: []string{g.vpc}})
				return err
			}, "DescribeVpcs", ""},
		{"an attribute is of a resource", []string{allow("ec2:Describe*", "vpc/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DescribeVpcAttribute(t.Context(), &ec2.DescribeVpcAttributeInput{VpcId: &g.vpc, Attribute: types.VpcAttributeNameEnableDnsSupport})
				return err
			}, "", ""},
		{"but not every one", []string{allow("ec2:Describe*", "network-interface/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DescribeNetworkInterfaceAttribute(t.Context(), &ec2.DescribeNetworkInterfaceAttributeInput{NetworkInterfaceId: &g.eni, Attribute: "description"})
				return err
			}, "DescribeNetworkInterfaceAttribute", ""},
		{"a reservation is of its subnet", []string{allow("ec2:CreateSubnetCidrReservation", "vpc/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.CreateSubnetCidrReservation(t.Context(), &ec2.CreateSubnetCidrReservationInput{SubnetId: &g.subnet, Cidr: aws.String("10.0.1.128/26"), ReservationType: types.SubnetCidrReservationTypePrefix})
				return err
			}, "CreateSubnetCidrReservation", "subnet/SUBNET"},
		{"its tags are its own", []string{allow("ec2:CreateSubnetCidrReservation", "subnet/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.CreateSubnetCidrReservation(t.Context(), &ec2.CreateSubnetCidrReservationInput{SubnetId: &g.subnet, Cidr: aws.String("10.0.1.128/26"), ReservationType: types.SubnetCidrReservationTypePrefix,
					TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSubnetCidrReservation, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}}})
				return err
			}, "CreateTags", "subnet-cidr-reservation/*"},
		{"reservations have no right of their own", []string{allow("ec2:GetSubnetCidrReservations", "subnet/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.GetSubnetCidrReservations(t.Context(), &ec2.GetSubnetCidrReservationsInput{SubnetId: &g.subnet})
				return err
			}, "GetSubnetCidrReservations", ""},
		{"trunks have no resources", []string{allow("ec2:*", "network-interface/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.AssociateTrunkInterface(t.Context(), &ec2.AssociateTrunkInterfaceInput{TrunkInterfaceId: &g.eni, BranchInterfaceId: &g.theirsENI, VlanId: aws.Int32(7)})
				return err
			}, "AssociateTrunkInterface", ""},
		{"an association is what it ties", []string{allow("ec2:DisassociateVpcCidrBlock", "subnet/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DisassociateVpcCidrBlock(t.Context(), &ec2.DisassociateVpcCidrBlockInput{AssociationId: aws.String(ec2sim.BlockAssociationID(g.vpc, g.Snapshot().VPCs[0].CIDRs[0]))})
				return err
			}, "DisassociateVpcCidrBlock", "vpc/VPC"},
		{"the peer's VPC is its owner's", []string{allow("ec2:*", "vpc-peering-connection/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.CreateVpcPeeringConnection(t.Context(), &ec2.CreateVpcPeeringConnectionInput{VpcId: &g.vpc, PeerVpcId: aws.String("vpc-00000009")})
				return err
			}, "CreateVpcPeeringConnection", "vpc/VPC"},
		{"denied", []string{allowAll, `{"Effect":"Deny","Action":"ec2:DescribeSubnets","Resource":"*"}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
				return err
			}, "DescribeSubnets", "DENY"},
		{"create, without the subnet", []string{allow("ec2:*", "network-interface/*"), allow("ec2:*", "security-group/*")}, plain,
			"CreateNetworkInterface", "subnet/SUBNET"},
		{"create, without the group", []string{allow("ec2:*", "network-interface/*"), allow("ec2:*", "subnet/*")}, plain,
			"CreateNetworkInterface", "security-group/GROUP"},
		{"create, without the interface", []string{allow("ec2:*", "security-group/*"), allow("ec2:*", "subnet/*")}, plain,
			"CreateNetworkInterface", "network-interface/*"},
		{"create", []string{allow("ec2:CreateNetworkInterface", "*")}, plain, "", ""},
		{"create in the VPC", []string{`{"Effect":"Allow","Action":"ec2:CreateNetworkInterface","Resource":"*","Condition":{"ArnLike":{"ec2:Vpc":"arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-*"}}}`}, plain, "", ""},
		{"create in another VPC", []string{`{"Effect":"Allow","Action":"ec2:CreateNetworkInterface","Resource":"*","Condition":{"ArnLike":{"ec2:Vpc":"arn:aws:ec2:*:*:vpc/vpc-1"}}}`}, plain,
			"CreateNetworkInterface", "security-group/GROUP"},
		{"tags need a right of their own", []string{allow("ec2:CreateNetworkInterface", "*")}, tagged, "CreateTags", "network-interface/*"},
		{"tags at creation", []string{allow("ec2:CreateNetworkInterface", "*"), `{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"*","Condition":{"StringEquals":{"ec2:CreateAction":"CreateNetworkInterface"},"ForAllValues:StringEquals":{"aws:TagKeys":["owner"]}}}`}, tagged, "", ""},
		{"other tags", []string{allow("ec2:CreateNetworkInterface", "*"), `{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"*","Condition":{"ForAllValues:StringEquals":{"aws:TagKeys":["name"]}}}`}, tagged,
			"CreateTags", "network-interface/*"},
		{"tags afterwards", []string{`{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"*","Condition":{"StringEquals":{"ec2:CreateAction":"CreateNetworkInterface"}}}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{g.eni}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
				return err
			}, "CreateTags", "network-interface/ENI"},
		{"a tag of a certain value", []string{`{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/a":"b"}}}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{g.eni}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
				return err
			}, "", ""},
		{"attach needs both", []string{allow("ec2:*", "network-interface/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.AttachNetworkInterface(t.Context(), &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: &g.eni, InstanceId: &g.instance, DeviceIndex: aws.Int32(1)})
				return err
			}, "AttachNetworkInterface", "instance/INSTANCE"},
		{"an attachment is both", []string{allow("ec2:*", "network-interface/*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.ModifyNetworkInterfaceAttribute(t.Context(), &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &g.eni,
					Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: aws.String(g.Snapshot().Interfaces[0].Attachment.ID), DeleteOnTermination: aws.Bool(true)}})
				return err
			}, "ModifyNetworkInterfaceAttribute", "instance/INSTANCE"},
		{"own by tag", []string{`{"Effect":"Allow","Action":"ec2:AssignPrivateIpAddresses","Resource":"*",` + own + `}`},
			func(g *guarded, c *ec2.Client) error {
				if err := g.CreateTags(ec2sim.CreateTagsInput{IDs: []string{g.eni}, Tags: map[string]string{"owner": g.instance}}); err != nil {
					return err
				}
				_, err := c.AssignPrivateIpAddresses(t.Context(), &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: &g.eni, SecondaryPrivateIpAddressCount: aws.Int32(1)})
				return err
			}, "", ""},
		{"another's by tag", []string{`{"Effect":"Allow","Action":"ec2:AssignPrivateIpAddresses","Resource":"*",` + own + `}`},
			func(g *guarded, c *ec2.Client) error {
				if err := g.CreateTags(ec2sim.CreateTagsInput{IDs: []string{g.eni}, Tags: map[string]string{"owner": g.peer}}); err != nil {
					return err
				}
				_, err := c.AssignPrivateIpAddresses(t.Context(), &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: &g.eni, SecondaryPrivateIpAddressCount: aws.Int32(1)})
				return err
			}, "AssignPrivateIpAddresses", "network-interface/ENI"},
		{"a dry run asks too", []string{`{"Effect":"Allow","Action":"ec2:Describe*","Resource":"*"}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DeleteNetworkInterface(t.Context(), &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &g.eni, DryRun: aws.Bool(true)})
				return err
			}, "DeleteNetworkInterface", "network-interface/ENI"},
		{"entries of a list", []string{allow("ec2:GetManagedPrefixListEntries", "prefix-list/pl-2*")},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.GetManagedPrefixListEntries(t.Context(), &ec2.GetManagedPrefixListEntriesInput{PrefixListId: aws.String("pl-00000001")})
				return err
			}, "GetManagedPrefixListEntries", "prefix-list/pl-00000001"},
		{"another region", []string{`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
				return err
			}, "DescribeVpcs", ""},
		{"a launch with a role", []string{allow("ec2:*", "*"), `{"Effect":"Allow","Action":"ec2:*","Resource":"arn:aws:ec2:*::image/*"}`},
			func(g *guarded, c *ec2.Client) error {
				_, err := c.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: aws.String("ami-1"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
					SubnetId: &g.subnet, InstanceType: "m5.large", IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: aws.String("node")}})
				return err
			}, "iam:PassRole", "arn:aws:iam::123456789012:role/node"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := guard(t, tt.statements...)
			before := len(g.Snapshot().Interfaces)
			code, message := refused(t, tt.do(g, g.client(t)))
			if tt.action == "" {
				if code != "" {
					t.Fatalf("refused: %s: %s", code, message)
				}
				return
			}
			if !strings.Contains(tt.action, ":") {
				tt.action = "ec2:" + tt.action
			}
			on := strings.NewReplacer("VPC", g.vpc, "SUBNET", g.subnet, "GROUP", g.group, "ENI", g.eni, "INSTANCE", g.instance).Replace(tt.on)
			want := "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/node/" + g.instance +
				" is not authorized to perform: " + tt.action
			why := " because no identity-based policy allows the " + tt.action + " action"
			switch {
			case on == "DENY":
				want, why = want+" with an explicit deny in an identity-based policy", ""
			case strings.HasPrefix(on, "arn:"):
				want += " on resource: " + on
			case on != "":
				want += " on resource: arn:aws:ec2:eu-west-1:123456789012:" + on
			}
			if code != "UnauthorizedOperation" || message != want+why {
				t.Errorf("%s: %s\nwant %s", code, message, want+why)
			}
			if now := len(g.Snapshot().Interfaces); now != before {
				t.Errorf("%d ENIs after the refusal, %d before", now, before)
			}
		})
	}
}

// What is wrong about a signature is refused, in EC2's words. Each case changes
// one thing of a request that is right.
func TestSignature(t *testing.T) {
	const query = "Action=DescribeVpcs&Version=2016-11-15"
	signed := func(t *testing.T, g *guarded, creds aws.Credentials, service, region string) *http.Request {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "http://ec2/", strings.NewReader(query))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, sum(query), service, region, g.now); err != nil {
			t.Fatal(err)
		}
		return r
	}
	edit := func(from, to string) func(*testing.T, *guarded) *http.Request {
		return func(t *testing.T, g *guarded) *http.Request {
			r := signed(t, g, g.credentials(t), "ec2", "eu-west-1")
			before := r.Header.Get("Authorization")
			after := strings.Replace(before, from, to, 1)
			if before == after {
				t.Fatalf("no %q in %s", from, before)
			}
			r.Header.Set("Authorization", after)
			return r
		}
	}
	tests := []struct {
		name   string
		make   func(*testing.T, *guarded) *http.Request
		status int
		says   string
	}{
		{"right", func(t *testing.T, g *guarded) *http.Request {
			return signed(t, g, g.credentials(t), "ec2", "eu-west-1")
		}, 200, "vpcSet"},
		{"right, in the other region", func(t *testing.T, g *guarded) *http.Request {
			return signed(t, g, g.credentials(t), "ec2", "us-east-1")
		}, 200, "<vpcSet></vpcSet>"},
		{"presigned", func(t *testing.T, g *guarded) *http.Request {
			r := httptest.NewRequest(http.MethodGet, "http://ec2/?"+query+"&X-Amz-Expires=60", nil)
			uri, _, err := v4.NewSigner().PresignHTTP(t.Context(), g.credentials(t), r, sum(""), "ec2", "eu-west-1", g.now)
			if err != nil {
				t.Fatal(err)
			}
			return httptest.NewRequest(http.MethodGet, uri, nil)
		}, 200, "vpcSet"},
		{"presigned, too late", func(t *testing.T, g *guarded) *http.Request {
			r := httptest.NewRequest(http.MethodGet, "http://ec2/?"+query+"&X-Amz-Expires=60", nil)
			uri, _, err := v4.NewSigner().PresignHTTP(t.Context(), g.credentials(t), r, sum(""), "ec2", "eu-west-1", g.now)
			if err != nil {
				t.Fatal(err)
			}
			g.now = g.now.Add(61 * time.Second)
			return httptest.NewRequest(http.MethodGet, uri, nil)
		}, 400, "RequestExpired"},
		{"none", func(t *testing.T, g *guarded) *http.Request {
			return httptest.NewRequest(http.MethodGet, "http://ec2/?"+query, nil)
		}, 403, "MissingAuthenticationToken"},
		{"another algorithm", edit("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), 400, "IncompleteSignature"},
		{"no signature in it", edit("Signature=", "Sig="), 400, "requires 'Signature' parameter"},
		{"no credential in it", edit("Credential=", "Cred="), 400, "requires 'Credential' parameter"},
		{"scope too short", edit("/aws4_request", ""), 400, "exactly 5 slash-delimited elements"},
		{"no such region", edit("/eu-west-1/", "/eu-west-9/"), 401, "Credential should be scoped to a valid region, not 'eu-west-9'."},
		{"signed for another region", edit("/eu-west-1/", "/us-east-1/"), 403, "SignatureDoesNotMatch"},
		{"another service", func(t *testing.T, g *guarded) *http.Request { return signed(t, g, g.credentials(t), "s3", "eu-west-1") }, 403,
			"Credential should be scoped to correct service: 'ec2'."},
		{"another date in the scope", edit("/20260102/", "/20260103/"), 403, "Date in Credential scope does not match"},
		{"another end of the scope", edit("/aws4_request", "/aws5_request"), 403, "valid terminator: 'aws4_request', not 'aws5_request'"},
		{"host not signed", edit("host;", ""), 403, "'Host' or ':authority' must be a 'SignedHeader'"},
		{"unknown key", edit("Credential=ASIA", "Credential=AKIA"), 401, "AuthFailure"},
		{"key without its token", func(t *testing.T, g *guarded) *http.Request {
			creds := g.credentials(t)
			creds.SessionToken = ""
			return signed(t, g, creds, "ec2", "eu-west-1")
		}, 401, "AWS was not able to validate the provided access credentials"},
		{"forged token", func(t *testing.T, g *guarded) *http.Request {
			creds := g.credentials(t)
			creds.SessionToken = "AAAA" + creds.SessionToken[4:]
			return signed(t, g, creds, "ec2", "eu-west-1")
		}, 401, "AuthFailure"},
		{"wrong secret", func(t *testing.T, g *guarded) *http.Request {
			creds := g.credentials(t)
			creds.SecretAccessKey = "wrong"
			return signed(t, g, creds, "ec2", "eu-west-1")
		}, 403, "The request signature we calculated does not match the signature you provided."},
		{"another body", func(t *testing.T, g *guarded) *http.Request {
			r := signed(t, g, g.credentials(t), "ec2", "eu-west-1")
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(query, "Vpcs", "Tags", 1)))
			return r
		}, 403, "SignatureDoesNotMatch"},
		{"clock behind", func(t *testing.T, g *guarded) *http.Request {
			r := signed(t, g, g.credentials(t), "ec2", "eu-west-1")
			g.now = g.now.Add(16 * time.Minute)
			return r
		}, 400, "RequestExpired"},
		{"clock ahead", func(t *testing.T, g *guarded) *http.Request {
			r := signed(t, g, g.credentials(t), "ec2", "eu-west-1")
			g.now = g.now.Add(-16 * time.Minute)
			return r
		}, 400, "RequestExpired"},
		{"old credentials", func(t *testing.T, g *guarded) *http.Request {
			creds := g.credentials(t)
			g.now = g.now.Add(5*time.Hour + 29*time.Minute)
			return signed(t, g, creds, "ec2", "eu-west-1")
		}, 200, "vpcSet"},
		{"expired credentials", func(t *testing.T, g *guarded) *http.Request {
			creds := g.credentials(t)
			g.now = g.now.Add(5*time.Hour + 30*time.Minute)
			return signed(t, g, creds, "ec2", "eu-west-1")
		}, 400, "Request has expired."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := guard(t, allowAll)
			r, w := tt.make(t, g), httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(strings.ReplaceAll(w.Body.String(), "&#39;", "'"), tt.says) {
				t.Errorf("status %d, want %d with %q\n%s", w.Code, tt.status, tt.says, w.Body)
			}
			w = httptest.NewRecorder()
			g.Administrator().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://ec2/?"+query, nil))
			if w.Code != http.StatusOK {
				t.Errorf("the owner of the account is refused: %s", w.Body)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	g := guard(t, allowAll)
	first, _ := g.Credentials(g.instance)
	if again, _ := g.Credentials(g.instance); again != first {
		t.Errorf("asked twice: %+v, then %+v", first, again)
	}
	if other, ok := g.Credentials(g.peer); !ok || other.AccessKeyID == first.AccessKeyID || other.SecretAccessKey == first.SecretAccessKey || other.Token == first.Token {
		t.Errorf("two instances share %+v", other)
	}
	if first.Role != "node" || len(first.AccessKeyID) != 20 || len(first.SecretAccessKey) != 40 || !first.Expiration.After(g.now.Add(5*time.Hour)) {
		t.Errorf("credentials %+v", first)
	}
	g.now = g.now.Add(time.Hour)
	if next, _ := g.Credentials(g.instance); next.AccessKeyID == first.AccessKeyID || next.LastUpdated.Sub(first.LastUpdated) != time.Hour {
		t.Errorf("an hour later: %+v", next)
	}
	if _, ok := g.Credentials("i-00000000"); ok {
		t.Error("credentials for an instance that is not there")
	}
	_, err := g.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: g.subnet, InstanceProfile: "nobody"})
	var api *ec2sim.Error
	if !errors.As(err, &api) || api.Code != "InvalidParameterValue" || !strings.Contains(api.Message, "Invalid IAM Instance Profile name") {
		t.Errorf("a launch with a role that is not there: %v", err)
	}
	r, err := g.RunInstances(ec2sim.RunInstancesInput{Type: "m5.large", SubnetID: g.subnet})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := g.Credentials(r.Instances[0].ID); ok {
		t.Error("credentials for an instance without a role")
	}
}
