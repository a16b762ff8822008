"""What must hold of infra/aws whatever is changed in it. tests/integration/test_aws_template.py deploys it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app
from lookalike.logins import LOGINS
from lookalike.settings import Settings
from orchestrator.cloudwatch import METRICS
from tests.cloud_templates import (
    CHILDREN,
    EXAMPLES,
    FOLDER,
    NAMES,
    ROOT,
    nodes,
    read_example,
    read_template,
    resources,
)

CHECKOUT = FOLDER.parents[1]
# Each statement of a policy that has a wildcard, with the reason. In the policy of a key, "*" is the key itself.
WILDCARDS = {
    "keys.Key/AccountOwnsKey": "without it nobody could ever change the key again; AWS's own default",
    "keys.Key/LogsUseKey": "the resource of a key's policy is the key",
    "keys.Key/EventsUseKey": "the resource of a key's policy is the key",
    "keys.Key/AlarmsUseKey": "the resource of a key's policy is the key",
    "services.StartPolicy/RegistryToken": "ecr:GetAuthorizationToken knows no resource",
    "services.OrchestratorRole/Metrics": "cloudwatch:PutMetricData knows no resource; a condition names the namespace",
}
# Policies of AWS's, which we do not see, with the reason.
FOREIGN_POLICIES = {
    "workers.MachineRole": "what the agent of ECS needs changes with its versions; no container reaches it"
}
# Variables of containers that are no settings of ours, with who reads them.
FOREIGN_VARIABLES = {"AWS_DEFAULT_REGION": "boto3", "NVIDIA_DRIVER_CAPABILITIES": "the container runtime"}
# The command and settings of the explorer, which may come to this version later than the template.
OF_THE_EXPLORER = {"LOOKALIKE_EXPLORER_TOKENS", "LOOKALIKE_EXPLORER_PROXIES"}


def known_commands() -> set[str]:
    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def containers() -> dict[str, dict[str, Any]]:
    """The containers of all tasks, by their names."""
    return {
        container["Name"]: container
        for _, task in resources("AWS::ECS::TaskDefinition")
        for container in task["Properties"]["ContainerDefinitions"]
    }


def statements() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every statement of every policy but the trust of roles, by `template.resource/Sid`, with its kind of resource."""
    found = {}
    for name, resource in resources():
        for node in nodes(resource.get("Properties")):
            if not isinstance(node, dict):
                continue
            for key, policy in node.items():
                if key in ("PolicyDocument", "KeyPolicy"):
                    for number, statement in enumerate(policy["Statement"]):
                        found[f"{name}/{statement.get('Sid', number)}"] = (resource["Type"], statement)
    return found


def test_rights_are_narrow() -> None:
    """A wildcard in an action, or as a resource, or a policy of somebody else's has a reason that is written down."""
    wide = set()
    for name, (_, statement) in statements().items():
        if statement["Effect"] != "Allow":
            continue
        actions, named = (
            [each] if not isinstance(each, list) else each
            for each in (statement["Action"], statement["Resource"])
        )
        assert "NotAction" not in statement
        if any("*" in action for action in actions) or "*" in named:
            wide.add(name)
    assert wide == set(WILDCARDS)
    foreign = {
        name
        for name, role in resources("AWS::IAM::Role")
        if any("iam::aws:policy" in str(policy) for policy in role["Properties"].get("ManagedPolicyArns", []))
    }
    assert foreign == set(FOREIGN_POLICIES)


def test_no_principal_is_everybody() -> None:
    """Everybody is named only where something is denied."""
    for name, (_, statement) in statements().items():
        if statement.get("Principal") == "*" or "*" in (statement.get("Principal") or {}).values():
            assert statement["Effect"] == "Deny", name


def test_each_program_reads_its_own_secrets_alone() -> None:
    """What starts a program may read exactly the secrets that the program is given."""
    roles = {name.split(".")[1]: role for name, role in resources("AWS::IAM::Role")}
    for _, task in resources("AWS::ECS::TaskDefinition"):
        given = {
            re.sub(r"\$\{(\w+)\}.*", r"\1", next(iter(secret["ValueFrom"].values())))
            for container in task["Properties"]["ContainerDefinitions"]
            for secret in container["Secrets"]
        }
        role = roles[task["Properties"]["ExecutionRoleArn"]["Fn::GetAtt"][0]]
        (policy,) = role["Properties"]["Policies"]
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert {each["Ref"] for each in statement["Resource"]} == given


def test_a_program_may_do_no_more_than_it_needs() -> None:
    """A worker reads images and nothing else; only the orchestrator takes messages and publishes figures."""
    policies = {
        name.split(".")[1]: policy["Properties"] for name, policy in resources("AWS::IAM::ManagedPolicy")
    }

    def allowed(role: dict[str, Any]) -> set[str]:
        parts = [
            *role.get("Policies", []),
            *(policies[arn["Ref"]] for arn in role.get("ManagedPolicyArns", [])),
        ]
        actions = [each["Action"] for part in parts for each in part["PolicyDocument"]["Statement"]]
        return {name for each in actions for name in ([each] if isinstance(each, str) else each)}

    roles = {
        name: allowed(role["Properties"])
        for name, role in resources("AWS::IAM::Role")
        if name not in FOREIGN_POLICIES
    }
    images = {"s3:GetObject", "s3:ListBucket", "kms:Decrypt"}
    queue = {"sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:DeleteMessage"}
    programs = {name: actions for name, actions in roles.items() if "StartRole" not in name}
    assert programs == {
        "services.OrchestratorRole": images | queue | {"cloudwatch:PutMetricData"},
        "services.ExplorerRole": images,
        "workers.WorkerRole": images,
    }
    migrate = next(task for name, task in resources("AWS::ECS::TaskDefinition") if name == "services.Migrate")
    assert "TaskRoleArn" not in migrate["Properties"]


def test_secrets_are_in_secrets_manager() -> None:
    """No parameter is a secret, no container has one among its plain variables, and passwords stand in no address."""
    for template in NAMES:
        for name, parameter in read_template(template).get("Parameters", {}).items():
            secret = re.search(r"password|token|secret", name, re.IGNORECASE)
            assert not secret or template != ROOT or parameter.get("NoEcho"), name
    for container in containers().values():
        plain = {each["Name"]: str(each["Value"]) for each in container["Environment"]}
        assert not [name for name in plain if re.search("PASSWORD|TOKEN|SECRET", name)]
        assert not [value for value in plain.values() if re.search(r"//[^/@]*:[^/@]*@", value)]
    passwords = [
        node[key]
        for _, resource in resources()
        for node in nodes(resource.get("Properties"))
        if isinstance(node, dict)
        for key in node.keys() & {"MasterUserPassword", "AuthToken", "Passwords"}
    ]
    assert len(passwords) == 3
    assert all("{{resolve:secretsmanager:" in str(password) for password in passwords)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (
            "AWS::ElastiCache::ReplicationGroup",
            ["AtRestEncryptionEnabled", "TransitEncryptionEnabled", "KmsKeyId"],
        ),
        ("AWS::SQS::Queue", ["KmsMasterKeyId"]),
        ("AWS::SNS::Topic", ["KmsMasterKeyId"]),
        ("AWS::SecretsManager::Secret", ["KmsKeyId"]),
        ("AWS::Logs::LogGroup", ["KmsKeyId", "RetentionInDays"]),
        ("AWS::ECR::Repository", ["EncryptionConfiguration"]),
    ],
)
def test_storage_is_encrypted(kind: str, wanted: list[str]) -> None:
    """Whatever keeps something keeps it encrypted; logs end."""
    found = list(resources(kind))
    assert found
    for name, resource in found:
        assert all(resource["Properties"].get(key) for key in wanted), name


def test_disks_are_encrypted() -> None:
    """So are the database, its replica (with its source) and the disks of the machines; connections ask for TLS."""
    for name, database in resources("AWS::RDS::DBInstance"):
        properties = database["Properties"]
        assert properties.get("StorageEncrypted") is True or "SourceDBInstanceIdentifier" in properties, name
        assert properties["PubliclyAccessible"] is False
        # Whoever deletes the stack has a snapshot left.
        assert database["DeletionPolicy"] == (
            "Delete" if "SourceDBInstanceIdentifier" in properties else "Snapshot"
        )
    for _, machine in resources("AWS::EC2::LaunchTemplate"):
        data = machine["Properties"]["LaunchTemplateData"]
        assert [each["Ebs"]["Encrypted"] for each in data["BlockDeviceMappings"]] == [True]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
    for _, group in resources("AWS::RDS::DBParameterGroup"):
        assert group["Properties"]["Parameters"]["rds.force_ssl"] == "1"
    for container in containers().values():
        plain = {each["Name"]: str(each["Value"]) for each in container["Environment"]}
        assert "sslmode=verify-full&sslrootcert=/etc/ssl/rds.pem" in plain["DATABASE_URL"]
        assert "rediss://" in plain["BROKER_URL"]
    assert "/etc/ssl/rds.pem" in (FOLDER / "Dockerfile").read_text()


def test_only_the_load_balancer_is_open() -> None:
    """Others come in by port 443 of the balancer; analysts from one network, by default from none."""
    ways_in = {}
    for name, group in resources("AWS::EC2::SecurityGroup"):
        for rule in group["Properties"].get("SecurityGroupIngress", []):
            if "CidrIp" in rule:
                ways_in[name] = (rule["FromPort"], rule["ToPort"], str(rule["CidrIp"]))
    for name, rule in resources("AWS::EC2::SecurityGroupIngress"):
        properties = rule["Properties"]
        ways_in[name] = (properties["FromPort"], properties["ToPort"], str(properties["CidrIp"]))
    assert ways_in == {
        "network.BalancerGroup": (443, 443, str({"Ref": "WebNetwork"})),
        "network.EndpointGroup": (443, 443, str({"Fn::GetAtt": ["Vpc", "CidrBlock"]})),
        "network.AnalystsToDatabase": (5432, 5432, str({"Ref": "AnalystNetwork"})),
    }
    analysts = read_template(ROOT)["Parameters"]["AnalystNetwork"]
    assert analysts["Default"] == ""
    assert not re.fullmatch(analysts["AllowedPattern"], "0.0.0.0/0")
    assert not [
        name for name, each in resources("AWS::EC2::Subnet") if each["Properties"]["MapPublicIpOnLaunch"]
    ]
    assert [each["Properties"]["Port"] for _, each in resources("AWS::ElasticLoadBalancingV2::Listener")] == [
        443
    ]


def test_containers_run_what_there_is() -> None:
    """Every container runs a command of ours, on a file system that it cannot change, and keeps its log."""
    commands = {name: container["Command"] for name, container in containers().items()}
    assert {name: words[1] for name, words in commands.items()} == {
        "migrate": "migrate",
        "orchestrator": "orchestrate",
        "explorer": "serve",
        "worker": "worker",
    }
    assert {words[0] for words in commands.values()} == {"lookalike"}
    assert {words[1] for words in commands.values()} - known_commands() <= {"serve"}
    assert "--logins" in commands["migrate"]
    for name, container in containers().items():
        assert container["ReadonlyRootFilesystem"] is True
        assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
        assert container["LogConfiguration"]["LogDriver"] == "awslogs"
        health = container.get("HealthCheck", {}).get("Command", ["CMD", "lookalike", "ready"])
        assert health[1] == "lookalike", name
        assert health[2] in known_commands()


def test_variables_are_settings() -> None:
    """Whatever a container is told is a setting of this version, or read by somebody who is named."""
    settings = {
        str(field.validation_alias or f"LOOKALIKE_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    told = {
        each["Name"]
        for container in containers().values()
        for each in container["Environment"] + container["Secrets"]
    }
    unknown = told - settings - set(FOREIGN_VARIABLES)
    assert unknown <= (set() if "serve" in known_commands() else OF_THE_EXPLORER)


def test_migrations_give_every_login() -> None:
    """The migration is told a password for each login, and each program logs in as one of them."""
    migrate = {each["Name"] for each in containers()["migrate"]["Secrets"]}
    assert migrate == {"DATABASE_PASSWORD"} | {f"LOOKALIKE_{login.setting.upper()}" for login in LOGINS}
    users = {
        name: re.search(r"postgresql://(\w+)@", str(container["Environment"]))
        for name, container in containers().items()
    }
    found = {name: match[1] for name, match in users.items() if match}
    assert found.pop("migrate") == "lookalike"
    assert found == {"orchestrator": "orchestrator", "explorer": "explorer", "worker": "worker"}
    assert set(found.values()) <= {login.name for login in LOGINS}


def test_a_worker_may_finish_what_it_holds() -> None:
    """ECS waits longer than a stopping worker takes, and less than the two minutes that a Spot machine has."""
    worker = containers()["worker"]
    (stop,) = [each["Value"] for each in worker["Environment"] if each["Name"] == "LOOKALIKE_STOP_SECONDS"]
    assert float(stop) < worker["StopTimeout"] < 120


def test_alarms_ask_for_what_is_published() -> None:
    """Each metric of ours that alarms or scaling ask for is one that the orchestrator publishes, and none is idle."""
    asked = set()
    for _, alarm in resources("AWS::CloudWatch::Alarm"):
        for node in nodes(alarm["Properties"]):
            if isinstance(node, dict) and "MetricName" in node and "lookalike/" in str(node["Namespace"]):
                assert node["Dimensions"] == [{"Name": "Encoder", "Value": {"Ref": "Encoder"}}]
                asked.add(node["MetricName"])
        assert alarm["Properties"]["AlarmActions"]
    assert asked | {"BacklogPerWorker"} == set(METRICS)
    (namespace,) = [
        each["Value"]
        for each in containers()["orchestrator"]["Environment"]
        if each["Name"] == "LOOKALIKE_CLOUDWATCH_NAMESPACE"
    ]
    assert namespace == {"Fn::Sub": "lookalike/${Name}"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_fewer_workers_towards_the_end_of_a_backlog_are_no_alarm(example: str) -> None:
    """The plan is held against as many workers as there may be, and not against the few that the rest needs."""
    defaults = {name: one.get("Default") for name, one in read_template(ROOT)["Parameters"].items()}
    given = {**defaults, **read_example(example)}
    planned, most = int(given["PlannedImagesPerMinute"]), int(given["MaximumWorkers"])
    metrics = read_template("alarms")["Resources"]["ThroughputUnderPlan"]["Properties"]["Metrics"]
    (expression,) = [each["Expression"]["Fn::Sub"] for each in metrics if each["ReturnData"]]
    condition = re.fullmatch(r"IF\((.+), 1, 0\)", expression)
    assert condition is not None
    words = condition[1].replace("${PlannedImagesPerMinute}", str(planned))
    words = words.replace("AND", "and").replace("OR", "or").replace("open", "waiting")

    def alarms(waiting: float, done: float) -> bool:
        return bool(eval(words, {}, {"waiting": waiting, "done": done}))

    # From which backlog on there are 1, 2, 4… workers.
    steps = [0, *map(int, given["BacklogSteps"].split(","))]
    for number, step in enumerate(steps):
        workers = min(2**number, most)
        assert not alarms(step + 1, planned * workers / most)
    assert alarms(60 * planned, planned * 0.9)
    assert alarms(1, 0)
    assert not alarms(0, 0)


def test_root_gives_each_template_what_it_asks_for() -> None:
    """The parameters of every nested template are given, no others are, and what they come from is an output."""
    root = read_template(ROOT)
    stacks = {stack["Properties"]["TemplateURL"]: stack for stack in root["Resources"].values()}
    assert set(stacks) == {f"{name}.yaml" for name in CHILDREN}
    urls = {
        name: stack["Properties"]["TemplateURL"].removesuffix(".yaml")
        for name, stack in root["Resources"].items()
    }
    for child in CHILDREN:
        given = stacks[f"{child}.yaml"]["Properties"]["Parameters"]
        assert set(given) == set(read_template(child)["Parameters"])
    for node in nodes(root):
        if isinstance(node, dict) and "Fn::GetAtt" in node:
            stack, output = node["Fn::GetAtt"]
            assert output.removeprefix("Outputs.") in read_template(urls[stack])["Outputs"]
    used = {node["Ref"] for node in nodes(root["Resources"]) if isinstance(node, dict) and "Ref" in node}
    assert used == set(root["Parameters"])
    shown = [
        name
        for group in root["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    ]
    assert sorted(shown) == sorted(root["Parameters"])


@pytest.mark.parametrize("example", EXAMPLES)
def test_worked_examples_are_valid(example: str) -> None:
    """Every parameter of an example exists and has a value that the template takes; those without default are there."""
    parameters = read_template(ROOT)["Parameters"]
    given = read_example(example)
    assert set(given) <= set(parameters)
    assert {name for name, parameter in parameters.items() if "Default" not in parameter} <= set(given)
    for name, value in {
        **{n: str(p["Default"]) for n, p in parameters.items() if "Default" in p},
        **given,
    }.items():
        rules = parameters[name]
        assert re.fullmatch(rules.get("AllowedPattern", ".*"), value), name
        assert value in map(str, rules.get("AllowedValues", [value])), name
        if rules["Type"] == "Number":
            assert rules.get("MinValue", 0) <= float(value) <= rules.get("MaxValue", 2**31), name


@pytest.mark.parametrize("example", EXAMPLES)
def test_worked_examples_make_sense(example: str) -> None:
    """What RDS and we ask of combinations: storage that can grow, IOPS where they are allowed, steps that ascend."""
    parameters = read_template(ROOT)["Parameters"]
    chosen = {n: str(p["Default"]) for n, p in parameters.items() if "Default" in p} | read_example(example)
    storage, limit, iops = (
        int(chosen[name]) for name in ("DatabaseStorage", "DatabaseStorageLimit", "DatabaseIops")
    )
    assert limit >= 1.1 * storage
    assert (iops == 0) if storage < 400 else (12_000 <= iops <= 64_000)
    steps = [int(step) for step in chosen["BacklogSteps"].split(",")]
    assert len(steps) == 5
    assert steps == sorted(set(steps))
    assert len(chosen["MachineTypes"].split(",")) == 3
    re.compile(chosen["KeyPattern"])
    Settings(_env_file=None, s3_key=chosen["KeyPattern"], suffixes=chosen["Suffixes"] or None)


def test_readme_documents_every_parameter_and_command() -> None:
    """The table of parameters is that of the template, with its defaults; commands name what exists."""
    readme = (FOLDER / "README.md").read_text()
    root = read_template(ROOT)
    for name, parameter in root["Parameters"].items():
        default = f"`{parameter['Default']}`" if parameter.get("Default", "") != "" else ""
        assert f"| `{name}` | {default} | {parameter['Description']} |" in readme
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert blocks
    for word in shlex.split("\n".join(blocks), comments=True):
        if (found := re.search(r"infra/[\w./-]+", word)) and not word.endswith("packaged.yaml"):
            assert (CHECKOUT / found[0]).exists(), word
    for output in re.findall(r"OutputKey==`(\w+)`", readme) + re.findall(r"outputs? `(\w+)`", readme):
        assert output in root["Outputs"], output


def test_linters_know_the_files() -> None:
    """`make check` runs cfn-lint over every template; hadolint finds no fault in the Dockerfile."""
    assert "$(BIN)/cfn-lint" in (CHECKOUT / "Makefile").read_text()
    assert "templates: [infra/aws/*.yaml]" in (CHECKOUT / ".cfnlintrc").read_text()
    tools = Path(sys.executable).parent
    done = subprocess.run(
        [tools / "hadolint", FOLDER / "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
