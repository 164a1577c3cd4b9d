#include "sort.cuh"
#include "voxelize.h"

namespace equilidar {
namespace {

template <typename T>
__global__ void keys_kernel(const T* xyz, const int64_t* offsets, int64_t num, int64_t num_items, VoxelGrid<T> grid,
                            int64_t outside, int64_t* keys, int32_t* points) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  const int64_t key = voxel_key(xyz + 3 * i, item_of(offsets, num_items, i), grid);
  keys[i] = key < 0 ? outside : key;
  points[i] = static_cast<int32_t>(i);
}

__global__ void starts_of_voxels_kernel(const int64_t* keys, int64_t num, int64_t outside, int32_t* flags) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) flags[i] = keys[i] != outside && (i == 0 || keys[i] != keys[i - 1]);
}

__global__ void rows_kernel(VoxelOrderOnDevice order, Cells shape, int64_t* rows, int32_t* coords) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= order.num_points) return;
  const int64_t key = order.keys[i], row = order.rows[i] - 1;
  const bool is_inside = key != order.outside_key;
  rows[order.points[i]] = is_inside ? row : -1;
  if (is_inside && (i == 0 || order.keys[i - 1] != key)) cell_of_key(key, shape, coords + 4 * row);
}

__global__ void targets_kernel(const int64_t* rows, int64_t num, int64_t num_rows, int64_t* targets, int32_t* ids) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  targets[i] = rows[i] < 0 ? num_rows : rows[i];
  ids[i] = static_cast<int32_t>(i);
}

// One thread per row and channel, adding the row's values in their order: no atomics, and the CPU's bits.
template <typename T>
__global__ void mean_kernel(const T* values, const int64_t* targets, const int32_t* ids, int64_t num, int64_t channels,
                            int64_t num_rows, T* mean) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_rows * channels) return;
  const int64_t row = i / channels, channel = i % channels;
  const int64_t begin = first_at_least(targets, 0, num, row);
  T total = 0;
  int64_t p = begin;
  for (; p < num && targets[p] == row; ++p) total += values[ids[p] * channels + channel];
  mean[i] = total / static_cast<T>(max_of<int64_t>(p - begin, 1));
}

}  // namespace

template <typename T>
VoxelOrderOnDevice sort_points_cuda(const T* xyz, const int64_t* offsets, int64_t num_points, int64_t num_items,
                                    const VoxelGrid<T>& grid, Workspace& workspace, Stream given) {
  const cudaStream_t stream = stream_of(given);
  VoxelOrderOnDevice order{nullptr, nullptr, nullptr, num_points, 0, num_items * grid.shape.volume()};
  if (num_points == 0) return order;
  int64_t* const keys = workspace.get<int64_t>(num_points);
  int32_t* const points = workspace.get<int32_t>(num_points);
  keys_kernel<<<blocks_for(num_points), kThreads, 0, stream>>>(xyz, offsets, num_points, num_items, grid, order.outside_key,
                                                              keys, points);
  check_launch("voxel_rows");
  order.keys = keys;
  order.points = points;
  sort_by_key(order.keys, order.points, num_points, key_bits(uint64_t(order.outside_key) + 1), workspace, stream);
  int32_t* const rows = workspace.get<int32_t>(num_points);
  starts_of_voxels_kernel<<<blocks_for(num_points), kThreads, 0, stream>>>(order.keys, num_points, order.outside_key, rows);
  check_launch("voxel_rows");
  running_sum(rows, num_points, true, workspace, stream);
  order.rows = rows;
  int32_t num_voxels = 0;
  read_back(&num_voxels, rows + num_points - 1, 1, stream, "voxel_rows");
  order.num_voxels = num_voxels;
  return order;
}

void voxel_rows_cuda(const VoxelOrderOnDevice& order, const Cells& shape, int64_t* rows, int32_t* coords, Stream stream) {
  if (order.num_points == 0) return;
  rows_kernel<<<blocks_for(order.num_points), kThreads, 0, stream_of(stream)>>>(order, shape, rows, coords);
  check_launch("voxel_rows");
}

template <typename T>
void mean_by_row_cuda(const T* values, const int64_t* rows, int64_t num_values, int64_t channels, int64_t num_rows,
                      T* mean, Workspace& workspace, Stream given) {
  const cudaStream_t stream = stream_of(given);
  if (num_rows * channels == 0) return;
  int64_t* const unsorted = workspace.get<int64_t>(num_values);
  int32_t* const unsorted_ids = workspace.get<int32_t>(num_values);
  const int64_t* targets = unsorted;
  const int32_t* ids = unsorted_ids;
  if (num_values > 0) {
    targets_kernel<<<blocks_for(num_values), kThreads, 0, stream>>>(rows, num_values, num_rows, unsorted, unsorted_ids);
    check_launch("mean_by_row");
    sort_by_key(targets, ids, num_values, key_bits(uint64_t(num_rows) + 1), workspace, stream);
  }
  mean_kernel<<<blocks_for(num_rows * channels), kThreads, 0, stream>>>(values, targets, ids, num_values, channels, num_rows,
                                                                      mean);
  check_launch("mean_by_row");
}

#define EQL_INSTANTIATE(T)                                                                                            \
  template VoxelOrderOnDevice sort_points_cuda(const T*, const int64_t*, int64_t, int64_t, const VoxelGrid<T>&,        \
                                               Workspace&, Stream);                                                   \
  template void mean_by_row_cuda(const T*, const int64_t*, int64_t, int64_t, int64_t, T*, Workspace&, Stream);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
