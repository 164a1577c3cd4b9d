// Bindings of voxelization, rulebooks and sparse convolution on the CPU.
#include "bind/sparse.h"
#include "voxel_slots.h"

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

std::tuple<Tensor, Tensor> voxel_rows(const Tensor& given, const Tensor& offsets, at::ArrayRef<double> low,
                                      at::ArrayRef<double> high, at::ArrayRef<double> size) {
  const Tensor xyz = given.contiguous(), bounds = offsets.contiguous();
  Tensor rows = at::empty({xyz.size(0)}, bounds.options()), coords;
  AT_DISPATCH_FLOATING_TYPES(xyz.scalar_type(), "voxel_rows", [&] {
    const auto order = sort_points_cpu(xyz.const_data_ptr<scalar_t>(), bounds.const_data_ptr<int64_t>(),
                                       bounds.size(0) - 1, grid_of<scalar_t>(low, high, size));
    coords = at::empty({order->num_voxels, 4}, bounds.options().dtype(at::kInt));
    order->rows(rows.mutable_data_ptr<int64_t>(), coords.mutable_data_ptr<int32_t>());
  });
  return {rows, coords};
}

std::tuple<Tensor, Tensor> voxel_means(const Tensor& given_xyz, const Tensor& given_features, const Tensor& offsets,
                                       at::ArrayRef<double> low, at::ArrayRef<double> high, at::ArrayRef<double> size) {
  const Tensor xyz = given_xyz.contiguous(), features = given_features.contiguous(), bounds = offsets.contiguous();
  Tensor coords, means;
  AT_DISPATCH_FLOATING_TYPES(xyz.scalar_type(), "voxel_means", [&] {
    const scalar_t* const points = xyz.const_data_ptr<scalar_t>();
    const auto order = sort_points_cpu(points, bounds.const_data_ptr<int64_t>(), bounds.size(0) - 1,
                                       grid_of<scalar_t>(low, high, size));
    coords = at::empty({order->num_voxels, 4}, bounds.options().dtype(at::kInt));
    means = at::empty({order->num_voxels, 3 + features.size(1)}, xyz.options());
    order->means(points, features.const_data_ptr<scalar_t>(), features.size(1), means.mutable_data_ptr<scalar_t>(),
                 coords.mutable_data_ptr<int32_t>());
  });
  return {means, coords};
}

std::tuple<Tensor, Tensor, Tensor> voxel_slots(const Tensor& given, const Tensor& offsets, at::ArrayRef<double> low,
                                              at::ArrayRef<double> high, at::ArrayRef<double> size,
                                              int64_t max_points, int64_t max_voxels) {
  const Tensor xyz = given.contiguous(), bounds = offsets.contiguous();
  Tensor slots = at::empty({xyz.size(0)}, bounds.options()), coords, num_points;
  AT_DISPATCH_FLOATING_TYPES(xyz.scalar_type(), "voxel_slots", [&] {
    const FirstVoxels voxels = voxel_slots_cpu(
        xyz.const_data_ptr<scalar_t>(), bounds.const_data_ptr<int64_t>(), bounds.size(0) - 1,
        grid_of<scalar_t>(low, high, size), max_points, max_voxels, slots.mutable_data_ptr<int64_t>());
    coords = at::empty({voxels.num_voxels, 4}, bounds.options().dtype(at::kInt));
    num_points = at::empty({voxels.num_voxels}, bounds.options());
    voxels.list(coords.mutable_data_ptr<int32_t>(), num_points.mutable_data_ptr<int64_t>());
  });
  return {coords, num_points, slots};
}

Tensor fill_voxel_slots(const Tensor& given_xyz, const Tensor& given_features, const Tensor& given_slots,
                  const Tensor& num_points, int64_t max_points) {
  const Tensor xyz = given_xyz.contiguous(), features = given_features.contiguous(), slots = given_slots.contiguous();
  const Tensor used = num_points.contiguous();
  Tensor padded = at::empty({used.size(0), max_points, 3 + features.size(1)}, xyz.options());
  AT_DISPATCH_FLOATING_TYPES(xyz.scalar_type(), "fill_voxel_slots", [&] {
    fill_voxel_slots_cpu(xyz.const_data_ptr<scalar_t>(), features.const_data_ptr<scalar_t>(), features.size(1),
                   slots.const_data_ptr<int64_t>(), slots.size(0), used.const_data_ptr<int64_t>(), used.size(0),
                   max_points, padded.mutable_data_ptr<scalar_t>());
  });
  return padded;
}

}  // namespace

TORCH_LIBRARY_IMPL(equilidar, CPU, m) {
  m.impl("voxel_rows", TORCH_FN(voxel_rows));
  m.impl("voxel_means", TORCH_FN(voxel_means));
  m.impl("voxel_slots", TORCH_FN(voxel_slots));
  m.impl("fill_voxel_slots", TORCH_FN(fill_voxel_slots));
  m.impl("submanifold_pairs", TORCH_FN(submanifold_pairs));
  m.impl("strided_pairs", TORCH_FN(strided_pairs));
  m.impl("sparse_conv", TORCH_FN(sparse_conv));
  m.impl("sparse_conv_weight_grad", TORCH_FN(sparse_conv_weight_grad));
}

}  // namespace equilidar
