// Points moved by their item's map, and whether they are then inside a grid: see equilidar/ops/move_points.py.
#pragma once

#include "point_tree.h"

namespace equilidar {

// x, y, z.
template <typename T>
struct GridFrame {
  T low[3], size[3], cells[3];
};

// Products are added one by one, as in Affine3: a point lands in one voxel whether it is moved alone or with its sweep.
template <typename T>
EQL_HD bool move_point(const T* point, const T* linear, const T* translation, const GridFrame<T>& grid, T* moved) {
  bool inside = true;
  for (int axis = 0; axis < 3; ++axis) {
    const T* const row = linear + 3 * axis;
    moved[axis] = row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + translation[axis];
    // Not a number is not inside.
    const T cell = std::floor((moved[axis] - grid.low[axis]) / grid.size[axis]);
    inside &= cell >= 0 && cell < grid.cells[axis];
  }
  return inside;
}

template <typename T>
void move_points_cpu(
    const T* points, int64_t num, const int64_t* offsets, int64_t num_items, const T* linear, const T* translation,
    const GridFrame<T>& grid, T* moved, bool* inside);
template <typename T>
void move_points_cuda(
    const T* points, int64_t num, const int64_t* offsets, int64_t num_items, const T* linear, const T* translation,
    const GridFrame<T>& grid, T* moved, bool* inside, Stream stream);

}  // namespace equilidar
