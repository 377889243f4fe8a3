"""Fixtures every room shares."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Nothing is written outside the folders of this session, and no library looks at the network or at the
# developer's own account. Read when the libraries are imported, hence not in a fixture.
_HOME = tempfile.TemporaryDirectory(prefix="llm-tests-")
os.environ.update(
    {
        **{name: f"{_HOME.name}/{name}" for name in ("XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR")},
        **{f"WANDB_{name}_DIR": f"{_HOME.name}/wandb" for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT")},
        **{"WANDB_MODE": "offline", "WANDB_SILENT": "true", "NETRC": os.devnull},
        **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"},
    }
)
os.environ.pop("WANDB_API_KEY", None)
# pytest starts a worker a core: each of them, and what they start, has one thread.
os.environ.update({f"{name}_THREADS": "1" for name in ("OMP_NUM", "POLARS_MAX", "RAYON_NUM")})

# The same examples in every run, none of them kept; `pytest --hypothesis-profile=default` looks for new ones.
hypothesis.settings.register_profile("suite", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("suite")

# Before anything of these rooms is imported: every call in a test then holds its tensors against the shapes
# in the signatures.
install_import_hook(
    ["llm.models", "llm.generation", "llm.training", "llm.alignment"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data sets and models that lies beside a developer's checkout."""
    folder = Path(os.environ.get("LLM_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data sets are not here: set LLM_SHARED (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The override that trains on a small text."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 40)
    return f"data.path={path}"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


class Main:
    """The command line, as a user types it in `home`: in this process, or in processes of its own."""

    class Done(NamedTuple):
        code: int
        out: str
        err: str

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str) -> Main.Done:
        """In this process: fast, because torch is imported already."""
        from llm.config import cli

        out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
        saved = sys.argv, signal.getsignal(signal.SIGTERM), os.environ.pop("HYDRA_FULL_ERROR", None)
        try:
            os.chdir(self.home)
            sys.argv = [str(REPOSITORY / "main.py"), *arguments]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = cli("llm.tasks.launch:launch")
                except SystemExit as leaving:
                    code = int(leaving.code or 0)
        finally:
            os.chdir(before)
            sys.argv = saved[0]
            signal.signal(signal.SIGTERM, saved[1])
            os.environ.pop("HYDRA_FULL_ERROR", None)
        return Main.Done(code, out.getvalue(), err.getvalue())

    def process(self, *arguments: str, **options: Any) -> Main.Done:
        """In a process of its own."""
        return self._run([sys.executable, str(REPOSITORY / "main.py"), *arguments], **options)

    def torchrun(self, processes: int, *arguments: str) -> Main.Done:
        """Under torchrun, one thread a process."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return self._run(
            [*launcher, f"--nproc_per_node={processes}", str(REPOSITORY / "main.py"), *arguments]
        )

    def _run(self, command: list[str], **options: Any) -> Main.Done:
        environment = {**os.environ, **options.pop("env", {})}
        done = subprocess.run(
            command, cwd=self.home, env=environment, capture_output=True, text=True, timeout=300, **options
        )
        return Main.Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def main(tmp_path: Path) -> Main:
    """The command line in a fresh folder."""
    home = tmp_path / "home"
    home.mkdir()
    return Main(home)


class Site:
    """A web server of this machine, in place of the network: what it has, and what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.claims_bytes: int | None = None
        self.address = ""


@pytest.fixture
def site() -> Iterator[Site]:
    content = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content.asked.append(self.path)
            page = content.pages.get(self.path)
            self.send_response(404 if page is None else 200)
            length = len(page or b"") if content.claims_bytes is None else content.claims_bytes
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    content.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield content
    server.shutdown()
    server.server_close()
    thread.join()
