"""infra/aws deployed against moto, as far as moto goes: the test is the root template, since moto's passes nothing on.

What moto has no model of is listed; cfn-lint knows the properties of these as well.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation.parsing import get_model_map

from lookalike import services
from lookalike.images import Image, Removal
from lookalike.settings import Settings, load_settings
from orchestrator.events.messages import Interpreter
from orchestrator.events.queue import Queue
from tests.cloud_templates import CHILDREN, EXAMPLES, NAMES, ROOT, read_example, read_template

# Types without a model in moto 5: only cfn-lint checks their properties. What refers to them gets a name instead.
UNSUPPORTED = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::ECS::CapacityProvider",
    "AWS::ECS::ClusterCapacityProviderAssociations",
    "AWS::ElastiCache::ParameterGroup",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::ElastiCache::SubnetGroup",
    "AWS::ElastiCache::User",
    "AWS::ElastiCache::UserGroup",
    "AWS::SNS::Subscription",
    "AWS::SQS::QueuePolicy",
    "AWS::SecretsManager::Secret",
}
# Properties and attributes that moto stumbles over, with the reason.
STUMBLING = {"DBParameterGroupName": "moto puts the group itself in the place of its name"}
MISSING = {"LoadBalancerFullName": "moto does not know it", "TargetGroupFullName": "moto does not know it"}
REGION = "eu-west-1"


class Deployment:
    """The stacks of one example in moto: gives each template its parameters, as the root says."""

    def __init__(self, example: str, **changed: str) -> None:
        self.root = read_template(ROOT)
        parameters = self.root["Parameters"]
        self.parameters = {name: str(p["Default"]) for name, p in parameters.items() if "Default" in p}
        self.parameters |= read_example(example) | changed
        self.outputs: dict[str, dict[str, str]] = {}
        self.session = boto3.Session(region_name=REGION)
        self._formation = self.session.client("cloudformation")

    def client(self, service: str) -> Any:
        return self.session.client(service)  # type: ignore[call-overload]

    def run(self) -> None:
        """Makes every stack, in the order of what they need."""
        stacks = {each["Properties"]["TemplateURL"]: name for name, each in self.root["Resources"].items()}
        for child in CHILDREN:
            name = stacks[f"{child}.yaml"]
            given = self.root["Resources"][name]["Properties"]["Parameters"]
            wanted = {key: self._resolve(value) for key, value in given.items()}
            stack_name = f"{self.parameters['Name']}-{child}"
            self._formation.create_stack(
                StackName=stack_name,
                TemplateBody=json.dumps(supported_part(read_template(child))),
                Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in wanted.items()],
                Capabilities=["CAPABILITY_IAM"],
            )
            (stack,) = self._formation.describe_stacks(StackName=stack_name)["Stacks"]
            assert stack["StackStatus"] == "CREATE_COMPLETE"
            self.outputs[name] = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}

    def _resolve(self, value: Any) -> str:
        match value:
            case {"Ref": name}:
                return self.parameters[name]
            case {"Fn::GetAtt": [stack, output]}:
                return self.outputs[stack].get(output.removeprefix("Outputs."), "not-in-moto")
            case {"Fn::Join": [separator, {"Ref": name}]}:
                assert separator == ","
                return self.parameters[name]
        raise AssertionError(f"the root says something new: {value}")


def supported_part(template: dict[str, Any]) -> dict[str, Any]:
    """The template without what moto has no model of; whatever refers to that gets its name instead."""
    left_out = {name for name, each in template["Resources"].items() if each["Type"] in UNSUPPORTED}
    mention = re.compile(r"\$\{(" + "|".join(left_out or {"-"}) + r")(\.\w+)*\}")

    def replaced(value: Any) -> Any:
        match value:
            case {"Ref": name} | {"Fn::GetAtt": [name, _]} if name in left_out:
                return f"left-out-{name}"
            case {"Fn::GetAtt": [name, attribute]} if attribute in MISSING:
                return f"left-out-{name}"
            case {"Fn::Sub": str(text)}:
                return {"Fn::Sub": mention.sub(r"left-out-\1", text)}
            case {"DependsOn": name} if name in left_out:
                return replaced({key: each for key, each in value.items() if key != "DependsOn"})
            case dict():
                return {key: replaced(each) for key, each in value.items() if key not in STUMBLING}
            case list():
                return [replaced(each) for each in value]
        return value

    kept = {name: each for name, each in template["Resources"].items() if name not in left_out}
    whole: dict[str, Any] = replaced({**template, "Resources": kept})
    return whole


def prepare(example: str, monkeypatch: pytest.MonkeyPatch, **changed: str) -> Deployment:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    deployment = Deployment(example, MachineImage="/machine-image", **changed)
    certificate = deployment.client("acm").request_certificate(DomainName="images.example.org")
    deployment.parameters["CertificateArn"] = certificate["CertificateArn"]
    deployment.client("ssm").put_parameter(
        Name="/machine-image", Value="ami-12c6146b", Type="String", Overwrite=True
    )
    deployment.client("s3").create_bucket(
        Bucket=deployment.parameters["ImageBucket"], CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return deployment


@pytest.fixture(scope="module", params=EXAMPLES)
def deployed(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A worked example, deployed."""
    with pytest.MonkeyPatch.context() as patched, mock_aws():
        deployment = prepare(request.param, patched)
        deployment.run()
        yield deployment


def test_what_moto_cannot_make_is_known() -> None:
    """The resources that are not deployed here are exactly those of the list: moto's next version may know some."""
    used = {each["Type"] for name in NAMES for each in read_template(name)["Resources"].values()}
    assert used - set(get_model_map()) == UNSUPPORTED


def test_network_is_as_large_as_asked(deployed: Deployment) -> None:
    """Each zone has a public and a private subnet; S3 is reached by every private one without a gateway that costs."""
    compute = deployed.client("ec2")
    zones = int(deployed.parameters["Zones"])
    own = [{"Name": "vpc-id", "Values": [deployed.outputs["Network"]["Vpc"]]}]
    subnets = compute.describe_subnets(Filters=own)["Subnets"]
    assert len(subnets) == 2 * zones
    assert len({each["AvailabilityZone"] for each in subnets}) == zones
    gateways = compute.describe_nat_gateways(Filters=own)["NatGateways"]
    assert len(gateways) == (zones if deployed.parameters["WayOut"] == "gateway-per-zone" else 1)
    (storage,) = compute.describe_vpc_endpoints(Filters=own)["VpcEndpoints"]
    assert storage["ServiceName"] == f"com.amazonaws.{REGION}.s3"
    tables = compute.describe_route_tables(RouteTableIds=storage["RouteTableIds"])["RouteTables"]
    assert len(tables) == zones
    ways_out = [route.get("NatGatewayId") for table in tables for route in table["Routes"]]
    assert len({each for each in ways_out if each}) == len(gateways)


def test_database_is_as_asked(deployed: Deployment) -> None:
    """The database is encrypted, kept, and of the size of the example; the large one has a replica."""
    found = deployed.client("rds").describe_db_instances()["DBInstances"]
    databases = {each["DBInstanceIdentifier"]: each for each in found}
    database, chosen = databases.pop("lookalike-database"), deployed.parameters
    assert (database["StorageEncrypted"], database["PubliclyAccessible"]) == (True, False)
    assert database["KmsKeyId"] == deployed.outputs["Keys"]["Key"]
    assert database["DBInstanceClass"] == chosen["DatabaseClass"]
    assert database["AllocatedStorage"] == int(chosen["DatabaseStorage"])
    assert str(database["MultiAZ"]).lower() == chosen["DatabaseInTwoZones"]
    assert database.get("Iops", 0) == int(chosen["DatabaseIops"])
    assert [each["DBInstanceClass"] for each in databases.values()] == [
        each for each in [chosen.get("DatabaseReplicaClass", "")] if each
    ]


def test_an_upload_reaches_the_orchestrator(deployed: Deployment) -> None:
    """An upload and a deletion in the bucket come through EventBridge into the queue, and mean what they are."""
    bucket, storage = deployed.parameters["ImageBucket"], deployed.client("s3")
    # What README has the operator do.
    storage.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    name = "digitised/b12345678/v1/data/objects/b12345678_0001.jp2"
    storage.put_object(Bucket=bucket, Key=name, Body=b"x")
    storage.delete_object(Bucket=bucket, Key=name)

    settings = Settings(_env_file=None, s3_key=deployed.parameters["KeyPattern"])
    queue = Queue(f"sqs:{deployed.outputs['Events']['QueueUrl']}", settings)
    interpreter = Interpreter(settings)
    said = [each for received in queue.receive() for each in interpreter.interpret(received.message)]
    kinds = {type(each): each.key for each in said if isinstance(each, Image | Removal)}
    key = name.rpartition("/")[2] if "work" in deployed.parameters["KeyPattern"] else f"{bucket}/{name}"
    assert kinds == {Image: key, Removal: key}


def test_other_objects_are_not_heard_of(deployed: Deployment) -> None:
    """What lies outside of the prefix makes no message; what nobody understands ends among the dead letters."""
    queues = deployed.client("sqs")
    if prefix := deployed.parameters["ImagePrefix"]:
        storage, bucket = deployed.client("s3"), deployed.parameters["ImageBucket"]
        storage.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        storage.put_object(Bucket=bucket, Key=f"not-{prefix}x.jpg", Body=b"x")
    events = queues.get_queue_attributes(
        QueueUrl=deployed.outputs["Events"]["QueueUrl"], AttributeNames=["All"]
    )["Attributes"]
    assert events["ApproximateNumberOfMessages"] == "0"
    redrive = json.loads(events["RedrivePolicy"])
    assert redrive["maxReceiveCount"] == 5
    assert redrive["deadLetterTargetArn"].endswith(deployed.outputs["Events"]["DeadLettersName"])


def environment(deployed: Deployment, task: str) -> dict[str, str]:
    """What a container is told, secrets as their addresses."""
    containers = deployed.client("ecs").describe_task_definition(taskDefinition=task)["taskDefinition"]
    (container,) = containers["containerDefinitions"]
    secrets = {each["name"]: each["valueFrom"] for each in container["secrets"]}
    return {each["name"]: each["value"] for each in container["environment"]} | secrets


def test_programs_understand_what_they_are_told(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment of each container makes settings, whose addresses get the password that stands beside them."""
    for task in ("migrate", "orchestrator", "worker"):
        told = environment(deployed, f"lookalike-{task}")
        with monkeypatch.context() as patched:
            for name, value in told.items():
                patched.setenv(name, value.replace("left-out-", "secret-of-"))
            settings = load_settings()
            endpoints = services.up(settings)
            assert endpoints.database_url.startswith("postgresql://")
            assert ":secret-of-" in endpoints.database_url
            assert "@lookalike-database." in endpoints.database_url
            if task != "migrate":
                assert settings.encoder == deployed.parameters["Encoder"]
                assert endpoints.broker_url.startswith("rediss://lookalike:secret-of-Broker%3Apassword")
    namespace = environment(deployed, "lookalike-orchestrator")["LOOKALIKE_CLOUDWATCH_NAMESPACE"]
    assert namespace == "lookalike/lookalike"


def test_machines_come_only_with_work(deployed: Deployment) -> None:
    """There are none to begin with, and at most as many as the example allows, of three types, protected at work."""
    (group,) = deployed.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"]) == (0, int(deployed.parameters["MaximumWorkers"]))
    assert group["Instances"] == []
    assert group["NewInstancesProtectedFromScaleIn"] is True
    overrides = group["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
    assert [each["InstanceType"] for each in overrides] == deployed.parameters["MachineTypes"].split(",")


def test_nothing_runs_before_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first migration no program runs; then all but workers, who come with the backlog."""
    with mock_aws():
        stopped = prepare("large", monkeypatch, Name="stopped", ImageBucket="stopped-images")
        stopped.run()
        assert wanted(stopped) == {"orchestrator": 0, "explorer": 0, "worker": 0}
        running = prepare("large", monkeypatch, Name="running", ImageBucket="running-images", Running="true")
        running.run()
        explorers = int(running.parameters["ExplorerCount"])
        assert wanted(running) == {"orchestrator": 1, "explorer": explorers, "worker": 0}


def wanted(deployed: Deployment) -> dict[str, int]:
    """How many of each program the services want."""
    containers, cluster = deployed.client("ecs"), deployed.outputs["Services"]["Cluster"]
    found = {}
    for arn in containers.list_services(cluster=cluster)["serviceArns"]:
        (service,) = containers.describe_services(cluster=cluster, services=[arn])["services"]
        if program := re.search(r"-(\w+):\d+$", service["taskDefinition"]):
            found[program[1]] = service["desiredCount"]
    return found
