#include "grouping.h"
#include "launch.cuh"

namespace equilidar {
namespace {

template <typename T>
__global__ void ball_query_kernel(
    PointTree<T> tree, const int64_t* offsets, const T* centers, int64_t num_centers, const int64_t* center_offsets,
    int64_t num_items, T radius, int64_t k, int64_t* rows) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_centers) return;
  const int64_t item = item_of(i, center_offsets, num_items);
  ball_rows(tree, centers + 3 * i, offsets[item], offsets[item + 1], radius, k, rows + i * k);
}

template <typename T>
__global__ void voxel_query_kernel(
    CellTable table, CellLimits limits, const T* xyz, const T* centers, const int64_t* cells, int64_t num_centers,
    CellRange range, T radius, int64_t k, int64_t* rows) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_centers) return;
  const CellBits every{nullptr};
  voxel_rows_around(table, every, limits, xyz, centers + 3 * i, cells + 4 * i, range, radius, k, rows + i * k);
}

}  // namespace

template <typename T>
void ball_query_cuda(
    const T* xyz, int64_t num_points, const int64_t* offsets, const T* centers, int64_t num_centers,
    const int64_t* center_offsets, int64_t num_items, T radius, int64_t k, int64_t* rows, Workspace& workspace,
    Stream stream) {
  if (num_centers == 0) return;
  const PointTree<T> tree = build_tree_cuda(xyz, num_points, offsets, num_items, workspace, stream);
  ball_query_kernel<<<blocks_for(num_centers, 128), 128, 0, stream_of(stream)>>>(
      tree, offsets, centers, num_centers, center_offsets, num_items, radius, k, rows);
  check_launch("ball_query");
}

template <typename T>
void voxel_query_cuda(
    const int32_t* coords, const T* xyz, int64_t num_voxels, CellLimits limits, const T* centers, const int64_t* cells,
    int64_t num_centers, CellRange range, T radius, int64_t k, int64_t* rows, Workspace& workspace, Stream stream) {
  if (num_centers == 0) return;
  const CellTable table = build_table_cuda(coords, num_voxels, limits, workspace, stream);
  voxel_query_kernel<<<blocks_for(num_centers, 128), 128, 0, stream_of(stream)>>>(
      table, limits, xyz, centers, cells, num_centers, range, radius, k, rows);
  check_launch("voxel_query");
}

#define EQL_INSTANTIATE(T)                                                                                         \
  template void ball_query_cuda(                                                                                  \
      const T*, int64_t, const int64_t*, const T*, int64_t, const int64_t*, int64_t, T, int64_t, int64_t*,        \
      Workspace&, Stream);                                                                                        \
  template void voxel_query_cuda(                                                                                 \
      const int32_t*, const T*, int64_t, CellLimits, const T*, const int64_t*, int64_t, CellRange, T, int64_t,    \
      int64_t*, Workspace&, Stream);

EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
