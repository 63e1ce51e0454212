package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// looker is what says whether an output on S3 is there.
type looker interface {
	Look(ctx context.Context, loc cloud.S3Location, key string) (cloud.S3Look, error)
}

// look looks up outputs that are URIs. Access to S3 is opened by the first.
func (e *Engine) look() func(ctx context.Context, uri string) (cloud.S3Look, error) {
	open := sync.OnceValues(func() (looker, error) {
		if e.S3 == nil {
			return nil, errors.New("there is no access to S3")
		}
		s, err := e.S3()
		if err != nil {
			return nil, err
		}
		l, ok := s.(looker)
		if !ok {
			return nil, errors.New("there is no access to S3")
		}
		return l, nil
	})
	return func(ctx context.Context, uri string) (cloud.S3Look, error) {
		place, ok := strings.CutPrefix(uri, "s3://")
		bucket, key, _ := strings.Cut(place, "/")
		if !ok || bucket == "" || key == "" {
			return cloud.S3Look{}, fmt.Errorf("an output is a path below the working directory or s3://bucket/key")
		}
		s, err := open()
		if err != nil {
			return cloud.S3Look{}, err
		}
		return s.Look(ctx, cloud.S3Location{Bucket: bucket}, key)
	}
}
