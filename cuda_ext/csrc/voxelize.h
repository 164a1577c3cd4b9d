// Which voxel each point falls into, and what a voxel then holds: see equilidar/ops/voxelize.py.
#pragma once

#include "batch.h"
#include "rulebook.h"

namespace equilidar {

// Range and voxel size, in the points' own dtype and in the order x, y, z.
template <typename T>
struct VoxelGrid {
  T low[3], size[3];
  Cells shape;
};

// Voxels [batch, z, y, x] in fields of one integer, which sorts as they do and comes apart without a division. Python
// checks that the fields fit (`check_cells`).
struct VoxelKeys {
  int y_shift, z_shift, batch_shift, bits;
  int64_t x_mask, y_mask, z_mask;
  int64_t outside;  // sorts behind all voxels

  EQL_HD VoxelKeys(const Cells& shape, int64_t num_items)
      : y_shift(bits_of(shape.x)),
        z_shift(y_shift + bits_of(shape.y)),
        batch_shift(z_shift + bits_of(shape.z)),
        bits(batch_shift + bits_of(num_items + 1)),
        x_mask((int64_t(1) << y_shift) - 1),
        y_mask((int64_t(1) << (z_shift - y_shift)) - 1),
        z_mask((int64_t(1) << (batch_shift - z_shift)) - 1),
        outside(num_items << batch_shift) {}

  EQL_HD int64_t pack(int64_t item, int64_t z, int64_t y, int64_t x) const {
    return item << batch_shift | z << z_shift | y << y_shift | x;
  }

  EQL_HD void unpack(int64_t key, int32_t* row) const {
    row[0] = static_cast<int32_t>(key >> batch_shift);
    row[1] = static_cast<int32_t>(key >> z_shift & z_mask);
    row[2] = static_cast<int32_t>(key >> y_shift & y_mask);
    row[3] = static_cast<int32_t>(key & x_mask);
  }
};

// Index along one axis; -1 outside of [0, count) and for what is no number. No branch: loops over it become vectors.
template <typename T>
EQL_HD int32_t index_along(T position, T low, T size, int32_t count) {
  const T index = (position - low) / size;
  // From zero on, a conversion rounds as floor does.
  const bool is_index = index >= T(0) && index < T(1LL << 31);
  const int32_t cell = static_cast<int32_t>(is_index ? index : T(-1));
  return cell < count ? cell : -1;
}

// The key of a point's voxel.
template <typename T>
EQL_HD int64_t voxel_key(const T* point, int64_t item, const VoxelGrid<T>& grid, const VoxelKeys& keys) {
  const int64_t x = index_along(point[0], grid.low[0], grid.size[0], static_cast<int32_t>(grid.shape.x));
  const int64_t y = index_along(point[1], grid.low[1], grid.size[1], static_cast<int32_t>(grid.shape.y));
  const int64_t z = index_along(point[2], grid.low[2], grid.size[2], static_cast<int32_t>(grid.shape.z));
  // A negative index is negative whatever the others are.
  return (x | y | z) < 0 ? keys.outside : keys.pack(item, z, y, x);
}

#if !defined(__CUDACC__)

// Points sorted by voxel; found before the outputs can be allocated, for the number of voxels is then known.
template <typename T>
class VoxelOrder {
 public:
  virtual ~VoxelOrder() = default;
  int64_t num_voxels = 0;
  // rows (num_points), -1 outside of the grid; coords (num_voxels, 4).
  virtual void rows(int64_t* rows, int32_t* coords) const = 0;
  // means (num_voxels, 3 + channels) of xyz and features, each voxel's points added in their order; and coords.
  virtual void means(const T* xyz, const T* features, int64_t channels, T* means, int32_t* coords) const = 0;
};

template <typename T>
std::unique_ptr<VoxelOrder<T>> sort_points_cpu(const T* xyz, const int64_t* offsets, int64_t num_items,
                                               const VoxelGrid<T>& grid);

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
// rows may be null.
void voxel_rows_cuda(const VoxelOrderOnDevice& order, int64_t* rows, int32_t* coords, Stream stream);
template <typename T>
void voxel_means_cuda(const VoxelOrderOnDevice& order, const T* xyz, const T* features, int64_t channels, T* means,
                      Stream stream);

}  // namespace equilidar
