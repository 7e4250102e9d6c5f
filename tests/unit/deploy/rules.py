"""What every template has to keep, as rules by name: each tells what in a template breaks it."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.deploy.templates import ENVIRONMENT, Json, listed, options, resources, statements

Rule = Callable[[Json], Iterator[str]]
RULES: dict[str, Rule] = {}

KEPT = {
    "AWS::DynamoDB::Table",
    "AWS::ECR::Repository",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
}
ANYWHERE = "0.0.0.0/0"
NOWHERE = "127.0.0.1/32"
ACTIONS_ON_EVERYTHING = {"ecr:GetAuthorizationToken"}
"""AWS knows no resource for these."""

KINDS = KEPT | {
    "AWS::CloudFormation::Stack",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::EC2::EIP",
    "AWS::EC2::FlowLog",
    "AWS::EC2::InternetGateway",
    "AWS::EC2::NatGateway",
    "AWS::EC2::Route",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::ElastiCache::ParameterGroup",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::ElastiCache::SubnetGroup",
    "AWS::ElastiCache::User",
    "AWS::ElastiCache::UserGroup",
    "AWS::ElasticBeanstalk::Application",
    "AWS::ElasticBeanstalk::ApplicationVersion",
    "AWS::ElasticBeanstalk::Environment",
    "AWS::IAM::InstanceProfile",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::Logs::MetricFilter",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::Queue",
    "AWS::SecretsManager::Secret",
    "AWS::WAFv2::WebACL",
    "AWS::WAFv2::WebACLAssociation",
}
"""All that the templates hold; no users and no access keys of IAM among it."""

POLICIES_OF_RESOURCES = {
    "AWS::DynamoDB::Table": "ResourcePolicy",
    "AWS::EC2::VPCEndpoint": "PolicyDocument",
    "AWS::ECR::Repository": "RepositoryPolicyText",
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
}
OF_THIS_ACCOUNT = {
    "aws:PrincipalAccount": {"Ref": "AWS::AccountId"},
}

PRIVATE_BUCKET = {
    "BlockPublicAcls": True,
    "BlockPublicPolicy": True,
    "IgnorePublicAcls": True,
    "RestrictPublicBuckets": True,
}

_LAUNCH = "aws:autoscaling:launchconfiguration"
_HTTPS = "aws:elbv2:listener:443"
_ENVIRONMENT_VARIABLES = "aws:elasticbeanstalk:application:environment"


def rule(check: Rule) -> Rule:
    """Keep a rule by its function's name."""
    RULES[check.__name__] = check
    return check


@rule
def only_kinds_that_the_rules_know(found: Json) -> Iterator[str]:
    """A new kind of resource may need a rule of its own: for what it stores, sends or grants."""
    for name, resource in found["Resources"].items():
        if resource["Type"] not in KINDS:
            yield f"{name}: {resource['Type']}"


@rule
def what_is_stored_is_encrypted(found: Json) -> Iterator[str]:
    """By a key of our own; a bucket of logs and an idle queue by AWS's."""
    kms: dict[str, Callable[[Json], Any]] = {
        "AWS::DynamoDB::Table": lambda p: p.get("SSESpecification", {}).get("KMSMasterKeyId"),
        "AWS::ElastiCache::ReplicationGroup": lambda p: (
            p.get("AtRestEncryptionEnabled") is True and p.get("KmsKeyId")
        ),
        "AWS::Logs::LogGroup": lambda p: p.get("KmsKeyId"),
        "AWS::SecretsManager::Secret": lambda p: p.get("KmsKeyId"),
        "AWS::SNS::Topic": lambda p: p.get("KmsMasterKeyId"),
        "AWS::SQS::Queue": lambda p: p.get("SqsManagedSseEnabled"),
        "AWS::S3::Bucket": lambda p: p.get("BucketEncryption"),
        "AWS::ECR::Repository": lambda p: p.get("EncryptionConfiguration"),
    }
    for kind, has_key in kms.items():
        for name, resource in resources(found, kind):
            if not has_key(resource["Properties"]):
                yield name
    for name, resource in resources(found, "AWS::KMS::Key"):
        if resource["Properties"].get("EnableKeyRotation") is not True:
            yield f"{name}: its key does not rotate"


@rule
def what_travels_is_encrypted(found: Json) -> Iterator[str]:
    """TLS to the load balancer, to Redis (with a certificate that is checked) and to S3."""
    for name, resource in resources(found, "AWS::ElastiCache::ReplicationGroup"):
        properties = resource["Properties"]
        mode = properties.get("TransitEncryptionMode")
        if properties.get("TransitEncryptionEnabled") is not True or mode != "required":
            yield f"{name}: Redis without TLS"
    for name, resource in resources(found, "AWS::SecretsManager::Secret"):
        url = resource["Properties"].get("SecretString")
        text = url["Fn::Sub"] if url else ""
        if url and not (text.startswith("rediss://") and text.endswith("ssl_cert_reqs=required")):
            yield f"{name}: a URL without TLS, or whose certificate nobody checks"
    for name, settings in _environments(found):
        if ("aws:elbv2:loadbalancer", "SecurityGroups") not in settings:
            continue
        if settings.get(("aws:elbv2:listener:default", "ListenerEnabled")) != "false":
            yield f"{name}: listens to plain HTTP"
        if settings.get((_HTTPS, "Protocol")) != "HTTPS":
            yield f"{name}: no HTTPS"
        if "TLS13" not in settings.get((_HTTPS, "SSLPolicy"), ""):
            yield f"{name}: an old policy of TLS"
    secured = {
        str(resource["Properties"]["Bucket"].get("Ref"))
        for _, resource in resources(found, "AWS::S3::BucketPolicy")
        if any(map(_denies_plain_http, statements(resource["Properties"]["PolicyDocument"])))
    }
    for name, _ in resources(found, "AWS::S3::Bucket"):
        if name not in secured:
            yield f"{name}: a bucket that takes plain HTTP"


def _denies_plain_http(statement: Json) -> bool:
    condition = statement.get("Condition", {}).get("Bool", {})
    return bool(statement["Effect"] == "Deny" and condition == {"aws:SecureTransport": "false"})


@rule
def nothing_is_public(found: Json) -> Iterator[str]:
    """No bucket, no address of an instance; who may reach the load balancer is a parameter."""
    for name, resource in resources(found, "AWS::S3::Bucket"):
        if resource["Properties"].get("PublicAccessBlockConfiguration") != PRIVATE_BUCKET:
            yield name
    for name, resource in resources(found, "AWS::EC2::Subnet"):
        if resource["Properties"].get("MapPublicIpOnLaunch") is not False:
            yield name
    for name, settings in _environments(found):
        if settings.get(("aws:ec2:vpc", "AssociatePublicIpAddress")) != "false":
            yield f"{name}: instances with public addresses"
        if settings.get(("aws:ec2:vpc", "Subnets")) != _joined("PrivateSubnets"):
            yield f"{name}: instances outside of the private subnets"
        if settings.get((_LAUNCH, "DisableDefaultEC2SecurityGroup")) != "true":
            yield f"{name}: a security group that is not ours"
    for name, one in _ingress(found):
        if one.get("CidrIp") == ANYWHERE or one.get("CidrIpv6"):
            yield f"{name}: open to everybody"
    for name, one in _said_of_resources(found):
        if one["Effect"] == "Allow" and _is_anybody(one) and not _is_of_this_account(one):
            yield f"{name}: allows {one['Action']} to anybody"


def _said_of_resources(found: Json) -> Iterator[tuple[str, Json]]:
    for kind, place in POLICIES_OF_RESOURCES.items():
        for name, resource in resources(found, kind):
            policy = resource["Properties"].get(place)
            if policy:
                # A table wraps its own once more.
                document = policy.get("PolicyDocument", policy)
                yield from ((name, one) for one in statements(document))


def _is_anybody(statement: Json) -> bool:
    principal = statement.get("Principal", "*")
    who = principal.get("AWS", []) if isinstance(principal, dict) else principal
    return "*" in listed(who)


def _is_of_this_account(statement: Json) -> bool:
    conditions = statement.get("Condition", {}).get("StringEquals", {})
    return any(conditions.get(name) == value for name, value in OF_THIS_ACCOUNT.items())


def _joined(parameter: str) -> Json:
    return {"Fn::Join": [",", {"Ref": parameter}]}


@rule
def security_groups_are_narrow(found: Json) -> Iterator[str]:
    """One port in each rule; to everywhere HTTPS alone; and no egress rule of AWS's making."""
    for name, resource in resources(found, "AWS::EC2::SecurityGroup"):
        if not resource["Properties"].get("SecurityGroupEgress"):
            yield f"{name}: leaves the way out open to everywhere"
    for name, one in [*_ingress(found), *_egress(found)]:
        if one["IpProtocol"] == "-1" and one.get("CidrIp") != NOWHERE:
            yield f"{name}: all protocols"
        if one["IpProtocol"] != "-1" and one.get("FromPort") != one.get("ToPort"):
            yield f"{name}: a range of ports"
        if one.get("CidrIp") == ANYWHERE and one.get("FromPort") != 443:
            yield f"{name}: to everywhere by something else than HTTPS"
        if "CidrIpv6" in one:
            yield f"{name}: an address of IPv6, which the network does not have"
        if isinstance(one.get("CidrIp"), str) and one["CidrIp"] not in (ANYWHERE, NOWHERE):
            yield f"{name}: an address that is written down"
    for name, one in _ingress(found):
        if one.get("CidrIp") == {"Ref": "ClientCidr"} and one["FromPort"] != 443:
            yield f"{name}: clients, by something else than HTTPS"


def _ingress(found: Json) -> Iterator[tuple[str, Json]]:
    yield from _rules(found, "Ingress")


def _egress(found: Json) -> Iterator[tuple[str, Json]]:
    yield from _rules(found, "Egress")


def _rules(found: Json, way: str) -> Iterator[tuple[str, Json]]:
    for name, resource in resources(found, "AWS::EC2::SecurityGroup"):
        for one in resource["Properties"].get(f"SecurityGroup{way}", []):
            yield name, one
    for name, resource in resources(found, f"AWS::EC2::SecurityGroup{way}"):
        yield name, resource["Properties"]


@rule
def what_must_last_is_retained(found: Json) -> Iterator[str]:
    """Deleting a stack, or a change that replaces a resource, leaves data, keys and logs."""
    for kind in KEPT:
        for name, resource in resources(found, kind):
            policies = {resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")}
            if policies != {"Retain"}:
                yield name
    for name, resource in resources(found, "AWS::DynamoDB::Table"):
        properties = resource["Properties"]
        recovery = properties.get("PointInTimeRecoverySpecification", {})
        if recovery.get("PointInTimeRecoveryEnabled") is not True:
            yield f"{name}: no point-in-time recovery"
        if properties.get("DeletionProtectionEnabled") is not True:
            yield f"{name}: no deletion protection"


@rule
def logs_end(found: Json) -> Iterator[str]:
    """Every log has a retention."""
    for name, resource in resources(found, "AWS::Logs::LogGroup"):
        if not resource["Properties"].get("RetentionInDays"):
            yield name
    for name, settings in _environments(found):
        if not settings.get(("aws:elasticbeanstalk:cloudwatch:logs", "RetentionInDays")):
            yield name


@rule
def permissions_are_named(found: Json) -> Iterator[str]:
    """No wildcard for an action; one for a resource only where AWS knows no name."""
    for name, statement in _granted(found):
        if {"NotAction", "NotResource", "NotPrincipal"} & set(statement):
            yield f"{name}: all but what is named"
            continue
        actions = listed(statement["Action"])
        yield from (f"{name}: {one}" for one in listed(statement["Resource"]) if _is_wide(one))
        yield from (f"{name}: {action}" for action in actions if "*" in action)
        wild = "*" in listed(statement["Resource"])
        if wild and not ACTIONS_ON_EVERYTHING.issuperset(actions):
            yield f"{name}: {actions} on everything"
        if any(a.startswith("kms:") for a in actions):
            condition = statement.get("Condition", {}).get("StringEquals", {})
            if "kms:ViaService" not in condition:
                yield f"{name}: the key without a service in between"
        if any(a == "iam:PassRole" for a in actions):
            yield f"{name}: may pass roles on"


def _is_wide(resource: Any) -> bool:
    """A name with a wildcard elsewhere than at the end of a path: whose else would it be?"""
    text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
    return text != "*" and "*" in text and not (text.endswith("/*") and text.count("*") == 1)


def _granted(found: Json) -> Iterator[tuple[str, Json]]:
    for name, resource in resources(found, "AWS::IAM::Role"):
        for policy in resource["Properties"].get("Policies", []):
            yield from ((name, one) for one in statements(policy["PolicyDocument"]))
    for name, resource in resources(found, "AWS::IAM::ManagedPolicy"):
        yield from ((name, one) for one in statements(resource["Properties"]["PolicyDocument"]))
    for name, resource in resources(found, "AWS::EC2::VPCEndpoint"):
        policy = resource["Properties"].get("PolicyDocument")
        yield from ((name, one) for one in (statements(policy) if policy else []))


@rule
def roles_trust_services_alone(found: Json) -> Iterator[str]:
    """No other account, no user; and no managed policy of AWS's but the service role's two."""
    for name, resource in resources(found, "AWS::IAM::Role"):
        for one in statements(resource["Properties"]["AssumeRolePolicyDocument"]):
            if set(one["Principal"]) != {"Service"}:
                yield name
        for policy in resource["Properties"].get("ManagedPolicyArns", []):
            if "Fn::Sub" in policy and "AWSElasticBeanstalk" not in policy["Fn::Sub"]:
                yield f"{name}: {policy}"


@rule
def instances_answer_imdsv2_alone(found: Json) -> Iterator[str]:
    """A request that somebody makes an instance send does not get its credentials."""
    for name, settings in _environments(found):
        if settings.get((_LAUNCH, "DisableIMDSv1")) != "true":
            yield name


@rule
def secrets_stay_secret(found: Json) -> Iterator[str]:
    """Passwords are made by Secrets Manager and reach instances from there, never as settings."""
    for name, resource in resources(found, "AWS::ElastiCache::User"):
        for password in resource["Properties"].get("Passwords", [""]):
            text = password.get("Fn::Sub", "") if isinstance(password, dict) else password
            if not text.startswith("{{resolve:secretsmanager:"):
                yield f"{name}: a password of its own"
    for name, resource in resources(found, "AWS::ElastiCache::ReplicationGroup"):
        if not resource["Properties"].get("UserGroupIds"):
            yield f"{name}: no password"
    for name, settings in _environments(found):
        for secret in ("REDIS_URL", "CACHE_URL"):
            if (_ENVIRONMENT_VARIABLES, secret) in settings:
                yield f"{name}: {secret} as a plain setting"


def _environments(found: Json) -> Iterator[tuple[str, dict[tuple[str, str], Any]]]:
    for name, resource in resources(found, ENVIRONMENT):
        yield name, options(resource)
