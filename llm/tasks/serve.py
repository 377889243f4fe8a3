"""task=serve: a trained model behind an OpenAI-compatible API, and a chat page for the browser."""

from __future__ import annotations

from pathlib import Path

from llm import runtime
from llm.checkpoints.pretrained import Pretrained, of_one_model
from llm.runs.run import Run
from llm.serving.server import require_libraries, run_until_stopped, take, url
from llm.serving.settings import LOCAL_NAMES, Serving
from llm.types import ConfigError


@of_one_model
def serve(
    *, run: Run, serving: Serving, checkpoint: str | None = None, model: Pretrained | None = None
) -> None:
    """Serves until Ctrl-C.

    The port is taken before the model is loaded: a mistake in either shows at once.

    Args:
        run: Says where the server is.
        serving: Where to listen and how much to take on.
        checkpoint: A run's folder or one of its checkpoints, a Hugging Face directory, or a GGUF file.
        model: A trained model in place of `checkpoint`, as ``model=pretrained model.hub=org/name``.

    Raises:
        ConfigError: the libraries for serving are missing, the port is in use, or `checkpoint` is none.
    """
    require_libraries()
    if runtime.world_size() > 1:
        raise ConfigError("task", "serve", "runs in one process; start it without torchrun")
    with take(serving.host, serving.port) as opened:
        from llm.serving.local import LocalEngine, name_of

        trained, tokenizer, info = Pretrained.chosen(checkpoint, model).load(run)
        place = Path(info["path"])
        engine = LocalEngine(
            trained,
            tokenizer,
            runtime.device(),
            name=serving.model_name or name_of(place),
            created=int(place.stat().st_mtime),
            chats=bool(info.get("chat")),
        )
        if serving.host not in LOCAL_NAMES:
            run.say(f"{serving.host} can be reached by other machines, and there is no password.")
        address = url(opened)

        def announce() -> None:
            run.say(f"{engine.name} is at {address} (API: {address}v1); Ctrl-C stops it.")

        run_until_stopped(engine, serving, opened, announce)
