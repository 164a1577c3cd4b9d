"""Point files of every kind, right and broken."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.data.faults import FaultySweepError
from equilidar.data.lzf import lzf_decompress
from equilidar.data.point_files import PointFormat, read_columns
from tests.data.fake_data import cloud, write_bin

POINTS = cloud(1, 20)

PCD_FIELDS = {
    "plain": [("x", "F4"), ("y", "F4"), ("z", "F4"), ("intensity", "F4")],
    "other order and types": [("intensity", "U1"), ("z", "F8"), ("_", "U2"), ("ring", "U2"), ("y", "F8"), ("x", "F4")],
}


def structured(fields: list[tuple[str, str]], points: np.ndarray) -> np.ndarray:
    kinds = {"F": "f", "U": "u", "I": "i"}
    names = [f"pad{i}" if name == "_" else name for i, (name, _) in enumerate(fields)]
    dtype = [(name, f"<{kinds[kind[0]]}{kind[1]}") for name, (_, kind) in zip(names, fields, strict=True)]
    table = np.zeros(len(points), np.dtype(dtype))
    for column, name in enumerate(("x", "y", "z", "intensity")):
        table[name] = points[:, column]
    return table


def lzf_literals(data: bytes) -> bytes:
    """A valid, if useless, LZF stream: literals alone."""
    chunks = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(chunk) - 1]) + chunk for chunk in chunks)


def write_pcd(path: Path, fields: list[tuple[str, str]], table: np.ndarray, encoding: str) -> Path:
    header = [
        "# .PCD v0.7",
        "VERSION 0.7",
        "FIELDS " + " ".join(name for name, _ in fields),
        "SIZE " + " ".join(kind[1] for _, kind in fields),
        "TYPE " + " ".join(kind[0] for _, kind in fields),
        "COUNT " + " ".join("1" for _ in fields),
        f"WIDTH {len(table)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(table)}",
        f"DATA {encoding}",
    ]
    body = {
        "ascii": lambda: "\n".join(" ".join(str(v) for v in row) for row in table.tolist()).encode(),
        "binary": table.tobytes,
        "binary_compressed": lambda: compressed(b"".join(table[name].tobytes() for name in table.dtype.names)),
    }[encoding]()
    path.write_bytes("\n".join(header).encode() + b"\n" + body)
    return path


def compressed(data: bytes) -> bytes:
    stream = lzf_literals(data)
    return struct.pack("<II", len(stream), len(data)) + stream


def write_ply(path: Path, points: np.ndarray, encoding: str, before: str = "") -> Path:
    names = ("x", "y", "z", "scalar_intensity")
    order = ">" if encoding.endswith("big_endian") else "<"
    header = f"ply\nformat {encoding} 1.0\ncomment made here\n{before}element vertex {len(points)}\n"
    header += "".join(f"property {'double' if n == 'z' else 'float'} {n}\n" for n in names)
    header += "element face 0\nproperty list uchar int vertex_indices\nend_header\n"
    table = np.zeros(len(points), np.dtype([(n, order + ("f8" if n == "z" else "f4")) for n in names]))
    for column, name in enumerate(names):
        table[name] = points[:, column]
    rows = "\n".join(" ".join(map(str, row)) for row in table.tolist()).encode() + b"\n"
    path.write_bytes(header.encode() + (rows if encoding == "ascii" else table.tobytes()))
    return path


def assert_reads(path: Path, expected: np.ndarray, **settings) -> None:
    xyz, features = PointFormat(**settings).read(path)
    assert xyz.dtype == features.dtype == torch.float32
    torch.testing.assert_close(xyz, torch.from_numpy(expected[:, :3].copy()), rtol=0, atol=1e-6)
    torch.testing.assert_close(features, torch.from_numpy(expected[:, 3:].copy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("extra", [(), ("ring",), ("elongation", "time")])
def test_bin_of_four_five_and_six_columns(tmp_path: Path, extra: tuple[str, ...]):
    table = np.concatenate([POINTS, np.full((len(POINTS), len(extra)), 7, np.float32)], 1)
    path = write_bin(tmp_path / "a.bin", table)
    assert_reads(path, POINTS, columns=("x", "y", "z", "intensity", *extra))
    assert_reads(
        path,
        table,
        columns=("x", "y", "z", "intensity", *extra),
        channels=("intensity", *extra),
        scales=(1.0,) * (1 + len(extra)),
    )


def test_scale_divides_the_raw_value(tmp_path: Path):
    raw = POINTS.copy()
    raw[:, 3] *= 255
    assert_reads(write_bin(tmp_path / "a.bin", raw), POINTS, scales=(255.0,))
    assert PointFormat(scales=(255.0,)).contract.scales == (255.0,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npy(tmp_path: Path, dtype: type):
    np.save(tmp_path / "a.npy", POINTS.astype(dtype))
    assert_reads(tmp_path / "a.npy", POINTS)


def test_structured_npy_is_read_by_name(tmp_path: Path):
    np.save(tmp_path / "a.npy", structured([("intensity", "F4"), ("z", "F8"), ("x", "F4"), ("y", "F4")], POINTS))
    assert_reads(tmp_path / "a.npy", POINTS)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("fields", PCD_FIELDS.values(), ids=PCD_FIELDS.keys())
def test_pcd(tmp_path: Path, encoding: str, fields: list[tuple[str, str]]):
    points = POINTS.copy()
    points[:, 3] = np.arange(len(points))
    path = write_pcd(tmp_path / "a.pcd", fields, structured(fields, points), encoding)
    assert_reads(path, points)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("before", ["", "element sensor 0\nproperty float t\n"])
def test_ply(tmp_path: Path, encoding: str, before: str):
    assert_reads(write_ply(tmp_path / "a.ply", POINTS, encoding, before), POINTS)


def test_coordinates_alone(tmp_path: Path):
    path = write_bin(tmp_path / "a.bin", POINTS[:, :3])
    assert_reads(path, POINTS[:, :3], columns=("x", "y", "z"), channels=(), scales=())


@given(st.binary(min_size=1, max_size=400))
def test_lzf_literals(data: bytes):
    assert lzf_decompress(lzf_literals(data), len(data)) == data


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (bytes([2]) + b"abc" + bytes([(3 << 5), 2]), b"abcabcab"),  # 5 bytes from 3 back, overlapping itself
        (bytes([0]) + b"a" + bytes([7 << 5, 10, 0]), b"a" + b"a" * 19),  # long form: 7 + 10 + 2
        (bytes([31]) + bytes(range(32)) + bytes([(1 << 5), 31]), bytes(range(32)) + bytes([0, 1, 2])),
    ],
)
def test_lzf_back_references(stream: bytes, expected: bytes):
    assert lzf_decompress(stream, len(expected)) == expected


@pytest.mark.parametrize("stream", [b"\x05ab", bytes([(1 << 5), 9]), b"\x00a", bytes([0]) + b"a" + bytes([0xFF])])
def test_lzf_refuses_broken_streams(stream: bytes):
    with pytest.raises(ValueError, match="LZF"):
        lzf_decompress(stream, 50)


def broken_files() -> dict:
    fields = PCD_FIELDS["plain"]

    def cut(write, amount=8):
        def make(path: Path) -> Path:
            write(path)
            path.write_bytes(path.read_bytes()[:-amount])
            return path

        return make

    def pcd(encoding: str):
        return lambda path: write_pcd(path, fields, structured(fields, POINTS), encoding)

    def with_value(value: float):
        table = POINTS.copy()
        table[3, 1] = value
        return lambda path: write_bin(path, table)

    return {
        "empty.bin": lambda path: write_bin(path, POINTS[:0]),
        "truncated.bin": cut(lambda path: write_bin(path, POINTS), 5),
        "five_columns.bin": lambda path: write_bin(path, np.ones((19, 5), np.float32)),
        "nan.bin": with_value(np.nan),
        "infinite.bin": with_value(np.inf),
        "far_away.bin": with_value(1e15),
        "text.npy": lambda path: path.write_text("not numpy"),
        "truncated.npy": cut(lambda path: np.save(path, POINTS)),
        "wrong_shape.npy": lambda path: np.save(path, POINTS[:, :3]),
        "no_points.npy": lambda path: np.save(path, POINTS[:0]),
        "pickled.npy": lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True),
        "ascii.pcd": cut(pcd("ascii"), 40),
        "binary.pcd": cut(pcd("binary")),
        "compressed.pcd": cut(pcd("binary_compressed")),
        "no_header.pcd": lambda path: path.write_bytes(b"\x00" * 100),
        "header_nonsense.pcd": lambda path: path.write_text("FIELDS x y z\nSIZE 4\nTYPE F\nPOINTS 3\nDATA binary\n"),
        "encoding.pcd": lambda path: path.write_text(
            "FIELDS x\nSIZE 4\nTYPE F\nWIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA zip\n"
        ),
        "ascii.ply": cut(lambda path: write_ply(path, POINTS, "ascii"), 60),
        "binary.ply": cut(lambda path: write_ply(path, POINTS, "binary_little_endian")),
        "no_header.ply": lambda path: path.write_text("hello"),
        "no_vertices.ply": lambda path: path.write_text("ply\nformat ascii 1.0\nend_header\n"),
        "header_nonsense.ply": lambda path: path.write_text("ply\nformat ascii 1.0\nelement vertex x\nend_header\n"),
        "words.ply": lambda path: path.write_text(
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\nhere\n"
        ),
    }


@pytest.mark.parametrize("name", broken_files())
def test_broken_file_is_a_fault_that_names_it(tmp_path: Path, name: str):
    path = tmp_path / name
    broken_files()[name](path)
    with pytest.raises(FaultySweepError, match=name):
        PointFormat().read(path)


def test_missing_file_is_a_fault(tmp_path: Path):
    with pytest.raises(FaultySweepError, match=r"gone\.bin"):
        PointFormat().read(tmp_path / "gone.bin")


def test_invalid_points_can_be_dropped(tmp_path: Path):
    table = POINTS.copy()
    table[3, 1], table[7, 3] = np.nan, np.inf
    path = write_bin(tmp_path / "a.bin", table)
    assert_reads(path, np.delete(POINTS, [3, 7], axis=0), drop_invalid=True)


def test_pickles_are_not_opened(tmp_path: Path):
    """A pickle that would leave a trace if it were loaded."""

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trace",))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "trace").unlink(missing_ok=True)
    with pytest.raises(FaultySweepError):
        PointFormat().read(tmp_path / "trap.npy")
    assert not (tmp_path / "trace").exists()


def test_wrong_settings_are_no_fault_of_the_file(tmp_path: Path):
    path = write_bin(tmp_path / "a.bin", POINTS)
    with pytest.raises(ValueError, match="no column 'elongation'") as error:
        PointFormat(channels=("elongation",)).read(path)
    assert not isinstance(error.value, FaultySweepError)
    with pytest.raises(ValueError, match="point files are"):
        read_columns(tmp_path / "a.las", ("x", "y", "z"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": ("y", "x", "z")}, "start with x, y, z"),
        ({"columns": ("x", "y", "z", "z")}, "each once"),
        ({"channels": (), "scales": (1.0,)}, "scales"),
        ({"scales": (0.0,)}, "may not be 0"),
    ],
)
def test_format_checks_its_settings(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PointFormat(**settings)


def test_sample_ply_of_another_program(samples: Path):
    paths = sorted(samples.glob("small_gicp_pair/*.ply"))
    if not paths:
        pytest.skip(f"no .ply under {samples}")
    for path in paths:
        xyz, features = PointFormat(scales=(255.0,)).read(path)
        assert len(xyz) > 10_000 and features.shape == (len(xyz), 1)
