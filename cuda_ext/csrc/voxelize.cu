#include "sort.cuh"
#include "voxelize.h"

namespace equilidar {
namespace {

template <typename T>
__global__ void keys_kernel(const T* xyz, const int64_t* offsets, int64_t num, int64_t num_items, VoxelGrid<T> grid,
                            VoxelKeys layout, int64_t* keys, int32_t* points) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  keys[i] = voxel_key(xyz + 3 * i, item_of(i, offsets, num_items), grid, layout);
  points[i] = static_cast<int32_t>(i);
}

__global__ void starts_of_voxels_kernel(const int64_t* keys, int64_t num, int64_t outside, int32_t* flags) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) flags[i] = keys[i] != outside && (i == 0 || keys[i] != keys[i - 1]);
}

__global__ void rows_kernel(VoxelOrderOnDevice order, int64_t* rows, int32_t* coords) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= order.num_points) return;
  const int64_t key = order.sorted[i], row = order.rows[i] - 1;
  const bool is_inside = key != order.keys.outside;
  if (rows != nullptr) rows[order.points[i]] = is_inside ? row : -1;
  if (is_inside && (i == 0 || order.sorted[i - 1] != key)) order.keys.unpack(key, coords + 4 * row);
}

// One thread per point that begins a voxel, adding the voxel's points in their order: no atomics, and the CPU's bits.
template <typename T>
__global__ void means_kernel(VoxelOrderOnDevice order, const T* xyz, const T* features, int64_t channels, T* means) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= order.num_points) return;
  const int64_t key = order.sorted[i];
  if (key == order.keys.outside || (i > 0 && order.sorted[i - 1] == key)) return;
  int64_t last = i + 1;
  while (last < order.num_points && order.sorted[last] == key) ++last;
  T* const mean = means + (order.rows[i] - 1) * (3 + channels);
  for (int64_t c = 0; c < 3 + channels; ++c) {
    T total = 0;
    for (int64_t p = i; p < last; ++p) {
      const int64_t point = order.points[p];
      total += c < 3 ? xyz[3 * point + c] : features[channels * point + c - 3];
    }
    mean[c] = total / static_cast<T>(last - i);
  }
}

}  // namespace

template <typename T>
VoxelOrderOnDevice sort_points_cuda(const T* xyz, const int64_t* offsets, int64_t num_points, int64_t num_items,
                                    const VoxelGrid<T>& grid, Workspace& workspace, Stream given) {
  const cudaStream_t stream = stream_of(given);
  VoxelOrderOnDevice order{VoxelKeys(grid.shape, num_items), nullptr, nullptr, nullptr, num_points, 0};
  if (num_points == 0) return order;
  int64_t* const keys = workspace.get<int64_t>(num_points);
  int32_t* const points = workspace.get<int32_t>(num_points);
  keys_kernel<<<blocks_for(num_points), kThreads, 0, stream>>>(xyz, offsets, num_points, num_items, grid, order.keys,
                                                              keys, points);
  check_launch("voxel_rows");
  order.sorted = keys;
  order.points = points;
  sort_by_key(order.sorted, order.points, num_points, order.keys.bits, workspace, stream);
  int32_t* const rows = workspace.get<int32_t>(num_points);
  starts_of_voxels_kernel<<<blocks_for(num_points), kThreads, 0, stream>>>(order.sorted, num_points, order.keys.outside, rows);
  check_launch("voxel_rows");
  running_sum(rows, num_points, true, workspace, stream);
  order.rows = rows;
  int32_t num_voxels = 0;
  read_back(&num_voxels, rows + num_points - 1, 1, stream, "voxel_rows");
  order.num_voxels = num_voxels;
  return order;
}

void voxel_rows_cuda(const VoxelOrderOnDevice& order, int64_t* rows, int32_t* coords, Stream stream) {
  if (order.num_points == 0) return;
  rows_kernel<<<blocks_for(order.num_points), kThreads, 0, stream_of(stream)>>>(order, rows, coords);
  check_launch("voxel_rows");
}

template <typename T>
void voxel_means_cuda(const VoxelOrderOnDevice& order, const T* xyz, const T* features, int64_t channels, T* means,
                      Stream stream) {
  if (order.num_points == 0) return;
  means_kernel<<<blocks_for(order.num_points), kThreads, 0, stream_of(stream)>>>(order, xyz, features, channels, means);
  check_launch("voxel_means");
}

#define EQL_INSTANTIATE(T)                                                                                            \
  template VoxelOrderOnDevice sort_points_cuda(const T*, const int64_t*, int64_t, int64_t, const VoxelGrid<T>&,        \
                                               Workspace&, Stream);                                                   \
  template void voxel_means_cuda(const VoxelOrderOnDevice&, const T*, const T*, int64_t, T*, Stream);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
