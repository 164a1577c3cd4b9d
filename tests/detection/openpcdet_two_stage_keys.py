"""Names and shapes of the tensors that OpenPCDet's two-stage detectors have, derived by reading its source.

Commit 8cacccec: models/roi_heads/{voxelrcnn_head,pvrcnn_head,roi_head_template}.py,
models/backbones_3d/pfe/voxel_set_abstraction.py, models/dense_heads/point_head_{simple,template}.py,
ops/pointnet2/pointnet2_stack/{voxel_pool_modules,pointnet2_modules}.py; numbers of cfgs/kitti_models/.
"""

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, channels: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{entry}": (channels,) for entry in names}, f"{name}.num_batches_tracked": ()}


def backbone_and_map(blocks: tuple[int, int], up: tuple[int, int], anchors: int, classes: int) -> Shapes:
    """`backbone_3d`, `backbone_2d` and `dense_head`, those of SECOND."""
    shapes: Shapes = {"global_step": (1,)}
    sparse = [("conv_input", 4, 16, (3, 3, 3)), ("conv1.0", 16, 16, (3, 3, 3)), ("conv_out", 64, 128, (3, 1, 1))]
    for stage, inside, outside in (("conv2", 16, 32), ("conv3", 32, 64), ("conv4", 64, 64)):
        sparse += [(f"{stage}.{i}", inside if i == 0 else outside, outside, (3, 3, 3)) for i in range(3)]
    for name, inside, outside, kernel in sparse:
        shapes[f"backbone_3d.{name}.0.weight"] = (outside, *kernel, inside)
        shapes |= norm(f"backbone_3d.{name}.1", outside)
    inside = 256
    for index, (width, enlarged, factor) in enumerate(zip(blocks, up, (1, 2), strict=True)):
        for layer in range(6):
            place = 1 + 3 * layer  # behind a padding layer; convolution, normalisation, activation
            shapes[f"backbone_2d.blocks.{index}.{place}.weight"] = (width, inside if layer == 0 else width, 3, 3)
            shapes |= norm(f"backbone_2d.blocks.{index}.{place + 1}", width)
        shapes[f"backbone_2d.deblocks.{index}.0.weight"] = (width, enlarged, factor, factor)
        shapes |= norm(f"backbone_2d.deblocks.{index}.1", enlarged)
        inside = width
    for name, outputs in (("cls", anchors * classes), ("box", anchors * 7), ("dir_cls", anchors * 2)):
        shapes[f"dense_head.conv_{name}.weight"] = (outputs, sum(up), 1, 1)
        shapes[f"dense_head.conv_{name}.bias"] = (outputs,)
    return shapes


def set_abstraction(name: str, inside: int, scales: list[list[int]]) -> Shapes:
    shapes: Shapes = {}
    for scale, widths in enumerate(scales):
        for layer, (before, after) in enumerate(zip([inside + 3, *widths], widths, strict=False)):
            shapes[f"{name}.mlps.{scale}.{3 * layer}.weight"] = (after, before, 1, 1)
            shapes |= norm(f"{name}.mlps.{scale}.{3 * layer + 1}", after)
    return shapes


def voxel_rcnn(classes: int) -> Shapes:
    shapes = backbone_and_map((64, 128), (128, 128), 2 * classes, classes)
    for index, inside in enumerate((32, 64, 64)):  # x_conv2, x_conv3, x_conv4
        pool = f"roi_head.roi_grid_pool_layers.{index}"
        shapes[f"{pool}.mlps_in.0.0.weight"] = (32, inside, 1)
        shapes[f"{pool}.mlps_pos.0.0.weight"] = (32, 3, 1, 1)
        shapes[f"{pool}.mlps_out.0.0.weight"] = (32, 32, 1)
        for part in ("in", "pos", "out"):
            shapes |= norm(f"{pool}.mlps_{part}.0.1", 32)
    for stack, inside in (("shared_fc_layer", 216 * 96), ("cls_fc_layers", 256), ("reg_fc_layers", 256)):
        # Linear, normalisation, activation, dropout, linear, normalisation, activation.
        shapes[f"roi_head.{stack}.0.weight"] = (256, inside)
        shapes[f"roi_head.{stack}.4.weight"] = (256, 256)
        shapes |= norm(f"roi_head.{stack}.1", 256) | norm(f"roi_head.{stack}.5", 256)
    shapes |= {"roi_head.cls_pred_layer.weight": (1, 256), "roi_head.cls_pred_layer.bias": (1,)}
    return shapes | {"roi_head.reg_pred_layer.weight": (7, 256), "roi_head.reg_pred_layer.bias": (7,)}


def pv_rcnn() -> Shapes:
    shapes = backbone_and_map((128, 256), (256, 256), 6, 3)
    widths = (16, 32, 64, 64)  # x_conv1 ... x_conv4, whose channels they are
    for index, width in enumerate(widths):
        shapes |= set_abstraction(f"pfe.SA_layers.{index}", width, [[width, width], [width, width]])
    shapes |= set_abstraction("pfe.SA_rawpoints", 1, [[16, 16], [16, 16]])
    gathered = 256 + 2 * 16 + 2 * sum(widths)
    shapes["pfe.vsa_point_feature_fusion.0.weight"] = (128, gathered)
    shapes |= norm("pfe.vsa_point_feature_fusion.1", 128)
    for place, inside in ((0, gathered), (3, 256)):
        shapes[f"point_head.cls_layers.{place}.weight"] = (256, inside)
        shapes |= norm(f"point_head.cls_layers.{place + 1}", 256)
    shapes |= {"point_head.cls_layers.6.weight": (1, 256), "point_head.cls_layers.6.bias": (1,)}
    shapes |= set_abstraction("roi_head.roi_grid_pool_layer", 128, [[64, 64], [64, 64]])
    for stack, inside in (("shared_fc_layer", 216 * 128), ("cls_layers", 256), ("reg_layers", 256)):
        for place, before in ((0, inside), (4, 256)):
            shapes[f"roi_head.{stack}.{place}.weight"] = (256, before, 1)
            shapes |= norm(f"roi_head.{stack}.{place + 1}", 256)
    for stack, outputs in (("cls_layers", 1), ("reg_layers", 7)):
        shapes |= {f"roi_head.{stack}.7.weight": (outputs, 256, 1), f"roi_head.{stack}.7.bias": (outputs,)}
    return shapes
