// Bindings of voxelization, rulebooks and sparse convolution.
#include "bind/binding.h"
#include "rulebook.h"
#include "sparse_conv.h"

namespace equilidar {
namespace {

// Offsets into the pairs; on the host.
std::vector<int64_t> starts_of(at::IntArrayRef counts) {
  std::vector<int64_t> starts(counts.size() + 1);
  for (size_t k = 0; k < counts.size(); ++k) starts[k + 1] = starts[k] + counts[k];
  return starts;
}

// The dtype that sums are kept in: float64 for itself, float32 for all others.
at::ScalarType sum_dtype(const Tensor& values) { return values.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

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
    const RowPairs pairs{sources.const_data_ptr<int32_t>(), targets.const_data_ptr<int32_t>(), starts.data(),
                         static_cast<int64_t>(counts.size()), center};
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
    const RowPairs pairs{sources.const_data_ptr<int32_t>(), targets.const_data_ptr<int32_t>(), starts.data(),
                         static_cast<int64_t>(counts.size()), center};
    weight_grad_cpu(rows.const_data_ptr<scalar_t>(), grads.const_data_ptr<scalar_t>(), pairs, grads.size(0), in_channels,
                    out_channels, out.mutable_data_ptr<scalar_t>());
  });
  return out.to(features.scalar_type());
}

Cells cells_of(at::IntArrayRef sizes) { return {sizes[0], sizes[1], sizes[2]}; }

std::tuple<Tensor, Tensor, Tensor> submanifold_pairs(const Tensor& given, at::IntArrayRef shape, at::IntArrayRef kernel) {
  const Tensor coords = given.contiguous();
  const auto rows = coords.options().dtype(at::kInt), host = at::TensorOptions(at::kLong);
  const int64_t num = coords.size(0), num_offsets = cells_of(kernel).volume(), center = num_offsets / 2;
  const int64_t blocks = pair_blocks(num);
  Tensor table = at::empty({num_offsets, num}, rows), counts = at::empty({num_offsets}, host);
  std::vector<int64_t> starts(num_offsets * blocks + 1);
  submanifold_table_cpu(coords.const_data_ptr<int32_t>(), num, cells_of(shape), cells_of(kernel),
                        table.mutable_data_ptr<int32_t>());
  count_pairs_cpu(table.const_data_ptr<int32_t>(), num_offsets, num, center, starts.data());
  for (int64_t k = 0; k < num_offsets; ++k) {
    counts.mutable_data_ptr<int64_t>()[k] = starts[(k + 1) * blocks] - starts[k * blocks];
  }
  Tensor in_rows = at::empty({starts.back()}, rows), out_rows = at::empty({starts.back()}, rows);
  list_pairs_cpu(table.const_data_ptr<int32_t>(), num_offsets, num, center, starts.data(),
                 in_rows.mutable_data_ptr<int32_t>(), out_rows.mutable_data_ptr<int32_t>());
  return {in_rows, out_rows, counts};
}

Geometry geometry_of(at::IntArrayRef shape, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding) {
  int64_t out[3];
  for (int axis = 0; axis < 3; ++axis) {
    out[axis] = (shape[axis] + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1;
  }
  return {cells_of(shape), {out[0], out[1], out[2]}, cells_of(kernel), cells_of(stride), cells_of(padding)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> strided_pairs(const Tensor& given, at::IntArrayRef shape,
                                                         at::IntArrayRef kernel, at::IntArrayRef stride,
                                                         at::IntArrayRef padding) {
  const Tensor coords = given.contiguous();
  const auto rows = coords.options().dtype(at::kInt), host = at::TensorOptions(at::kLong);
  const Geometry geometry = geometry_of(shape, kernel, stride, padding);
  const int32_t* const cells = coords.const_data_ptr<int32_t>();
  const StridedPairs pairs = strided_pairs_cpu(cells, coords.size(0), batch_size_of(cells, coords.size(0)), geometry);
  Tensor counts = at::empty({geometry.kernel.volume()}, host);
  std::copy(pairs.counts.begin(), pairs.counts.end(), counts.mutable_data_ptr<int64_t>());
  Tensor in_rows = at::empty({pairs.size}, rows), out_rows = at::empty({pairs.size}, rows);
  Tensor out_coords = at::empty({pairs.num_out, 4}, rows);
  list_strided_pairs_cpu(pairs, geometry, in_rows.mutable_data_ptr<int32_t>(), out_rows.mutable_data_ptr<int32_t>(),
                         out_coords.mutable_data_ptr<int32_t>());
  return {in_rows, out_rows, counts, out_coords};
}

}  // namespace

TORCH_LIBRARY_IMPL(equilidar, CPU, m) {
  m.impl("submanifold_pairs", TORCH_FN(submanifold_pairs));
  m.impl("strided_pairs", TORCH_FN(strided_pairs));
  m.impl("sparse_conv", TORCH_FN(sparse_conv));
  m.impl("sparse_conv_weight_grad", TORCH_FN(sparse_conv_weight_grad));
}

}  // namespace equilidar
