package aws

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// QueueInfo is a queue that exists.
type QueueInfo struct {
	URL  string
	Name string
	Run  string // by its tag; "" if it has none
}

// ListQueues finds the queues of this program in a region, "" for the
// configured one: those of a run, or of all if run is "". What JoinQueue opens
// of it, Close deletes.
func ListQueues(ctx context.Context, region, run string) ([]QueueInfo, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	if region != "" {
		cfg.Region = region
	}
	client := sqs.NewFromConfig(cfg)
	var list []QueueInfo
	in := &sqs.ListQueuesInput{QueueNamePrefix: aws.String(queuePrefix), MaxResults: aws.Int32(1000)}
	for {
		var out *sqs.ListQueuesOutput
		err := again(ctx, queuePatience, passing, func(ctx context.Context) (err error) {
			out, err = client.ListQueues(ctx, in)
			return queueError(ctx, "list queues", "in "+cfg.Region, err)
		})
		if err != nil {
			return nil, err
		}
		for _, url := range out.QueueUrls {
			q := QueueInfo{URL: url, Name: url[strings.LastIndexByte(url, '/')+1:]}
			err := again(ctx, queuePatience, passing, func(ctx context.Context) error {
				tags, err := client.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: &url})
				if err == nil {
					q.Run = tags.Tags[tagRun]
				}
				return queueError(ctx, "list queues", q.Name, err)
			})
			if cloud.KindOf(err) == cloud.KindNotFound { // deleted since
				continue
			}
			if err != nil {
				return nil, err
			}
			if run == "" || run == q.Run {
				list = append(list, q)
			}
		}
		if aws.ToString(out.NextToken) == "" {
			return list, nil
		}
		in.NextToken = out.NextToken
	}
}
