// Bindings of voxelization, rulebooks and sparse convolution on the CPU.
#include "bind/sparse.h"

namespace equilidar {
namespace {

Tensor sparse_conv(const Tensor& features, const Tensor& weight, const Tensor& in_rows, const Tensor& out_rows,
                   at::IntArrayRef counts, int64_t center, int64_t num_out) {
  const at::ScalarType dtype = sum_dtype(features);
  const Tensor rows = features.to(dtype).contiguous();
  // (out, offset, in): a view wherever the kernel's axes can be merged, as they can in an adjoint's permuted weight.
  const Tensor matrices = weight.to(dtype).flatten(1, 3);
  const Tensor sources = in_rows.contiguous(), targets = out_rows.contiguous();
  const std::vector<int64_t> starts = starts_of(counts);
  Tensor out = at::empty({num_out, weight.size(0)}, rows.options());
  AT_DISPATCH_FLOATING_TYPES(dtype, "sparse_conv", [&] {
    const WeightView<scalar_t> view{matrices.const_data_ptr<scalar_t>(), matrices.size(0),   matrices.size(2),
                                    matrices.stride(0),                  matrices.stride(1), matrices.stride(2)};
    const RowPairs pairs = pairs_of(sources, targets, starts, center);
    convolve_cpu(rows.const_data_ptr<scalar_t>(), view, pairs, num_out, out.mutable_data_ptr<scalar_t>());
  });
  return out.to(features.scalar_type());
}

Tensor sparse_conv_weight_grad(const Tensor& features, const Tensor& grad, const Tensor& in_rows, const Tensor& out_rows,
                               at::IntArrayRef counts, int64_t center, at::IntArrayRef kernel) {
  const at::ScalarType dtype = sum_dtype(features);
  const Tensor rows = features.to(dtype).contiguous(), grads = grad.to(dtype).contiguous();
  const Tensor sources = in_rows.contiguous(), targets = out_rows.contiguous();
  const std::vector<int64_t> starts = starts_of(counts);
  const int64_t in_channels = rows.size(1), out_channels = grads.size(1);
  Tensor out = at::empty({out_channels, kernel[0], kernel[1], kernel[2], in_channels}, rows.options());
  AT_DISPATCH_FLOATING_TYPES(dtype, "sparse_conv_weight_grad", [&] {
    const RowPairs pairs = pairs_of(sources, targets, starts, center);
    weight_grad_cpu(rows.const_data_ptr<scalar_t>(), grads.const_data_ptr<scalar_t>(), pairs, rows.size(0),
                    grads.size(0), in_channels, out_channels, out.mutable_data_ptr<scalar_t>());
  });
  return out.to(features.scalar_type());
}

int64_t sum_of(const std::vector<int64_t>& counts) {
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  return total;
}

std::tuple<Tensor, Tensor, Tensor> submanifold_pairs(const Tensor& given, at::IntArrayRef shape, at::IntArrayRef kernel) {
  const Tensor coords = given.contiguous();
  const SubmanifoldPairs pairs(coords.const_data_ptr<int32_t>(), coords.size(0), cells_of(shape), cells_of(kernel));
  Tensor in_rows = at::empty({sum_of(pairs.counts)}, coords.options()), out_rows = at::empty_like(in_rows);
  pairs.list(in_rows.mutable_data_ptr<int32_t>(), out_rows.mutable_data_ptr<int32_t>());
  return {in_rows, out_rows, on_host(pairs.counts)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> strided_pairs(const Tensor& given, at::IntArrayRef shape,
                                                         at::IntArrayRef kernel, at::IntArrayRef stride,
                                                         at::IntArrayRef padding) {
  const Tensor coords = given.contiguous();
  const StridedPairs pairs(coords.const_data_ptr<int32_t>(), coords.size(0), geometry_of(shape, kernel, stride, padding));
  Tensor in_rows = at::empty({sum_of(pairs.counts)}, coords.options()), out_rows = at::empty_like(in_rows);
  Tensor out_coords = at::empty({pairs.num_out, 4}, coords.options());
  pairs.list(in_rows.mutable_data_ptr<int32_t>(), out_rows.mutable_data_ptr<int32_t>(),
             out_coords.mutable_data_ptr<int32_t>());
  return {in_rows, out_rows, on_host(pairs.counts), out_coords};
}

std::tuple<Tensor, Tensor> voxel_rows(const Tensor& xyz, const Tensor& offsets, at::ArrayRef<double> low,
                                      at::ArrayRef<double> high, at::ArrayRef<double> size) {
  const Tensor points = xyz.contiguous(), bounds = offsets.contiguous();
  Tensor rows = at::empty({points.size(0)}, bounds.options()), coords;
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "voxel_rows", [&] {
    const VoxelGrid<scalar_t> grid = grid_of<scalar_t>(low, high, size);
    const VoxelOrder order =
        sort_points_cpu(points.const_data_ptr<scalar_t>(), bounds.const_data_ptr<int64_t>(), bounds.size(0) - 1, grid);
    coords = at::empty({order.num_voxels, 4}, bounds.options().dtype(at::kInt));
    voxel_rows_cpu(order, rows.mutable_data_ptr<int64_t>(), coords.mutable_data_ptr<int32_t>());
  });
  return {rows, coords};
}

std::tuple<Tensor, Tensor> voxel_means(const Tensor& given_xyz, const Tensor& given_features,
                                               const Tensor& offsets, at::ArrayRef<double> low, at::ArrayRef<double> high,
                                               at::ArrayRef<double> size) {
  const Tensor xyz = given_xyz.contiguous(), features = given_features.contiguous(), bounds = offsets.contiguous();
  Tensor rows = at::empty({xyz.size(0)}, bounds.options()), coords, means;
  AT_DISPATCH_FLOATING_TYPES(xyz.scalar_type(), "voxel_means", [&] {
    const scalar_t* const points = xyz.const_data_ptr<scalar_t>();
    const VoxelOrder order =
        sort_points_cpu(points, bounds.const_data_ptr<int64_t>(), bounds.size(0) - 1, grid_of<scalar_t>(low, high, size));
    coords = at::empty({order.num_voxels, 4}, bounds.options().dtype(at::kInt));
    means = at::empty({order.num_voxels, 3 + features.size(1)}, xyz.options());
    voxel_rows_cpu(order, rows.mutable_data_ptr<int64_t>(), coords.mutable_data_ptr<int32_t>());
    voxel_means_cpu(order, points, features.const_data_ptr<scalar_t>(), features.size(1),
                    means.mutable_data_ptr<scalar_t>());
  });
  return {means, coords};
}

std::tuple<Tensor, Tensor> hard_slots(const Tensor& given_rows, const Tensor& offsets, int64_t num_voxels,
                                      int64_t max_points, int64_t max_voxels) {
  const Tensor rows = given_rows.contiguous(), bounds = offsets.contiguous();
  Tensor kept = at::empty({num_voxels}, rows.options()), slots = at::empty_like(rows);
  const int64_t num_kept = hard_slots_cpu(rows.const_data_ptr<int64_t>(), bounds.const_data_ptr<int64_t>(),
                                          bounds.size(0) - 1, num_voxels, max_points, max_voxels,
                                          kept.mutable_data_ptr<int64_t>(), slots.mutable_data_ptr<int64_t>());
  return {kept.narrow(0, 0, num_kept).clone(), slots};
}

}  // namespace

TORCH_LIBRARY_IMPL(equilidar, CPU, m) {
  m.impl("voxel_rows", TORCH_FN(voxel_rows));
  m.impl("voxel_means", TORCH_FN(voxel_means));
  m.impl("hard_slots", TORCH_FN(hard_slots));
  m.impl("submanifold_pairs", TORCH_FN(submanifold_pairs));
  m.impl("strided_pairs", TORCH_FN(strided_pairs));
  m.impl("sparse_conv", TORCH_FN(sparse_conv));
  m.impl("sparse_conv_weight_grad", TORCH_FN(sparse_conv_weight_grad));
}

}  // namespace equilidar
