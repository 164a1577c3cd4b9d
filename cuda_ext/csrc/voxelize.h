// Which voxel each point falls into, and what a voxel then holds: see equilidar/ops/voxelize.py.
#pragma once

#include "portable.h"
#include "rulebook.h"

namespace equilidar {

// Range and voxel size, in the points' own dtype and in the order x, y, z.
template <typename T>
struct VoxelGrid {
  T low[3], size[3];
  Cells shape;
};

// Index along one axis; -1 outside of [0, count) and for what is no number.
template <typename T>
EQL_HD int64_t index_along(T position, T low, T size, int64_t count) {
  const T index = std::floor((position - low) / size);
  if (!(index >= T(0) && index < T(1LL << 31))) return -1;
  const int64_t cell = static_cast<int64_t>(index);
  return cell < count ? cell : -1;
}

// The key of a point's voxel, -1 outside of the grid.
template <typename T>
EQL_HD int64_t voxel_key(const T* point, int64_t item, const VoxelGrid<T>& grid) {
  const int64_t x = index_along(point[0], grid.low[0], grid.size[0], grid.shape.x);
  const int64_t y = index_along(point[1], grid.low[1], grid.size[1], grid.shape.y);
  const int64_t z = index_along(point[2], grid.low[2], grid.size[2], grid.shape.z);
  return x < 0 || y < 0 || z < 0 ? -1 : cell_key(item, z, y, x, grid.shape);
}

// The item that owns row `row`: the last whose offset is not above it.
EQL_HD int64_t item_of(const int64_t* offsets, int64_t num_items, int64_t row) {
  return first_at_least(offsets, 0, num_items + 1, row + 1) - 1;
}

#if !defined(__CUDACC__)

// Points sorted by voxel; found before the outputs can be allocated, for the number of voxels is then known.
struct VoxelOrder {
  std::unique_ptr<Record[]> records;  // (key, point), those outside of the grid last
  int64_t num_points, outside_key;
  std::vector<int64_t> starts;  // voxels before each chunk
  int64_t num_voxels;
};

template <typename T>
VoxelOrder sort_points_cpu(const T* xyz, const int64_t* offsets, int64_t num_items, const VoxelGrid<T>& grid);
void voxel_rows_cpu(const VoxelOrder& order, const Cells& shape, int64_t* rows, int32_t* coords);

// mean (num_rows, channels) of the values that name a row, summed in their order; those of row -1 are left out.
template <typename T>
void mean_by_row_cpu(const T* values, const int64_t* rows, int64_t num_values, int64_t channels, int64_t num_rows, T* mean);

// The voxels that are kept, in the order of their first points, and each point's place (kept voxel * max_points + slot),
// -1 for none. Returns the number of kept voxels, of which `kept` has room for num_voxels.
int64_t hard_slots_cpu(const int64_t* rows, const int64_t* offsets, int64_t num_items, int64_t num_voxels,
                       int64_t max_points, int64_t max_voxels, int64_t* kept, int64_t* slots);

#endif

// On CUDA, too, in two steps: the first ends with the one synchronisation that tells the number of voxels.
struct VoxelOrderOnDevice {
  const int64_t* keys;    // sorted, those of points outside of the grid last
  const int32_t* points;  // that they are of
  const int32_t* rows;    // 1 + row of the voxel
  int64_t num_points, num_voxels, outside_key;
};

template <typename T>
VoxelOrderOnDevice sort_points_cuda(const T* xyz, const int64_t* offsets, int64_t num_points, int64_t num_items,
                                    const VoxelGrid<T>& grid, Workspace& workspace, Stream stream);
void voxel_rows_cuda(const VoxelOrderOnDevice& order, const Cells& shape, int64_t* rows, int32_t* coords, Stream stream);
template <typename T>
void mean_by_row_cuda(const T* values, const int64_t* rows, int64_t num_values, int64_t channels, int64_t num_rows,
                      T* mean, Workspace& workspace, Stream stream);

}  // namespace equilidar
