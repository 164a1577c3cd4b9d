"""Write lists of label subsets: python tools/splits.py dataset=NAME name=NAME output=DIR [mode=sequence] [K=V ...]."""

from pathlib import Path

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("splits")
def main(cfg: DictConfig) -> None:
    """Draw the subsets, write them, print their sizes and hashes; other lists of the same name are an error."""
    from equilidar.data.sequences import sequences_of
    from equilidar.data.subset_lists import SubsetLists, format_lists, write_lists, write_text

    keys = _keys(cfg)
    if cfg.mode not in ("frame", "sequence") or (cfg.index_of == "sequences" and cfg.mode != "sequence"):
        raise ValueError(f"mode must be frame or sequence (sequence with index_of=sequences), got {cfg.mode!r}")
    if cfg.index is not None and cfg.index_of == "sequences":
        keys, sequences = [], {name: name for name in keys}
    else:
        sequences = sequences_of(keys, cfg.sequences) if cfg.mode == "sequence" else None
    drawn = {"fractions": list(cfg.fractions), "seeds": list(cfg.seeds)}
    lists = SubsetLists.make(cfg.name, keys, sequences, with_order=cfg.names, **drawn)
    path = write_lists(lists, Path(cfg.output), force=cfg.force)
    if cfg.text:
        write_text(lists.file_name.removesuffix(".json"), keys, sequences, Path(cfg.output), **drawn)
    print(format_lists(lists))
    print(f"lists: {path}")


def _keys(cfg: DictConfig) -> list[str]:
    if (cfg.dataset is None) == (cfg.index is None):
        raise ValueError("give either dataset=NAME or index=FILE (one key a line)")
    if cfg.index is None:
        from hydra.utils import instantiate

        return list(instantiate(cfg.dataset, _convert_="all").keys)
    path = Path(cfg.index)
    if not path.is_file():
        raise FileNotFoundError(f"index: no file {path}")
    return [cfg.prefix + line.strip() for line in path.read_text().splitlines() if line.strip()]


if __name__ == "__main__":
    main()
