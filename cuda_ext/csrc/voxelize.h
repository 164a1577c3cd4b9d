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

// Number of bits that hold 0 .. count - 1.
EQL_HD int index_bits(int64_t count) {
  int bits = 0;
  while ((count - 1) >> bits != 0) ++bits;
  return bits;
}

// Voxels [batch, z, y, x] in fields of one integer, which sorts as they do and comes apart without a division. Fields
// waste at most three bits against `cell_key`.
struct VoxelKeys {
  int y_shift, z_shift, batch_shift, bits;
  int64_t outside;  // sorts behind all voxels

  EQL_HD VoxelKeys(const Cells& shape, int64_t num_items)
      : y_shift(index_bits(shape.x)),
        z_shift(y_shift + index_bits(shape.y)),
        batch_shift(z_shift + index_bits(shape.z)),
        bits(batch_shift + index_bits(num_items + 1)),
        outside(num_items << batch_shift) {}

  EQL_HD void unpack(int64_t key, int32_t* row) const {
    row[0] = static_cast<int32_t>(key >> batch_shift);
    row[1] = static_cast<int32_t>(key >> z_shift & ((int64_t(1) << (batch_shift - z_shift)) - 1));
    row[2] = static_cast<int32_t>(key >> y_shift & ((int64_t(1) << (z_shift - y_shift)) - 1));
    row[3] = static_cast<int32_t>(key & ((int64_t(1) << y_shift) - 1));
  }
};

// Index along one axis; -1 outside of [0, count) and for what is no number.
template <typename T>
EQL_HD int64_t index_along(T position, T low, T size, int64_t count) {
  const T index = (position - low) / size;
  // From zero on, a conversion rounds as floor does.
  if (!(index >= T(0) && index < T(1LL << 31))) return -1;
  const int64_t cell = static_cast<int64_t>(index);
  return cell < count ? cell : -1;
}

// The key of a point's voxel.
template <typename T>
EQL_HD int64_t voxel_key(const T* point, int64_t item, const VoxelGrid<T>& grid, const VoxelKeys& keys) {
  const int64_t x = index_along(point[0], grid.low[0], grid.size[0], grid.shape.x);
  const int64_t y = index_along(point[1], grid.low[1], grid.size[1], grid.shape.y);
  const int64_t z = index_along(point[2], grid.low[2], grid.size[2], grid.shape.z);
  // A negative index is negative whatever the others are.
  return (x | y | z) < 0 ? keys.outside : item << keys.batch_shift | z << keys.z_shift | y << keys.y_shift | x;
}

// The item that owns row `row`: the last whose offset is not above it.
EQL_HD int64_t item_of(const int64_t* offsets, int64_t num_items, int64_t row) {
  return first_at_least(offsets, 0, num_items + 1, row + 1) - 1;
}

#if !defined(__CUDACC__)

// Points sorted by voxel; found before the outputs can be allocated, for the number of voxels is then known.
struct VoxelOrder {
  std::unique_ptr<Record[]> records;  // (key, point), those outside of the grid last
  int64_t num_points;
  VoxelKeys keys;
  std::vector<int64_t> starts;  // voxels before each chunk
  int64_t num_voxels;
};

template <typename T>
VoxelOrder sort_points_cpu(const T* xyz, const int64_t* offsets, int64_t num_items, const VoxelGrid<T>& grid);
void voxel_rows_cpu(const VoxelOrder& order, int64_t* rows, int32_t* coords);

// means (num_voxels, 3 + channels) of xyz and features, each voxel's points added in their order.
template <typename T>
void voxel_means_cpu(const VoxelOrder& order, const T* xyz, const T* features, int64_t channels, T* means);

// The voxels that are kept, in the order of their first points, and each point's place (kept voxel * max_points + slot),
// -1 for none. Returns the number of kept voxels, of which `kept` has room for num_voxels.
int64_t hard_slots_cpu(const int64_t* rows, const int64_t* offsets, int64_t num_items, int64_t num_voxels,
                       int64_t max_points, int64_t max_voxels, int64_t* kept, int64_t* slots);

#endif

// On CUDA, too, in two steps: the first ends with the one synchronisation that tells the number of voxels.
struct VoxelOrderOnDevice {
  VoxelKeys keys;
  const int64_t* sorted;  // keys, those of points outside of the grid last
  const int32_t* points;  // that they are of
  const int32_t* rows;    // 1 + row of the voxel
  int64_t num_points, num_voxels;
};

template <typename T>
VoxelOrderOnDevice sort_points_cuda(const T* xyz, const int64_t* offsets, int64_t num_points, int64_t num_items,
                                    const VoxelGrid<T>& grid, Workspace& workspace, Stream stream);
void voxel_rows_cuda(const VoxelOrderOnDevice& order, int64_t* rows, int32_t* coords, Stream stream);
template <typename T>
void voxel_means_cuda(const VoxelOrderOnDevice& order, const T* xyz, const T* features, int64_t channels, T* means,
                      Stream stream);

}  // namespace equilidar
