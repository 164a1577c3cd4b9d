// Bindings of voxelization, rulebooks and sparse convolution on CUDA. (Capped voxels, `voxel_slots` and
// `fill_voxel_slots`, stay PyTorch's there: no training path of a CUDA backbone reads them.)
#if defined(EQUILIDAR_WITH_CUDA)
#include "bind/binding.h"
#include "bind/sparse.h"
#include "bind/tensor_workspace.h"

namespace equilidar {
namespace {

Stream current_stream() { return static_cast<Stream>(c10::cuda::getCurrentCUDAStream().stream()); }

std::tuple<Tensor, Tensor> voxel_rows_on_cuda(const Tensor& xyz, const Tensor& offsets, at::ArrayRef<double> low,
                                              at::ArrayRef<double> high, at::ArrayRef<double> size) {
  const c10::cuda::CUDAGuard guard(xyz.device());
  const Tensor points = xyz.contiguous(), bounds = offsets.contiguous();
  Tensor rows = at::empty({points.size(0)}, bounds.options()), coords;
  TensorWorkspace workspace(points);
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "voxel_rows", [&] {
    const VoxelGrid<scalar_t> grid = grid_of<scalar_t>(low, high, size);
    const VoxelOrderOnDevice order =
        sort_points_cuda(points.const_data_ptr<scalar_t>(), bounds.const_data_ptr<int64_t>(), points.size(0),
                         bounds.size(0) - 1, grid, workspace, current_stream());
    coords = at::empty({order.num_voxels, 4}, bounds.options().dtype(at::kInt));
    voxel_rows_cuda(order, rows.mutable_data_ptr<int64_t>(), coords.mutable_data_ptr<int32_t>(), current_stream());
  });
  return {rows, coords};
}

std::tuple<Tensor, Tensor> voxel_means_on_cuda(const Tensor& given_xyz, const Tensor& given_features,
                                                       const Tensor& offsets, at::ArrayRef<double> low,
                                                       at::ArrayRef<double> high, at::ArrayRef<double> size) {
  const c10::cuda::CUDAGuard guard(given_xyz.device());
  const Tensor xyz = given_xyz.contiguous(), features = given_features.contiguous(), bounds = offsets.contiguous();
  Tensor coords, means;
  TensorWorkspace workspace(xyz);
  AT_DISPATCH_FLOATING_TYPES(xyz.scalar_type(), "voxel_means", [&] {
    const scalar_t* const points = xyz.const_data_ptr<scalar_t>();
    const VoxelOrderOnDevice order =
        sort_points_cuda(points, bounds.const_data_ptr<int64_t>(), xyz.size(0), bounds.size(0) - 1,
                         grid_of<scalar_t>(low, high, size), workspace, current_stream());
    coords = at::empty({order.num_voxels, 4}, bounds.options().dtype(at::kInt));
    means = at::empty({order.num_voxels, 3 + features.size(1)}, xyz.options());
    voxel_rows_cuda(order, nullptr, coords.mutable_data_ptr<int32_t>(), current_stream());
    voxel_means_cuda(order, points, features.const_data_ptr<scalar_t>(), features.size(1),
                     means.mutable_data_ptr<scalar_t>(), current_stream());
  });
  return {means, coords};
}

std::tuple<Tensor, Tensor, Tensor> submanifold_pairs_on_cuda(const Tensor& given, at::IntArrayRef shape,
                                                             at::IntArrayRef kernel) {
  const c10::cuda::CUDAGuard guard(given.device());
  const Tensor coords = given.contiguous();
  std::vector<int64_t> counts(cells_of(kernel).volume());
  TensorWorkspace workspace(coords);
  const PairsOnDevice pairs = submanifold_pairs_cuda(coords.const_data_ptr<int32_t>(), coords.size(0), cells_of(shape),
                                                     cells_of(kernel), counts.data(), workspace, current_stream());
  Tensor in_rows = at::empty({pairs.num_pairs}, coords.options()), out_rows = at::empty_like(in_rows);
  list_submanifold_pairs_cuda(pairs, static_cast<int64_t>(counts.size()), in_rows.mutable_data_ptr<int32_t>(),
                              out_rows.mutable_data_ptr<int32_t>(), current_stream());
  return {in_rows, out_rows, on_host(counts)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> strided_pairs_on_cuda(const Tensor& given, at::IntArrayRef shape,
                                                                 at::IntArrayRef kernel, at::IntArrayRef stride,
                                                                 at::IntArrayRef padding) {
  const c10::cuda::CUDAGuard guard(given.device());
  const Tensor coords = given.contiguous();
  const Geometry geometry = geometry_of(shape, kernel, stride, padding);
  std::vector<int64_t> counts(geometry.kernel.volume());
  TensorWorkspace workspace(coords);
  const PairsOnDevice pairs = strided_pairs_cuda(coords.const_data_ptr<int32_t>(), coords.size(0), geometry, counts.data(),
                                                 workspace, current_stream());
  Tensor in_rows = at::empty({pairs.num_pairs}, coords.options()), out_rows = at::empty_like(in_rows);
  Tensor out_coords = at::empty({pairs.num_out, 4}, coords.options());
  list_strided_pairs_cuda(pairs, geometry, in_rows.mutable_data_ptr<int32_t>(), out_rows.mutable_data_ptr<int32_t>(),
                          out_coords.mutable_data_ptr<int32_t>(), current_stream());
  return {in_rows, out_rows, on_host(counts), out_coords};
}

Dtype dtype_of(const Tensor& values) {
  switch (values.scalar_type()) {
    case at::kDouble: return Dtype::kDouble;
    case at::kHalf: return Dtype::kHalf;
    case at::kBFloat16: return Dtype::kBFloat16;
    default: return Dtype::kFloat;
  }
}

Tensor sparse_conv_on_cuda(const Tensor& features, const Tensor& weight, const Tensor& in_rows, const Tensor& out_rows,
                           at::IntArrayRef counts, int64_t center, int64_t num_out) {
  const c10::cuda::CUDAGuard guard(features.device());
  const Tensor rows = features.contiguous(), matrices = weight.flatten(1, 3);
  const Tensor sources = in_rows.contiguous(), targets = out_rows.contiguous();
  const std::vector<int64_t> starts = starts_of(counts);
  Tensor out = at::empty({num_out, weight.size(0)}, rows.options());
  TensorWorkspace workspace(rows);
  convolve_cuda(dtype_of(rows), rows.const_data_ptr(), matrices.const_data_ptr(),
                {matrices.size(0), matrices.size(2), matrices.stride(0), matrices.stride(1), matrices.stride(2)},
                pairs_of(sources, targets, starts, center), num_out, out.mutable_data_ptr(), workspace, current_stream());
  return out;
}

Tensor weight_grad_on_cuda(const Tensor& features, const Tensor& grad, const Tensor& in_rows, const Tensor& out_rows,
                           at::IntArrayRef counts, int64_t center, at::IntArrayRef kernel) {
  const c10::cuda::CUDAGuard guard(features.device());
  const Tensor rows = features.contiguous(), grads = grad.contiguous();
  const Tensor sources = in_rows.contiguous(), targets = out_rows.contiguous();
  const std::vector<int64_t> starts = starts_of(counts);
  Tensor out = at::empty({grads.size(1), kernel[0], kernel[1], kernel[2], rows.size(1)}, rows.options());
  TensorWorkspace workspace(rows);
  weight_grad_cuda(dtype_of(rows), rows.const_data_ptr(), grads.const_data_ptr(),
                   pairs_of(sources, targets, starts, center), grads.size(0), rows.size(1), grads.size(1),
                   out.mutable_data_ptr(), workspace, current_stream());
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equilidar, CUDA, m) {
  m.impl("voxel_rows", TORCH_FN(voxel_rows_on_cuda));
  m.impl("voxel_means", TORCH_FN(voxel_means_on_cuda));
  m.impl("submanifold_pairs", TORCH_FN(submanifold_pairs_on_cuda));
  m.impl("strided_pairs", TORCH_FN(strided_pairs_on_cuda));
  m.impl("sparse_conv", TORCH_FN(sparse_conv_on_cuda));
  m.impl("sparse_conv_weight_grad", TORCH_FN(weight_grad_on_cuda));
}

}  // namespace equilidar
#endif
