"""The templates keep the rules; and each rule finds what it forbids."""

import pytest

from tests.unit.deploy.rules import RULES
from tests.unit.deploy.templates import AWS, NAMES, read, template


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_a_template_keeps_a_rule(rule: str, name: str) -> None:
    assert list(RULES[rule](template(name))) == []


# Rule, template, what is written there, what a careless hand might write instead.
SLIPS = [
    ("only_kinds_that_the_rules_know", "service", "AWS::SQS::Queue", "AWS::RDS::DBInstance"),
    ("only_kinds_that_the_rules_know", "service", "AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"),
    (
        "what_is_stored_is_encrypted",
        "data",
        "SSEType: KMS\n        KMSMasterKeyId: !Ref KeyArn",
        "",
    ),
    ("what_is_stored_is_encrypted", "data", "AtRestEncryptionEnabled: true", ""),
    ("what_is_stored_is_encrypted", "watch", "KmsMasterKeyId: !Ref KeyArn", "DisplayName: alarms"),
    ("what_is_stored_is_encrypted", "main", "EnableKeyRotation: true", ""),
    ("what_travels_is_encrypted", "data", "TransitEncryptionMode: required", ""),
    ("what_travels_is_encrypted", "data", "rediss://", "redis://"),
    ("what_travels_is_encrypted", "data", "?ssl_cert_reqs=required", ""),
    ("what_travels_is_encrypted", "service", "TLS13-1-2-2021-06", "2016-08"),
    ("what_travels_is_encrypted", "registry", "aws:SecureTransport", "aws:SecureTransfer"),
    ("nothing_is_public", "registry", "BlockPublicPolicy: true", "BlockPublicPolicy: false"),
    ("nothing_is_public", "network", "MapPublicIpOnLaunch: false", "MapPublicIpOnLaunch: true"),
    ("nothing_is_public", "network", "CidrIp: !Ref ClientCidr", "CidrIp: 0.0.0.0/0"),
    ("nothing_is_public", "service", "!Ref PrivateSubnets", "!Ref PublicSubnets"),
    ("security_groups_are_narrow", "network", "CidrIp: 127.0.0.1/32", "CidrIp: 0.0.0.0/0"),
    ("security_groups_are_narrow", "network", "ToPort: 443", "ToPort: 65535"),
    ("nothing_is_public", "data", "aws:PrincipalAccount", "aws:CalledVia"),
    ("nothing_is_public", "registry", "Effect: Deny", "Effect: Allow"),
    ("security_groups_are_narrow", "network", "CidrIp: 0.0.0.0/0", 'CidrIpv6: "::/0"'),
    ("security_groups_are_narrow", "network", "CidrIp: 0.0.0.0/0", "CidrIp: 10.0.0.0/8"),
    (
        "security_groups_are_narrow",
        "network",
        "FromPort: 443\n          ToPort: 443\n          CidrIp: !Ref ClientCidr",
        "FromPort: 22\n          ToPort: 22\n          CidrIp: !Ref ClientCidr",
    ),
    ("what_must_last_is_retained", "data", "UpdateReplacePolicy: Retain", ""),
    ("what_must_last_is_retained", "data", "DeletionProtectionEnabled: true", ""),
    ("logs_end", "network", "RetentionInDays: !Ref LogRetentionDays", ""),
    ("permissions_are_named", "service", "dynamodb:Scan", "dynamodb:*"),
    ("permissions_are_named", "service", "Resource: !Ref TableArn", 'Resource: "*"'),
    ("permissions_are_named", "service", "Resource: !Ref TableArn", "NotResource: !Ref TableArn"),
    ("permissions_are_named", "service", "log-group:/aws/elasticbeanstalk/${Name}-api/*", "*"),
    ("permissions_are_named", "service", "environments/logs/*", "*/logs/*"),
    ("permissions_are_named", "service", "kms:ViaService", "kms:CallerAccount"),
    ("roles_trust_services_alone", "service", "Service: ec2.amazonaws.com", 'AWS: "*"'),
    ("roles_trust_services_alone", "service", "AWSElasticBeanstalkEnhancedHealth", "Administrator"),
    ("instances_answer_imdsv2_alone", "service", "DisableIMDSv1", "DisableIMDSv3"),
    ("secrets_stay_secret", "data", "UserGroupIds: [!Ref BrokerUsers]", ""),
    ("secrets_stay_secret", "service", "environmentsecrets", "environment"),
    ("secrets_stay_secret", "data", "{{resolve:secretsmanager:${CachePassword}}}", "guess me"),
]


@pytest.mark.parametrize(("rule", "name", "right", "wrong"), SLIPS)
def test_a_rule_finds_what_it_forbids(rule: str, name: str, right: str, wrong: str) -> None:
    text = (AWS / f"{name}.yaml").read_text()
    assert right in text

    assert list(RULES[rule](read(text.replace(right, wrong)))) != []


def test_every_rule_is_seen_to_find_something() -> None:
    assert {rule for rule, *_ in SLIPS} == set(RULES)
