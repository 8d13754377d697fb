"""Several adapters on one base in memory: each acts when it is asked to, and the base's weights are there once."""

from __future__ import annotations

from pathlib import Path

from rung.data.tokenizer import Tokenizer
from rung.errors import RunFolderError, UsageError
from rung.nets.adapters import load_adapter, trained_beside
from rung.nets.language_models import Net
from rung.nets.lora import adapters_of, lora_layers, remove_adapter, set_adapter
from rung.tasks.bases import weights_sha256
from rung.tasks.run import model_folder
from rung.tasks.tuning.folder import base_of, is_adapted, method_of


def acting_adapter(net: Net) -> str | None:
    """The name of the adapter that acts in `net`; None where none does."""
    return next((layer.active for layer in lora_layers(net).values()), None)


def put_adapter_on(net: Net, tokenizer: Tokenizer, base: Path, adapter: str | Path, name: str) -> Path:
    """Put an adapter on `net`, the network of the model folder `base`, under `name`; what acts in it stays the same.

    `adapter` is the folder of a run tuned with LoRA, or one of peft's. Returns its model folder.

    Raises UsageError when it is a whole model, or the name is taken; RunFolderError when it belongs to another base, or
    changes more than adapters do, so that no other could act on the same weights.
    """
    if name in adapters_of(net):
        raise UsageError(f"there is an adapter named {name!r} already", hint="choose another name")
    folder = model_folder(adapter)
    if not is_adapted(folder):
        raise UsageError("this is a whole model, not an adapter", where=str(folder), hint="open it with rung.load")
    its_base = base_of(folder)
    if its_base.resolve() != base.resolve() and weights_sha256(its_base) != weights_sha256(base):
        raise RunFolderError(
            f"this adapter belongs to another base than {base}: to {its_base}",
            where=str(folder),
            hint="open that base with rung.load, and put the adapter on it",
        )
    precision, beside = method_of(folder).base_precision, sorted(trained_beside(folder))
    if precision != "fp32" or beside or Tokenizer.load(folder).definition != tokenizer.definition:
        own = f"weights of its own ({beside[0]})" if beside else "a tokenizer of its own"
        raise RunFolderError(
            f"this adapter has {own if precision == 'fp32' else f'learned on a base in {precision}'}, so it cannot "
            "share the base with others",
            where=str(folder),
            hint="open it by itself with rung.load",
        )
    acting = acting_adapter(net)
    try:
        load_adapter(net, folder, name=name)
    except BaseException:
        remove_adapter(net, name)
        raise
    finally:
        set_adapter(net, acting)
    return folder
