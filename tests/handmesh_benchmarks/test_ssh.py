"""Another host, whose ssh is a program of our own that runs the command here; and a true sshd."""

from __future__ import annotations

import ast
import getpass
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from handmesh import Bundle
from handmesh.errors import BackendUnavailable, DeviceError, InputError, IntegrityError
from handmesh_benchmarks import results
from handmesh_benchmarks.devices import ssh
from handmesh_benchmarks.protocol import Protocol
from handmesh_benchmarks.variants import Variant

SHORT = Protocol(min_runs=2, min_seconds=0, warmup_runs=0, rounds=2, pause_s=0)
# The last argument is the command; "gone" is a host that does not answer, as is every host once
# there is a file "dropped".
SSH = """#!/bin/sh
for last; do :; done
case "$*" in
  *" gone "*) echo "ssh: connect to host gone port 22: No route to host" >&2; exit 255;;
esac
[ -e "{home}/dropped" ] && echo "No route to host" >&2 && exit 255
(cd "{home}" && TMPDIR="{home}" PYTHONPATH= exec sh -c "$last")
code=$?
[ -e "{home}/dropped" ] && exit 255
exit $code
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The far side's home; `ssh` is ours."""
    tools, home = tmp_path / "tools", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    program = tools / "ssh"
    program.write_text(SSH.format(home=home))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return home


@pytest.fixture
def variant() -> Variant:
    return Variant(Bundle.load(), "onnx", "fp16")


def _measure(variant: Variant, host: str = "board", options: str = "", **given: Any) -> Any:
    return ssh.measure(
        ssh.Host(host, options), [variant], {}, [1], given.pop("protocol", SHORT),
        given.pop("write", lambda results: None), given.pop("say", lambda line: None),
        python=given.pop("python", sys.executable), **given,
    )  # fmt: skip


def _python_with(home: Path, code: str) -> str:
    """This Python, which runs code of the test before anything else."""
    python, site = home.parent / "python", home.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_artifact_goes_there_and_figures_come_back(home: Path, variant: Variant) -> None:
    kept: list[dict[str, Any]] = []

    found = _measure(variant, write=lambda results: kept.append(results.to_dict()))

    yardstick, row = found.measurements
    assert yardstick.facts["task"] == "yardstick"
    assert row.name == "network light onnx fp16 1"
    assert row.facts["provider"].startswith("onnxruntime")
    assert row.facts["artifact"]["accuracy"]["mm"] > 0
    assert row.facts["memory"]["peak_mib"] > row.facts["memory"]["before_mib"] > 0
    assert row.runs >= 2
    assert found.state == "complete"
    assert found.context["measured_on"] == "ssh:board"
    jsonschema.validate(found.to_dict(), results.schema())
    assert kept[-1] == found.to_dict()
    # Empty ones at once, which say whether they can be written; then after every round.
    assert [len(one["measurements"]) for one in kept] == [0, 0, 2, 2, 2, 2]
    assert {one["began"] for one in kept} == {found.began}
    assert [path for path in home.iterdir() if path.is_dir()] == []  # its folder is gone


def test_an_unreachable_host_says_what_to_try(home: Path, variant: Variant) -> None:
    with pytest.raises(DeviceError, match=r"No route to host.*ssh gone true"):
        _measure(variant, "gone")
    with pytest.raises(DeviceError, match="expected ssh:HOST"):
        ssh.Host("-oProxyCommand=x")


def test_a_host_without_python_or_numpy_says_so(home: Path, variant: Variant) -> None:
    with pytest.raises(DeviceError, match=r"needs Python 3.8.*--python"):
        _measure(variant, python="python-nowhere")


def test_a_missing_runtime_says_what_to_install(home: Path, variant: Variant) -> None:
    no_onnxruntime = _python_with(
        home,
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'onnxruntime' else found(name, *a)\n",
    )

    with pytest.raises(BackendUnavailable, match="pip install onnxruntime"):
        _measure(variant, python=no_onnxruntime)


def test_a_provider_that_is_not_there_is_not_replaced(home: Path, variant: Variant) -> None:
    with pytest.raises(BackendUnavailable, match="has no CUDAExecutionProvider"):
        _measure(variant, provider="CUDAExecutionProvider")


def test_an_interrupted_run_there_keeps_what_it_had(home: Path, variant: Variant) -> None:
    kept: list[dict[str, Any]] = []

    def interrupt(line: str) -> None:
        if "measured" in line:
            raise KeyboardInterrupt

    endless = Protocol(min_runs=10**9, min_seconds=1e9, warmup_runs=0, rounds=10**9, pause_s=0)
    with pytest.raises(KeyboardInterrupt):
        _measure(
            variant, protocol=endless, say=interrupt,
            write=lambda results: kept.append(results.to_dict()),
        )  # fmt: skip

    partial = kept[-1]
    assert (partial["state"], partial["stopped_by"]) == ("partial", "KeyboardInterrupt")
    assert partial["measurements"][1]["runs"] >= 1
    jsonschema.validate(partial, results.schema())


def test_a_connection_that_ends_takes_no_figure_with_it(home: Path, variant: Variant) -> None:
    said: list[str] = []

    def dropped(line: str) -> None:
        said.append(line)
        if "measured 2 runs" in line:
            (home / "dropped").touch()

    found = _measure(variant, say=dropped)

    assert (found.state, found.stopped_by) == ("complete", "")  # the last line held it all
    assert [row.runs for row in found.measurements] == [2, 2]
    (folder,) = [path for path in home.iterdir() if path.is_dir()]
    assert f"the folder {folder} stays on board" in said[-1]
    assert json.loads((folder / ssh.RESULTS).read_text())["state"] == "complete"


def test_a_crash_there_leaves_partial_results(home: Path, variant: Variant) -> None:
    python = _python_with(
        home,
        "import os\nreplace, left = os.replace, [2]\n"
        "def dies(*paths):\n"
        "    left[0] -= 1\n"
        "    os._exit(139) if left[0] < 0 else replace(*paths)\n"  # in the second round
        "os.replace = dies\n",
    )

    found = _measure(variant, python=python)

    assert (found.state, found.stopped_by) == ("partial", "exit code 139 there")
    assert [row.runs for row in found.measurements] == [1, 1]


def test_a_crash_before_any_figure_is_an_error(home: Path, variant: Variant) -> None:
    python = home.parent / "python"
    python.write_text("#!/bin/sh\ncase $1 in -c) exit 0;; esac\necho Killed >&2; exit 137\n")
    python.chmod(0o755)

    with pytest.raises(DeviceError, match="board measured nothing, exit code 137 there: Killed"):
        _measure(variant, python=str(python))


def test_results_that_cannot_be_written_are_known_before_the_run(
    home: Path, variant: Variant
) -> None:
    def write(results: Any) -> None:
        raise InputError("the disk is full")

    with pytest.raises(InputError, match="the disk is full"):
        _measure(variant, write=write)
    assert list(home.iterdir()) == []


def test_parts_are_files_of_their_own(tmp_path: Path, variant: Variant) -> None:
    files = {}
    for part in ("trunk", "mesh", "pose"):
        files[part] = tmp_path / f"{part}.onnx"
        files[part].write_bytes(part.encode())

    rows, sent = ssh.job_of([variant], {"light": files}, [3], "auto")

    whole, parts = rows
    assert [entry["sha256"] for entry in parts["files"]] == [
        hashlib.sha256(part.encode()).hexdigest() for part in files
    ]
    assert [entry["stage"] for entry in parts["files"]] == ["trunk", "mesh", "pose"]
    assert all(sent[entry["path"]] == files[entry["stage"]] for entry in parts["files"])
    artifact = parts["facts"]["artifact"]
    assert artifact["sha256"] == hashlib.sha256(b"trunkmeshpose").hexdigest()
    assert artifact["bytes"] == len(b"trunkmeshpose")
    # The whole network's were measured with other bytes.
    assert (artifact["parity"], artifact["accuracy"]) == (None, None)
    assert whole["facts"]["artifact"]["parity"] is not None
    assert (parts["name"], parts["threads"], parts["facts"]["threads"]) == (
        "parts light onnx 3", 3, 3,
    )  # fmt: skip


def test_what_is_missing_beforehand_is_in_the_results(home: Path, variant: Variant) -> None:
    found = _measure(variant, missing=["light by tflite: no package"])
    assert found.missing == ["light by tflite: no package"]


def test_an_artifact_that_is_not_the_manifest_s_is_not_sent(home: Path, tmp_path: Path) -> None:
    shipped = Bundle.load()
    copy = tmp_path / "copy"
    shutil.copytree(shipped.folder, copy)
    model = copy / "model.onnx"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)

    with pytest.raises(IntegrityError, match="sha256 differs"):
        _measure(Variant(Bundle.load(copy), "onnx", "fp16"))


def test_a_file_damaged_on_its_way_is_not_run(tmp_path: Path, variant: Variant) -> None:
    rows, files = ssh.job_of([variant], {}, [1], "CPUExecutionProvider")
    (tmp_path / rows[0]["files"][0]["path"]).write_bytes(b"damaged")
    (tmp_path / ssh.RUNNER).write_bytes(ssh.runner_archive())
    job = {"protocol": vars(SHORT), "rows": rows}
    (tmp_path / "job.json").write_text(json.dumps(job))

    done = subprocess.run(
        [sys.executable, ssh.RUNNER, "job.json", "out.json"], cwd=tmp_path, capture_output=True
    )

    assert done.returncode == 3
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["name"] for row in written["measurements"]] == ["yardstick"]
    assert "is not the file that was sent" in written["missing"][0]
    assert next(iter(files.values())).is_file()


def test_the_runner_is_alone_and_reads_as_python_3_8() -> None:
    with zipfile.ZipFile(io.BytesIO(ssh.runner_archive())) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}

    for name, source in sources.items():
        ast.parse(source, name, feature_version=(3, 8))
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = f"{Path(name).parent}.{node.module or ''}" if node.level else node.module or ""
            asked = (
                [f"{module}{alias.name}" for alias in node.names] if not node.module else [module]
            )
            for one in asked:
                if one.startswith("handmesh"):
                    assert f"{one.replace('.', '/')}.py" in sources, f"{name} imports {one}"


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Options by which ssh reaches a server of this test."""
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    if not os.path.exists(server) or shutil.which("ssh-keygen") is None:
        pytest.skip("OpenSSH's server is not installed")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = keys / "config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys / 'host'}\nStrictModes no\n"
        f"AuthorizedKeysFile {keys / 'user.pub'}\nPidFile none\nUsePAM no\n"
    )
    process = subprocess.Popen(
        [server, "-D", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        for _ in range(50):
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.skip(f"sshd does not start here: {process.stderr.read().decode()[:200]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield (
            f"-p {port} -i {keys / 'user'} -o StrictHostKeyChecking=no "
            f"-o UserKnownHostsFile={keys / 'known'}"
        )
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_over_a_true_sshd(sshd: str, variant: Variant) -> None:
    try:
        ssh.Host(f"{getpass.getuser()}@127.0.0.1", sshd).run("true")
    except DeviceError as error:
        pytest.skip(f"this user cannot log in: {error}")

    found = _measure(variant, f"{getpass.getuser()}@127.0.0.1", sshd)

    assert found.state == "complete"
    assert [row.runs >= 2 for row in found.measurements] == [True, True]
