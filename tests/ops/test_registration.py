"""The dispatcher's rules on which all ops rely, seen on throw-away ops."""

import importlib
import pkgutil
import sys
import warnings

import pytest
import torch

import equilidar.ops
from equilidar.data.listing import content_hash
from equilidar.ops import _extension
from equilidar.ops._registration import define_op, reference_of
from equilidar.testing import assert_op

_COUNT = iter(range(1000))


def product(autocast="lower", backward="right"):
    """Define a fresh matrix product."""
    name = f"test_product_{next(_COUNT)}"

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def right(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight.T, x.T @ grad

    def wrong(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight.T, x.T @ grad * 1.01

    return define_op(
        f"{name}(Tensor x, Tensor weight) -> Tensor",
        reference=lambda x, weight: x @ weight,
        fake=lambda x, weight: x.new_empty(x.shape[0], weight.shape[1]),
        setup_context=setup,
        backward={"right": right, "wrong": wrong}[backward],
        autocast=autocast,
    )


def arguments(rows=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, generator=generator, requires_grad=True)
    return x, torch.randn(3, 2, generator=generator, requires_grad=True)


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("autocast", ["lower", "float32"])
def test_op_of_four_parts_passes(rows, autocast):
    assert_op(product(autocast), arguments(rows), reference=torch.matmul)


def test_wrong_gradient_is_found():
    with pytest.raises(AssertionError, match="gradients"):
        assert_op(product(backward="wrong"), arguments(), reference=torch.matmul)


def test_wrong_value_is_found():
    with pytest.raises(AssertionError, match="values"):
        assert_op(product(), arguments(), reference=lambda x, weight: 2 * x @ weight)


def test_kernel_of_a_device_outranks_the_reference():
    op = product()
    name = op.name().partition("::")[2]
    library = torch.library.Library("equilidar", "IMPL")
    library.impl(name, lambda x, weight: torch.full((len(x), weight.shape[1]), 7.0), "CPU")
    x, weight = arguments()
    assert (op(x, weight) == 7).all()
    torch.testing.assert_close(reference_of(op)(x, weight), x @ weight)
    op(x, weight).sum().backward()
    assert x.grad is not None, "the gradient is registered beside the kernel, not with it"


def test_autocast_chooses_the_dtype():
    x, weight = arguments()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product("lower")(x, weight).dtype == torch.bfloat16
        assert product("float32")(x.bfloat16(), weight.bfloat16()).dtype == torch.float32
        assert product("lower")(x.double(), weight.double()).dtype == torch.float64
    assert product("lower")(x, weight).dtype == torch.float32


def test_op_compiles_without_graph_break():
    op = product()
    compiled = torch.compile(lambda x, weight: op(x, weight).relu(), backend="aot_eager", fullgraph=True)
    x, weight = arguments()
    torch.testing.assert_close(compiled(x, weight), (x @ weight).relu())


def test_gradient_without_autocast_rule_is_refused():
    with pytest.raises(ValueError, match="autocast"):
        product(autocast=None)


def load_with(tmp_path, monkeypatch, code):
    if code is not None:
        (tmp_path / "equilidar_kernels.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "equilidar_kernels", raising=False)
    return _extension.load.__wrapped__()


def test_absent_kernels_are_advised_once_and_with_the_remedy(monkeypatch):
    monkeypatch.setattr(_extension, "load", lambda: _extension.ExtensionStatus(None, None))
    _extension.advise.cache_clear()
    with pytest.warns(UserWarning, match="make kernels"):
        _extension.advise()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _extension.advise()
    _extension.advise.cache_clear()


def test_kernels_that_load_are_reported(tmp_path, monkeypatch):
    code = f'__version__ = "9.9"\nINTERFACE = {_extension.INTERFACE}\ndef register(): pass'
    assert load_with(tmp_path, monkeypatch, code) == _extension.ExtensionStatus("9.9", None)


def test_kernels_of_other_schemas_are_not_registered(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match=r"interface -1 of the ops.*rebuild it by `make kernels`"):
        status = load_with(tmp_path, monkeypatch, "INTERFACE = -1\ndef register(): raise AssertionError")
    assert status.version is None and "interface -1" in status.error


def test_interface_number_stands_for_the_schemas():
    """A change of a schema must raise INTERFACE in both packages: kernels of the old one would abort the process."""
    if _extension.load().version is None:
        pytest.skip("no compiled kernels: make kernels")
    for module in pkgutil.iter_modules(equilidar.ops.__path__):
        importlib.import_module(f"equilidar.ops.{module.name}")
    names = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("equilidar::"))
    schemas = [
        str(getattr(torch.ops.equilidar, name.removeprefix("equilidar::")).default._schema)
        for name in names
        if "test_product" not in name and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")
    ]
    assert {_extension.INTERFACE: content_hash(schemas)} == {2: "c617049c06e5bc2a"}


def test_kernels_that_do_not_load_are_warned_about(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match="undefined symbol"):
        status = load_with(tmp_path, monkeypatch, 'raise ImportError("undefined symbol: x")')
    assert status.version is None and "undefined symbol" in status.error


def test_missing_dependency_of_the_kernels_is_not_taken_for_their_absence(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match="surely_not_installed"):
        status = load_with(tmp_path, monkeypatch, "import surely_not_installed")
    assert "surely_not_installed" in status.error
