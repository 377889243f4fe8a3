"""A static cache keeps its shapes: torch compiles the step of a token once and uses it for all of them."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from tests.conftest import REPOSITORY

# In a process of its own, because the checks of shapes in this one cannot be compiled.
SCRIPT = """
    from dataclasses import replace
    from functools import partial
    import torch
    from llm.generation.engine import Generator
    from llm.generation.sampling import Settings
    from tests.generation.fakes import ByteTokenizer
    from tests.models.composition import small

    graphs = 0
    def count(graph, inputs):
        global graphs
        graphs += 1
        return graph.forward

    torch.set_num_threads(1)
    torch.compile = partial(torch.compile, backend=count, fullgraph=True)
    prompts = [[72, 101, 108, 108, 111], [65], [10, 66, 200, 3, 9, 9, 1, 2, 40], [65, 66]]
    model = small("mistral", vocab_size=257, n_kv_heads=2, max_seq_len=64).eval()
    for block in model.layers():
        block.attention.window = 5
    generator = Generator(model, ByteTokenizer())
    settings = Settings(temperature=1.0, max_new_tokens=20, seed=11)
    expected = generator.generate(prompts, settings)
    static = replace(settings, cache="static", compile=True)
    for n in (4, 1, 1):
        assert [c.ids for c in generator.generate(prompts[:n], static)] == [c.ids for c in expected[:n]]
        print(graphs)
    # Other lengths of prompts and answers, and rows that end before others do.
    free = generator.generate(prompts, replace(settings, seed=3))
    stops = tuple(completion.ids[4 * i + 3] for i, completion in enumerate(free))
    ended = [replace(s, seed=3, stop_ids=stops) for s in (settings, static)]
    one, other = (generator.generate(prompts, s) for s in ended)
    assert [c.ids for c in one] == [c.ids for c in other]
    assert len({len(c.ids) for c in one}) > 1
    print(graphs)
"""


def test_one_compiled_step_serves_every_token():
    done = subprocess.run(
        [sys.executable, "-c", dedent(SCRIPT)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    graphs = [int(line) for line in done.stdout.split()]
    assert graphs[0] <= 2, "of four rows; of fewer, any number of them"
    assert graphs[1] == graphs[2] <= 3, "of one row, which torch takes apart"
    assert graphs[3] <= 4, "of one row that was padded"
