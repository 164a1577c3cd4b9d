// What the bindings of sparse ops on CPU and CUDA share: arguments of the schema as the kernels take them.
#pragma once

#include <ATen/ops/empty_like.h>

#include <cmath>

#include "bind/binding.h"
#include "rulebook.h"
#include "sparse_conv.h"
#include "voxelize.h"

namespace equilidar {

inline Cells cells_of(at::IntArrayRef sizes) { return {sizes[0], sizes[1], sizes[2]}; }

inline Geometry geometry_of(at::IntArrayRef shape, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding) {
  int64_t out[3];
  for (int axis = 0; axis < 3; ++axis) {
    out[axis] = (shape[axis] + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1;
  }
  return {cells_of(shape), {out[0], out[1], out[2]}, cells_of(kernel), cells_of(stride), cells_of(padding)};
}

template <typename T>
VoxelGrid<T> grid_of(at::ArrayRef<double> low, at::ArrayRef<double> high, at::ArrayRef<double> size) {
  VoxelGrid<T> grid;
  int64_t count[3];
  for (int axis = 0; axis < 3; ++axis) {
    grid.low[axis] = static_cast<T>(low[axis]);
    grid.size[axis] = static_cast<T>(size[axis]);
    count[axis] = std::llround((high[axis] - low[axis]) / size[axis]);
  }
  grid.shape = {count[2], count[1], count[0]};
  return grid;
}

// Offsets into the pairs; on the host.
inline std::vector<int64_t> starts_of(at::IntArrayRef counts) {
  std::vector<int64_t> starts(counts.size() + 1);
  for (size_t k = 0; k < counts.size(); ++k) starts[k + 1] = starts[k] + counts[k];
  return starts;
}

// `starts` must outlive the result.
inline RowPairs pairs_of(const Tensor& sources, const Tensor& targets, const std::vector<int64_t>& starts, int64_t center) {
  return {sources.const_data_ptr<int32_t>(), targets.const_data_ptr<int32_t>(), starts.data(),
          static_cast<int64_t>(starts.size()) - 1, center};
}

inline Tensor on_host(const std::vector<int64_t>& values) {
  Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::TensorOptions(at::kLong));
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

// The dtype that sums are kept in: float64 for itself, float32 for all others.
inline at::ScalarType sum_dtype(const Tensor& values) {
  return values.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace equilidar
