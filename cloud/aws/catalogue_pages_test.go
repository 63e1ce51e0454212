package aws

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
)

// shortLived is lists for a process that ends after one page of any of them.
type shortLived struct {
	*lists
	end   context.CancelFunc
	mu    *sync.Mutex
	asked map[string]int // pages, over all processes
	done  bool
}

func (s *shortLived) page(list string, token *string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		s.end()
		return context.Canceled
	}
	s.done = true
	s.asked[list+" "+aws.ToString(token)]++
	return nil
}

func (s *shortLived) DescribeInstanceTypes(ctx context.Context, in *ec2.DescribeInstanceTypesInput, o ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error) {
	if err := s.page("types", in.NextToken); err != nil {
		return nil, err
	}
	return s.lists.DescribeInstanceTypes(ctx, in, o...)
}

func (s *shortLived) DescribeInstanceTypeOfferings(ctx context.Context, in *ec2.DescribeInstanceTypeOfferingsInput, o ...func(*ec2.Options)) (*ec2.DescribeInstanceTypeOfferingsOutput, error) {
	if err := s.page("zones", in.NextToken); err != nil {
		return nil, err
	}
	return s.lists.DescribeInstanceTypeOfferings(ctx, in, o...)
}

func (s *shortLived) GetProducts(ctx context.Context, in *pricing.GetProductsInput, o ...func(*pricing.Options)) (*pricing.GetProductsOutput, error) {
	if err := s.page("prices", in.NextToken); err != nil {
		return nil, err
	}
	return s.lists.GetProducts(ctx, in, o...)
}

// Processes that live for a moment each get the lists read between them, and
// no page is read twice.
func TestCatalogueReadByShortProcesses(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_790_000_000, 0)
	l := &lists{demand: "0.1008000000"}
	dir := t.TempDir()
	asked := map[string]int{}
	var mu sync.Mutex
	for n := 1; ; n++ {
		if n > 20 {
			t.Fatalf("they come to no end: %v", asked)
		}
		ctx, end := context.WithCancel(t.Context())
		s := &shortLived{lists: l, end: end, mu: &mu, asked: asked}
		r := reader(l, dir, start.Add(time.Duration(n)*time.Second))
		r.ec2, r.prices = s, s
		_, err := r.read(ctx)
		end()
		if err == nil && !s.done {
			break
		}
	}
	for _, page := range []string{"types ", "types x", "types xx", "zones ", "prices ", "prices 2"} {
		if asked[page] != 1 {
			t.Errorf("page %q was read %d times", page, asked[page])
		}
	}
	c := readCatalogue(t, reader(l, dir, start.Add(time.Minute)))
	if m, g := c.Offer("m7i.large"), c.Offer("g4dn.xlarge"); len(c.Offers) != 2 || m == nil || m.OnDemand != 0.1008 || len(m.Zones) != 2 || g == nil || g.OnDemand != 1 {
		t.Errorf("%+v", c)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 { // types, spot, prices
		t.Errorf("%d files are left: %v, %v", len(files), files, err)
	}
}

// A list that cannot be gone on with, or was left long ago, begins anew.
func TestPagesBeginAnew(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	r := &catalogueReader{o: CatalogueOptions{Dir: t.TempDir()}, suffix: ".json", now: func() time.Time { return now }}
	gone := errors.New("the token has expired")
	read := func(refuse string) ([]string, error) {
		return pages(t.Context(), r, "p", func(token string, to *[]string) (string, error) {
			if token == refuse {
				return "", gone
			}
			*to = append(*to, "page"+token)
			return map[string]string{"": "2", "2": "3"}[token], nil
		})
	}
	same := func(what string, got []string, err error) {
		t.Helper()
		if err != nil || len(got) != 3 || got[0] != "page" || got[2] != "page3" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for _, later := range []time.Duration{0, pagesFor} {
		r.forget("p")
		if _, err := read("2"); !errors.Is(err, gone) {
			t.Fatal(err)
		}
		now = now.Add(later)
		got, err := read("none")
		same("gone on with after "+later.String(), got, err)
	}
	r.forget("p")
	if _, err := read("3"); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	refused := false
	got, err := pages(t.Context(), r, "p", func(token string, to *[]string) (string, error) {
		if token == "3" && !refused {
			refused = true
			return "", gone
		}
		*to = append(*to, "page"+token)
		return map[string]string{"": "2", "2": "3"}[token], nil
	})
	same("its token has expired", got, err)
}
