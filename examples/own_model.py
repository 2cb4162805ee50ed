"""A model of your own, as an object of transformers: tuned for, kept, and loaded again.

    python examples/own_model.py MODEL      # a hub id or a directory of a causal model

The model stays yours: between two questions it has its own attention, training mode and gradients back.
"""

import sys
import tempfile

from transformers import AutoModelForCausalLM, AutoTokenizer

from distributed_tuner import Result, load, tune

TEXTS = [
    f"the {noun} was {word}" for noun in ("film", "plot", "story", "cast") for word in ("great", "good", "bad", "dull")
]
LABELS = ["good", "good", "bad", "bad"] * 4


def main(name: str, budget: int = 100) -> Result:
    """Tune a prompt of a model; return the result as it is loaded again."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    result = tune(
        (model, tokenizer),
        (TEXTS, LABELS),
        template="{text} It was{label_word}",
        label_words={"good": " good", "bad": " bad"},
        instruction="Classify the review.",
        budget=budget,
    )
    print(result)
    print(result.history[["spent.queries", "dev_loss", "dev_metric", "selected"]])
    with tempfile.TemporaryDirectory() as folder:
        again = load(result.save(f"{folder}/kept"), (model, tokenizer))
        print(dict(zip(TEXTS[:4], again.predict(TEXTS[:4]).tolist(), strict=True)))
    return result


if __name__ == "__main__":
    main(sys.argv[1])
