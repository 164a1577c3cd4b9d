// Keys of clouds' voxels on the CPU, a block of points at a time: the divisions take long unless they are vectors.
#pragma once

#include "cell_hash.h"
#include "voxelize.h"

namespace equilidar {

// Range, size and count of the axes x, y, z, repeated: eight points fill whole vectors of any instruction set.
template <typename T>
struct AxisLanes {
  static constexpr int64_t kLanes = 24, kBlock = 1024;
  T low[kLanes], size[kLanes];
  int32_t count[kLanes];

  explicit AxisLanes(const VoxelGrid<T>& grid) {
    const int64_t counts[3] = {grid.shape.x, grid.shape.y, grid.shape.z};
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      low[lane] = grid.low[lane % 3];
      size[lane] = grid.size[lane % 3];
      count[lane] = static_cast<int32_t>(counts[lane % 3]);
    }
  }

  // Of (num) coordinates, x, y and z in turn.
  void cells_of(const T* values, int64_t num, int32_t* cells) const {
    int64_t first = 0;
    for (; first + kLanes <= num; first += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        cells[first + lane] = index_along(values[first + lane], low[lane], size[lane], count[lane]);
      }
    }
    for (int64_t lane = 0; first + lane < num; ++lane) {
      cells[first + lane] = index_along(values[first + lane], low[lane], size[lane], count[lane]);
    }
  }

  // Of at most kBlock points.
  void keys_of(const T* xyz, int64_t num, const VoxelKeys& layout, uint64_t* keys) const {
    int32_t cells[3 * kBlock];
    cells_of(xyz, 3 * num, cells);
    for (int64_t i = 0; i < num; ++i) {
      const int32_t x = cells[3 * i], y = cells[3 * i + 1], z = cells[3 * i + 2];
      keys[i] = (x | y | z) < 0 ? kNoCell : uint64_t(layout.pack(0, z, y, x));
    }
  }
};

// Keys of points of item 0, kNoCell outside of the grid.
void keys_of_points(const AxisLanes<float>& axes, const float* xyz, int64_t num, const VoxelKeys& layout,
                    uint64_t* keys);
void keys_of_points(const AxisLanes<double>& axes, const double* xyz, int64_t num, const VoxelKeys& layout,
                    uint64_t* keys);

template <typename T>
struct Clouds {
  const T* xyz;
  const int64_t* offsets;
  int64_t num_items;
  AxisLanes<T> axes;
  VoxelKeys keys;

  Clouds(const T* points, const int64_t* bounds, int64_t items, const VoxelGrid<T>& grid)
      : xyz(points), offsets(bounds), num_items(items), axes(grid), keys(grid.shape, items) {}

  // Call visit(first point, keys, number of keys) for blocks of points [begin, end) in their order; keys are kNoCell
  // outside of the grid.
  template <typename Visit>
  void for_each_block(int64_t begin, int64_t end, const Visit& visit) const {
    constexpr int64_t kBlock = AxisLanes<T>::kBlock;  // stays in the nearest cache
    uint64_t block[kBlock];
    int64_t item = item_of(begin, offsets, num_items);
    for (; begin < end; begin += kBlock) {
      const int64_t size = min_of(kBlock, end - begin);
      keys_of_points(axes, xyz + 3 * begin, size, keys, block);
      for (int64_t i = num_items > 1 ? 0 : size; i < size; ++i) {
        while (begin + i >= offsets[item + 1]) ++item;
        block[i] |= uint64_t(keys.pack(item, 0, 0, 0));
      }
      visit(begin, block, size);
    }
  }
};

}  // namespace equilidar
