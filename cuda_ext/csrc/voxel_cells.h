// Cells of clouds' points on the CPU, a block at a time: the divisions take most of the time unless they are vectors.
#pragma once

#include "voxelize.h"

namespace equilidar {

// Range, size and count of the axes x, y, z, repeated: eight points fill whole vectors of any instruction set.
template <typename T>
struct AxisLanes {
  static constexpr int64_t kLanes = 24;
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
};

void cells_of_values(const AxisLanes<float>& axes, const float* values, int64_t num, int32_t* cells);
void cells_of_values(const AxisLanes<double>& axes, const double* values, int64_t num, int32_t* cells);

template <typename T>
struct Clouds {
  static constexpr int64_t kBlock = 1024;  // points whose cells stay in the nearest cache
  const T* xyz;
  const int64_t* offsets;
  int64_t num_items;
  AxisLanes<T> axes;
  VoxelKeys keys;

  Clouds(const T* points, const int64_t* bounds, int64_t items, const VoxelGrid<T>& grid)
      : xyz(points), offsets(bounds), num_items(items), axes(grid), keys(grid.shape, items) {}

  // Call visit(point, key, whether it is inside of the grid) for points [begin, end) in their order.
  template <typename Visit>
  void for_each(int64_t begin, int64_t end, const Visit& visit) const {
    int32_t cells[3 * kBlock];
    int64_t item = item_of(begin, offsets, num_items);
    for (; begin < end; begin += kBlock) {
      const int64_t block_end = min_of(begin + kBlock, end);
      cells_of_values(axes, xyz + 3 * begin, 3 * (block_end - begin), cells);
      for (int64_t i = begin; i < block_end; ++i) {
        while (i >= offsets[item + 1]) ++item;
        const int32_t* const cell = cells + 3 * (i - begin);
        visit(i, uint64_t(keys.pack(item, cell[2], cell[1], cell[0])), (cell[0] | cell[1] | cell[2]) >= 0);
      }
    }
  }
};

}  // namespace equilidar
