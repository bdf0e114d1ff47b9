package imds

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const tokenPath = "/latest/api/token"

// answer is the last HTTP response of a call, the zero value if there was none.
// The SDK's error for a failed token has no status that could be unwrapped, so
// it is noted on the way.
type answer struct {
	path   string
	status int
}

type answerKey struct{}

func withAnswer(ctx context.Context) (context.Context, *answer) {
	a := new(answer)
	return context.WithValue(ctx, answerKey{}, a), a
}

// noteAnswers adds the step that notes each response where withAnswer asked.
func noteAnswers(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("NoteAnswers", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if note, ok := ctx.Value(answerKey{}).(*answer); ok {
			*note = answer{}
			req, isReq := in.Request.(*smithyhttp.Request)
			resp, isResp := out.RawResponse.(*smithyhttp.Response)
			if isReq && isResp {
				*note = answer{path: req.URL.Path, status: resp.StatusCode}
			}
		}
		return out, metadata, err
	}), middleware.After)
}

// explain turns an error of the SDK into one that says what is wrong and what
// to check.
func explain(ctx context.Context, path string, last answer, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("metadata item %s: %w", path, ctx.Err())
	}
	var garbled *smithy.DeserializationError
	switch {
	case errors.As(err, &garbled):
		return fmt.Errorf("metadata item %s: not understood: %w", path, garbled.Err)
	case last.status == 0:
		return fmt.Errorf("%w: %w; check that this is an EC2 instance with metadata enabled, that nothing blocks "+
			"169.254.169.254 port 80, and, in a container network, that the metadata hop limit is at least 2",
			ErrUnavailable, errors.Join(ctx.Err(), err))
	case last.status == http.StatusForbidden:
		return fmt.Errorf("%w: it answers with status 403; enable it for this instance: "+
			"aws ec2 modify-instance-metadata-options --http-endpoint enabled", ErrUnavailable)
	case last.path == tokenPath && last.status != http.StatusOK:
		return fmt.Errorf("%w: the request for a token got status %d; check that what answers is IMDSv2, and no proxy or "+
			"older stand-in", ErrUnavailable, last.status)
	case last.status == http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, path)
	case last.status != http.StatusOK:
		return fmt.Errorf("%w: %s got status %d", ErrUnavailable, path, last.status)
	}
	return fmt.Errorf("metadata item %s: %w", path, err)
}

// short quotes an answer for an error.
func short(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%q", s)
}
