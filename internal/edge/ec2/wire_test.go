package ec2

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// wire answers EC2's Query protocol with what the test says, for the answers
// that the simulator is too good to give.
type wire struct {
	mu      sync.Mutex
	answers map[string][]reply // by action; the last one repeats
	calls   []url.Values
}

type reply struct {
	status int // 0 is 200; -1: the connection ends without an answer
	body   string
}

// refuse is an answer in the form of EC2's errors.
func refuse(status int, code, message string) reply {
	return reply{status, fmt.Sprintf("<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors>"+
		"<RequestID>req-1</RequestID></Response>", code, message)}
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	action := r.PostForm.Get("Action")
	w.calls = append(w.calls, r.PostForm)
	answers := w.answers[action]
	if len(answers) == 0 {
		answers = []reply{refuse(400, "InvalidAction", "the test has no answer for "+action)}
	}
	if len(answers) > 1 {
		w.answers[action] = answers[1:]
	}
	if answers[0].status < 0 {
		panic(http.ErrAbortHandler)
	}
	if answers[0].status != 0 {
		rw.WriteHeader(answers[0].status)
	}
	body := answers[0].body
	if answers[0].status == 0 {
		body = "<" + action + "Response>" + body + "</" + action + "Response>"
	}
	fmt.Fprint(rw, body)
}

// actions lists the calls made, in order.
func (w *wire) actions() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, c := range w.calls {
		names = append(names, c.Get("Action"))
	}
	return strings.Join(names, " ")
}

func (w *wire) client(t *testing.T) *Client {
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	return clientAt(srv.URL)
}

// clientAt is a client of an endpoint. The attempts that the configuration asks for
// must not count.
func clientAt(endpoint string) *Client {
	return New(aws.Config{
		Region: "eu-west-1", BaseEndpoint: aws.String(endpoint),
		Credentials:      aws.CredentialsProviderFunc(credentials),
		Retryer:          func() aws.Retryer { return retry.NewStandard() },
		RetryMaxAttempts: 5,
	})
}

const subnetsXML = `<subnetSet><item><subnetId>subnet-a</subnetId><cidrBlock>10.0.1.0/24</cidrBlock></item>
	<item><subnetId>subnet-b</subnetId><cidrBlock>10.0.2.0/24</cidrBlock></item>
	<item><subnetId>subnet-six</subnetId><ipv6Native>true</ipv6Native></item></subnetSet>`

// eniXML is one interface as EC2 describes it.
func eniXML(id, subnet, attachment, more string) string {
	return `<networkInterfaceId>` + id + `</networkInterfaceId><subnetId>` + subnet + `</subnetId>
		<macAddress>02:00:00:00:00:01</macAddress><groupSet><item><groupId>sg-1</groupId></item></groupSet>
		<availabilityZone>eu-west-1a</availabilityZone><interfaceType>interface</interfaceType>
		<tagSet><item><key>` + TagInstance + `</key><value>i-1</value></item><item><key>` + TagCreated +
		`</key><value>2026-01-02T03:04:05Z</value></item></tagSet>` + attachment + more
}

func attachmentXML(id, status string, card, device int) string {
	return fmt.Sprintf(`<attachment><attachmentId>%s</attachmentId><status>%s</status><networkCardIndex>%d</networkCardIndex>
		<deviceIndex>%d</deviceIndex><instanceId>i-1</instanceId><deleteOnTermination>true</deleteOnTermination></attachment>`, id, status, card, device)
}

const addressesXML = `<privateIpAddress>10.0.1.4</privateIpAddress><privateIpAddressesSet>
	<item><privateIpAddress>10.0.1.10</privateIpAddress><primary>false</primary></item>
	<item><privateIpAddress>10.0.1.4</privateIpAddress><primary>true</primary></item>
	<item><privateIpAddress>10.0.1.11</privateIpAddress><primary>false</primary></item></privateIpAddressesSet>
	<ipv4PrefixSet><item><ipv4Prefix>10.0.1.32/28</ipv4Prefix></item></ipv4PrefixSet>`
