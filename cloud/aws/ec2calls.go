package aws

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// ec2Calls is an EC2 client with the few of its calls that are made here. The
// client itself must not become a value of an interface: the program uses
// reflection, so the linker would keep all of its 700 calls, which are more than
// the rest of the program, and machines fetch the program when they boot.
type ec2Calls struct {
	createFleet                   ec2Call[ec2.CreateFleetInput, ec2.CreateFleetOutput]
	createLaunchTemplate          ec2Call[ec2.CreateLaunchTemplateInput, ec2.CreateLaunchTemplateOutput]
	createSecurityGroup           ec2Call[ec2.CreateSecurityGroupInput, ec2.CreateSecurityGroupOutput]
	createTags                    ec2Call[ec2.CreateTagsInput, ec2.CreateTagsOutput]
	deleteFleets                  ec2Call[ec2.DeleteFleetsInput, ec2.DeleteFleetsOutput]
	deleteLaunchTemplate          ec2Call[ec2.DeleteLaunchTemplateInput, ec2.DeleteLaunchTemplateOutput]
	deleteSecurityGroup           ec2Call[ec2.DeleteSecurityGroupInput, ec2.DeleteSecurityGroupOutput]
	describeFleets                ec2Call[ec2.DescribeFleetsInput, ec2.DescribeFleetsOutput]
	describeImages                ec2Call[ec2.DescribeImagesInput, ec2.DescribeImagesOutput]
	describeInstanceTypeOfferings ec2Call[ec2.DescribeInstanceTypeOfferingsInput, ec2.DescribeInstanceTypeOfferingsOutput]
	describeInstanceTypes         ec2Call[ec2.DescribeInstanceTypesInput, ec2.DescribeInstanceTypesOutput]
	describeInstances             ec2Call[ec2.DescribeInstancesInput, ec2.DescribeInstancesOutput]
	describeLaunchTemplates       ec2Call[ec2.DescribeLaunchTemplatesInput, ec2.DescribeLaunchTemplatesOutput]
	describeSecurityGroups        ec2Call[ec2.DescribeSecurityGroupsInput, ec2.DescribeSecurityGroupsOutput]
	describeSpotPriceHistory      ec2Call[ec2.DescribeSpotPriceHistoryInput, ec2.DescribeSpotPriceHistoryOutput]
	describeSubnets               ec2Call[ec2.DescribeSubnetsInput, ec2.DescribeSubnetsOutput]
	describeTags                  ec2Call[ec2.DescribeTagsInput, ec2.DescribeTagsOutput]
	runInstances                  ec2Call[ec2.RunInstancesInput, ec2.RunInstancesOutput]
	terminateInstances            ec2Call[ec2.TerminateInstancesInput, ec2.TerminateInstancesOutput]
}

type ec2Call[I, O any] func(context.Context, *I, ...func(*ec2.Options)) (*O, error)

func newEC2(cfg aws.Config) *ec2Calls {
	c := ec2.NewFromConfig(cfg)
	return &ec2Calls{
		createFleet:                   c.CreateFleet,
		createLaunchTemplate:          c.CreateLaunchTemplate,
		createSecurityGroup:           c.CreateSecurityGroup,
		createTags:                    c.CreateTags,
		deleteFleets:                  c.DeleteFleets,
		deleteLaunchTemplate:          c.DeleteLaunchTemplate,
		deleteSecurityGroup:           c.DeleteSecurityGroup,
		describeFleets:                c.DescribeFleets,
		describeImages:                c.DescribeImages,
		describeInstanceTypeOfferings: c.DescribeInstanceTypeOfferings,
		describeInstanceTypes:         c.DescribeInstanceTypes,
		describeInstances:             c.DescribeInstances,
		describeLaunchTemplates:       c.DescribeLaunchTemplates,
		describeSecurityGroups:        c.DescribeSecurityGroups,
		describeSpotPriceHistory:      c.DescribeSpotPriceHistory,
		describeSubnets:               c.DescribeSubnets,
		describeTags:                  c.DescribeTags,
		runInstances:                  c.RunInstances,
		terminateInstances:            c.TerminateInstances,
	}
}

func (c *ec2Calls) CreateFleet(ctx context.Context, in *ec2.CreateFleetInput, o ...func(*ec2.Options)) (*ec2.CreateFleetOutput, error) {
	return c.createFleet(ctx, in, o...)
}

func (c *ec2Calls) CreateLaunchTemplate(ctx context.Context, in *ec2.CreateLaunchTemplateInput, o ...func(*ec2.Options)) (*ec2.CreateLaunchTemplateOutput, error) {
	return c.createLaunchTemplate(ctx, in, o...)
}

func (c *ec2Calls) CreateSecurityGroup(ctx context.Context, in *ec2.CreateSecurityGroupInput, o ...func(*ec2.Options)) (*ec2.CreateSecurityGroupOutput, error) {
	return c.createSecurityGroup(ctx, in, o...)
}

func (c *ec2Calls) CreateTags(ctx context.Context, in *ec2.CreateTagsInput, o ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error) {
	return c.createTags(ctx, in, o...)
}

func (c *ec2Calls) DeleteFleets(ctx context.Context, in *ec2.DeleteFleetsInput, o ...func(*ec2.Options)) (*ec2.DeleteFleetsOutput, error) {
	return c.deleteFleets(ctx, in, o...)
}

func (c *ec2Calls) DeleteLaunchTemplate(ctx context.Context, in *ec2.DeleteLaunchTemplateInput, o ...func(*ec2.Options)) (*ec2.DeleteLaunchTemplateOutput, error) {
	return c.deleteLaunchTemplate(ctx, in, o...)
}

func (c *ec2Calls) DeleteSecurityGroup(ctx context.Context, in *ec2.DeleteSecurityGroupInput, o ...func(*ec2.Options)) (*ec2.DeleteSecurityGroupOutput, error) {
	return c.deleteSecurityGroup(ctx, in, o...)
}

func (c *ec2Calls) DescribeFleets(ctx context.Context, in *ec2.DescribeFleetsInput, o ...func(*ec2.Options)) (*ec2.DescribeFleetsOutput, error) {
	return c.describeFleets(ctx, in, o...)
}

func (c *ec2Calls) DescribeImages(ctx context.Context, in *ec2.DescribeImagesInput, o ...func(*ec2.Options)) (*ec2.DescribeImagesOutput, error) {
	return c.describeImages(ctx, in, o...)
}

func (c *ec2Calls) DescribeInstanceTypeOfferings(ctx context.Context, in *ec2.DescribeInstanceTypeOfferingsInput, o ...func(*ec2.Options)) (*ec2.DescribeInstanceTypeOfferingsOutput, error) {
	return c.describeInstanceTypeOfferings(ctx, in, o...)
}

func (c *ec2Calls) DescribeInstanceTypes(ctx context.Context, in *ec2.DescribeInstanceTypesInput, o ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error) {
	return c.describeInstanceTypes(ctx, in, o...)
}

func (c *ec2Calls) DescribeInstances(ctx context.Context, in *ec2.DescribeInstancesInput, o ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	return c.describeInstances(ctx, in, o...)
}

func (c *ec2Calls) DescribeLaunchTemplates(ctx context.Context, in *ec2.DescribeLaunchTemplatesInput, o ...func(*ec2.Options)) (*ec2.DescribeLaunchTemplatesOutput, error) {
	return c.describeLaunchTemplates(ctx, in, o...)
}

func (c *ec2Calls) DescribeSecurityGroups(ctx context.Context, in *ec2.DescribeSecurityGroupsInput, o ...func(*ec2.Options)) (*ec2.DescribeSecurityGroupsOutput, error) {
	return c.describeSecurityGroups(ctx, in, o...)
}

func (c *ec2Calls) DescribeSpotPriceHistory(ctx context.Context, in *ec2.DescribeSpotPriceHistoryInput, o ...func(*ec2.Options)) (*ec2.DescribeSpotPriceHistoryOutput, error) {
	return c.describeSpotPriceHistory(ctx, in, o...)
}

func (c *ec2Calls) DescribeSubnets(ctx context.Context, in *ec2.DescribeSubnetsInput, o ...func(*ec2.Options)) (*ec2.DescribeSubnetsOutput, error) {
	return c.describeSubnets(ctx, in, o...)
}

func (c *ec2Calls) DescribeTags(ctx context.Context, in *ec2.DescribeTagsInput, o ...func(*ec2.Options)) (*ec2.DescribeTagsOutput, error) {
	return c.describeTags(ctx, in, o...)
}

func (c *ec2Calls) RunInstances(ctx context.Context, in *ec2.RunInstancesInput, o ...func(*ec2.Options)) (*ec2.RunInstancesOutput, error) {
	return c.runInstances(ctx, in, o...)
}

func (c *ec2Calls) TerminateInstances(ctx context.Context, in *ec2.TerminateInstancesInput, o ...func(*ec2.Options)) (*ec2.TerminateInstancesOutput, error) {
	return c.terminateInstances(ctx, in, o...)
}
